"""Flows as people and programs read them: a table of who talked to whom, each flow as JSON, or each as it happens."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cni.command.flows.words import ago, peer_of, port_of, sized
from cni.command.held import Held, held_of, meant
from cni.command.output import complain, print_json, print_json_line, print_table, print_text, say_at_once
from cni.errors import CniError
from cni.flows import ring
from cni.flows.seen import OPEN, Flow, Wanted, key_of, sightings
from cni.flows.seen import flows as seen_flows
from cni.flows.sighting import BEGUN, DENIED, Sighting
from cni.kernel import conntrack
from cni.kernel.conntrack import Tracked
from cni.kernel.writing import put_asked
from cni.policy.judgement import Judgement, Other, judged
from cni.state.daemons import FLOWS, is_running

_COLUMNS = ("pod", "way", "peer", "port", "verdict", "flows", "sent", "received", "last", "by")
_WAYS = {"egress": "out", "ingress": "in"}


def shown(options: argparse.Namespace, folder: Path) -> int:
    """Print what is asked for; of what is asked for, who talks is said once, with how often and how much."""
    if not is_running(FLOWS):
        complain(
            "agent-cni: no recorder runs here: systemctl start agent-cni-flows.service, or agent-cni flows --record"
        )
    now = time.time()
    wanted = Wanted(options.pod, now - options.since, options.denied)
    if options.follow:
        return _followed(options, folder, wanted)
    return _told(options, seen_flows(folder, wanted, known), now)


def _told(options: argparse.Namespace, found: list[Flow], now: float) -> int:
    if options.suggest:
        from cni.command.flows.rules import suggested  # who asks for a table needs no rules

        return suggested(options, found)
    if options.graph:
        from cni.command.flows.graph import drawn, lines_of

        svg = drawn(lines_of(found), f"{os.uname().nodename}, {options.pod or 'all pods'}")
        put_asked(options.graph, svg, 0o644) if str(options.graph) != "-" else print_text(svg)
        return 0
    words = Words(options)
    if options.json:
        print_json([flow.said | words.of(flow.seen).said for flow in found])
    else:
        print_table("no flow was seen", _COLUMNS, [_row(group, now, words) for group in together(found)])
    return 0


def known() -> dict[tuple[object, ...], Tracked] | None:
    """What conntrack of this namespace has now; None where it cannot be asked."""
    with suppress(CniError):
        return {key_of(event): event for event in conntrack.known(_Everybody())}
    return None


class By(NamedTuple):
    """Which documents decide about a flow, by what they say now; none where the verdict was another."""

    documents: tuple[str, ...] = ()
    tier: str = ""
    rule: str = ""

    @property
    def said(self) -> dict[str, Any]:
        """It for programs."""
        return {"documents": list(self.documents), "tier": self.tier, "rule": self.rule}


class Words:
    """What the documents of this node say about flows: they are read once, when somebody asks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._held: dict[str, Held] | None = None
        self._judged = cache(self._judgement)

    def of(self, seen: Sighting) -> By:
        """Who decided about a flow, as far as that can be known now."""
        decided = self._judged(seen.own, seen.direction, seen.address, (seen.protocol, seen.port), seen.names)
        if decided is None or decided.tier == "default" or decided.allowed is (seen.what == DENIED):
            return By()
        return By(decided.documents, decided.tier, decided.rule)

    def held(self, address: str) -> Held | None:
        """The pod of this node that has an address and a policy."""
        if self._held is None:
            found, faults = held_of(self._options)
            complain(*(f"agent-cni: {line}" for line in faults))
            self._held = {own: item for item in found for own in item.pod.addresses}
        return self._held.get(address)

    def _judgement(
        self, own: str, direction: str, address: str, port: tuple[str, int], names: tuple[str, ...]
    ) -> Judgement | None:
        mine = self.held(own)
        if mine is None:
            return None
        book = mine.book
        pod = next((pod for pod in (*book.pods(), *book.unknown_pods()) if address in pod.addresses), None)
        other = Other(address, pod, *port, resolved=meant(mine, names))
        return judged(book, mine.pod, direction, other, mine.section)


def together(found: Iterable[Flow]) -> list[list[Flow]]:
    """Flows of equal ends and verdict, each lot by time; who was seen last comes first within his pod."""
    groups: dict[tuple[object, ...], list[Flow]] = {}
    for flow in found:
        seen = flow.seen
        groups.setdefault(
            (seen.pod, seen.direction, seen.address, seen.protocol, seen.port, seen.service, flow.allowed), []
        ).append(flow)
    return sorted(groups.values(), key=lambda group: (group[0].seen.pod, -max(flow.last for flow in group)))


def _row(group: list[Flow], now: float, words: Words) -> dict[str, Any]:
    flow = group[-1]
    seen, is_open = flow.seen, any(item.state == OPEN for item in group)
    return {
        "pod": seen.pod or "-",
        "way": _WAYS[seen.direction],
        "peer": peer_of(max((item.seen for item in group), key=lambda item: bool(item.names) + bool(item.peer))),
        "port": port_of(seen),
        "verdict": "allowed" if flow.allowed else "denied",
        "flows": len(group),
        "sent": sized(sum(item.seen.sent_bytes for item in group)) if flow.allowed else "-",
        "received": sized(sum(item.seen.received_bytes for item in group)) if flow.allowed else "-",
        "last": "now" if is_open else f"{ago(now - max(item.last for item in group))} ago",
        "by": ", ".join(words.of(seen).documents) or "-",
    }


def _followed(options: argparse.Namespace, folder: Path, wanted: Wanted) -> int:
    """Print each as it happens, until an interrupt, or so many."""
    words, left = Words(options), options.count
    for item in sightings(ring.followed(folder)):
        seen = wanted.of(item)
        if seen is None:
            continue
        if options.json:
            print_json_line(seen.said | words.of(seen).said)
        else:
            say_at_once(_line(seen, words))
        left = left - 1 if left else left
        if left == 0:
            break
    return 0


def _line(seen: Sighting, words: Words) -> str:
    """A sighting as a line of its own."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seen.at))
    flow = f"{at} {seen.pod or seen.own} {_WAYS[seen.direction]}: {peer_of(seen)}, {port_of(seen)}"
    if seen.what == DENIED:
        by = ", ".join(words.of(seen).documents)
        return f"{flow}: denied{f' by {by}' if by else ''}"
    if seen.what == BEGUN:
        return f"{flow}: begun"
    took = f" after {ago(seen.end - seen.start)}" if seen.start else ""
    return f"{flow}: over{took}, sent {sized(seen.sent_bytes)}, received {sized(seen.received_bytes)}"


class _Everybody:
    """Has every address."""

    def __contains__(self, address: object) -> bool:
        return True
