"""Whether this host's kernel has what the cluster says of other hosts, asked and not mended: what the member makes it so by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Listing
from cni.kernel.view import Link
from cni.member.devices import bridge_of
from cni.member.rows import Wanted, by_table, differing
from cni.member.shares import shares, uplink_of
from cni.node import beside_calls
from cni.overlay.peers import peers_of
from cni.resources import World
from cni.resources.remote import RemoteRow

#: A network, what is wrong with a row of it, and the row.
Fault = tuple[str, str, RemoteRow]


def faults(folder: Path, node: str, listing: Listing) -> set[Fault]:
    """The rows that are missing or otherwise, and those nobody wants, of the networks this host has pods of or is a guest of.
    Raises CniError.
    """
    snapshot = Snapshot(node)
    snapshot.apply(listing)
    found: set[Fault] = set()
    with beside_calls() as world:
        have = shares(folder, snapshot, lambda network, _: bridge_of(world, network))
        me = have.me
        uplink = uplink_of(world, have)
        every = [peers_of(me, snapshot, overlay, uplink) for overlay in (*have.devices, *have.without)] if me else []
        for (kind, name), wanted in by_table(every).items():
            if link := world.host.link_by_name(name):
                found |= set(_of_table(world, kind, link, wanted))
            elif name in have.own:  # a pod's device its own check says is missing
                found |= set(_missing(kind, name, wanted, wanted.rows))
    return found


def told(every: Iterable[Fault]) -> Iterator[str]:
    """A line for each kind of fault of a network, with one of its rows."""
    by: dict[tuple[str, str], list[RemoteRow]] = {}
    for network, what, row in every:
        by.setdefault((network, what), []).append(row)
    for (network, what), rows in sorted(by.items()):
        one = min(row.describe() for row in rows)
        yield f"network {network}: {len(rows)} of the rows to other hosts {what}, such as {one}"


def _of_table(world: World, kind: type[RemoteRow], link: Link, wanted: Wanted) -> Iterator[Fault]:
    gone, missing = differing(world, kind, link, wanted.rows)
    yield from ((_named(wanted), "are wanted by nobody", row) for row in gone)
    yield from _missing(kind, link.name, wanted, missing)


def _missing(kind: type[RemoteRow], link: str, wanted: Wanted, keys: Iterable[str]) -> Iterator[Fault]:
    return ((_named(wanted), "are missing", kind.of(link, key, wanted.rows[key])) for key in keys)


def _named(wanted: Wanted) -> str:
    return " and ".join(sorted(peers.overlay.network.name for peers in wanted.of)) or "none"
