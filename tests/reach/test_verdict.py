"""A packet walked over namespaces that are drawn by hand; netns-tests/command/test_reach.py holds the walk against the kernel."""

from __future__ import annotations

import errno

import pytest
from drawn import LO, Drawn, drawn, link, node, pod

from cni.kernel.netlink.neighbours import Row
from cni.kernel.view import Vxlan
from cni.reach import nft, saved
from cni.reach.packet import asked
from cni.reach.rules import Rules
from cni.reach.verdict import Verdict, verdict
from cni.values import replace

TCP = ("tcp", 80)


def walked(*places: Drawn, to: str = "10.1.0.3", what: tuple[str, int] = TCP) -> Verdict:
    """From the first of some places; where it is to arrive is who has the address."""
    target = next((it for it in places if any(to in held for held in it.addresses.values())), None)
    return verdict(drawn(*places), places[0], target, asked("", to, *what))


def test_two_pods_of_a_bridge():
    one, other = pod(2), pod(3, served={TCP})
    found = walked(one, other, node(2, 3))
    assert (found.state, found.listens) == ("reached", True)
    assert [(hop.where, hop.says) for hop in found.hops] == [
        ("pod2", "route by eth0, from 10.1.0.2"),
        ("node", "bridge br0: to veth3, MAC 0a:00:00:00:00:03"),
    ]
    assert [hop.where for hop in found.back] == ["pod3", "node"]


def test_where_nobody_listens_it_is_reached_too():
    assert walked(pod(2), pod(3), node(2, 3)).why.endswith("nobody listens at tcp 80")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("route", "no route to 10.1.0.3 (ENETUNREACH)"),
        ("down", "eth0 is down"),
        ("other end", "veth3 is down"),
        ("bridge", "nobody answers for 10.1.0.3 on eth0"),
        ("address", "nobody answers for 10.1.0.3 on eth0"),
        ("neighbour", "no port of br0 leads to 02:00:00:00:00:77"),
        ("isolated", "nobody answers for 10.1.0.3 on eth0"),
        ("back", "no route from 10.1.0.3 to 10.1.0.2"),
    ],
)
def test_where_it_is_lost(broken: str, why: str):
    one, other, host = pod(2), pod(3), node(2, 3)
    match broken:
        case "route":
            one.routes.clear()
        case "down":
            one.links[2] = replace(one.links[2], up=False)
        case "other end":
            one.known["10.1.0.3"] = Row(2, 0x80, other.links[2].mac, "10.1.0.3")
            host.links[13] = replace(host.links[13], up=False)
        case "bridge":
            host.links[3] = replace(host.links[3], up=False)
        case "address":
            other.addresses[2] = []
        case "neighbour":
            one.known["10.1.0.3"] = Row(2, 0x80, "02:00:00:00:00:77", "10.1.0.3")
        case "isolated":
            host.links |= {it: replace(host.links[it], isolated=True) for it in (12, 13)}
        case "back":
            other.routes.clear()
    found = verdict(drawn(one, other, host), one, other, asked("", "10.1.0.3", *TCP))
    assert found.state == "lost"
    assert why in found.why


def test_what_the_node_does_not_take_or_forward():
    one, host = pod(2), node(2)
    assert walked(one, host, to="192.0.2.11").state == "reached"
    host.refused["10.1.0.2"] = errno.EXDEV
    assert "10.1.0.2 is not taken from br0 (rp_filter 0)" in walked(one, host, to="192.0.2.99").why
    host.settings = {"net.ipv4.conf.br0.forwarding": "0"}
    found = walked(one, host, to="192.0.2.99")
    assert "it does not forward IPv4" in found.why
    assert found.mend == "sysctl -w net.ipv4.ip_forward=1"


MASQUERADE = """{"nftables": [
  {"chain": {"family": "ip", "table": "t", "name": "p", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}},
  {"rule": {"family": "ip", "table": "t", "chain": "p", "expr": [
    {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.1.0.2"}}, {"masquerade": null}]}}
]}"""


def test_outside_is_beyond_what_is_known():
    found = walked(pod(2), node(2, rules=Rules(nft.chains(MASQUERADE))), to="198.51.100.7")
    assert found.state == "unknown"
    assert "leaves by eth0" in found.why
    assert [hop.says.split(" (")[0] for hop in found.hops] == [
        "route by eth0 via 10.1.0.1, from 10.1.0.2",
        "forwards from br0 to eth0 via 192.0.2.1",
        "masquerade: from 192.0.2.11",
    ]


def test_a_tunnel_needs_its_row():
    one, host = pod(2), node(2)
    vxlan = Vxlan(100, 4789, "192.0.2.11", 0)
    host.links[20] = link(20, "vx0", kind="vxlan", bridge=3, vxlan=vxlan, mtu=1450)
    one.known["10.1.0.9"] = Row(2, 0x80, "0a:00:00:00:00:09", "10.1.0.9")
    assert "no row of vx0" in walked(one, host, to="10.1.0.9").why
    host.rows = [Row(20, 0x80, "0a:00:00:00:00:09", "192.0.2.12", 0x02)]
    found = walked(one, host, to="10.1.0.9")
    assert found.state == "unknown"
    assert found.hops[-1].says == "tunnel vx0 (VNI 100) to VTEP 192.0.2.12 by eth0, MTU 1450 in 1500"


def _drops(hook: str, what: str) -> Rules:
    chain = f'{{"chain": {{"family": "inet", "table": "f", "name": "c", "type": "filter", "hook": "{hook}", "prio": 0, "policy": "accept"}}}}'
    rule = f'{{"rule": {{"family": "inet", "table": "f", "chain": "c", "expr": [{what}, {{"drop": null}}]}}}}'
    return Rules(nft.chains(f'{{"nftables": [{chain}, {rule}]}}'))


def test_rules_of_the_answer_count_too():
    established = '{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}'
    found = walked(pod(2, rules=_drops("input", established)), pod(3), node(2, 3))
    assert found.state == "denied"
    assert "the answer does not: at pod2: drop at input from eth0 by chain c of table inet f" in found.why


def test_what_cannot_be_judged_is_a_doubt():
    found = walked(pod(2, rules=_drops("output", '{"xt": null}')), pod(3), node(2, 3))
    assert found.state == "unknown"
    assert found.doubts == ("xt drop (chain c of table inet f)",)


def test_all_endpoints_of_a_service_have_to_be_reached():
    lines = ["*nat", ":PREROUTING ACCEPT [0:0]", "-A PREROUTING -d 10.96.0.10/32 -j SVC"]
    lines += ["-A SVC -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.1.0.3:80"]
    lines += ["-A SVC -p tcp -j DNAT --to-destination 10.1.0.4:80", "COMMIT"]
    host = node(2, 3, 4, rules=Rules(saved.chains(lines, 4, "iptables-nft")))
    host.links[3] = replace(host.links[3], filtered=True)
    ends = pod(3, served={TCP}), pod(4, served={TCP})
    found = walked(pod(2), *ends, host, to="10.96.0.10")
    assert (found.state, found.hops[0].says) == ("reached", "it is one of 10.1.0.3:80 (reached), 10.1.0.4:80 (reached)")
    ends[1].addresses[2] = []
    found = walked(pod(2), *ends, host, to="10.96.0.10")
    assert (found.state, found.why) == ("lost", "of 2 choices one: at node: nobody answers for 10.1.0.4 on br0")


def test_an_answer_that_passes_by_where_its_connection_was_redirected():
    """From one pod of a bridge to the other by the node's address; the answer takes the bridge, which asks no rules of IP."""
    lines = [
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        "-A PREROUTING -d 10.96.0.10/32 -j DNAT --to-destination 10.1.0.3",
        "COMMIT",
    ]
    host = node(2, 3, rules=Rules(saved.chains(lines, 4, "iptables-nft")))
    found = walked(pod(2), pod(3), host, to="10.96.0.10")
    assert (found.state, found.why) == (
        "lost",
        "the answer comes from 10.1.0.3, past where the destination was changed",
    )


def test_a_node_and_a_macvlan_on_its_own_link():
    host = node()
    held = link(2, "eth0", kind="macvlan", parent=2, parent_elsewhere=True, macvlan_mode="bridge")
    other = Drawn("pod9", {1: LO, 2: held}, {2: ["192.0.2.99"]}, [("192.0.2.0/24", 2, "")])
    found = verdict(drawn(host, other), host, other, asked("", "192.0.2.99", *TCP))
    assert found.state == "unknown"
    assert "on which pod9 is a macvlan: a node does not reach those (hostAccess)" in found.why
