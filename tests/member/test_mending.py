"""Which of the kernel's events say that something is not as it was left."""

from __future__ import annotations

import pyroute
import pytest

from cni.cluster.model import Block, Endpoint, Network, Node
from cni.cluster.pools import Pool
from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Listing
from cni.kernel.events import ADDRESS, FDB, LINK, NEIGHBOUR, OVERRUN, ROUTE, Event, _event_of
from cni.member import mending
from cni.overlay.peers import Overlay, peers_of
from cni.resources import PeerAddress, PeerNeighbour, PeerRoute, PeerRow

MAC, OTHER = "0a:58:0a:0a:00:14", "0a:58:0a:0a:00:99"
LINKS = {5: ("vxlan100", "True 7"), 7: ("br0", "True 0")}


def wanted():
    me, far = Node("a", "ma", "192.0.2.1", "fe:00:00:00:00:01"), Node("b", "mb", "192.0.2.2", "fe:00:00:00:00:02")
    network = Network("net", (Pool("10.10.0.0/24", "10.10.0.1", "10.10.0.254", "10.10.0.1"),), 16, "l2", 100)
    snapshot = Snapshot("a")
    blocks = Block("net", "10.10.0.16/28", "b", "mb"), Block("net", "10.10.0.32/28", "a", "ma")
    snapshot.apply(Listing(1, (me, far, *blocks, Endpoint("net", "10.10.0.20", "b", MAC))))
    return [peers_of(me, snapshot, Overlay(network, "vxlan100", "br0"))]


@pytest.mark.parametrize(
    ("event", "row"),
    [
        (Event(FDB, 5, MAC), PeerRow("vxlan100", MAC, "192.0.2.2")),
        (Event(FDB, 5, MAC, "192.0.2.77"), PeerRow("vxlan100", MAC, "192.0.2.2")),
        (Event(NEIGHBOUR, 7, "10.10.0.20"), PeerNeighbour("br0", "10.10.0.20", MAC)),
        (Event(NEIGHBOUR, 7, "10.10.0.20", OTHER), PeerNeighbour("br0", "10.10.0.20", MAC)),
        (Event(ROUTE, 7, "10.10.0.0/25"), PeerRoute("br0", "10.10.0.0/25", "", "10.10.0.32")),
        (Event(ADDRESS, 7, "10.10.0.32/32"), PeerAddress("br0", "10.10.0.32/32")),
    ],
    ids=lambda value: value.about if isinstance(value, Event) else "",
)
def test_what_contradicts_a_row_has_it_again(event: Event, row: object):
    found = mending.contradicted([event, event], LINKS, wanted())
    assert [kind.of(name, *item) for (kind, name), rows in found.items() for item in rows.items()] == [row]
    assert not mending.is_for_all([event], LINKS)


def test_of_a_row_the_last_event_counts():
    """What is in the way of a row goes before it is there again: both are heard of."""
    gone, back = Event(FDB, 5, MAC), Event(FDB, 5, MAC, "192.0.2.2")
    assert mending.contradicted([gone, back], LINKS, wanted()) == {}
    assert mending.contradicted([back, gone], LINKS, wanted())


@pytest.mark.parametrize(
    "event",
    [
        Event(FDB, 5, MAC, "192.0.2.2"),
        Event(FDB, 5, OTHER),
        Event(FDB, 9, MAC),
        Event(NEIGHBOUR, 7, "10.10.0.20", MAC),
        Event(NEIGHBOUR, 7, "10.10.0.99"),
        Event(ROUTE, 5, "10.10.0.0/25"),
        Event(LINK, 5, "vxlan100", "True 7"),
        Event(LINK, 8, "veth1", "True 7"),
    ],
    ids=str,
)
def test_what_was_done_here_or_is_a_strangers_is_passed_over(event: Event):
    assert mending.contradicted([event], LINKS, wanted()) == {}
    assert not mending.is_for_all([event], LINKS)


@pytest.mark.parametrize(
    "event",
    [
        Event(OVERRUN, 0),
        Event(LINK, 5, "vxlan100"),
        Event(LINK, 5, "vxlan100", "True 0"),
        Event(LINK, 5, "vxlan100", "False 7"),
        Event(LINK, 12, "vxlan100", "True 7"),
        Event(LINK, 7, "br0", "False 0"),
    ],
    ids=str,
)
def test_a_link_of_ours_that_is_another_or_too_much_at_once_has_all_compared(event: Event):
    assert mending.is_for_all([event], LINKS)
    assert mending.is_ours(event, LINKS)


def test_what_is_told_of_a_link_is_read_only_if_it_may_be_ours():
    """A pod that comes is a dozen messages, which nobody here goes by."""
    index = next(iter(LINKS))
    assert mending.may_be_ours(index, b"", LINKS)
    assert not mending.may_be_ours(99, b"..veth1..", LINKS, {"vxlan200"})
    assert mending.may_be_ours(99, b"..vxlan200..", LINKS, {"vxlan200"})
    assert mending.may_be_ours(99, f"..{LINKS[index][0]}..".encode(), LINKS), "made anew, it has another index"


def test_a_link_that_rows_wait_for_has_all_compared_when_it_comes():
    event = Event(LINK, 9, "vxlan200", "True 7")
    assert not mending.is_ours(event, LINKS)
    assert mending.is_ours(event, LINKS, {"vxlan200"})
    assert mending.is_for_all([event], LINKS, {"vxlan200"})
    known = LINKS | {9: ("vxlan200", "True 7")}
    assert not mending.is_for_all([event], known, {"vxlan200"})


def neighbour(verb: int, family: int, state: int, flags: int, **said: object) -> Event | None:
    fields = {"family": family, "ifindex": 5, "state": state, "flags": flags}
    return _event_of(
        pyroute.encoded(pyroute.NEIGHBOUR, verb, 0, [(f"NDA_{key}", value) for key, value in said.items()], **fields)
    )


def test_an_event_is_what_the_kernel_tells():
    row = {"LLADDR": MAC, "DST": "192.0.2.2"}
    assert neighbour(pyroute.NEW, 7, 0x42, 2, **row) == Event(FDB, 5, MAC, "192.0.2.2")
    assert neighbour(pyroute.DELETE, 7, 0x42, 2, **row) == Event(FDB, 5, MAC)
    assert neighbour(pyroute.DELETE, 7, 0x02, 4, LLADDR=MAC) == Event(FDB, 5, MAC)
    assert neighbour(pyroute.NEW, 7, 0x02, 4, LLADDR=MAC) is None
    known = {"DST": "10.10.0.20", "LLADDR": MAC}
    assert neighbour(pyroute.NEW, 2, 0x80, 0, **known) == Event(NEIGHBOUR, 5, "10.10.0.20", MAC)
    assert neighbour(pyroute.NEW, 2, 0x02, 0, **known) == Event(NEIGHBOUR, 5, "10.10.0.20")
    assert neighbour(pyroute.DELETE, 2, 0x80, 0, **known) == Event(NEIGHBOUR, 5, "10.10.0.20")


def noticed(*events: Event) -> tuple[bool, list[Event]]:
    """Whether they are worth a look, and what is left to look at."""
    found, every = mending.Noticed(), wanted()
    return found.bring(events, lambda event: mending.agrees(event, LINKS, every)), found.take()


def test_what_was_done_here_is_not_kept_to_be_looked_at():
    made = [Event(FDB, 5, MAC, "192.0.2.2"), Event(NEIGHBOUR, 7, "10.10.0.20", MAC), Event(FDB, 5, OTHER, "192.0.2.2")]
    assert noticed(*made) == (False, [])


def test_what_went_and_is_there_again_is_not_looked_at():
    gone, back = Event(FDB, 5, MAC), Event(FDB, 5, MAC, "192.0.2.2")
    assert noticed(gone, back) == (False, [])
    assert noticed(gone, back, gone) == (True, [gone])


def test_each_state_of_a_link_is_looked_at():
    """With one that was down for a moment its neighbours went."""
    states = [Event(LINK, 5, "vxlan100", "False 7"), Event(LINK, 5, "vxlan100", "True 7"), Event(OVERRUN, 0)]
    assert noticed(*states) == (True, states)
