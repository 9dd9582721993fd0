"""What lines come to: each flow once, by all that was seen of it."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from cni.flows.ring import Ring
from cni.flows.seen import OPEN, OVER, UNSEEN, Wanted, flows, key_of
from cni.flows.sighting import BEGUN, DENIED, ENDED, Sighting
from cni.kernel.conntrack import Amount, Tracked

BEGIN = Sighting(
    BEGUN,
    10.0,
    "egress",
    "shop/web",
    "0123456789ab",
    "10.1.0.2",
    "shop/db",
    "ba9876543210",
    "10.1.0.3",
    "tcp",
    80,
    4000,
    id="aa",
)
END = BEGIN._replace(what=ENDED, at=20.0, start=10.5, end=19.0, sent_packets=3, sent_bytes=300)
DROP = Sighting(
    DENIED,
    15.0,
    "ingress",
    "shop/db",
    "ba9876543210",
    "10.1.0.3",
    "shop/web",
    "0123456789ab",
    "10.1.0.2",
    "tcp",
    81,
    5000,
)


EVERY = Wanted()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "flows"


def kept(folder: Path, *seen: Sighting) -> Path:
    Ring(folder).append(item.line for item in seen)
    return folder


def states(folder: Path, wanted: Wanted = EVERY) -> list[tuple[str, str]]:
    return [(flow.seen.pod, flow.state) for flow in flows(folder, wanted)]


def test_a_flow_that_is_over_is_one_with_the_names_of_its_beginning(folder: Path):
    (flow,) = flows(
        kept(folder, BEGIN._replace(names=("a.example",)), END._replace(peer="", peer_container="")), Wanted()
    )
    assert (flow.state, flow.seen.peer, flow.seen.names) == (OVER, "shop/db", ("a.example",))
    assert (flow.seen.sent_bytes, flow.seen.start, flow.last) == (300, 10.5, 19.0)
    assert flow.said["verdict"] == "allowed"


def test_the_same_ends_may_have_several_flows_one_after_the_other(folder: Path):
    again = [BEGIN._replace(at=30.0), END._replace(at=40.0, start=30.0, end=39.0), BEGIN._replace(at=50.0)]
    assert [flow.state for flow in flows(kept(folder, BEGIN, END, *again), Wanted())] == [OVER, OVER, OPEN]


def test_an_end_whose_beginning_nobody_has_is_a_flow(folder: Path):
    assert states(kept(folder, END)) == [("shop/web", OVER)]


def test_flows_are_those_that_were_there_since(folder: Path):
    kept(folder, BEGIN, END, DROP, BEGIN._replace(id="bb", at=1.0))
    assert states(folder, Wanted(since=16.0)) == [("shop/web", OPEN), ("shop/web", OVER)]
    assert states(folder, Wanted(since=19.5)) == [("shop/web", OPEN)]


@pytest.mark.parametrize("pod", ["shop/db", "ba9876543210", "ba98", "ba9876543210ffffff", "10.1.0.3"])
def test_of_a_pod_all_is_seen_from_its_end(folder: Path, pod: str):
    kept(folder, BEGIN, END, DROP)
    found = flows(folder, Wanted(pod))
    assert [(flow.seen.pod, flow.seen.direction, flow.seen.peer, flow.state) for flow in found] == [
        ("shop/db", "ingress", "shop/web", OVER),
        ("shop/db", "ingress", "shop/web", "denied"),
    ]
    assert found[0].seen.received_bytes == 300


def test_of_nobody_there_is_nothing(folder: Path):
    assert states(kept(folder, BEGIN, END, DROP), Wanted("shop/we")) == []


def test_denied_ones_alone(folder: Path):
    assert states(kept(folder, BEGIN, END, DROP), Wanted(denied=True)) == [("shop/db", "denied")]


def test_what_goes_on_is_told_by_what_conntrack_has(folder: Path):
    other = BEGIN._replace(id="bb", source_port=4001)
    client, server = (ipaddress.ip_address(end).packed for end in ("10.1.0.2", "10.1.0.3"))
    event = Tracked("bb", "tcp", client, 4001, server, 80, server, 80, sent=Amount(1, 60), received=Amount(2, 90))
    for pod, (sent, received) in {"shop/web": (60, 90), "shop/db": (90, 60)}.items():
        found = flows(kept(folder, BEGIN, other), Wanted(pod), lambda: {key_of(event): event})
        assert [flow.state for flow in found] == [UNSEEN, OPEN]
        assert (found[1].seen.sent_bytes, found[1].seen.received_bytes) == (sent, received)


def test_where_conntrack_cannot_be_asked_what_began_goes_on(folder: Path):
    assert [flow.state for flow in flows(kept(folder, BEGIN), Wanted(), lambda: None)] == [OPEN]
