"""What a ring's lines come to: each flow once, with what is known of it by now."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cni.flows import ring
from cni.flows.sighting import BEGUN, DENIED, Sighting, read
from cni.kernel.conntrack import Tracked

#: Of a container's id as little as this tells it from others of a node.
_SHORT = 12
#: How a flow is: going on, over, over while nobody looked, or never begun.
OPEN, OVER, UNSEEN, DROPPED = "open", "over", "over, its end was not seen", "denied"


class Flow(NamedTuple):
    """A flow by all that was seen of it: amounts and times are the last that are known."""

    seen: Sighting
    state: str

    @property
    def allowed(self) -> bool:
        """Whether policies let it be."""
        return self.state != DROPPED

    @property
    def last(self) -> float:
        """When it was seen last, in seconds since the epoch."""
        return self.seen.end or self.seen.at

    @property
    def said(self) -> dict[str, object]:
        """It for programs: all there is, also what is empty."""
        said: dict[str, object] = {
            name: value for name, value in self.seen._asdict().items() if name not in ("what", "at", "id")
        }
        return said | {
            "start": self.seen.start or self.seen.at,
            "state": self.state,
            "verdict": "allowed" if self.allowed else "denied",
        }


class Wanted(NamedTuple):
    """Which flows are asked for: those of a pod by name, container or address, empty for every one; that were there after a time; denied alone."""

    pod: str = ""
    since: float = 0.0
    denied: bool = False

    def of(self, seen: Sighting) -> Sighting | None:
        """A sighting as the pod that is asked for sees it, if it is one of these."""
        if self.denied and seen.what != DENIED:
            return None
        if not self.pod or _is(self.pod, seen.pod, seen.container, seen.own):
            return seen
        if seen.peer_container and seen.what != DENIED and _is(self.pod, seen.peer, seen.peer_container, seen.address):
            return seen.from_peer()
        return None


def sightings(lines: Iterable[bytes | None]) -> Iterator[Sighting]:
    """What lines say; those that say nothing are left out."""
    return (found for line in lines if line and (found := read(line)))


def flows(
    folder: Path, wanted: Wanted, known: Callable[[], Mapping[tuple[object, ...], Tracked] | None] | None = None
) -> list[Flow]:
    """The flows that a ring knows, by when they began; `known` says what conntrack has now, by `key_of`. Raises Unavailable."""
    found: dict[tuple[object, ...], Flow] = {}
    denied: list[Flow] = []
    for item in sightings(ring.lines(folder)):
        seen = wanted.of(item)
        if seen is None:
            continue
        if seen.what == DENIED:
            denied.append(Flow(seen, DROPPED))
        elif seen.what == BEGUN:
            found[seen.key] = Flow(seen, OPEN)
        else:
            before = found.pop(seen.key, None)
            if (seen.end or seen.at) < wanted.since:
                continue
            found[(*seen.key, seen.end or seen.at)] = Flow(_ended(before.seen, seen) if before else seen, OVER)
    there = known() if known and any(flow.state == OPEN for flow in found.values()) else None
    every = [*(flow if there is None else _now(flow, there) for flow in found.values()), *denied]
    return sorted(
        (flow for flow in every if _is_since(flow, wanted.since)), key=lambda flow: flow.seen.start or flow.seen.at
    )


def key_of(event: Tracked) -> tuple[object, ...]:
    """What is the same of a connection in conntrack and in a sighting, whichever end's."""
    ends = (str(ipaddress.ip_address(end)) for end in (event.client, event.server))
    return event.id, frozenset(ends), event.protocol, event.server_port, event.client_port


def _now(flow: Flow, there: Mapping[tuple[object, ...], Tracked]) -> Flow:
    """An open flow with what passed so far."""
    seen = flow.seen
    if flow.state != OPEN:
        return flow
    event = there.get((seen.id, frozenset((seen.own, seen.address)), seen.protocol, seen.port, seen.source_port))
    if event is None:
        return flow._replace(state=UNSEEN)
    (packets, size), (packets_back, size_back) = (
        (event.sent, event.received) if seen.direction == "egress" else (event.received, event.sent)
    )
    return flow._replace(
        seen=seen._replace(
            sent_packets=packets, sent_bytes=size, received_packets=packets_back, received_bytes=size_back
        )
    )


def _ended(begun: Sighting, ended: Sighting) -> Sighting:
    """The end of a flow with everybody called as when it began."""
    kept = ("pod", "container", "peer", "peer_container", "service", "names")
    known = {name: value for name in kept if (value := getattr(begun, name))}
    return ended._replace(**known, start=ended.start or begun.at)


def _is_since(flow: Flow, since: float) -> bool:
    return flow.state == OPEN or flow.last >= since


def _is(asked: str, name: str, container: str, address: str) -> bool:
    if asked in (name, address):
        return True
    return bool(container) and (container.startswith(asked) or (len(asked) > _SHORT and asked.startswith(container)))
