"""The cluster this host is in, as an operator sees it: who is in it, and who has which addresses."""

from __future__ import annotations

import argparse
import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

from cni.cluster.config import ClusterConfig
from cni.cluster.engines import store_of
from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Node
from cni.command.node import reading
from cni.command.output import complain, print_json, print_table, say
from cni.errors import Conflict, InvalidConfig, TryAgainLater
from cni.state import DEFAULT_FOLDER
from cni.state.membership import HELD, Holding, Member

T = TypeVar("T")

_NODES = ("node", "vtep", "alive", "blocks", "pods", "encryption", "here")
_BLOCKS = ("network", "block", "node", "size", "used", "state")
#: A block the store says is ours, and the state does not know of: the member will, or another machine had our name.
_NOT_TAKEN_UP = "not taken up"


def node(options: argparse.Namespace) -> int:
    """Print the hosts of the cluster, this one marked. `node remove NODE` frees the blocks of one that is gone for good."""
    config = ClusterConfig.load(options.config)
    if options.name:
        return _remove(options, config)
    member, held = own_part()
    items, faults = _listed(config)
    rows = (
        list(_nodes(items, config.node, member.machine if member else "", _away()))
        if items is not None
        else list(_known_here(member, held))
    )
    if options.json:
        print_json({"nodes": rows, "faults": faults})
        return 1 if faults else 0
    print_table("no host is in this cluster", _NODES, [_spoken(row) for row in rows])
    complain(*(f"agent-cni: {line}" for line in faults))
    return 1 if faults else 0


def block(options: argparse.Namespace) -> int:
    """Print whose each block of addresses is, and how many of its addresses are used; own ones also without the store."""
    config = ClusterConfig.load(options.config)
    _, held = own_part()
    items, faults = _listed(config)
    rows = sorted(_blocks(items or [], held, config.node), key=_in_order)
    _refuse_unknown(options.network, "network", {row["network"] for row in rows})
    _refuse_unknown(options.node, "node", {row["node"] for row in rows} | {found.name for found in _of(items, Node)})
    asked = {"network": options.network, "node": options.node}
    rows = [row for row in rows if all(not value or row[key] == value for key, value in asked.items())]
    if options.json:
        print_json({"blocks": rows, "faults": faults})
        return 1 if faults else 0
    print_table("no blocks", _BLOCKS, rows)
    complain(*(f"agent-cni: {line}" for line in faults))
    return 1 if faults else 0


def _remove(options: argparse.Namespace, config: ClusterConfig) -> int:
    """Free what a host had that will not come back. What it gave may be in use where it only cannot be heard: that is for who asks to know."""
    if options.name == config.node:
        raise Conflict(f"{options.name} is this host: agent-cni leave")
    store = store_of(config)
    items = store.listing().items
    known = {found.name for found in _of(items, Node)} | {found.node for found in _of(items, Block)}
    _refuse_unknown(options.name, "node", known)
    if options.name in {found.node for found in _of(items, Alive)}:
        raise Conflict(f"{options.name} is alive; on it: agent-cni leave")
    freed = [_block(found, 0, "free") for found in store.remove(options.name)]
    if options.json:
        print_json({"removed": options.name, "blocks": freed})
        return 0
    spans = ", ".join(f"{row['block']} of {row['network']}" for row in freed)
    say(f"{options.name} is removed" + (f"; free again: {spans}" if freed else "; it had no blocks"))
    return 0


def own_part() -> tuple[Member | None, list[Holding]]:
    """Who this host is in the cluster and which blocks it has, by its own state."""
    store = reading(DEFAULT_FOLDER)
    if store is None:
        return None, []
    with closing(store):
        return store.member(), store.blocks()


def _listed(config: ClusterConfig) -> tuple[Sequence[Item] | None, list[str]]:
    """All there is in the store, None where it is away, and what is wrong."""
    try:
        listing = store_of(config).listing()
    except TryAgainLater as error:
        return None, [f"{error.msg}; only what this host knows of itself is shown"]
    return listing.items, list(listing.refused)


def _of(items: Iterable[Item] | None, kind: type[T]) -> list[T]:
    return [item for item in items or () if isinstance(item, kind)]


def _away() -> dict[str, str]:
    """Since when hosts are away, as this one's member has seen it."""
    store = reading(DEFAULT_FOLDER)
    if store is None:
        return {}
    with closing(store):
        return store.away()


def _nodes(items: Iterable[Item], own: str, machine: str, away: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A row for each host somebody knows of, also one of which only blocks are left."""
    blocks = Counter(found.node for found in _of(items, Block))
    pods: defaultdict[str, set[str]] = defaultdict(set)
    for found in _of(items, Endpoint):
        pods[found.node] |= {found.container} - {""}
    alive = {found.node for found in _of(items, Alive)}
    known = {found.name: found for found in _of(items, Node)}
    for name in sorted(known.keys() | blocks.keys() | alive):
        said = known.get(name, Node(name, "", "", ""))
        yield {
            "node": name,
            "machine": said.machine,
            "vtep": said.vtep,
            "mac": said.mac,
            "alive": name in alive,
            "away_since": "" if name in alive else away.get(name, ""),
            "blocks": blocks[name],
            "pods": len(pods[name]),
            "encryption": "wireguard" if said.wireguard else "",
            "underlay": said.underlay,
            "here": name == own and machine in ("", said.machine),
        }


def _known_here(member: Member | None, held: list[Holding]) -> Iterator[dict[str, Any]]:
    if member:
        row = next(
            _nodes([Node(member.node, member.machine, member.vtep, member.mac)], member.node, member.machine, {})
        )
        yield row | {"alive": None, "blocks": len(held), "pods": None, "encryption": member.encryption}


def _spoken(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a table has it."""
    words = {True: "yes", False: "no", None: "?"}
    since = f", since {row['away_since']}" * bool(row["away_since"])
    alive, pods = words[row["alive"]] + since, "?" if row["pods"] is None else row["pods"]
    return row | {"alive": alive, "pods": pods, "here": "*" if row["here"] else ""}


def _blocks(items: Iterable[Item], held: list[Holding], own: str) -> Iterator[dict[str, Any]]:
    """What the store says of every block, and what the state says of this host's own, which it knows better."""
    ours = {found.block.key: found for found in held}
    used = _used(items)
    for found in _of(items, Block):
        if found.node != own:
            yield _block(found, used[found.key], HELD)
        elif found.key not in ours:
            yield _block(found, used[found.key], _NOT_TAKEN_UP)
    for mine in held:
        yield _block(mine.block, mine.leased, mine.state)


def _used(items: Iterable[Item]) -> Counter[Key]:
    """How many addresses of each block pods are known to have, by the block's key."""
    lengths: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for found in _of(items, Block):
        lengths[found.network, found.addresses.version].add(found.addresses.prefixlen)
    counted: Counter[Key] = Counter()
    for endpoint in (each for each in _of(items, Endpoint) if each.container):
        address = ipaddress.ip_address(endpoint.address)
        for length in lengths[endpoint.network, address.version]:
            span = ipaddress.ip_network((endpoint.address, length), strict=False)
            counted[Block.room, endpoint.network, str(span)] += 1
    return counted


def _block(found: Block, used: int, state: str) -> dict[str, Any]:
    size = found.addresses.num_addresses
    return {
        "network": found.network,
        "block": found.span,
        "node": found.node,
        "size": size,
        "used": used,
        "state": state,
    }


def _in_order(row: dict[str, Any]) -> tuple[Any, ...]:
    span = ipaddress.ip_network(row["block"])
    return row["network"], span.version, int(span[0]), row["node"]


def _refuse_unknown(name: str, what: str, known: set[str]) -> None:
    if name and name not in known:
        raise InvalidConfig(f"there is no {what} {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
