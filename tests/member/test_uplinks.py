"""What a host makes of its uplinks: what there is of each, who is asked, the routes, and who is told."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest
from rtnl import FakeRtnl

from cni.cluster.model import Node
from cni.errors import TryAgainLater, Unavailable
from cni.kernel.view import ANSWERS, ASKED, MAIN_TABLE, MEMBER, UPLINK, KernelRoute
from cni.member import identity
from cni.member.uplinks import routes
from cni.member.uplinks.choice import HOLD
from cni.member.uplinks.probes import WAIT, Probes, Target
from cni.member.uplinks.watch import Uplinks
from cni.member.uplinks.way import address, carriers, ways
from cni.values import replace

NAMES = ("eth0", "eth1")
ONE, OTHER = "192.0.2.11", "198.51.100.11"
TICK = 0.1


class Host(FakeRtnl):
    """One with two uplinks in different subnets, each with a gateway that answers."""

    def __init__(self, *, one_subnet: bool = False) -> None:
        super().__init__()
        for number, name in enumerate(NAMES):
            self.add(name)
            own = ONE if not number else "192.0.2.111" if one_subnet else OTHER
            self.held[name] = [ipaddress.ip_interface(f"{own}/24")]
            self.gateway(name, own.rpartition(".")[0] + ".1", 100 * number)
        self.silent: set[str] = set()
        self.told: list[str] = []

    def gateway(self, name: str, at: str, priority: int = 0) -> None:
        self.ways[name].append(KernelRoute("0.0.0.0/0", at, MAIN_TABLE, priority, 0, 0, 0))

    def set(self, name: str, **facts: object) -> None:
        self.all[name] = replace(self.all[name], **facts)

    def answer(self) -> None:
        """Have whoever was asked answer, unless he is silent, or the link carries nothing."""
        for name, at in [place for place, state in self.reach.items() if state == ASKED]:
            carries = name in self.all and self.all[name].up and self.all[name].state == "UP"
            if carries and not {name, at} & self.silent:
                self.reach[name, at] = ANSWERS

    def ours(self) -> dict[str, tuple[str, str, str]]:
        """The routes by which an uplink is preferred: the link, the gateway and the source of each."""
        every = [(name, item) for name, there in self.ways.items() for item in there if item.protocol == UPLINK]
        return {item.dst: (name, item.gateway, item.source) for name, item in every}


class Watched:
    """Its uplinks as a member watches them."""

    def __init__(self, host: Host, before: str = ONE, peers: list[Node] | None = None) -> None:
        self.host, self.now, self.said, self.switched = host, 1000.0, list[tuple[str, tuple[str, ...]]](), 0
        self.fails = False
        self.uplinks = Uplinks(NAMES, before, lambda: peers or [], self.move, self.switch)
        self.probes = Probes(host)  # type: ignore[arg-type]

    def move(self, place: str, every: tuple[str, ...]) -> None:
        if self.fails:
            raise TryAgainLater("the state is in use")
        self.said.append((place, every))

    def switch(self) -> None:
        self.switched += 1

    def watch(self, seconds: float, *, anew: bool = False) -> str:
        """Go on for a time; where others are to send then."""
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.host.answer()
            self.uplinks.step(self.host, self.probes, self.now, anew=anew)  # type: ignore[arg-type]
            anew = False
        return self.said[-1][0]


def test_a_gateway_that_falls_silent_is_left_within_a_second_and_what_is_told_is_told_once():
    host = Host()
    seen = Watched(host)
    assert seen.watch(60) == ONE
    assert (seen.said, seen.switched, host.ours()) == ([(ONE, (ONE, OTHER))], 0, {})
    host.silent = {"eth0"}
    assert seen.watch(1.3) == OTHER
    assert seen.watch(60) == OTHER
    assert (seen.said[1:], seen.switched) == ([(OTHER, (ONE, OTHER))], 1)
    via = ("eth1", "198.51.100.1", OTHER)
    assert host.ours() == dict.fromkeys(("0.0.0.0/1", "128.0.0.0/1", "192.0.2.0/25", "192.0.2.128/25"), via)
    assert [text for text in host.asked if text.startswith("announce")] == [f"announce eth1 {OTHER}"]
    host.silent = set()
    assert seen.watch(HOLD - 1) == OTHER
    assert seen.watch(5) == ONE
    assert (host.ours(), seen.switched) == ({}, 2)


@pytest.mark.parametrize("fault", [{"up": False}, {"state": "LOWERLAYERDOWN"}, {"state": "DORMANT"}], ids=str)
def test_a_link_that_carries_nothing_is_left_at_the_next_look(fault: dict[str, object]):
    host = Host()
    seen = Watched(host)
    seen.watch(2)
    host.set("eth0", **fault)
    assert seen.watch(TICK, anew=True) == OTHER


def test_a_link_that_is_gone_or_bare_is_left_and_taken_back_as_it_comes():
    host = Host()
    seen = Watched(host)
    seen.watch(2)
    before, held, there = host.all.pop("eth0"), host.held.pop("eth0"), host.ways.pop("eth0")
    assert seen.watch(TICK, anew=True) == OTHER
    host.add("eth0", mac=before.mac)
    host.ways["eth0"] = there
    seen.watch(2 * HOLD)
    assert seen.said[-1] == (OTHER, (OTHER,)), "without an address it is of no use"
    host.held["eth0"] = held
    assert seen.watch(2 * HOLD) == ONE
    host.held["eth0"] = [ipaddress.ip_interface("192.0.2.77/24")]
    assert seen.watch(2) == "192.0.2.77", "it was given another address"


def test_who_is_silent_on_all_uplinks_moves_nobody():
    host = Host()
    seen = Watched(host)
    seen.watch(5)
    host.silent = {*NAMES}
    assert seen.watch(120) == ONE
    assert seen.switched == 0
    asked = [text for text in host.asked if text.startswith("ask")]
    seen.watch(60)
    more = [text for text in host.asked if text.startswith("ask")][len(asked) :]
    assert len(more) <= 2 * 61, "who is silent is asked for no oftener than once a second"


def test_in_one_subnet_the_uplink_that_is_taken_has_it_and_the_gateway_of_the_other():
    host = Host(one_subnet=True)
    host.ways["eth1"].clear()
    seen = Watched(host)
    assert seen.watch(5) == ONE
    assert host.ours() == dict.fromkeys(("192.0.2.0/25", "192.0.2.128/25"), ("eth0", "", ONE))
    host.silent = {"eth0"}
    assert seen.watch(1.3) == "192.0.2.111"
    every = dict.fromkeys(("0.0.0.0/1", "128.0.0.0/1"), ("eth1", "192.0.2.1", "192.0.2.111"))
    assert host.ours() == every | dict.fromkeys(("192.0.2.0/25", "192.0.2.128/25"), ("eth1", "", "192.0.2.111"))


def peer(name: str, *at: str) -> Node:
    return Node(name, "m", at[0], "0a:00:00:00:00:09", uplinks=at)


def test_without_gateways_hosts_are_asked_and_met_where_most_are():
    host = Host()
    for name in NAMES:
        host.ways[name].clear()
    peers = [peer("b", "192.0.2.12", "198.51.100.12"), peer("c", "192.0.2.13", "198.51.100.13")]
    seen = Watched(host, peers=peers)
    assert seen.watch(10) == ONE
    host.silent = {"192.0.2.12", "198.51.100.12"}  # a host is gone
    assert seen.watch(30) == ONE
    host.silent = {"192.0.2.12"}  # it is back, and its first uplink is not
    assert seen.watch(5) == OTHER
    assert seen.switched == 1


def test_a_gateway_that_somebody_set_for_good_is_not_asked():
    host = Host()
    host.known["eth0"]["192.0.2.1"] = "0a:00:00:00:00:07"
    seen = Watched(host)
    seen.watch(30)
    assert not [text for text in host.asked if text.startswith("ask") and "192.0.2.1" in text.split()]
    assert seen.said[-1][0] == ONE


def test_a_state_that_is_in_use_is_told_later():
    host = Host()
    seen = Watched(host)
    seen.watch(2)
    host.set("eth0", up=False)
    seen.fails = True
    with pytest.raises(TryAgainLater):
        seen.watch(TICK, anew=True)
    seen.fails = False
    assert seen.watch(TICK) == OTHER
    assert seen.switched == 1


def test_a_member_that_begins_goes_on_with_the_uplink_there_was_and_with_no_route_of_another_link():
    host = Host()
    seen = Watched(host)
    seen.watch(2)
    host.silent = {"eth0"}
    seen.watch(3)
    host.add("eth2")
    stray = KernelRoute("10.0.0.0/9", "", MAIN_TABLE, UPLINK, 0, 0, 253, protocol=UPLINK)
    others = replace(stray, dst="10.128.0.0/9", protocol=MEMBER)
    host.ways["eth2"] = [stray, others]
    kept = host.ours().keys() - {stray.dst}
    again = Watched(host, before=OTHER)
    assert again.watch(3) == OTHER
    assert again.switched == 0
    assert host.ours().keys() == kept
    routes.clear(host)  # type: ignore[arg-type]
    assert (host.ours(), host.ways["eth2"]) == ({}, [others])


def test_a_port_of_a_bond_is_the_bond():
    host = Host()
    bond = host.add("bond0", "bond")
    host.held["bond0"], host.ways["bond0"] = host.held.pop("eth0"), host.ways.pop("eth0")
    for name in NAMES:
        host.set(name, bridge=bond.index)
    host.held["eth1"] = []
    assert [link.name for link in carriers(host, NAMES)] == ["bond0", "bond0"]  # type: ignore[arg-type]
    seen = Watched(host)
    assert seen.watch(2) == ONE
    host.set("eth0", state="DOWN")
    assert seen.watch(60) == ONE, "the bond decides"
    assert seen.switched == 0


def test_ports_of_a_bridge_are_themselves():
    host = Host()
    host.set("eth0", bridge=host.add("br0", "bridge").index)
    assert [link.name for link in carriers(host, NAMES)] == ["eth0", "eth1"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("held", "before", "places"),
    [
        (("192.0.2.1/24", "2001:db8::1/64"), "", ("192.0.2.1", "")),
        (("2001:db8::1/64", "fe80::1/64"), "", ("2001:db8::1", "")),
        (
            ("2001:db8::1/64",),
            "192.0.2.1",
            ("", ""),
        ),  # hosts know each other by IPv4: they are not to be sent to by another
        (("192.0.2.1/24", "192.0.2.2/24"), "192.0.2.2", ("192.0.2.2", "")),
        (("127.0.0.1/8",), "", ("", "")),
    ],
)
def test_where_others_send_is_of_one_family(held: tuple[str, ...], before: str, places: tuple[str, ...]):
    host = Host()
    host.held["eth1"] = []
    host.held["eth0"] = [ipaddress.ip_interface(text) for text in held]
    assert tuple(way.address for way in ways(host, NAMES, before)) == places  # type: ignore[arg-type]


def test_who_begins_is_where_others_sent_or_by_the_first_that_carries_anything():
    host = Host()

    def at(before: str) -> str:
        return address(ways(host, NAMES, before), before)  # type: ignore[arg-type]

    assert [at(""), at(OTHER), at("203.0.113.9")] == [ONE, OTHER, ONE]
    host.set("eth0", up=False)
    assert [at(""), at(ONE)] == [OTHER, ONE]
    host.set("eth1", up=False)
    assert at("") == ONE
    host.held.clear()
    assert at(ONE) == ""


def test_a_host_without_an_address_by_its_uplinks_says_so(monkeypatch: pytest.MonkeyPatch):
    host = Host()
    host.held.clear()
    monkeypatch.setattr(identity, "Rtnl", lambda: host)
    with pytest.raises(Unavailable, match="none of its uplinks, eth0, eth1, has an address"):
        identity._by_uplinks(NAMES, "")


def asked(host: Host) -> Iterator[str]:
    return (text.split()[0] for text in host.asked if text.startswith("ask"))


def test_three_questions_in_a_row_are_to_be_lost():
    host = Host()
    link = host.link_ref("eth0")
    assert link
    target, probes, now = Target(link, "192.0.2.1"), Probes(host), 0.0  # type: ignore[arg-type]

    def look(*, answers: bool, times: int = 1) -> bool | None:
        nonlocal now
        for _ in range(times):
            if answers:
                host.answer()
            probes.ask([target], now)
            now += WAIT
        return probes.answers(target)

    assert look(answers=True) is None
    assert look(answers=True) is True
    for _ in range(5):
        assert look(answers=False, times=3) is True
        assert look(answers=True) is True
    host.asked.clear()
    assert look(answers=False, times=5) is False
    assert list(asked(host)) == ["ask_again", "ask_all", "ask_all"], (
        "the last is for everybody: he may be at another MAC"
    )
    assert look(answers=True, times=6) is True
