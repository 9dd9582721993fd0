"""Addresses of a clustered network: a member is played by what it writes into the state."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni.cluster.blocks import block_of, capacity, host_address, next_block
from cni.cluster.model import Block, Network
from cni.errors import (
    AddressTaken,
    CniError,
    Conflict,
    Degraded,
    InvalidConfig,
    RangeExhausted,
    TryAgainLater,
    Unavailable,
)
from cni.ipam import shared
from cni.ipam.own import Own
from cni.ipam.shared import Shared
from cni.ipam.source import ours, source_of
from cni.naming import Attachment
from cni.protocol.call import Call
from cni.protocol.result import Interface, Result
from cni.resources import PodNames
from cni.state import Record, Store
from cni.state.membership import HELD, LEAVING, LOST, SHUT, Member
from cni.values import replace

ME = Member("node-a", "machine-a", "life-1", "192.0.2.1", "fe:00:00:00:00:0a")
CONF = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "ipam": {"cluster": True, "blockSize": 8, "ranges": [[{"subnet": "10.0.0.0/26"}], [{"subnet": "fd00::/120"}]]},
}


def source(mode: str = "", ips: tuple[str, ...] = (), **ipam: Any) -> Shared:
    runtime = {"runtimeConfig": {"ips": list(ips)}} if ips else {}
    made = ours(CONF | {"ipam": CONF["ipam"] | ipam} | runtime, Call("ADD"), 7 if mode else 0, mode)
    assert isinstance(made, Shared)
    return made


FOUR = {"ranges": [], "subnet": "10.0.0.0/26"}


@pytest.fixture
def store(no_node: Path) -> Iterator[Store]:
    with closing(Store.open(no_node)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "PATIENCE", 0.1)


def joined(store: Store, network: Network, *spans: str, state: str = HELD, **who: Any) -> None:
    """A member that has agreed with the cluster on a network, and some blocks of it."""
    with store.transaction():
        store.put_member(replace(ME, **who))
        store.share(network)
        store.refuse_network(network.name, "")
        for span in spans:
            store.put_block(Block(network.name, span, ME.node, ME.machine), state)


def pod(number: int, name: str = "") -> Record:
    return Record(Attachment("pods", f"c{number}", "eth0"), "bridge-vxlan", f"/run/netns/c{number}", name, CONF)


def given(source: Own, store: Store, record: Record) -> list[str]:
    """The addresses an ADD gets, which is recorded with them."""
    with source.reserving(store, record) as lease:
        store.put(record)
    return [ip.address for ip in lease.ips]


def until_refused(source: Own, store: Store) -> list[str]:
    found: list[str] = []
    for number in range(300):
        try:
            found += given(source, store, pod(number))
        except TryAgainLater:
            return found
    raise AssertionError("300 addresses are more than any block here has")


def test_addresses_are_of_held_blocks_only_and_the_first_of_each_is_the_hosts(store: Store):
    net = source(**FOUR)
    joined(store, net.network, "10.0.0.0/29", "10.0.0.24/29", "10.0.0.56/29")
    joined(store, net.network, "10.0.0.32/29", state=LEAVING)
    joined(store, net.network, "10.0.0.40/29", state=LOST)
    addresses = until_refused(net, store)
    # .0 is the subnet's own, .1 its gateway, .2 the host's as are .24 and .56, .63 the broadcast
    assert addresses == [f"10.0.0.{n}/26" for n in (*range(3, 8), *range(25, 32), *range(57, 63))]
    assert {host_address(net.network, f"10.0.0.{n}/29") for n in (0, 24, 56)} == {"10.0.0.2", "10.0.0.24", "10.0.0.56"}


def test_a_block_is_a_subnet_of_its_own_in_l3(store: Store):
    net = source("l3")
    joined(store, net.network, "10.0.0.0/29", "10.0.0.56/29", "fd00::/125", "fd00::f8/125")
    with net.reserving(store, pod(1)) as lease:
        assert [(ip.address, ip.gateway) for ip in lease.ips] == [
            ("10.0.0.2/29", "10.0.0.1"),
            ("fd00::2/125", "fd00::1"),
        ]
        assert [(route.dst, route.gw) for route in lease.routes] == [("10.0.0.0/26", ""), ("fd00::/120", "")]
    left = until_refused(net, store)
    four = [f"10.0.0.{n}/29" for n in (3, 4, 5, 6, 58, 59, 60, 61, 62)]
    assert left[::2] == four
    assert left[1::2] == [f"fd00::{n:x}/125" for n in (3, 4, 5, 6, 7, 0xFA, 0xFB, 0xFC, 0xFD)]


@pytest.mark.parametrize("mode", ["", "l3"])
def test_no_address_is_given_by_two_hosts_whatever_the_blocks(tmp_path: Path, no_node: Path, mode: str):
    """An oracle by another way: every address of every block, once, less what is nobody's."""
    net = source(mode, reserved=["10.0.0.17", "fd00::20-fd00::2f"], rangeStart="", **FOUR)
    everything = {str(block) for block in ipaddress.ip_network("10.0.0.0/26").subnets(new_prefix=29)}
    found: list[str] = []
    for number in range(3):
        with closing(Store.open(tmp_path / str(number))) as store:
            mine = sorted(everything)[number::3]
            joined(store, net.network, *mine)
            addresses = until_refused(net, store)
            assert {block_of(net.network, ipaddress.ip_interface(text).ip) for text in addresses} == set(mine)
            found += addresses
    given_out = {text.split("/")[0] for text in found}
    hosts = {host_address(net.network, span) for span in everything}
    ends = {str(end) for span in everything for end in (ipaddress.ip_network(span)[0], ipaddress.ip_network(span)[-1])}
    nobodys = hosts | {"10.0.0.0", "10.0.0.1", "10.0.0.63", "10.0.0.17"} | (ends if mode else set())
    assert len(found) == len(given_out)
    assert given_out == {str(address) for address in ipaddress.ip_network("10.0.0.0/26")} - nobodys


@contextmanager
def member(folder: Path, act: Callable[[Store], object]) -> Iterator[list[BaseException]]:
    """Acts beside a call, as a member does, until the block ends."""
    ended, faults = threading.Event(), []

    def run() -> None:
        try:
            with closing(Store.open(folder)) as store:
                while not ended.wait(0.005):
                    with store.transaction():
                        act(store)
        except BaseException as error:  # noqa: BLE001 - told below
            faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield faults
    finally:
        ended.set()
        thread.join()
    assert not faults


def test_the_first_pod_of_a_network_waits_for_its_block(store: Store, no_node: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared, "PATIENCE", 5)
    net = source()
    with store.transaction():
        store.put_member(ME)

    def act(other: Store) -> None:
        for network, refused in other.shared():
            if refused is None:
                other.refuse_network(network.name, "")
        for wish in other.wishes():
            span = {4: "10.0.0.16/29", 6: "fd00::10/125"}[wish.family]
            other.put_block(Block(wish.network, span, ME.node, ME.machine))
            other.answer(wish, "")

    with member(no_node, act):
        assert given(net, store, pod(1)) == ["10.0.0.17/26", "fd00::11/120"]
    assert store.wishes() == []
    assert [network for network, _ in store.shared()] == [net.network]


@pytest.mark.parametrize(
    ("ips", "answer", "error"),
    [
        ((), "all 8 blocks of 10.0.0.0/26 are taken", RangeExhausted),
        (("10.0.0.20",), "10.0.0.20 is in a block of node-b", AddressTaken),
    ],
)
def test_what_the_member_answers_instead_is_the_error(
    store: Store,
    no_node: Path,
    ips: tuple[str, ...],
    answer: str,
    error: type[CniError],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shared, "PATIENCE", 5)
    net = source(ips=ips, **FOUR)
    joined(store, net.network)
    answering = member(no_node, lambda other: [other.answer(wish, answer) for wish in other.wishes()])
    with answering, pytest.raises(error, match=f"'pods': {answer}"):
        given(net, store, pod(1))
    assert store.wishes() == store.records() == store.all_leases() == []


def test_who_has_no_member_says_how_to_get_one(store: Store):
    with pytest.raises(TryAgainLater, match="in none: agent-cni join"):
        given(source(), store, pod(1))
    for asked in (None, store):
        with pytest.raises(Unavailable, match="in none: agent-cni join"):
            source().refuse_when_exhausted(asked, "pods")


def test_what_is_lacking_is_waited_for_a_moment_and_said_why(store: Store):
    net = source(**FOUR)
    joined(store, net.network, trouble="etcd: connection refused")
    begun = time.monotonic()
    with pytest.raises(TryAgainLater, match="no address is free in this host's blocks: etcd: connection refused"):
        given(net, store, pod(1))
    assert 0.1 <= time.monotonic() - begun < 1
    assert [wish[:3] for wish in store.wishes()] == [("pods", 4, "")], "the member gets it for the next call"
    with pytest.raises(Unavailable, match="etcd: connection refused"):
        net.refuse_when_exhausted(store, "pods")
    joined(store, net.network)
    net.refuse_when_exhausted(store, "pods")


def test_owned_blocks_serve_while_the_store_is_away(store: Store):
    net = source(**FOUR)
    joined(store, net.network, "10.0.0.8/29", trouble="etcd: connection refused")
    assert given(net, store, pod(1)) == ["10.0.0.9/26"]
    net.refuse_when_exhausted(store, "pods")


def test_a_network_the_cluster_has_otherwise_is_refused_until_it_is_mended(store: Store):
    net, edited = source(**FOUR), source(**FOUR | {"blockSize": 16})
    joined(store, net.network, "10.0.0.8/29")
    with pytest.raises(TryAgainLater):
        given(edited, store, pod(1))
    assert store.shared() == [(edited.network, None)]
    with store.transaction():
        store.refuse_network("pods", "blockSize is 8 there and 16 here")
    with pytest.raises(Conflict, match="blockSize is 8 there and 16 here"):
        given(edited, store, pod(1))
    with pytest.raises(Unavailable, match="blockSize is 8 there and 16 here"):
        edited.refuse_when_exhausted(store, "pods")
    joined(store, net.network)
    assert given(net, store, pod(1)) == ["10.0.0.9/26"]


def test_a_fenced_host_gives_nothing_whatever_it_has(store: Store):
    net = source(**FOUR)
    joined(store, net.network, "10.0.0.8/29", fenced_at=time.clock_gettime(time.CLOCK_BOOTTIME) + 3600)
    assert given(net, store, pod(1)) == ["10.0.0.9/26"]
    joined(store, net.network, fenced_at=time.clock_gettime(time.CLOCK_BOOTTIME))
    with pytest.raises(TryAgainLater, match="freeAfter"):
        given(net, store, pod(2))
    with pytest.raises(Degraded, match="freeAfter"):
        net.refuse_when_exhausted(store, "pods")


@pytest.mark.parametrize("fenced_in", [None, 3600.0])  # without freeAfter, and with
def test_a_host_that_leaves_gives_nothing_and_says_why(store: Store, fenced_in: float | None):
    net = source(**FOUR)
    fenced_at = time.clock_gettime(time.CLOCK_BOOTTIME) + fenced_in if fenced_in else 0.0
    joined(store, net.network, "10.0.0.8/29", fenced_at=fenced_at)
    assert given(net, store, pod(1)) == ["10.0.0.9/26"]
    joined(store, net.network, fenced_at=fenced_at, leaving=True, trouble="this host leaves the cluster")
    with pytest.raises(TryAgainLater, match=r"^network 'pods': this host leaves the cluster$"):
        given(net, store, pod(2))
    with pytest.raises(Degraded, match=r"this host leaves the cluster$"):
        net.refuse_when_exhausted(store, "pods")


def test_a_host_that_is_not_who_it_says_gives_nothing_and_says_why(store: Store):
    net = source(**FOUR)
    joined(store, net.network, "10.0.0.8/29", fenced_at=SHUT, trouble="this host may not be node-a in the cluster")
    with pytest.raises(TryAgainLater, match=r"^network 'pods': this host may not be node-a in the cluster$"):
        given(net, store, pod(1))
    with pytest.raises(Degraded, match=r"this host may not be node-a"):
        net.refuse_when_exhausted(store, "pods")


def test_a_lost_block_is_degraded_and_named(store: Store):
    net = source(**FOUR)
    joined(store, net.network, "10.0.0.8/29")
    record = pod(1)
    with net.reserving(store, record) as lease:
        store.put(record)
    joined(store, net.network, "10.0.0.8/29", state=LOST)
    with pytest.raises(Degraded, match=r"10\.0\.0\.8/29"):
        net.refuse_when_exhausted(store, "pods")
    assert list(net.differences(store, record, lease)) == [
        "10.0.0.9 in network 'pods' is in a block that is another host's by now"
    ]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("10.0.0.9", ""),
        ("10.0.0.8", "reserved or a gateway"),  # the host's own
        ("10.0.0.16", "reserved or a gateway"),  # another host's own
        ("10.0.0.1", "reserved or a gateway"),
        ("10.0.0.12", "reserved or a gateway"),
        ("10.0.0.20", "reserved or a gateway"),  # in no block of ours
        ("10.0.0.63", "in no range"),
        ("10.9.0.1", "in no range"),
    ],
)
def test_a_requested_address(store: Store, asked: str, error: str):
    net = source(ips=(asked,), reserved=["10.0.0.12", "10.0.0.20"], **FOUR)
    joined(store, net.network, "10.0.0.8/29")
    if not error:
        assert given(net, store, pod(1)) == [f"{asked}/26"]
    else:
        with pytest.raises(AddressTaken, match=error):
            given(net, store, pod(1))
    assert store.wishes() == []


def test_the_block_of_a_requested_address_is_wished_for(store: Store):
    net = source(ips=("10.0.0.20",))
    joined(store, net.network, "10.0.0.8/29")
    with pytest.raises(TryAgainLater):
        given(net, store, pod(1))
    assert [wish[:3] for wish in store.wishes()] == [("pods", 4, "10.0.0.20"), ("pods", 6, "")]
    joined(store, net.network, "10.0.0.16/29", "fd00::/125")
    assert given(net, store, pod(1)) == ["10.0.0.20/26", "fd00::3/120"]


def test_a_pod_comes_back_to_its_address_while_its_block_is_held(store: Store):
    net = source(sticky=True, **FOUR)
    joined(store, net.network, "10.0.0.8/29", "10.0.0.16/29")
    first = [given(net, store, pod(number, f"a/{number}"))[0] for number in range(9)]
    with store.transaction():
        for number in (8, 7):
            store.forget(pod(number).attachment, "bridge-vxlan")
    assert given(net, store, pod(17, "a/7")) == [first[7]]
    joined(store, net.network, "10.0.0.16/29", state=LEAVING)
    with store.transaction():
        store.forget(pod(0).attachment, "bridge-vxlan")
    assert given(net, store, pod(18, "a/8")) == [first[0]]


@pytest.mark.parametrize("health", ["", '{"tcp": 80}'])
def test_others_know_a_pods_names_and_answer_for_none_that_nobody_has_probed(store: Store, health: str):
    net = source()
    joined(store, net.network, "10.0.0.8/29", "fd00::8/125")
    record = pod(1, "default/web")
    record = record.having(resources=(PodNames(*record.attachment, ("10.0.0.9",), ("web.pods", "web"), "", health),))
    with net.reserving(store, record) as lease:
        store.put(record)
        ips = tuple(replace(ip, interface=0) for ip in lease.ips)
        net.told(store, record, Result((Interface("eth0", "0a:58:0a:00:00:09", 1450, "/x"),), ips))
    said = {item.wanted for item in store.said_of("pods") if item.wanted}
    assert {(item.names, item.unhealthy) for item in said} == {("web.pods web", bool(health))}


def test_what_others_are_to_know_goes_with_the_record(store: Store):
    net = source()
    joined(store, net.network, "10.0.0.8/29", "fd00::8/125")
    record = pod(1, "default/web")
    with net.reserving(store, record) as lease:
        store.put(record)
        ips = tuple(replace(ip, interface=0) for ip in lease.ips)
        result = Result((Interface("eth0", "0a:58:0a:00:00:09", 1450, "/x"),), ips)
        net.told(store, record, result)
    said = {item.address: item.wanted for item in store.said_of("pods")}
    assert set(said) == {"10.0.0.9", "fd00::9"}
    assert said["fd00::9"]._asdict() == {
        "network": "pods", "address": "fd00::9", "node": "node-a", "mac": "0a:58:0a:00:00:09",
        "container": "c1", "ifname": "eth0", "pod": "default/web", "names": "", "unhealthy": False,
    }  # fmt: skip
    assert list(net.differences(store, record, result)) == []
    with store.transaction():
        store.told("pods", "10.0.0.9", said["10.0.0.9"])
        store.release("pods", ipaddress.ip_address("10.0.0.9"))
    assert list(net.differences(store, record, result)) == [
        "lease of 10.0.0.9/26 in network 'pods' is missing",
        "10.0.0.9 in network 'pods' is not told to the cluster",
    ]
    with store.transaction():
        store.forget(record.attachment, record.plugin)
    assert [(item.address, item.wanted) for item in store.said_of("pods")] == [("10.0.0.9", None)]
    assert store.unsaid() == store.said_of("pods"), "the cluster is to be told that it is gone"


@pytest.mark.parametrize(
    ("conf", "mode", "named"),
    [
        ({"dataDir": "/var/lib/x"}, "", r"\$\.dataDir"),
        ({"ipam": CONF["ipam"] | {"dataDir": "/var/lib/x"}}, "", r"\$\.ipam\.dataDir"),
        ({"runtimeConfig": {"IpRanges": [[{"subnet": "10.1.0.0/24"}]]}}, "", r"\$\.runtimeConfig\.ipRanges"),
        (
            {"ipam": CONF["ipam"] | {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}},
            "",
            "one range set",
        ),
        ({"ipam": CONF["ipam"] | {"ranges": [[{"subnet": "10.1.0.0/30"}]]}}, "", "10.1.0.0/30 is too small"),
        ({"ipam": CONF["ipam"] | {"ranges": [[{"subnet": "10.1.0.0/24", "gateway": "10.1.0.9"}]]}}, "l3", "gateway"),
        ({"ipam": {"subnet": "10.1.0.0/24", "blockSize": 64}}, "", r"\$\.ipam\.blockSize"),
        ({"ip": "10.0.0.9/24"}, "", r"\$\.ip: excludes ipam"),
    ],
)
def test_what_only_one_host_could_mean_is_refused_by_name(conf: dict[str, Any], mode: str, named: str):
    with pytest.raises(InvalidConfig, match=named):
        source_of(CONF | conf, Call("ADD"), mode=mode)


def test_what_an_add_would_get_is_shown_without_a_member():
    assert [ip.address for ip in source().preview().ips] == ["10.0.0.3/26", "fd00::3/120"]
    assert [ip.address for ip in source("l3", ips=("10.0.0.42",)).preview().ips] == ["10.0.0.42/29", "fd00::2/125"]


def test_a_network_that_becomes_the_clusters_waits_until_its_pods_of_before_are_gone(store: Store):
    """Their addresses are in no block: another host may have it, or get it."""
    alone = ours(CONF | {"ipam": {"subnet": "10.0.0.0/26"}}, Call("ADD"))
    assert given(alone, store, pod(1)) == ["10.0.0.2/26"]
    with store.transaction():
        store.put_member(ME)
    net = source(**FOUR)
    with pytest.raises(Conflict, match=r"'pods': pods have addresses of before it was the cluster's \(10\.0\.0\.2\)"):
        given(net, store, pod(2))
    assert store.shared() == [], "the member is to have no block of it"
    with store.transaction():
        store.forget(pod(1).attachment, "bridge-vxlan")
    joined(store, net.network, "10.0.0.0/29")
    assert given(net, store, pod(2)) == ["10.0.0.3/26"]


@pytest.mark.parametrize("conf", [{"ipam": {"subnet": "10.0.0.0/26"}}, {"ipam": None, "ip": "10.0.0.9/26"}])
def test_a_network_of_the_cluster_gives_nothing_by_a_configuration_that_forgot_it(store: Store, conf: dict[str, Any]):
    joined(store, source(**FOUR).network, "10.0.0.0/29")
    alone = source_of({name: value for name, value in (CONF | conf).items() if value}, Call("ADD"))
    assert isinstance(alone, Own)
    with pytest.raises(Conflict, match=r"ipam\.cluster is not set"):
        given(alone, store, pod(1))


def test_a_wish_that_was_answered_is_answered_anew(store: Store, no_node: Path):
    net = source(**FOUR)
    joined(store, net.network)
    with store.transaction():
        store.wish("pods", 4)
        store.answer(store.wishes()[0], "no block was free an hour ago")
    with pytest.raises(TryAgainLater):
        given(net, store, pod(1))
    assert [wish.answer for wish in store.wishes()] == [""]


def test_what_is_reserved_takes_no_block_of_its_own(store: Store):
    net = source(reserved=["10.0.0.8-10.0.0.31", "10.0.0.32"], **FOUR).network
    assert [capacity(net, f"10.0.0.{first}/29") for first in range(0, 64, 8)] == [5, 0, 0, 0, 6, 7, 7, 6]
    assert host_address(net, "10.0.0.32/29") == "10.0.0.33"
    taken: set[str] = set()
    while span := next_block(net, net.pools[0], "node-a", taken):
        taken.add(span)
    assert taken == {f"10.0.0.{first}/29" for first in (0, 32, 40, 48, 56)}


def test_a_hosts_own_address_is_within_the_range(store: Store):
    net = source(rangeStart="10.0.0.5", rangeEnd="10.0.0.42", **FOUR)
    assert [host_address(net.network, f"10.0.0.{first}/29") for first in (0, 8, 40)] == [
        "10.0.0.5",
        "10.0.0.8",
        "10.0.0.40",
    ]
    joined(store, net.network, "10.0.0.0/29", "10.0.0.40/29")
    assert until_refused(net, store) == [f"10.0.0.{number}/26" for number in (6, 7, 41, 42)]


@pytest.mark.parametrize("mode", ["", "l3"])
def test_several_ranges_of_one_subnet_have_their_addresses_out_of_their_own_blocks(store: Store, mode: str):
    """Two of them in one block, one in a block of its own."""
    spans = (("10.0.0.3", "10.0.0.5"), ("10.0.0.7", "10.0.0.12"), ("10.0.0.41", "10.0.0.44"))
    ranges = [{"subnet": "10.0.0.0/26", "rangeStart": first, "rangeEnd": last} for first, last in spans]
    net = source(mode, ranges=[ranges])
    blocks = [f"10.0.0.{first}/29" for first in range(0, 64, 8)]
    taken: set[str] = set()
    for pool in net.network.pools:
        while span := next_block(net.network, pool, "node-a", taken):
            taken.add(span)
    assert taken == {blocks[0], blocks[1], blocks[5]}
    assert [host_address(net.network, span) for span in sorted(taken)] == (
        ["10.0.0.3", "10.0.0.41", "10.0.0.8"] if not mode else ["10.0.0.1", "10.0.0.41", "10.0.0.9"]
    )
    joined(store, net.network, *taken)
    addresses = [text.split("/")[0] for text in until_refused(net, store)]
    expected = {4, 5, 7, 9, 10, 11, 12, 42, 43, 44} if not mode else {3, 4, 5, 10, 11, 12, 42, 43, 44}
    assert set(addresses) == {f"10.0.0.{number}" for number in expected}
    assert len(addresses) == len(expected) == sum(capacity(net.network, span) for span in taken)


def test_a_block_has_as_many_addresses_as_it_gives(store: Store):
    for mode in ("", "l3"):
        net = source(mode, reserved=["10.0.0.9", "10.0.0.30-10.0.0.35", "10.0.0.63"], **FOUR)
        for first in range(0, 64, 8):
            joined(store, net.network, f"10.0.0.{first}/29")
            assert len(until_refused(net, store)) == capacity(net.network, f"10.0.0.{first}/29"), (mode, first)
            with store.transaction():
                for record in store.records():
                    store.forget(record.attachment, record.plugin)
                store.drop_block(Block("pods", f"10.0.0.{first}/29", ME.node, ME.machine))
