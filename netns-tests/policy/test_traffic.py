"""Isolation with real traffic. Every probe that must be blocked has one beside it that gets through."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from forge import IPV4, sctp, send
from interception import address_of
from lab import Host, Lab, eventually, sh
from town import BRIDGED, FAMILIES, KINDS, RANGES, TABLE, Member, Town, cidrs, serving
from traffic import SHORTLY, TIMED_OUT, Actor
from wire import Wire


@pytest.fixture(params=KINDS)
def town(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Town]:
    host = lab.host()
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
    with ExitStack() as held:
        made = Town(host, lab, request.param, held)
        yield made
        assert host.run("sysctl", "-n", "net.bridge.bridge-nf-call-iptables").stdout == "0\n"


def peer(*blocks: str) -> list[dict[str, Any]]:
    return [{"ipBlock": {"cidr": block}} for block in blocks]


def reaches(one: Member, other: Member, family: int, port: int = 80) -> bool:
    return one.actor.reaches(other.address(family), port) == "it"


# --- ingress


def test_only_who_is_named_gets_in_and_replies_get_out(town: Town):
    friend, stranger = town.member(), town.member()
    web = town.member({"ingress": cidrs(friend), "egressDrop": True})
    for family in FAMILIES:
        assert reaches(friend, web, family)
        assert stranger.actor.connect(web.address(family), 80) == TIMED_OUT
        assert friend.actor.ask(web.address(family), 80)["who"] == "it"
        assert stranger.actor.ask(web.address(family), 80, seconds=SHORTLY) == TIMED_OUT
        assert friend.pod.pings(web.address(family))
        assert not stranger.pod.pings(web.address(family), 1)
        assert reaches(stranger, friend, family), "the stranger's own network works"
        assert web.actor.connect(friend.address(family), 80) == TIMED_OUT, "one way only"


def test_the_documents_configuration_works_as_written(lab: Lab, host: Host):
    conf = {"cniVersion": "0.4.0", "name": "isolated-net", "type": "custom-plugin"}
    conf |= {"policy": {"ingress": ["10.0.0.0/8"], "egressDrop": True}}
    inside = {"cniVersion": "1.1.0", "name": "ten", "type": "custom-plugin", "ipam": {"ranges": [RANGES[0]]}}
    outside = inside | {"name": "other", "ipam": {"subnet": "192.0.2.0/24"}}
    web, near, far = lab.pod(), lab.pod(), lab.pod()
    result = host.add(conf, web)
    assert result["ips"][0]["address"] == "100.96.0.2/32"
    host.add(inside, near)
    host.add(outside, far)
    with Actor(web) as server, Actor(near) as friend, Actor(far) as stranger:
        serving(server)
        serving(friend)
        target = address_of(result, 4)
        assert friend.reaches(target, 80) == "it"
        assert stranger.connect(target, 80) == TIMED_OUT
        assert stranger.reaches("10.1.0.2", 80) == "it"
        assert server.connect("10.1.0.2", 80) == TIMED_OUT


def test_ports_and_protocols(town: Town):
    client = town.member()
    rules = [
        {"from": peer(*cidrs(client)), "ports": [{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 81}]},
        {"ports": [{"port": 9000, "endPort": 9100}]},
    ]
    web = town.member({"ingress": rules})
    for family in FAMILIES:
        target = web.address(family)
        assert client.actor.reaches(target, 80) == "it"
        assert client.actor.connect(target, 81) == TIMED_OUT
        assert client.actor.ask(target, 81)["who"] == "it"
        assert client.actor.ask(target, 80, seconds=SHORTLY) == TIMED_OUT
        assert client.actor.reaches(target, 9090) == "it"
        assert not client.pod.pings(target, 1)


def test_icmp_alone_can_be_let_in(town: Town):
    client, web = town.member(), town.member({"ingress": [{"ports": [{"protocol": "ICMP"}]}]})
    for family in FAMILIES:
        assert client.pod.pings(web.address(family))
        assert client.actor.connect(web.address(family), 80) == TIMED_OUT


def test_sctp_has_ports_too(town: Town):
    client = town.member()
    web = town.member({"ingress": [{"ports": [{"protocol": "SCTP", "port": 7}]}]})
    link = client.pod.link("eth0")
    assert link
    hop = next(item["mac"] for item in client.result["interfaces"] if item["name"].startswith("veth"))
    way = web.pod.link("eth0")["address"] if town.kind == "bridged" else hop
    for port, arrives in ((7, True), (8, False)):
        with Wire(web.pod, "eth0") as wire:
            send(client.pod, IPV4, way, link["address"], sctp(client.address(4), web.address(4), port, f"sctp-{port}"))
        assert wire.carried(f"sctp-{port}".encode()) == arrives


def test_an_exception_is_no_friend(town: Town):
    friend, stranger = town.member(), town.member()
    block = {"cidr": "10.1.0.0/24", "except": [cidrs(stranger)[0]]}
    web = town.member({"ingress": [{"from": [{"ipBlock": block}]}]})
    assert reaches(friend, web, 4)
    assert stranger.actor.connect(web.address(4), 80) == TIMED_OUT
    assert friend.actor.connect(web.address(6), 80) == TIMED_OUT, "a rule of IPv4 opens nothing in IPv6"
    assert reaches(friend, stranger, 6)


# --- egress


def test_an_agent_sends_only_to_its_backend(town: Town):
    backend, other = town.member(), town.member()
    agent = town.member({"egress": [{"to": peer(*cidrs(backend)), "ports": [{"port": 9090}]}]})
    for family in FAMILIES:
        assert reaches(agent, backend, family, 9090)
        assert agent.actor.connect(backend.address(family), 80) == TIMED_OUT
        assert agent.actor.connect(other.address(family), 9090) == TIMED_OUT
        assert not agent.pod.pings(other.address(family), 1)
        assert reaches(other, agent, family), "ingress is open"
        assert reaches(other, backend, family, 80)


def test_default_deny_among_all_pods_is_one_line(town: Town):
    one, two = town.member({"defaultDeny": True}), town.member({"defaultDeny": True})
    for family in FAMILIES:
        assert one.actor.connect(two.address(family), 80) == TIMED_OUT
        assert one.actor.ask(two.address(family), 80, seconds=SHORTLY) == TIMED_OUT
        assert not one.pod.pings(two.address(family), 1)
        with Actor(town.host) as node:
            assert node.reaches(two.address(family), 80) == "it", "the node still checks its health"


def test_a_pod_always_reaches_itself(town: Town):
    one = town.member({"defaultDeny": True})
    for family in FAMILIES:
        assert reaches(one, one, family)
        assert one.actor.reaches("127.0.0.1", 80) == "it"


def test_dns_is_let_out_to_the_pods_resolvers_only(town: Town):
    resolver, other = town.member(), town.member()
    for member in (resolver, other):
        member.actor.listen("dns", 53, udp=True)
        member.actor.listen("dns", 53)
    dns = {"nameservers": [resolver.address(4), resolver.address(6)]}
    agent = town.member({"egressDrop": True, "allowDNS": True}, dns=dns)
    for family in FAMILIES:
        assert agent.actor.ask(resolver.address(family), 53)["who"] == "dns"
        assert agent.actor.reaches(resolver.address(family), 53) == "dns"
        assert agent.actor.ask(other.address(family), 53, seconds=SHORTLY) == TIMED_OUT
        assert agent.actor.connect(resolver.address(family), 80) == TIMED_OUT
        assert resolver.actor.ask(other.address(family), 53)["who"] == "dns"


def test_without_answers_only_one_way_traffic_is_left(town: Town):
    client = town.member()
    web = town.member({"ingress": cidrs(client), "egressDrop": True, "allowEstablished": False})
    web.actor.collect(7000)
    for family in FAMILIES:
        client.actor.send(web.address(family), 7000, "hello")
        assert [text for _, text in web.actor.heard(1)] == ["hello"]
        assert client.actor.ask(web.address(family), 80, seconds=SHORTLY) == TIMED_OUT


# --- the node, outside, the tunnel


def test_the_node_gets_in_unless_it_is_kept_out_and_the_pods_way_to_it_is_egress(town: Town):
    open_, shut = town.member({"defaultDeny": True}), town.member({"defaultDeny": True, "hostAccess": False})
    free = town.member()
    for own in ("192.0.2.77/32", "fd00:9::1/128"):
        town.host.run("ip", "addr", "add", own, "dev", "lo")
    with Actor(town.host) as node:
        serving(node)
        for family in FAMILIES:
            gateway = ("192.0.2.77", "fd00:9::1")[family == 6]
            assert node.reaches(open_.address(family), 80) == "it"
            assert node.connect(shut.address(family), 80) == TIMED_OUT
            assert free.actor.reaches(gateway, 80) == "it"
            assert open_.actor.connect(gateway, 80) == TIMED_OUT


def test_outside_is_governed_both_ways(town: Town):
    outside = town.lab.host()
    town.lab.underlay(town.host, outside)
    outside.run("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.11")
    town.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    free, agent = (
        town.member(),
        town.member({"ingress": [], "egress": [{"to": peer("192.0.2.12/32"), "ports": [{"port": 80}]}]}),
    )
    with Actor(outside) as far:
        serving(far)
        assert agent.actor.reaches("192.0.2.12", 80) == "it"
        assert agent.actor.connect("192.0.2.12", 81) == TIMED_OUT
        assert free.actor.reaches("192.0.2.12", 81) == "it"
        assert far.reaches(free.address(4), 80) == "it"
        assert far.connect(agent.address(4), 80) == TIMED_OUT


def test_what_comes_through_the_tunnel_is_governed(lab: Lab):
    one, two = lab.host(), lab.host()
    lab.underlay(one, two)
    span = {"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"}
    tunnels = [BRIDGED | {"vxlan": {"id": 7, "remotes": [f"192.0.2.{other}"]}} for other in (12, 11)]
    here = tunnels[0] | {"ipam": span | {"rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.19"}}
    there = tunnels[1] | {"ipam": span | {"rangeStart": "10.1.0.20", "rangeEnd": "10.1.0.29"}}
    friend, stranger, web, free = (lab.pod() for _ in range(4))
    results = [two.add(there, pod) for pod in (friend, stranger)]
    allowed = [f"{address_of(results[0], 4)}/32"]
    guarded = one.add(here | {"policy": {"ingress": allowed, "egress": []}}, web)
    unguarded = one.add(here, free)
    with Actor(friend) as near, Actor(stranger) as far, Actor(web) as server, Actor(free) as other:
        serving(server)
        serving(other)
        assert eventually(lambda: near.reaches(address_of(guarded, 4), 80) == "it")
        assert far.connect(address_of(guarded, 4), 80) == TIMED_OUT
        assert far.reaches(address_of(unguarded, 4), 80) == "it"


def test_fragments_are_held_to_the_same_rules(town: Town):
    friend, stranger = town.member(), town.member()
    web = town.member({"ingress": [{"from": peer(*cidrs(friend)), "ports": [{"protocol": "UDP", "port": 7000}]}]})
    web.actor.collect(7000)
    web.actor.collect(7001)
    large = "x" * 4000
    for family in FAMILIES:
        friend.actor.send(web.address(family), 7000, large)
        assert [text for _, text in web.actor.heard(1)] == [large]
        stranger.actor.send(web.address(family), 7000, large)
        friend.actor.send(web.address(family), 7001, large)
        assert web.actor.heard() == []


# --- other people's rules


DOCKER = """
add table ip filter
add chain ip filter FORWARD { type filter hook forward priority 0; policy accept; }
add chain ip filter DOCKER-USER
add rule ip filter FORWARD jump DOCKER-USER
add rule ip filter FORWARD accept
add table inet firewalld
add chain inet firewalld filter_FORWARD { type filter hook forward priority filter + 10; policy accept; }
add rule inet firewalld filter_FORWARD accept
add table ip nat
add chain ip nat PREROUTING { type nat hook prerouting priority dstnat; }
add rule ip nat PREROUTING ip daddr 10.96.0.1 tcp dport 443 dnat to 10.1.0.2:80
"""


def test_rules_that_accept_before_or_after_ours_open_nothing(town: Town):
    town.host.run("nft", "-f", "-", input=DOCKER)
    friend, stranger = town.member(), town.member()
    web = town.member({"ingress": cidrs(friend)})
    assert reaches(friend, web, 4)
    assert stranger.actor.connect(web.address(4), 80) == TIMED_OUT
    town.host.run("nft", "flush", "table", "inet", "firewalld")
    town.host.run("nft", "delete", "table", "ip", "filter")
    assert stranger.actor.connect(web.address(4), 80) == TIMED_OUT
    assert reaches(stranger, friend, 4)


def test_a_service_address_leads_to_the_pod_that_is_asked_for(town: Town):
    town.host.run("nft", "-f", "-", input=DOCKER)
    first = town.member()
    assert first.address(4) == "10.1.0.2"
    client = town.member({"egress": [{"to": peer("10.1.0.2/32"), "ports": [{"port": 80}]}]})
    other = town.member({"egress": [{"to": peer("10.96.0.1/32")}]})
    assert client.actor.reaches("10.96.0.1", 443) == "it"
    assert other.actor.connect("10.96.0.1", 443) == TIMED_OUT, "as in Kubernetes, rules see the pod, not the service"


# --- what CHECK notices, and what is left


def nft(*words: str) -> Callable[[Host, Member], object]:
    return lambda host, web: host.run("nft", *(spelled(word, chain_of(host, web)) for word in words))


def spelled(word: str, chain: str) -> str:
    return word.replace("CHAIN", chain).replace("BUCKET", chain.removeprefix("in-")[:1])


def chain_of(host: Host, member: Member) -> str:
    """The chain that what is for a pod is led to."""
    listed = host.run("nft", "get", "element", *TABLE, "in4", f"{{ {member.address(4)} }}", check=False).stdout
    return listed.partition("jump ")[2].split(maxsplit=1)[0] if listed else ""


DRIFTS: dict[str, tuple[Callable[[Host, Member], object], str]] = {
    "the table gone": (nft("delete", "table", *TABLE), "policy chain forward is missing"),
    "everything gone": (nft("flush", "ruleset"), "policy chain forward is missing"),
    "the base chain empty": (
        nft("flush", "chain", *TABLE, "forward"),
        "policy chain forward: ip daddr vmap @in4 is missing",
    ),
    "the pod's chain empty": (
        nft("flush", "chain", *TABLE, "CHAIN"),
        "policy chain CHAIN: drop is missing",
    ),
    "a rule more": (
        nft("insert", "rule", *TABLE, "CHAIN", "return"),
        "policy chain CHAIN: return is foreign",
    ),
    "the pod not in the map": (
        nft("delete", "element", *TABLE, "in4", "{ 10.1.0.2 }"),
        "policy map in4 does not lead 10.1.0.2 to its chain",
    ),
    "the spoofing guard gone": (nft("delete", "table", "netdev", "agent_cni-BUCKET"), "spoofing guard"),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_check_names_what_is_not_as_it_was(town: Town, drift: str):
    break_it, words = DRIFTS[drift]
    web = town.member({"ingress": ["10.0.0.0/8"], "egressDrop": True, "log": True})
    town.host.check(web.conf, web.pod, web.result).ok()
    chain = chain_of(town.host, web)
    break_it(town.host, web)
    assert words.replace("CHAIN", chain) in town.host.check(web.conf, web.pod, web.result).failed(104)
    town.host.delete_pod(web.conf, web.pod)


def test_check_notices_a_bridge_that_hides_its_traffic(lab: Lab, host: Host):
    pod, conf = lab.pod(), BRIDGED | {"ipam": {"ranges": RANGES}, "policy": {"defaultDeny": True}}
    result = host.add(conf, pod)
    host.run("ip", "link", "set", "br0", "type", "bridge", "nf_call_iptables", "0")
    assert "nf_call_iptables" in host.check(conf, pod, result).failed(104)


def test_nothing_is_left_with_or_without_the_namespace(town: Town):
    first = town.member()
    town.host.delete_pod(first.conf, first.pod)
    before = town.host.snapshot()
    members = [town.member({"defaultDeny": True}) for _ in range(3)]
    town.host.delete_pod(members[0].conf, members[0].pod)
    members[1].actor.close()
    sh("ip", "netns", "del", members[1].pod.name)
    town.host.delete_pod(members[1].conf, members[1].pod)
    listed = {"cni.dev/valid-attachments": []}
    town.host.cni("GC", members[2].conf | listed).ok()
    town.host.delete_pod(members[2].conf, members[2].pod)
    assert town.host.snapshot() == before


def test_a_killed_add_leaves_nothing_after_del(town: Town):
    first = town.member()
    town.host.delete_pod(first.conf, first.pod)
    before, conf = town.host.snapshot(), town.conf({"defaultDeny": True})
    for step in range(8):
        pod = town.lab.pod()
        process = town.host.started(conf, pod)
        time.sleep(0.2 + step * 0.06)
        process.kill()
        process.wait()
        town.host.delete_pod(conf, pod)
        assert town.host.snapshot() == before, f"step {step}"


def test_rules_are_there_before_the_pods_end_is_up(town: Town):
    """The host end goes up last: by then everything of the policy stands."""
    pod, conf = town.lab.pod(), town.conf({"defaultDeny": True})

    def rules_at_that_moment() -> str:
        process, rules = town.host.started(conf, pod), ""
        while process.poll() is None and not rules:
            link = pod.link("eth0")
            if link and "LOWER_UP" in link["flags"]:
                rules = town.host.run("nft", "list", "ruleset").stdout
        process.wait()
        town.host.delete_pod(conf, pod)
        return rules

    seen = eventually(rules_at_that_moment)
    assert "chain in-" in seen
    assert "table netdev" in seen


def test_twenty_parallel_calls_leave_each_pod_its_own_rules(town: Town):
    conf, pods = town.conf({"defaultDeny": True}), [town.lab.pod() for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda pod: town.host.add(conf, pod), pods))
    maps = town.host.run("nft", "list", "map", *TABLE, "in4").stdout
    led = dict(re.findall(r"(\S+) : jump ([^\s,]+)", maps))
    assert set(led) == {address_of(result, 4) for result in results}
    assert len(set(led.values())) == len(pods)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda pod: town.host.delete_pod(conf, pod), pods))
    assert "agent_cni" not in town.host.run("nft", "list", "ruleset").stdout


SECTIONS = [
    {"defaultDeny": True},
    {"ingress": ["10.0.0.0/8", "fd00::/8"], "hostAccess": False, "log": True},
    {"egressDrop": True, "allowDNS": True, "antiSpoof": False},
    {"allowEstablished": False, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 53, "protocol": "UDP"}]}]},
    {},
]  # fmt: skip


@pytest.mark.tried("STATUS with policies of every kind", "it rehearses their rules, is green, and leaves nothing")
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: "-".join(section) or "empty")
def test_status_rehearses_a_policy(town: Town, section: dict[str, Any]):
    before = town.host.run("nft", "list", "ruleset").stdout
    for _ in range(2):
        town.host.cni("STATUS", town.conf(section)).ok()
    assert town.host.run("nft", "list", "ruleset").stdout == before


def test_one_address_has_one_policy(town: Town):
    town.member({"defaultDeny": True})
    pod = town.lab.pod()
    conf = town.conf({"defaultDeny": True}) | {"name": "other"}
    if town.kind == "bridged":
        conf["bridge"] = "br1"
    message = town.host.cni("ADD", conf, pod).failed(101)
    assert "one address has one policy" in message
    town.host.delete_pod(conf, pod)
