"""Addresses: how full the ranges are, who holds one, and how to give one back by hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cni.command.node import answers_of
from cni.command.output import complain, print_json, print_table, say
from cni.errors import CniError, Conflict, InvalidConfig
from cni.ipam.config import IpamConfig
from cni.ipam.ranges import Range
from cni.ipam.source import ours
from cni.liveness import STATES, Liveness, Witness
from cni.naming import OWN_IPAM, Attachment, IPAddress
from cni.protocol.call import Call
from cni.state import Record, Store
from cni.state.leases import ANOTHER_NETWORK

T = TypeVar("T")

_USAGE = ("network", "range", "size", "leased", "free")
#: States of a pod that may be using its addresses.
_IN_USE = (STATES[Liveness.ALIVE], STATES[Liveness.UNSEEN], f"{ANOTHER_NETWORK}'s")
#: From here on the last digits of a count say nothing to anybody.
_MANY = 10**9
_HELD = ("network", "address", "container", "ifname", "plugin", "state")


def ipam(options: argparse.Namespace) -> int:
    """Print how full each range is, or who holds an ADDRESS; with --release give it back."""
    if options.release and options.address is None:
        options.refuse("--release: which ADDRESS?")
    if options.force and not options.release:
        options.refuse("--force belongs to --release")
    networks, unread = _answers(options, _networks)
    for line in unread:
        complain(f"agent-cni: {line}")
    if options.network and options.network not in networks:
        known = ", ".join(sorted(set(networks))) or "none"
        raise InvalidConfig(f"nothing is attached to a network {options.network!r}; there are: {known}")
    if options.address is None:
        rows, _ = _answers(options, lambda store: [row for row in usage(store) if _is_asked_for(options, row)])
        nothing = "no attachment has addresses of ours"
        print_json(rows) if options.json else print_table(nothing, _USAGE, list(map(_legible, rows)))
        return 1 if unread else 0
    held, _ = _answers(
        options, lambda store: [row for row in _held(store, options.address) if _is_asked_for(options, row)]
    )
    if options.release:
        return _release(options, held)
    why, _ = _answers(options, lambda store: list(_never_given(store, options.address)))
    nobody = f"nobody holds {options.address}{''.join(why[:1])}"
    print_json(held) if options.json else print_table(nobody, _HELD, held)
    return 0 if held and not unread else 1


def _answers(options: argparse.Namespace, question: Callable[[Store], list[T]]) -> tuple[list[T], list[str]]:
    return answers_of(options.data_dir, options.conf_dir, question)


def _is_asked_for(options: argparse.Namespace, row: dict[str, Any]) -> bool:
    return options.network in ("", row["network"])


def _networks(store: Store) -> list[str]:
    """The networks that have attachments or leases."""
    attached = [record.attachment.network for record in store.records()]
    return [*attached, *(held.network for _, held, _ in store.all_leases())]


def _never_given(store: Store, address: IPAddress) -> Iterator[str]:
    """In which network an address is never given, and why."""
    for record in store.records():
        for given in _ours(store, record):
            spans = given.reserved_in(address.version, address, address)
            if any(low <= int(address) <= high for low, high in spans):
                why = "a gateway" if address in given.gateways else "reserved"
                yield f": it is {why} in network {record.attachment.network}"


def usage(store: Store) -> Iterator[dict[str, Any]]:
    """Each range of each network that has attachments, once."""
    ranges = {(record.attachment.network, str(part)): (part, given) for record in store.records()
              for given in _ours(store, record) for item in given.sets for part in item.ranges}  # fmt: skip
    for (network, spelled), (part, given) in sorted(ranges.items()):
        size = int(part.last) - int(part.first) + 1 - _withheld(given, part)
        leased = sum(1 for _ in store.leased(network, part.first, part.last))
        yield {"network": network, "range": spelled, "size": size, "leased": leased, "free": size - leased}


def _legible(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose numbers have few digits: an IPv6 subnet is as good as never full."""
    return row | {key: f"~2^{row[key].bit_length() - 1}" for key in ("size", "free") if row[key] >= _MANY}


def _ours(store: Store, record: Record) -> Iterator[IpamConfig]:
    """The ranges an attachment was given addresses from, if we gave them: of a cluster's network, what of them is in this host's
    blocks.
    """
    section = record.config.get("ipam")
    if isinstance(section, dict) and section and section.get("type", OWN_IPAM) == OWN_IPAM:
        try:
            vxlan = record.config.get("vxlan") or {}
            yield ours(record.config, Call("ADD"), int(vxlan.get("id") or 0), vxlan.get("mode") or "").here(store)
        except (CniError, ValueError, TypeError, AttributeError):  # another release's words, or nobody's
            return


def _withheld(ours: IpamConfig, part: Range) -> int:
    """How many addresses of a range are never given: reserved ones and gateways, each counted once."""
    count, reached = 0, int(part.first) - 1
    for low, high in sorted(ours.reserved_in(part.subnet.version, part.first, part.last)):
        first, last = max(low, reached + 1), min(high, int(part.last))
        count += max(0, last - first + 1)
        reached = max(reached, last)
    return count


def _held(store: Store, address: IPAddress) -> Iterator[dict[str, Any]]:
    for held, attachment, plugin in store.all_leases():
        if held == address:
            record = store.record(attachment, plugin)
            whose = f"{ANOTHER_NETWORK}'s" if plugin == ANOTHER_NETWORK else "nobody's"
            state = STATES[Witness().of(record)] if record else whose
            where = {"plugin": plugin, "state": state, "dataDir": str(store.path.parent)}
            yield {"address": str(held), **attachment._asdict(), **where}


def _release(options: argparse.Namespace, held: list[dict[str, Any]]) -> int:
    """Give back what one network holds. What a pod uses stays, unless forced: it could be given twice."""
    if len(held) != 1:
        holders = ", ".join(f"{item['network']} in {item['dataDir']}" for item in held)
        said = (
            f"several networks hold it ({holders}): name one with --network or --data-dir"
            if held
            else "nobody holds it"
        )
        raise Conflict(f"{options.address}: {said}")
    (lease,) = held
    owner = Attachment(lease["network"], lease["container"], lease["ifname"])
    if lease["state"] in _IN_USE and not options.force:
        raise Conflict(f"{options.address}: {owner} uses it; --force gives it back all the same")
    store = Store.open(Path(lease["dataDir"]))
    with store.transaction():
        if store.holder(lease["network"], options.address) != owner:  # it was read before the transaction
            raise Conflict(f"{options.address}: somebody else holds it by now")
        store.release(lease["network"], options.address)
    store.close()
    still = f", while {owner} uses it" if lease["state"] in _IN_USE else ""
    print_json(lease) if options.json else say(f"{lease['address']} is free in network {lease['network']}{still}")
    return 0
