"""Whether this host's kernel has what the cluster says of other hosts, asked and not mended: what the member makes it so by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Listing
from cni.kernel.files import LockFile
from cni.member.rows import differing
from cni.member.shares import shares
from cni.overlay.peers import Peers, peers_of
from cni.overlay.rows import ORDER
from cni.resources import World
from cni.resources.remote import RemoteRow

#: A network, what is wrong with a row of it, and the row.
Fault = tuple[str, str, RemoteRow]


def faults(folder: Path, node: str, listing: Listing) -> set[Fault]:
    """The rows that are missing or otherwise, and those nobody wants, of the networks this host has pods of. Raises CniError."""
    snapshot = Snapshot(node)
    snapshot.apply(listing)
    have = shares(folder, snapshot)
    found: set[Fault] = set()
    with closing(World(None, LockFile(folder / "lock"))) as world:
        for overlay, device in have.devices.items():
            if have.me and device.name in have.in_use:
                found |= set(_of_network(world, overlay.network.name, peers_of(have.me, snapshot, overlay)))
    return found


def told(every: Iterable[Fault]) -> Iterator[str]:
    """A line for each kind of fault of a network, with one of its rows."""
    by: dict[tuple[str, str], list[RemoteRow]] = {}
    for network, what, row in every:
        by.setdefault((network, what), []).append(row)
    for (network, what), rows in sorted(by.items()):
        one = min(row.describe() for row in rows)
        yield f"network {network}: {len(rows)} of the rows to other hosts {what}, such as {one}"


def _of_network(world: World, network: str, peers: Peers) -> Iterator[Fault]:
    for kind in ORDER:
        if link := world.host.link_by_name(peers.link_of(kind)):
            wanted = peers.tables.get((kind, link.name), {})
            gone, missing = differing(world, kind, link, wanted)
            yield from ((network, "are wanted by nobody", row) for row in gone)
            yield from ((network, "are missing", kind.of(link.name, key, wanted[key])) for key in missing)
