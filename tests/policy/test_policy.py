"""Policies: how they are read, what they let through, and the rules that follow."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.errors import Conflict, InvalidConfig, UnsupportedField
from cni.naming import Attachment
from cni.policy.config import read, section_of
from cni.policy.held import as_of_today
from cni.policy.model import Allowance, Policy, Port, hosts, merged, without
from cni.policy.pod import isolating
from cni.policy.rules import addresses_of, chain_rules
from cni.policy.selection import Selection
from cni.protocol.call import Call
from cni.protocol.config import validate
from cni.protocol.result import Interface, IPConfig, Result
from cni.resources import (
    Bridge,
    BridgeFilter,
    Gate,
    GateTable,
    Host,
    HostPort,
    PeerEntries,
    PodPolicy,
    PolicyTable,
    PortOpening,
    Resource,
    Uplink,
    VethPair,
)

MAC = "0a:58:0a:01:00:05"
ADDRESSES = ("10.1.0.5", "fd00:1::5")
CASES: dict[str, dict[str, Any]] = {
    "documents": {"ingress": ["10.0.0.0/8"], "egressDrop": True},
    "default-deny": {"defaultDeny": True},
    "one-way": {"ingress": ["10.0.0.0/8", "fd00::/8"], "egress": [], "allowEstablished": False},
    "backend": {
        "egress": [{"to": [{"ipBlock": {"cidr": "10.96.7.7/32"}}], "ports": [{"port": 4317}]}],
        "allowDNS": True,
    },
    "ports": {
        "ingress": [
            {
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.255.0.0/16"]}}],
                "ports": [
                    {"port": 80},
                    {"protocol": "UDP", "port": 5000, "endPort": 5010},
                    {"protocol": "SCTP"},
                    {"protocol": "ICMP"},
                ],
            },
            {"ports": [{"protocol": "TCP", "port": 9090}]},
        ],
        "log": True,
    },
    "open": {},
}
spans = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def members(ranges: Any) -> set[int]:
    return {number for low, high in ranges for number in range(low, high + 1)}


@given(st.lists(spans))
def test_merging_keeps_every_address_and_leaves_gaps_between(ranges: list[tuple[int, int]]):
    result = merged(ranges)
    assert members(result) == members(ranges)
    assert all(here[1] + 1 < there[0] for here, there in itertools.pairwise(result))


@given(spans, st.lists(spans))
def test_what_is_excepted_is_out_and_nothing_else(span: tuple[int, int], holes: list[tuple[int, int]]):
    assert members(without(span, holes)) == members([span]) - members(holes)


@pytest.mark.parametrize("name", CASES)
def test_the_rules_as_nft_takes_them(name: str, golden: Callable[..., None]):
    lines = chain_rules(read(CASES[name], "$.policy"), "TOKEN", (4, 6), ("10.96.0.10",), "shop/web-0")
    golden(f"policy-{name}.txt", "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("name", CASES)
def test_the_gates_as_nft_takes_them(name: str, golden: Callable[..., None]):
    policy = read(CASES[name], "$.policy")
    made = isolating(policy, POD, DUAL, Host(), HostPort("veth0", "br0"))
    gates = [item for item in made.then if isinstance(item, Gate)]
    golden(f"gates-{name}.txt", "".join(f"{gate.hook}: {line}\n" for gate in gates for line in gate.lines))


@pytest.mark.parametrize(
    ("section", "hooks"),
    [
        ({}, ["ingress"]),
        ({"antiSpoof": False}, []),
        ({"egressDrop": True, "antiSpoof": False}, ["ingress"]),
        ({"ingress": [], "antiSpoof": False}, ["egress"]),
        ({"defaultDeny": True}, ["ingress", "egress"]),
        ({"ingress": [{}], "egress": [{}], "antiSpoof": False}, []),
    ],
    ids=str,
)
def test_a_gate_stands_where_something_is_closed_or_forged(section: dict[str, Any], hooks: list[str]):
    then = isolating(read(section, "$.policy"), POD, DUAL, Host(), HostPort("veth0")).then
    assert [item.hook for item in then if isinstance(item, Gate)] == hooks
    assert kinds(*then)[-1] is PortOpening


def test_no_mac_is_asked_for_where_spoofing_is_allowed():
    gates = isolating(Policy(egress=(), anti_spoof=False), POD, DUAL, Host(), HostPort("v")).then
    assert not any(MAC in line for item in gates if isinstance(item, Gate) for line in item.lines)


@pytest.mark.parametrize(
    ("name", "direction", "peer", "protocol", "port", "allowed"),
    [
        ("documents", "ingress", "10.200.0.1", "tcp", 80, True),
        ("documents", "ingress", "192.0.2.1", "tcp", 80, False),
        ("documents", "ingress", "fd00::1", "tcp", 80, False),
        ("documents", "egress", "10.0.0.1", "tcp", 80, False),
        ("default-deny", "ingress", "10.0.0.1", "icmp", 0, False),
        ("open", "egress", "192.0.2.1", "udp", 53, True),
        ("ports", "ingress", "10.2.0.1", "tcp", 80, True),
        ("ports", "ingress", "10.1.0.1", "tcp", 80, False),
        ("ports", "ingress", "10.2.0.1", "udp", 5010, True),
        ("ports", "ingress", "10.2.0.1", "udp", 5011, False),
        ("ports", "ingress", "10.2.0.1", "sctp", 7, True),
        ("ports", "ingress", "10.2.0.1", "icmp", 0, True),
        ("ports", "ingress", "192.0.2.1", "tcp", 9090, True),
        ("backend", "egress", "10.96.7.7", "tcp", 4317, True),
        ("backend", "egress", "10.96.7.7", "udp", 4317, False),
    ],
)
def test_who_may_talk_to_whom(name: str, direction: str, peer: str, protocol: str, port: int, allowed: bool):
    assert read(CASES[name], "$.policy").allows(direction, peer, protocol, port) is allowed


@pytest.mark.parametrize(
    ("section", "ingress", "egress"),
    [
        ({}, None, None),
        ({"egressDrop": True}, None, ()),
        ({"defaultDeny": True}, (), ()),
        ({"ingress": []}, (), None),
        ({"ingress": [{}]}, (Allowance(),), None),
        ({"ingress": [{"from": []}], "defaultDeny": True}, (Allowance(),), ()),
    ],
)
def test_absent_is_open_and_empty_is_shut(section: dict[str, Any], ingress: Any, egress: Any):
    policy = read(section, "$.policy")
    assert (policy.ingress, policy.egress) == (ingress, egress)


def test_without_a_section_there_is_no_policy():
    assert section_of({}, Call("ADD")) is None


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"egress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            "$.policy.egress[0].from: a rule of this direction has 'to'",
        ),
        ({"egress": [{"ports": [{"endPort": 80}]}]}, "$.policy.egress[0].ports[0].endPort"),
        (
            {"ingress": ["10.0.0.0/8", {"ports": [{"port": 2, "endPort": 1}]}]},
            "$.policy.ingress[1].ports[0].endPort: 1 is less",
        ),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/8"]}}]}]},
            "except fd00::/8 is not within",
        ),
    ],
    ids=str,
)
def test_an_impossible_entry_is_named(section: dict[str, Any], words: str):
    with pytest.raises(InvalidConfig) as caught:
        read(section, "$.policy")
    assert words in caught.value.msg


@pytest.mark.parametrize("plugin", ["bridge-vxlan", "macvlan", "custom-plugin"])
def test_every_plugin_takes_the_section_and_names_what_it_does_not_know(plugin: str):
    conf = {"cniVersion": "1.1.0", "name": "n", "type": plugin}
    for section in CASES.values():
        validate(conf | {"policy": section}, plugin)
    with pytest.raises(UnsupportedField, match=r"\$\.policy\.ingres: unknown key.*'ingress'"):
        validate(conf | {"policy": {"ingres": []}}, plugin)


# --- as resources


def attached(*addresses: str) -> Result:
    own = Interface("eth0", MAC, 1500, "/run/netns/p")
    return Result((Interface("veth0"), own), tuple(IPConfig(text, interface=1) for text in addresses))


POD = Attachment("net", "c1", "eth0")
DUAL = attached("10.1.0.5/24", "fd00:1::5/64")


def kinds(*resources: object) -> list[type]:
    return [type(item) for item in resources]


def test_the_rules_come_before_the_link_and_its_guard_after_it():
    made = isolating(Policy(ingress=()), POD, DUAL, Host(), HostPort("veth0", "br0"))
    assert kinds(*made.first) == [PolicyTable, PodPolicy, PeerEntries]
    assert kinds(*made.then) == [GateTable, Gate, Gate, BridgeFilter, PortOpening]


def test_a_routed_link_has_no_bridge_and_a_guard_can_be_declined():
    assert kinds(*isolating(Policy(anti_spoof=False), POD, DUAL, Host(), HostPort("veth0")).then) == [PortOpening]


@pytest.mark.parametrize("port", [HostPort("veth0", "br0"), HostPort("veth0"), None], ids=str)
def test_of_an_attachment_nobody_remembers_everything_has_a_name(port: HostPort | None):
    made = isolating(Policy(ingress=()), POD, Result(), Host("/run/netns/p", lost=True), port)
    there = isolating(Policy(ingress=()), POD, DUAL, Host("/run/netns/p"), port)
    places = {item.place for item in (*made.first, *made.then)}
    assert {item.place for item in (*there.first, *there.then) if isinstance(item, PodPolicy | Gate)} <= places


def test_each_plugin_of_a_chain_has_chains_of_its_own():
    tokens = set()
    for host, port in (
        (Host(), HostPort("v", "br0")),
        (Host(), HostPort("v")),
        (Host(chained=True), HostPort("v", "br0")),
    ):
        policy = isolating(Policy(ingress=()), POD, DUAL, host, port).first[1]
        assert isinstance(policy, PodPolicy)
        tokens.add(policy.token)
    assert len(tokens) == 3


def test_a_policy_of_today_changes_rules_and_nothing_else():
    host, port = Host(), HostPort("veth0", "br0")
    veth = VethPair("veth0", "", "eth0", MAC, 1500, "br0", False, False)
    before = isolating(Policy(ingress=()), POD, DUAL, host, port)
    there = (*before.first, veth, *before.then)
    opened = as_of_today(there, Policy(egress=()), POD, DUAL, host)
    assert [item.hook for item in opened if isinstance(item, Gate)] == ["ingress"]
    assert len([item for item in opened if isinstance(item, PodPolicy)]) == 1
    back = as_of_today(opened, Policy(ingress=()), POD, DUAL, host)
    assert back == there, "the gate is back before the port opens, and what is in force first before the link"
    assert as_of_today(there, Policy(ingress=()), POD, DUAL, host) == there


def test_rules_of_today_stand_as_in_a_plan():
    """So a pod that is attached, refreshed and refreshed again has what it would have by an ADD."""
    host, port = Host(), HostPort("veth0", "br0")
    veth = VethPair("veth0", "", "eth0", MAC, 1500, "br0", False, False)

    def policy(*namespaces: str) -> Policy:
        chosen = tuple(Selection("folder /f", namespace) for namespace in namespaces)
        return Policy(ingress=(Allowance(peers=(), selections=chosen),), egress=() if namespaces else None)

    def planned(*namespaces: str) -> tuple[Resource, ...]:
        made = isolating(policy(*namespaces), POD, DUAL, host, port)
        return (Bridge("br0", MAC, 1500, False), *made.first, veth, *made.then)

    there = planned("shop", "ops")
    for namespaces in (("ops", "web"), (), ("shop", "ops")):
        there = as_of_today(there, policy(*namespaces), POD, DUAL, host)
        assert there == planned(*namespaces)


def test_without_a_host_side_everything_is_in_the_pod():
    host = Host("/run/netns/p", Uplink("eth1", 1500, addresses=("192.0.2.11/24",)))
    made = isolating(Policy(ingress=()), POD, DUAL, host, None)
    assert (made.first, kinds(*made.then)) == ((), [PolicyTable, PodPolicy, PeerEntries])
    policy = made.then[1]
    assert isinstance(policy, PodPolicy)
    assert (policy.netns, policy.link) == ("/run/netns/p", "eth0")
    assert f"in-{policy.token} ip saddr {{ 192.0.2.11 }} return" in policy.rules
    assert policy.through == "eth0"


def test_an_ipv6_pod_is_known_by_its_link_local_address_too():
    assert addresses_of(DUAL, MAC) == ("10.1.0.5", "fd00:1::5", "fe80::858:aff:fe01:5")
    assert addresses_of(attached("10.1.0.5/24"), MAC) == ("10.1.0.5",)


@pytest.mark.parametrize(
    "mac", ["", "00:00:10:49:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01", "01:00:5e:00:00:01"]
)
def test_a_pod_whose_mac_no_result_says_has_no_link_local_address_of_it(mac: str):
    """A plugin before ours may leave it out."""
    assert addresses_of(DUAL, mac) == ("10.1.0.5", "fd00:1::5")


def test_an_address_with_a_policy_of_another_pod_is_refused_by_name():
    theirs = PodPolicy(("10.1.0.5",), (), closed=False, pod="")
    others = ((Attachment("other", "c9", "eth0"), theirs),)
    with pytest.raises(Conflict, match=r"^other/c9/eth0 has a policy for"):
        isolating(Policy(), POD, DUAL, Host(others=lambda *_: others), HostPort("veth0"))


def test_the_chains_of_a_pod_lead_nowhere_else():
    policy = isolating(
        Policy(ingress=(Allowance(hosts(["10.9.9.9"]), (Port("tcp", 80, 80),)),)), POD, DUAL, Host(), HostPort("v")
    ).first[1]
    assert isinstance(policy, PodPolicy)
    chains = {line.split()[0] for line in policy.rules}
    assert chains == {f"{way}-{POD.token(1)}" for way in ("in", "out")}
    assert all(ipaddress.ip_address(address) for address in policy.addresses)


@pytest.mark.parametrize("letter", ["a", "ü", "漢"])
def test_a_rule_says_no_more_than_the_kernel_takes_whatever_a_pod_is_called(letter: str):
    policy = Policy(ingress=(Allowance(document=letter * 300),), log=True, closers={"ingress": letter * 300})
    lines = chain_rules(policy, "t", (4, 6), (), f"shop/{letter * 300}")
    texts = [text for line in lines for text in line.split('"')[1::2]]
    assert len(texts) >= 3
    assert all(len(text.encode()) <= 127 for text in texts), "log prefix and comment (nft(8))"
