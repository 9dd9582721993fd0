"""What policies drop, as it happens: the pod, the other end, the port, and the document that decides about it."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

from cni.agent.settings import Settings
from cni.command.held import Held, held_of, one_of
from cni.command.output import complain, print_json_line, say_at_once
from cni.flows.ring import followed
from cni.flows.seen import sightings
from cni.flows.sighting import DENIED, Sighting
from cni.kernel.nflog import Listener, Logged
from cni.naming import DROPS
from cni.policy.judgement import Other, judged
from cni.state.daemons import FLOWS, is_running

_PREFIX = re.compile(r"agent-cni drop (?P<way>in|out) ")
_DIRECTIONS = {"in": "ingress", "out": "egress"}


def log(options: argparse.Namespace) -> int:
    """Print what is dropped from now on, at most ten packets a second of a pod: of pods whose policy has "log" set. Ends with an interrupt.

    Where the recorder of flows runs (agent-cni flows), it hears of them, and what it says is printed: each flow once a minute.
    """
    held, faults = held_of(options)
    wanted = one_of(options.pod, held) if options.pod else held
    complain(*(f"agent-cni: {line}" for line in faults))
    silent = sorted({item.name for item in wanted if not (item.section and item.section.log)})
    if silent:
        complain(
            f'agent-cni: no "log": true in the policy of {", ".join(silent)}: what they are not let is dropped unsaid'
        )
    with _packets() as packets:
        drops = (found for packet in packets for found in _drop(packet, wanted))
        for drop in islice(drops, options.count):
            print_json_line(drop) if options.json else say_at_once(_spelled(drop))
    return 0


@contextmanager
def _packets() -> Iterator[Iterator[Logged]]:
    """What is dropped from now on: as the recorder of flows says it, where one runs, for the kernel tells one listener alone."""
    if not is_running(FLOWS):
        with closing(Listener(DROPS)) as listener:
            yield listener.packets()
        return
    lines = followed(Settings.load().flows.folder)
    yield (_logged(seen) for seen in sightings(lines) if seen.what == DENIED)


def _logged(seen: Sighting) -> Logged:
    """A packet that was dropped, as it was logged."""
    way = "in" if seen.direction == "ingress" else "out"
    ends = (seen.own, seen.address) if way == "out" else (seen.address, seen.own)
    return Logged(seen.at, f"agent-cni drop {way} {seen.pod}: ", *ends, seen.protocol, seen.source_port, seen.port)


def _drop(packet: Logged, held: list[Held]) -> Iterator[dict[str, Any]]:
    """A dropped packet as one of a pod's, if it is one of these pods'."""
    way = _PREFIX.match(packet.prefix)
    if not way:
        return
    direction = _DIRECTIONS[way["way"]]
    own, other = (packet.target, packet.source) if direction == "ingress" else (packet.source, packet.target)
    mine = next((item for item in held if own in item.pod.addresses), None)
    if mine is None:
        return
    book = mine.book
    pod = next((pod for pod in (*book.pods(), *book.unknown_pods()) if other in pod.addresses), None)
    decided = judged(book, mine.pod, direction, Other(other, pod, packet.protocol, packet.port), mine.section)
    yield {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(packet.at or time.time())),
        "pod": mine.name,
        "direction": direction,
        "peer": f"{pod.namespace}/{pod.name}" if pod else "",
        "address": other,
        "protocol": packet.protocol,
        "port": packet.port,
        "source_port": packet.source_port,
        # what was dropped and is allowed now was an answer, or the documents are others by now
        "documents": [] if decided.allowed else list(decided.documents),
        "tier": "" if decided.allowed else decided.tier,
    }


def _spelled(drop: dict[str, Any]) -> str:
    peer = f"{drop['peer']} ({drop['address']})" if drop["peer"] else drop["address"]
    way = f"from {peer}" if drop["direction"] == "ingress" else f"to {peer}"
    by = f" by {', '.join(drop['documents'])}" if drop["documents"] else ""
    port = f" {drop['port']}" if drop["port"] else ""
    return f"{drop['time']} {drop['pod']}: {way}, {drop['protocol']}{port}: dropped{by}"
