"""Sets of peers: what they are filled with, what goes out of them, and what nobody may make of a pod's address."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from nf_tables import NfTables

from cni.errors import KernelRefused
from cni.kernel.locks import LockFile
from cni.kernel.ruleset import Change, spelled
from cni.naming import digest_of, peer_set
from cni.resources import PeerEntries, PeerSet, PodPolicy, PolicyTable, World
from cni.resources.nft import Transaction
from cni.resources.policy_table import TABLE
from cni.resources.world import PEERS

FRIENDS = json.dumps({"feed": "folder /p", "namespace": "shop", "pods": [["app", "In", ["friend"]]]})
OTHERS = json.dumps({"feed": "folder /p", "namespace": "shop", "pods": []})
PORTS = json.dumps({"feed": "folder /p", "namespace": "shop", "pods": [], "port": ["tcp", "http"]})
NAME = peer_set(FRIENDS, 4, ports=False)
OTHER = peer_set(OTHERS, 4, ports=False)
NUMBERED = peer_set(PORTS, 4, ports=True)
HTTP = bytes([6, 0, 0, 0, 0, 80, 0, 0])


def packed(*addresses: str) -> frozenset[bytes]:
    return frozenset(ip_address(text).packed for text in addresses)


class Known:
    """Peers as a test says; `asked` are the turns in which somebody looked."""

    def __init__(self) -> None:
        self.elements: dict[str, frozenset[bytes]] = {}
        self.unknown = False
        self.withdrawn: list[str] = []
        self.asked = 0

    def __call__(self) -> Known:
        self.asked += 1
        return self

    def members(self, selection: str, family: int) -> frozenset[bytes] | None:
        name = peer_set(selection, family, ports="port" in json.loads(selection))
        return None if self.unknown else self.elements.get(name, frozenset())

    def entries(self, addresses: Iterable[str]) -> Mapping[str, frozenset[bytes]]:
        own = packed(*addresses)
        return {name: frozenset(key for key in keys if key[:4] in own) for name, keys in self.elements.items()}

    def withdraw(self, addresses: Iterable[str]) -> None:
        self.withdrawn += addresses
        gone = packed(*addresses)
        self.elements = {
            name: frozenset(key for key in keys if key[:4] not in gone) for name, keys in self.elements.items()
        }


@pytest.fixture
def peers() -> Known:
    return Known()


@pytest.fixture
def world(tmp_path: Any, peers: Known) -> World:
    made = World(SimpleNamespace(entered=nullcontext, path="/run/netns/p"), LockFile(tmp_path / "lock"))
    made.peers, made.withdraw, made.selecting = peers, peers.withdraw, lambda: bool(peers.elements)
    return made


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> NfTables:
    return NfTables(monkeypatch)


def there(kernel: NfTables, name: str) -> set[str]:
    return kernel.keys(f"{TABLE} {name}")


def test_a_set_is_made_and_filled_in_the_transaction_that_names_it(world: World, kernel: NfTables, peers: Known):
    peers.elements = {NAME: packed("10.1.0.5", "10.1.0.6")}
    rules = (f"in-TOKEN ip saddr @{NAME} return", "in-TOKEN drop")
    chains = PodPolicy(("10.1.0.9",), rules, False, "", token="TOKEN")
    items = [PolicyTable(), PeerSet(FRIENDS, 4), chains, PeerEntries(("10.1.0.9",), "shop/web")]
    Transaction("").ensure(items, world)
    assert len(kernel.made) == 1
    assert there(kernel, NAME) == {"10.1.0.5", "10.1.0.6"}
    assert peers.asked == 1, "all of it is of one look"


def test_a_set_that_is_there_changes_by_what_is_other(world: World, kernel: NfTables, peers: Known):
    one = PeerSet(FRIENDS, 4)
    peers.elements = {NAME: packed("10.1.0.5", "10.1.0.6")}
    one.ensure(world)
    peers.elements = {NAME: packed("10.1.0.6", "10.1.0.7")}
    one.ensure(world)
    assert there(kernel, NAME) == {"10.1.0.6", "10.1.0.7"}
    assert kernel.made[-1].splitlines()[-2:] == [
        f"add element {TABLE} {NAME} {{ 10.1.0.7 }}",
        f"delete element {TABLE} {NAME} {{ 10.1.0.5 }}",
    ]


def test_a_set_nobody_knows_the_members_of_stays_as_it_is(world: World, kernel: NfTables, peers: Known):
    one = PeerSet(FRIENDS, 4)
    peers.elements = {NAME: packed("10.1.0.5")}
    one.ensure(world)
    peers.unknown = True
    one.ensure(world)
    assert there(kernel, NAME) == {"10.1.0.5"}
    world.current = True
    assert list(one.differences(world)) == []


def test_what_is_in_the_way_goes_in_the_transaction_that_fills_the_sets(world: World, kernel: NfTables, peers: Known):
    peers.elements = {NAME: packed("10.1.0.5")}
    kernel.refused = errno.EEXIST
    Transaction("").ensure([PolicyTable(), PeerSet(FRIENDS, 4)], world)
    assert kernel.made == []
    assert there(kernel, NAME) == {"10.1.0.5"}


def test_nothing_is_filled_where_the_kernel_refuses(world: World, kernel: NfTables, peers: Known):
    peers.elements = {NAME: packed("10.1.0.5")}
    kernel.refused = errno.ENOMEM
    with pytest.raises(KernelRefused):
        Transaction("").ensure([PolicyTable(), PeerSet(FRIENDS, 4)], world)
    assert not kernel.has.containers


def test_what_differs_is_named_element_by_element(world: World, kernel: NfTables, peers: Known):
    one = PeerSet(FRIENDS, 4)
    assert list(one.differences(world)) == [f"policy set {NAME} is missing"]
    peers.elements = {NAME: packed("10.1.0.5")}
    one.ensure(world)
    assert list(one.differences(world)) == []
    peers.elements = {NAME: packed("10.1.0.6")}
    assert list(one.differences(world)) == [], "a feed may say something else by now, and nobody has refreshed"
    world.current = True
    assert list(one.differences(world)) == [f"policy set {NAME} lacks 10.1.0.6", f"policy set {NAME} has 10.1.0.5"]


def test_a_set_goes_when_no_rule_asks_it(world: World, kernel: NfTables, peers: Known):
    one = PeerSet(FRIENDS, 4)
    chains = PodPolicy((), (f"in-TOKEN ip saddr @{NAME} return",), False, "", token="TOKEN")
    Transaction("").ensure([PolicyTable(), one, chains], world)
    one.remove(world)
    assert f"{TABLE} {NAME}" in kernel.has.containers
    chains.remove(world)
    one.remove(world)
    one.remove(world)
    assert f"{TABLE} {NAME}" not in kernel.has.containers


@pytest.fixture
def filled(world: World, kernel: NfTables, peers: Known) -> NfTables:
    """Three sets that somebody has."""
    peers.elements = {
        NAME: packed("10.1.0.5"),
        OTHER: packed("10.1.0.5", "10.1.0.6"),
        NUMBERED: frozenset([packed_of("10.1.0.5") + HTTP]),
    }
    Transaction("").ensure([PolicyTable(), *(PeerSet(text, 4) for text in (FRIENDS, OTHERS, PORTS))], world)
    return kernel


def packed_of(address: str) -> bytes:
    return ip_address(address).packed


def test_a_pods_address_comes_into_the_sets_that_mean_it(world: World, filled: NfTables, peers: Known):
    peers.elements[NAME] |= packed("10.1.0.9")
    peers.elements[NUMBERED] |= {packed_of("10.1.0.9") + HTTP}
    PeerEntries(("10.1.0.9", "fd00::9"), "shop/new").ensure(world)
    assert there(filled, NAME) == {"10.1.0.5", "10.1.0.9"}
    assert there(filled, OTHER) == {"10.1.0.5", "10.1.0.6"}
    assert there(filled, NUMBERED) == {"10.1.0.5 . tcp . 80", "10.1.0.9 . tcp . 80"}


def test_an_address_leaves_the_sets_that_meant_who_had_it_before(world: World, filled: NfTables, peers: Known):
    peers.elements = {name: frozenset() for name in peers.elements}
    PeerEntries(("10.1.0.5",), "").ensure(world)
    assert there(filled, NAME) == set()
    assert there(filled, OTHER) == {"10.1.0.6"}, "of others it says nothing"
    assert there(filled, NUMBERED) == set()


def test_a_pod_that_goes_is_withdrawn_before_it_leaves_the_sets(world: World, filled: NfTables, peers: Known):
    PeerEntries(("10.1.0.5",), "shop/web").remove(world)
    assert peers.withdrawn == ["10.1.0.5"]
    assert [there(filled, name) for name in (NAME, OTHER, NUMBERED)] == [set(), {"10.1.0.6"}, set()]
    PeerEntries(("10.1.0.5",), "shop/web").remove(world)


def test_a_set_that_its_first_user_has_not_made_yet_is_left_to_him(world: World, filled: NfTables, peers: Known):
    coming = peer_set(OTHERS.replace("shop", "ops"), 4, ports=False)
    peers.elements[coming] = packed("10.1.0.9")
    PeerEntries(("10.1.0.9",), "ops/new").ensure(world)
    assert f"{TABLE} {coming}" not in filled.has.containers


def test_where_nobody_selects_a_pod_comes_and_goes_without_a_turn(world: World, kernel: NfTables, peers: Known):
    """Two hundred that come at once would stand in one line for nothing."""
    with LockFile.exclusive(world._lock, digest_of(PEERS), PEERS):
        PeerEntries(("10.1.0.5",), "shop/web").ensure(other_call(world))
        PeerEntries(("10.1.0.5",), "shop/web").remove(other_call(world))
    assert peers.withdrawn == ["10.1.0.5"], "who selects from now on finds it no more"
    assert peers.asked == 0


def other_call(world: World) -> World:
    made = World(world.netns, LockFile(world._lock._path))
    made.peers, made.withdraw, made.selecting = world.peers, world.withdraw, world.selecting
    return made


def test_without_a_table_of_policies_nobody_is_asked(world: World, kernel: NfTables, peers: Known):
    peers.elements = {NAME: packed("10.1.0.5")}
    PeerEntries(("10.1.0.5",), "shop/web").ensure(world)
    assert (kernel.made, kernel.sent, kernel.gone) == ([], [], [])


def test_elements_are_spelled_as_nft_does():
    assert spelled(packed_of("fd00::5")) == "fd00::5"
    assert spelled(packed_of("fd00::5") + bytes([17, 0, 0, 0, 0, 53, 0, 0])) == "fd00::5 . udp . 53"
    change = Change(f"{TABLE} {NAME}", packed("10.1.0.6", "10.1.0.5"), frozenset())
    assert change.script() == f"add element {TABLE} {NAME} {{ 10.1.0.5, 10.1.0.6 }}\n"


def test_a_pod_that_has_other_addresses_by_now_is_another_place():
    """So that a chained ADD that comes again takes the first ones out of the sets."""
    assert PeerEntries(("10.1.0.5",), "shop/web").place != PeerEntries(("10.1.0.6",), "shop/web").place
    assert PeerEntries(("10.1.0.5",), "shop/web").place == PeerEntries(("10.1.0.5",), "shop/renamed").place
