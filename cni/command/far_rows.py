"""Whether this host's kernel has what the cluster says of other hosts, asked and not mended: what the member makes it so by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Listing
from cni.kernel.files import LockFile
from cni.kernel.view import Link
from cni.member.rows import Wanted, by_table, differing
from cni.member.shares import shares
from cni.overlay.peers import peers_of
from cni.resources import World
from cni.resources.remote import RemoteRow

#: A network, what is wrong with a row of it, and the row.
Fault = tuple[str, str, RemoteRow]


def faults(folder: Path, node: str, listing: Listing) -> set[Fault]:
    """The rows that are missing or otherwise, and those nobody wants, of the networks this host has pods of. Raises CniError."""
    snapshot = Snapshot(node)
    snapshot.apply(listing)
    have = shares(folder, snapshot)
    me = have.me
    mine = [overlay for overlay, device in have.devices.items() if device.name in have.in_use] if me else []
    found: set[Fault] = set()
    with closing(World(None, LockFile(folder / "lock"))) as world:
        for (kind, name), wanted in by_table(
            [peers_of(me, snapshot, overlay) for overlay in mine] if me else []
        ).items():
            if link := world.host.link_by_name(name):
                found |= set(_of_table(world, kind, link, wanted))
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
    network = " and ".join(sorted(peers.overlay.network.name for peers in wanted.of))
    gone, missing = differing(world, kind, link, wanted.rows)
    yield from ((network, "are wanted by nobody", row) for row in gone)
    yield from ((network, "are missing", kind.of(link.name, key, wanted.rows[key])) for key in missing)
