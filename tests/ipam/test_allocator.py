"""The allocator with a real state file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cni.errors import AddressTaken, RangeExhausted
from cni.ipam.allocator import Allocator
from cni.ipam.config import IpamConfig
from cni.naming import Attachment
from cni.protocol.call import Call
from cni.protocol.result import DNS, IPConfig, Result, Route
from cni.state import Store

SMALL = {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.1", "rangeEnd": "10.0.0.4"}
Allocate = Callable[..., list[str]]


def config_of(ipam: dict[str, Any], *asked: str) -> IpamConfig:
    conf = {"cniVersion": "1.0.0", "ipam": ipam, "runtimeConfig": {"ips": list(asked)}}
    return IpamConfig.read(conf, Call("ADD"))


@pytest.fixture
def allocate(store: Store) -> Allocate:
    """Allocate for a container of network pods; returns the addresses without prefix."""

    def attach(
        container: str, ipam: dict[str, Any], *asked: str, pod: str = "", network: str = "pods", ifname: str = "eth0"
    ) -> list[str]:
        who = Attachment(network, container, ifname)
        with store.transaction():
            given = Allocator(config_of(ipam, *asked), store, who, "test", pod).allocate()
        return [ip.address.split("/")[0] for ip in given.ips]

    return attach


@pytest.fixture
def release(store: Store) -> Callable[[str], None]:
    def detach(container: str, ifname: str = "eth0") -> None:
        with store.transaction():
            store.forget(Attachment("pods", container, ifname), "test")

    return detach


def test_addresses_are_given_in_order_and_never_the_gateway(allocate: Allocate):
    assert [allocate(name, SMALL) for name in "abc"] == [["10.0.0.2"], ["10.0.0.3"], ["10.0.0.4"]]


def test_a_released_address_rests_until_the_others_were_given(allocate: Allocate, release: Callable[[str], None]):
    assert allocate("a", SMALL) == ["10.0.0.2"]
    release("a")
    assert allocate("b", SMALL) == ["10.0.0.3"]
    assert allocate("c", SMALL) == ["10.0.0.4"]
    assert allocate("d", SMALL) == ["10.0.0.2"]


def test_the_address_given_last_is_given_again_when_no_other_is_free(
    allocate: Allocate, release: Callable[[str], None]
):
    for name in "abc":
        allocate(name, SMALL)
    release("c")
    assert allocate("d", SMALL) == ["10.0.0.4"]


def test_the_gateway_is_not_given_wherever_it_is(allocate: Allocate):
    ipam = {**SMALL, "gateway": "10.0.0.3"}
    assert [allocate(name, ipam) for name in "abc"] == [["10.0.0.1"], ["10.0.0.2"], ["10.0.0.4"]]


def test_reserved_addresses_are_not_given(allocate: Allocate):
    ipam = {"subnet": "10.0.0.0/24", "reserved": ["10.0.0.0/29", "10.0.0.9", "10.0.0.11-10.0.0.20", "fd00::/64"]}
    assert [allocate(name, ipam) for name in "abc"] == [["10.0.0.8"], ["10.0.0.10"], ["10.0.0.21"]]


def test_a_result_names_prefix_gateway_routes_and_dns(store: Store, tmp_path: Path):
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.53\n")
    ipam = {**SMALL, "routes": [{"dst": "0.0.0.0/0"}], "resolvConf": str(tmp_path / "resolv.conf")}
    with store.transaction():
        given = Allocator(config_of(ipam), store, Attachment("pods", "a", "eth0"), "test").allocate()
    assert given == Result(
        ips=(IPConfig("10.0.0.2/24", "10.0.0.1"),), routes=(Route("0.0.0.0/0"),), dns=DNS(("10.0.0.53",))
    )


def test_every_range_set_gives_one_address(allocate: Allocate):
    ipam = {"ranges": [[SMALL], [{"subnet": "fd00::/64"}], [{"subnet": "10.9.0.0/24"}]]}
    assert allocate("a", ipam) == ["10.0.0.2", "fd00::2", "10.9.0.2"]
    assert allocate("b", ipam) == ["10.0.0.3", "fd00::3", "10.9.0.3"]


def test_families_with_equal_numbers_do_not_meet(allocate: Allocate):
    ipam = {"ranges": [[SMALL], [{"subnet": "::a00:0/120", "gateway": "::a00:1"}]], "reserved": ["::a00:2"]}
    assert allocate("a", ipam) == ["10.0.0.2", "::a00:3"]
    assert allocate("b", ipam) == ["10.0.0.3", "::a00:4"]


def test_the_next_range_of_a_set_follows_a_full_one(allocate: Allocate):
    ipam = {"ranges": [[SMALL, {"subnet": "10.9.0.0/24"}]]}
    assert [allocate(name, ipam)[0] for name in "abcd"] == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.9.0.2"]


def test_networks_do_not_see_each_others_leases(allocate: Allocate):
    assert allocate("a", SMALL) == allocate("a", SMALL, network="other") == ["10.0.0.2"]


def test_a_requested_address_is_given_and_leaves_the_turn_alone(allocate: Allocate):
    assert allocate("a", SMALL, "10.0.0.4") == ["10.0.0.4"]
    assert [allocate(name, SMALL)[0] for name in "bc"] == ["10.0.0.2", "10.0.0.3"]


def test_requests_find_their_range_set_in_any_order(allocate: Allocate):
    ipam = {"ranges": [[SMALL], [{"subnet": "fd00::/64"}]]}
    assert allocate("a", ipam, "fd00::9", "10.0.0.3") == ["10.0.0.3", "fd00::9"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["10.0.0.2"], "^10.0.0.2 is leased to eth0 of container a$"),
        (["10.0.0.1"], "^10.0.0.1 is reserved or a gateway in network 'pods'$"),
        (["10.0.0.3"], "^10.0.0.3 is reserved or a gateway in network 'pods'$"),
        (["10.0.0.9"], "^requested 10.0.0.9: in no range of 'pods'$"),
        (["fd00::1"], "^requested fd00::1: in no range"),
        (["10.0.0.4", "10.0.0.9"], "^requested 10.0.0.9: in no range"),
    ],
    ids=["leased", "the gateway", "reserved", "outside", "another family", "one of two outside"],
)
def test_a_request_that_cannot_be_met_is_refused(allocate: Allocate, store: Store, asked: list[str], said: str):
    ipam = {**SMALL, "reserved": ["10.0.0.3"]}
    allocate("a", ipam)
    with pytest.raises(AddressTaken, match=said):
        allocate("b", ipam, *asked)
    assert [str(address) for address, *_ in store.all_leases()] == ["10.0.0.2"]


def test_exhaustion_names_network_and_range_and_leaves_nothing(allocate: Allocate, store: Store):
    ipam = {"ranges": [[{"subnet": "fd00::/64"}], [SMALL]]}
    for name in "abc":
        allocate(name, ipam)
    with pytest.raises(RangeExhausted, match=r"^network 'pods': no free address in 10\.0\.0\.1-10\.0\.0\.4$"):
        allocate("d", ipam)
    assert len(store.all_leases()) == 6


def test_exhaustion_is_foreseen_without_writing(allocate: Allocate, store: Store):
    watching = Allocator(config_of(SMALL), store, Attachment("pods", "", ""))
    for name in "abc":
        watching.refuse_exhausted()
        allocate(name, SMALL)
    with pytest.raises(RangeExhausted, match=r"10\.0\.0\.1-10\.0\.0\.4"):
        watching.refuse_exhausted()


STICKY = {**SMALL, "sticky": True}


def test_a_pod_that_comes_back_gets_its_address(allocate: Allocate, release: Callable[[str], None]):
    assert allocate("a", STICKY, pod="default/web-0") == ["10.0.0.2"]
    release("a")
    assert allocate("b", STICKY, pod="default/web-1") == ["10.0.0.3"]
    assert allocate("c", STICKY, pod="default/web-0") == ["10.0.0.2"]


@pytest.mark.parametrize("order", [("eth0", "net1"), ("net1", "eth0")])
def test_each_interface_of_a_pod_gets_its_own_address(
    allocate: Allocate, release: Callable[..., None], order: tuple[str, str]
):
    for name in ("eth0", "net1"):
        allocate("a", STICKY, pod="default/web-0", ifname=name)
    for name in ("eth0", "net1"):
        release("a", name)
    given = {name: allocate("b", STICKY, pod="default/web-0", ifname=name) for name in order}
    assert given == {"eth0": ["10.0.0.2"], "net1": ["10.0.0.3"]}


def test_a_kept_address_is_given_to_others_only_when_nothing_else_is_free(
    allocate: Allocate, release: Callable[[str], None]
):
    allocate("a", STICKY, pod="default/web-0")
    release("a")
    assert [allocate(name, STICKY)[0] for name in "bcd"] == ["10.0.0.3", "10.0.0.4", "10.0.0.2"]


def test_a_pod_whose_address_is_held_by_another_gets_the_next(allocate: Allocate, release: Callable[[str], None]):
    allocate("a", STICKY, pod="default/web-0")
    release("a")
    allocate("b", STICKY, "10.0.0.2")
    assert allocate("c", STICKY, pod="default/web-0") == ["10.0.0.3"]
    release("c")
    assert allocate("d", STICKY, pod="default/web-0") == ["10.0.0.3"]


def test_without_sticky_nothing_is_kept(allocate: Allocate, release: Callable[[str], None]):
    allocate("a", SMALL, pod="default/web-0")
    release("a")
    assert allocate("b", SMALL, pod="default/web-0") == ["10.0.0.3"]


class Allocations(RuleBasedStateMachine):
    """Pods come, come back, ask and go; nobody ever holds what another holds."""

    IPAM: ClassVar = {"subnet": "10.0.0.0/28", "gateway": "10.0.0.5", "reserved": ["10.0.0.8/30"], "sticky": True}
    FREE: ClassVar = {f"10.0.0.{number}" for number in (1, 2, 3, 4, 6, 7, 12, 13, 14)}

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.store = Store.open(self.folder)
        self.held: dict[str, str] = {}
        self.last_of: dict[str, str] = {}
        self.number = 0

    def attach(self, pod: str, *asked: str) -> str:
        self.number += 1
        who = Attachment("pods", f"c{self.number}", "eth0")
        with self.store.transaction():
            given = Allocator(config_of(self.IPAM, *asked), self.store, who, "test", pod).allocate()
        address = given.ips[0].address.removesuffix("/28")
        assert address in self.FREE - set(self.held.values())
        self.held[who.container] = address
        return address

    @precondition(lambda self: len(self.held) < len(self.FREE))
    @rule(pod=st.sampled_from(["", "a/1", "a/2", "a/3"]))
    def come(self, pod: str) -> None:
        before = self.last_of.get(pod)
        expected = before if before and before not in self.held.values() else None
        address = self.attach(pod)
        assert expected in (None, address)
        self.last_of = {name: kept for name, kept in self.last_of.items() if kept != address}
        if pod:
            self.last_of[pod] = address

    @precondition(lambda self: len(self.held) == len(self.FREE))
    @rule()
    def come_too_late(self) -> None:
        with pytest.raises(RangeExhausted):
            self.attach("")

    @rule(number=st.integers(0, 15))
    def ask(self, number: int) -> None:
        address = f"10.0.0.{number}"
        if address in self.FREE - set(self.held.values()):
            assert self.attach("", address) == address
        else:
            with pytest.raises(AddressTaken):
                self.attach("", address)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        container = data.draw(st.sampled_from(sorted(self.held)))
        with self.store.transaction():
            self.store.forget(Attachment("pods", container, "eth0"), "test")
        del self.held[container]

    @invariant()
    def leases_are_who_holds_what(self) -> None:
        leases = {who.container: str(address) for address, who, _ in self.store.all_leases()} if self.number else {}
        assert leases == self.held
        assert len(list(self.store.leased("pods", ip_address("10.0.0.0"), ip_address("10.0.0.15")))) == len(self.held)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


TestAllocations = Allocations.TestCase
TestAllocations.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
