"""Rules read and asked: of nf_tables' JSON, and of iptables-save."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.reach import nft, saved
from cni.reach.packet import Packet, asked
from cni.reach.rules import Dice, Meeting, Rules
from cni.values import replace

WEB = replace(asked("10.1.0.2", "10.1.0.3", "tcp", 80), source_port=40000)
PING = asked("fd00:1::2", "fd00:1::3", "icmp")


def ruling(rules: Rules, packet: Packet, hook: str = "forward", **said: Any) -> str:
    return rules.ruling(hook, Meeting(packet, **said)).verb


def _nft(*expressions: Any, policy: str = "accept", sets: tuple[Any, ...] = (), family: str = "inet") -> Rules:
    place = {"family": family, "table": "t"}
    base = {"chain": place | {"name": "c", "type": "filter", "hook": "forward", "prio": 0, "policy": policy}}
    other = {"chain": place | {"name": "other"}}
    told = {"rule": place | {"chain": "other", "expr": [{"drop": None}]}}
    rules = [{"rule": place | {"chain": "c", "expr": list(each)}} for each in expressions]
    return Rules(nft.chains(json.dumps({"nftables": [*sets, base, other, told, *rules]})))


def _field(protocol: str, field: str, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


DROP = {"drop": None}


@pytest.mark.parametrize(
    ("match", "meant"),
    [
        (_field("ip", "saddr", "10.1.0.2"), True),
        (_field("ip", "saddr", "10.1.0.2", "!="), False),
        (_field("ip", "daddr", {"prefix": {"addr": "10.1.0.0", "len": 24}}), True),
        (_field("ip", "daddr", {"range": ["10.1.0.4", "10.1.0.9"]}), False),
        (_field("ip", "daddr", {"set": ["192.0.2.1", {"prefix": {"addr": "10.0.0.0", "len": 8}}]}), True),
        (_field("ip6", "saddr", "::", "!="), False),
        (_field("tcp", "dport", {"set": [80, {"range": [443, 445]}]}), True),
        (_field("tcp", "sport", 80), False),
        (_field("udp", "dport", 80), False),
        (_field("th", "dport", 80), True),
        ({"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}, True),
        ({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "br*"}}, True),
        ({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "new"]}}, True),
        ({"match": {"op": "==", "left": {"ct": {"key": "direction"}}, "right": "reply"}}, False),
        ({"match": {"op": "==", "left": {"ct": {"key": "proto-dst", "dir": "original"}}, "right": 80}}, True),
        ({"match": {"op": "==", "left": {"ct": {"key": "proto-dst", "dir": "original"}}, "right": 81}}, False),
        ({"match": {"op": "==", "left": {"ct": {"key": "ip6 daddr", "dir": "original"}}, "right": "fd00::1"}}, False),
        (_field("tcp", "flags", "syn"), True),
    ],
)
def test_what_an_nft_match_means(match: dict[str, Any], meant: bool):
    assert ruling(_nft([match, DROP]), WEB, into="br0") == ("drop" if meant else "accept")


def test_icmp_of_the_other_family():
    echo = _field("icmpv6", "type", {"set": ["echo-request", "nd-neighbor-solicit"]})
    assert ruling(_nft([echo, DROP]), PING) == "drop"
    assert ruling(_nft([echo, DROP]), PING.answer()) == "accept"
    assert ruling(_nft([_field("icmp", "type", "echo-request"), DROP]), PING) == "accept"
    assert ruling(_nft([DROP], family="ip"), PING) == "accept"


def test_maps_jumps_and_returns():
    verdicts = {
        "map": {"family": "inet", "table": "t", "name": "m", "elem": [["10.1.0.3", {"jump": {"target": "other"}}]]}
    }
    look = {"vmap": {"key": {"payload": {"protocol": "ip", "field": "daddr"}}, "data": "@m"}}
    assert ruling(_nft([look], sets=(verdicts,)), WEB) == "drop"
    assert ruling(_nft([look], sets=(verdicts,)), WEB.answer()) == "accept"
    assert ruling(_nft([{"return": None}], [DROP]), WEB) == "accept"
    assert ruling(_nft(policy="drop"), WEB) == "drop"
    assert ruling(_nft([{"accept": None}], policy="drop"), WEB) == "accept"


def test_elements_of_several_parts():
    near = {"set": {"family": "inet", "table": "t", "name": "s", "elem": [
        {"concat": ["eth0", "10.1.0.2"]}, {"elem": {"val": {"concat": ["eth1", {"prefix": {"addr": "10.0.0.0", "len": 8}}]}}},
    ]}}  # fmt: skip
    parts = {"concat": [{"meta": {"key": "oifname"}}, {"payload": {"protocol": "ip", "field": "saddr"}}]}
    rules = _nft([{"match": {"op": "!=", "left": parts, "right": "@s"}}, DROP], sets=(near,))
    assert [ruling(rules, WEB, out=name) for name in ("eth0", "eth1", "eth2")] == ["accept", "accept", "drop"]


def test_nobody_says_what_cannot_be_known():
    doubt = _nft([{"match": {"op": "==", "left": {"meta": {"key": "cgroup"}}, "right": 7}}, DROP])
    found = doubt.ruling("forward", Meeting(WEB))
    assert (found.verb, len(found.doubts)) == ("accept", 1)
    sure = _nft([_field("ip", "saddr", "10.9.9.9"), {"xt": None}, DROP])
    assert sure.ruling("forward", Meeting(WEB)).doubts == ()


SAVED = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
-A FORWARD -i br0 -o eth0 -j ACCEPT
-A FORWARD -p tcp -m multiport --dports 22,80:81 -j DOCKER
-A FORWARD -m comment --comment "a comment -j DROP" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER ! -s 10.1.0.0/24 -j RETURN
-A DOCKER -m mark --mark 0x1/0x1 -j DROP
-A DOCKER -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 192.0.2.11:6443
-A PREROUTING -p tcp -m tcp --dport 15 -j REDIRECT --to-ports 15006
COMMIT
"""


@pytest.mark.parametrize(
    ("packet", "links", "verb"),
    [
        (WEB, {"into": "br0", "out": "eth0"}, "accept"),
        (WEB, {"into": "br0", "out": "br0"}, "accept"),
        (replace(WEB, source="10.2.0.2"), {}, "drop"),
        (replace(WEB, mark=3), {}, "drop"),
        (replace(WEB, port=82), {}, "drop"),
        (replace(WEB, port=82).answer(), {}, "accept"),
        (replace(WEB, protocol="udp"), {}, "drop"),
    ],
)
def test_what_iptables_rules_mean(packet: Packet, links: dict[str, str], verb: str):
    rules = Rules(saved.chains(SAVED.splitlines(), 4, "iptables-nft"))
    assert ruling(rules, packet, **links) == verb


def test_translations_of_iptables():
    rules = Rules(saved.chains(SAVED.splitlines(), 4, "iptables-nft"))
    found = rules.ruling("prerouting", Meeting(replace(WEB, target="10.96.0.1", port=443)))
    assert (found.verb, found.value) == ("dnat", "192.0.2.11 6443")
    found = rules.ruling("prerouting", Meeting(replace(WEB, port=15)))
    assert (found.verb, found.value.strip()) == ("redirect", "15006")
    assert ruling(rules, PING, "prerouting") == "accept"


#: As kube-proxy has a Service of three endpoints, in either of its modes.
SERVICE = """
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SVC-A ! -s 10.0.0.0/8 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-A -m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-A
-A KUBE-SVC-A -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-B
-A KUBE-SVC-A -j KUBE-SEP-C
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.1.0.3:8080
-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.0.4:8080
-A KUBE-SEP-C -p tcp -m tcp -j DNAT --to-destination 10.1.0.5:8080
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
"""
ENDPOINTS = ["10.1.0.3 8080", "10.1.0.4 8080", "10.1.0.5 8080"]


def test_each_endpoint_of_a_service_by_iptables():
    rules = Rules(saved.chains(SERVICE.splitlines(), 4, "iptables-nft"))
    dice = [Dice(pick) for pick in range(3)]
    to = replace(WEB, target="10.96.0.10")
    assert [rules.ruling("prerouting", Meeting(to, dice=each)).value for each in dice] == ENDPOINTS
    assert [each.sides for each in dice] == [2, 3, 3]
    foreign = replace(to, source="192.0.2.7")
    marked = rules.ruling("prerouting", Meeting(foreign)).packet
    assert marked.mark == 0x4000
    assert [ruling(rules, it, "postrouting") for it in (marked, to)] == ["masquerade", "accept"]


def test_each_endpoint_of_a_service_by_nftables():
    goes = [[number, {"goto": {"target": f"endpoint{number}"}}] for number in range(3)]
    place = {"family": "ip", "table": "kube-proxy"}
    items: list[Any] = [
        {"map": place | {"name": "services", "elem": [[{"concat": ["10.96.0.10", "tcp", 80]}, {"goto": {"target": "service"}}]]}},
        {"chain": place | {"name": "c", "type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"}},
        {"rule": place | {"chain": "c", "expr": [{"vmap": {"key": {"concat": [
            {"payload": {"protocol": "ip", "field": "daddr"}}, {"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}},
        ]}, "data": "@services"}}]}},
        {"chain": place | {"name": "service"}},
        {"rule": place | {"chain": "service", "expr": [{"vmap": {"key": {"numgen": {"mode": "random", "mod": 3, "offset": 0}}, "data": {"set": goes}}}]}},
    ]  # fmt: skip
    for number in range(3):
        mark = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, 0x4000]}}}
        to = {"dnat": {"addr": f"10.1.0.{3 + number}", "port": 8080}}
        items += [
            {"chain": place | {"name": f"endpoint{number}"}},
            {"rule": place | {"chain": f"endpoint{number}", "expr": [mark, to]}},
        ]
    rules = Rules(nft.chains(json.dumps({"nftables": items})))
    dice = [Dice(pick) for pick in range(3)]
    found = [rules.ruling("prerouting", Meeting(replace(WEB, target="10.96.0.10"), dice=each)) for each in dice]
    assert [each.value for each in found] == ENDPOINTS
    assert {each.sides for each in dice} == {3}
    assert found[0].packet.mark == 0x4000
    assert ruling(rules, WEB, "prerouting") == "accept"
