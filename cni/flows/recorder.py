"""What events become: sightings of flows of this node's pods, with everybody by his name of that moment."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from cni.flows.sighting import BEGUN, DENIED, ENDED, Sighting
from cni.flows.whose import Owner, Whose
from cni.kernel.conntrack import Tracked
from cni.kernel.nflog import Logged

#: By which names an address was resolved.
NamesOf = Callable[[str], tuple[str, ...]]

_PREFIX = re.compile(r"agent-cni drop (?P<way>in|out) (?P<pod>.*): ?")
_DIRECTIONS = {"in": "ingress", "out": "egress"}
#: What is dropped again within so many seconds is the same flow: who is not answered asks again. As many are remembered.
_AGAIN_SECONDS, _REMEMBERED = 60.0, 4096


class Recorder:
    """Knows whose addresses are, and which drops were said."""

    def __init__(self, whose: Whose, names_of: NamesOf) -> None:
        self._whose, self._names_of = whose, names_of
        self._denied: dict[tuple[object, ...], float] = {}

    def tracked(self, events: Iterable[Tracked]) -> Iterator[Sighting]:
        """What conntrack told, of connections of pods."""
        for event in events:
            since = event.start or (0.0 if event.ended else event.at)
            if found := self._egress(event, since) or self._ingress(event, since):
                yield found

    def dropped(self, packets: Iterable[Logged]) -> Iterator[Sighting]:
        """What policies logged, once for what is dropped again."""
        for packet in packets:
            said = _PREFIX.match(packet.prefix)
            if said and packet.source:
                found = self._drop(packet, _DIRECTIONS[said["way"]], said["pod"])
                if not self._is_again(found):
                    yield found

    def _egress(self, event: Tracked, since: float) -> Sighting | None:
        mine = self._whose.here(event.client, since)
        if mine is None:
            return None
        peer = self._peer(event.server, since)
        led = (event.server, event.server_port) != (event.called, event.called_port)
        called, address = _text(event.called), _text(event.server)
        return Sighting(
            ENDED if event.ended else BEGUN, event.at or time.time(), "egress",
            mine.name, mine.container, _text(event.client), peer.name, peer.container, address, event.protocol,
            event.server_port, event.client_port, _spelled(called, event.called_port) if led else "",
            self._names_of(called) or (self._names_of(address) if led else ()),
            event.id, event.start, event.end, *event.sent, *event.received,
        )  # fmt: skip

    def _ingress(self, event: Tracked, since: float) -> Sighting | None:
        mine = self._whose.here(event.server, since)
        if mine is None:
            return None
        led = (event.server, event.server_port) != (event.called, event.called_port)
        return Sighting(
            ENDED if event.ended else BEGUN, event.at or time.time(), "ingress",
            mine.name, mine.container, _text(event.server), self._whose.called(event.client), "", _text(event.client), event.protocol,
            event.server_port, event.client_port, _spelled(_text(event.called), event.called_port) if led else "",
            (), event.id, event.start, event.end, *event.received, *event.sent,
        )  # fmt: skip

    def _drop(self, packet: Logged, direction: str, pod: str) -> Sighting:
        ends = packet.source, packet.target
        own, other = ends if direction == "egress" else reversed(ends)
        at = packet.at or time.time()
        mine = self._whose.here(ipaddress.ip_address(own).packed, at) or Owner(pod)
        peer = self._peer(ipaddress.ip_address(other).packed, at)
        return Sighting(
            DENIED, at, direction, mine.name, mine.container, own, peer.name, peer.container, other, packet.protocol,
            packet.port, packet.source_port, "", self._names_of(other) if direction == "egress" else (),
        )  # fmt: skip

    def _is_again(self, found: Sighting) -> bool:
        last = self._denied.pop(found.key, -_AGAIN_SECONDS)
        is_again = found.at - last < _AGAIN_SECONDS
        self._denied[found.key] = last if is_again else found.at
        if len(self._denied) > _REMEMBERED:
            del self._denied[next(iter(self._denied))]
        return is_again

    def _peer(self, address: bytes, since: float) -> Owner:
        return self._whose.here(address, since) or Owner(self._whose.called(address))


@lru_cache(maxsize=4096)
def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def _spelled(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
