"""What of the kernel's events says that something is not as it was left: what was done here agrees with what is wanted, and is passed over."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cni.kernel.events import ADDRESS, FDB, LINK, NEIGHBOUR, OVERRUN, REFUSAL, ROUTE, Event
from cni.kernel.view import Link
from cni.overlay.peers import LOOPBACK, Peers
from cni.overlay.rows import Table
from cni.resources import PeerAddress, PeerNeighbour, PeerRefusal, PeerRoute, PeerRow
from cni.resources.remote import RemoteRow

_KINDS: dict[str, type[RemoteRow]] = {
    FDB: PeerRow, NEIGHBOUR: PeerNeighbour, ROUTE: PeerRoute, REFUSAL: PeerRefusal, ADDRESS: PeerAddress,
}  # fmt: skip


def state_of(link: Link) -> str:
    """What of a link matters to rows on it, as an event has it."""
    return f"{link.up} {link.bridge}"


def is_ours(event: Event, links: Mapping[int, tuple[str, str]], awaited: Collection[str] = ()) -> bool:
    """Whether an event may be about something of ours, by any thread's look; `awaited` are links that were not there yet."""
    known = event.key in awaited or any(event.key == name for name, _ in list(links.values()))
    return event.about in (OVERRUN, REFUSAL) or event.link in links or known


def may_be_ours(link: int, message: bytes, links: Mapping[int, tuple[str, str]], awaited: Collection[str] = ()) -> bool:
    """The same of what is not read yet: nobody else's link is of such an index, or named there."""
    if link in links:
        return True
    names = {*awaited, *(name for name, _ in list(links.values()))}
    return any(name.encode() in message for name in names)


def is_for_all(events: Iterable[Event], links: Mapping[int, tuple[str, str]], awaited: Collection[str] = ()) -> bool:
    """Whether everything is to be compared: a link of ours came, went, or is up or on its bridge otherwise than before, or more
    happened than was told. `links` are those by index, with names and states.
    """
    names = {*awaited, *(name for name, _ in links.values())}
    return any(
        event.about == OVERRUN
        or (event.about == LINK and event.key in names and links.get(event.link) != (event.key, event.value))
        for event in events
    )


def contradicted(
    events: Iterable[Event], links: Mapping[int, tuple[str, str]], every: Collection[Peers]
) -> dict[Table, dict[str, Any]]:
    """The rows that events say are gone or otherwise, and that are wanted, by table. Of a row the last event counts: to mend one
    takes away first what is in its way.
    """
    found: dict[Table, dict[str, Any]] = {}
    for event in events:
        kind, name = _KINDS.get(event.about), links.get(event.link, (LOOPBACK if event.about == REFUSAL else "", ""))[0]
        for peers in every if kind and name else ():
            assert kind
            wanted = peers.tables.get((kind, name), {}).get(event.key)
            rows = found.setdefault((kind, name), {})
            if wanted == event.value:
                rows.pop(event.key, None)
            elif wanted is not None:
                rows[event.key] = wanted
    return {table: rows for table, rows in found.items() if rows}
