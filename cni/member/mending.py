"""What of the kernel's events says that something is not as it was left: what was done here agrees with what is wanted, and is passed over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Lock
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


class Noticed:
    """Events that are to be looked at: a thread brings them, the hand takes them. Of a row only the last is kept, and none that agrees
    with what is wanted: when a member begins it hears of up to 150,000 that it made itself.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._rows: dict[tuple[str, int, str], Event] = {}
        self._others: list[Event] = []

    def bring(self, events: Iterable[Event], agrees: Callable[[Event], bool]) -> bool:
        """Whether there is something to look at."""
        with self._lock:
            for event in events:
                if event.about not in _KINDS:
                    self._others.append(event)
                elif agrees(event):
                    self._rows.pop(event[:3], None)
                else:
                    self._rows[event[:3]] = event
            return bool(self._rows or self._others)

    def take(self) -> list[Event]:
        """All there are."""
        with self._lock:
            found = [*self._others, *self._rows.values()]
            self._rows, self._others = {}, []
        return found


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


def agrees(event: Event, links: Mapping[int, tuple[str, str]], every: Collection[Peers]) -> bool:
    """Whether an event of a row says what is wanted, or nobody wants the row."""
    kind, name = _table_of(event, links)
    return all(peers.tables.get((kind, name), {}).get(event.key) in (None, event.value) for peers in every if name)


def contradicted(
    events: Iterable[Event], links: Mapping[int, tuple[str, str]], every: Collection[Peers]
) -> dict[Table, dict[str, Any]]:
    """The rows that events say are gone or otherwise, and that are wanted, by table. Of a row the last event counts: to mend one
    takes away first what is in its way.
    """
    found: dict[Table, dict[str, Any]] = {}
    for event in events:
        kind, name = _table_of(event, links)
        for peers in every if name else ():
            wanted = peers.tables.get((kind, name), {}).get(event.key)
            rows = found.setdefault((kind, name), {})
            if wanted == event.value:
                rows.pop(event.key, None)
            elif wanted is not None:
                rows[event.key] = wanted
    return {table: rows for table, rows in found.items() if rows}


def _table_of(event: Event, links: Mapping[int, tuple[str, str]]) -> Table:
    """The table an event's row is in; without a name where that is none of ours, or it is about no row."""
    return _KINDS.get(event.about, RemoteRow), links.get(event.link, (LOOPBACK if event.about == REFUSAL else "", ""))[
        0
    ]
