"""What was seen of a flow at one moment, as a line of the ring says it: JSON, of which what is empty is left out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple

from cni.decoding import decoded

#: A connection began, is over, or a packet of none was dropped.
BEGUN, ENDED, DENIED = "begun", "ended", "denied"

_spelled = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
#: What a line must have to be one, and of which kind all of it is.
_NEEDED = ("what", "at", "direction", "own", "address", "protocol")
_NUMBERS = {"port", "source_port", "sent_packets", "sent_bytes", "received_packets", "received_bytes"}
_TIMES = {"at", "start", "end"}


class Sighting(NamedTuple):
    """Of a flow of a pod: `pod` is its name, or the beginning of its container's id, `own` its address, `direction` egress or ingress; the
    peer likewise, by name where one is known. `port` is the server's, `source_port` the client's; `service` is the address and port that the client asked
    for, where it was led to another; `names` are those by which the peer's address was resolved.

    Times are seconds since the epoch, 0 where nobody knows; packets and bytes are those the pod sent and received, once it is over.
    """

    what: str
    at: float
    direction: str
    pod: str
    container: str
    own: str
    peer: str
    peer_container: str
    address: str
    protocol: str
    port: int = 0
    source_port: int = 0
    service: str = ""
    names: tuple[str, ...] = ()
    id: str = ""
    start: float = 0.0
    end: float = 0.0
    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same of all that is seen of a flow, and of no other of its time."""
        return self.id, self.own, self.address, self.protocol, self.port, self.source_port, self.direction

    @property
    def line(self) -> bytes:
        """It as a line."""
        return f"{_spelled(self.said)}\n".encode()

    @property
    def said(self) -> dict[str, Any]:
        """What it says, but for what is empty."""
        return {name: value for name, value in zip(self._fields, self, strict=True) if value}

    def from_peer(self) -> Sighting:
        """The same as the other pod of this node sees it."""
        return self._replace(
            direction="ingress" if self.direction == "egress" else "egress",
            pod=self.peer, container=self.peer_container, own=self.address,
            peer=self.pod, peer_container=self.container, address=self.own, names=(),
            sent_packets=self.received_packets, sent_bytes=self.received_bytes,
            received_packets=self.sent_packets, received_bytes=self.sent_bytes,
        )  # fmt: skip


def read(line: bytes) -> Sighting | None:
    """What a line says; None for one that is torn, or nobody of ours wrote."""
    with suppress(ValueError, TypeError):
        said = decoded(line)
        if (
            isinstance(said, dict)
            and all(said.get(name) for name in _NEEDED)
            and all(_is_right(name, value) for name, value in said.items())
        ):
            known = {name: said[name] for name in Sighting._fields if name in said}
            empty = dict.fromkeys(("pod", "container", "peer", "peer_container"), "")
            return Sighting(**(empty | known | {"names": tuple(known.get("names", ()))}))
    return None


def _is_right(name: str, value: object) -> bool:
    if name == "names":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if name in _NUMBERS:
        return type(value) is int
    return isinstance(value, int | float) if name in _TIMES else isinstance(value, str)
