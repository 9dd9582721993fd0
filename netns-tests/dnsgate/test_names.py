"""A pod that may reach names: it resolves them and no others, by whatever server, and reaches what they stand for and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import dns.message
import pytest
from lab import Host, Lab, Namespace, Site, eventually, sh
from resolver import Gate, Resolver, ask
from town import KINDS, TABLE, Town
from traffic import Actor

ZONE = {
    "api.example.com": [("A", "198.51.100.7", 5), ("AAAA", "2001:db8:7::7", 5)],
    "www.example.com": [("CNAME", "a.cdn.example.", 5)],
    "a.cdn.example": [("CNAME", "b.cdn.example.", 5)],
    "b.cdn.example": [("A", "198.51.100.8", 5)],
    "*.example.org": [("A", "198.51.100.9", 5)],
    "evil.example": [("A", "198.51.100.66", 5)],
    "in.example.com": [("A", "10.1.0.1", 5)],
}
WEB = {
    "egress": [
        {"to": [{"domainNames": ["api.example.com", "WWW.Example.com.", "*.example.org"]}], "ports": [{"port": 80}]}
    ]
}
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8::2"}


class World:
    """A namespace outside the node that has the addresses of a zone, serves there, and resolves."""

    def __init__(self, lab: Lab, host: Host, held: ExitStack) -> None:
        self.outside = lab.add(Namespace(lab.name("outside")))
        sh("ip", "link", "add", "up0", "netns", host.path, "type", "veth", "peer", "eth0", "netns", self.outside.path)
        for where, link, number in ((host, "up0", 1), (self.outside, "eth0", 2)):
            where.run("ip", "link", "set", link, "up")
            where.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", link)
            where.run("ip", "address", "add", f"2001:db8::{number}/64", "dev", link, "nodad")
        self.outside.run("ip", "route", "add", "default", "via", "192.0.2.1")
        self.outside.run("ip", "route", "add", "default", "via", "2001:db8::1")
        for family, net in ((4, "198.51.100.0/24"), (6, "2001:db8:7::/64")):
            host.run("ip", "route", "add", net, "via", OUTSIDE[family])
            self.outside.run("ip", f"-{family}", "route", "add", "local", net, "dev", "lo")
        self.actor = held.enter_context(Actor(self.outside))
        for port in (80, 81, 853):
            self.actor.listen("it", port)
        self.resolver = held.enter_context(Resolver(self.outside, ZONE))


@pytest.fixture(params=KINDS)
def town(request: pytest.FixtureRequest, lab: Lab, host: Host) -> Iterator[Town]:
    with ExitStack() as held:
        yield Town(host, lab, request.param, held)


def reaches(actor: Actor, address: str, port: int = 80) -> bool:
    return "error" not in actor.connect(address, port)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_an_allowed_name_is_resolved_and_reached_and_no_other(town: Town, lab: Lab, tcp: bool):
    world = World(lab, town.host, town.held)
    pod = town.member(WEB)
    with Gate(town.host) as gate:
        for family, kind, address in ((4, "A", "198.51.100.7"), (6, "AAAA", "2001:db8:7::7")):
            assert not reaches(pod.actor, address)
            assert ask(pod.pod, OUTSIDE[family], "API.example.com", kind, tcp=tcp).addresses == [address]
            assert reaches(pod.actor, address)
            assert not reaches(pod.actor, address, 81)
            assert not reaches(pod.actor, address, 853)
            refused = ask(pod.pod, OUTSIDE[family], "data.evil.example", kind, tcp=tcp, use_edns=0)
            assert refused.code == "REFUSED"
        assert ask(pod.pod, OUTSIDE[4], "www.example.com", tcp=tcp).addresses == ["198.51.100.8"]
        assert reaches(pod.actor, "198.51.100.8")
        assert ask(pod.pod, OUTSIDE[4], "a.b.example.org", tcp=tcp).code == "NXDOMAIN"
        assert ask(pod.pod, OUTSIDE[4], "example.org", tcp=tcp).code == "REFUSED"
        assert ask(pod.pod, OUTSIDE[4], "api.example.com.corp.example", tcp=tcp).code == "NXDOMAIN"
        assert not reaches(pod.actor, "198.51.100.66")
        names = {name for name, _, _ in world.resolver.asked()}
        assert names == {"api.example.com", "www.example.com", "a.b.example.org"}
        town.host.check(pod.conf, pod.pod, pod.result).ok()
        eventually(lambda: gate.counted()["refused"] == 3)
    town.host.delete_pod(pod.conf, pod.pod)
    assert "agent_cni" not in town.host.run("nft", "list", "tables").stdout
    assert not list((town.host.folder / "dns").glob("*.pod"))


@pytest.mark.parametrize("where", ["a pod on its bridge", "the node"])
def test_whatever_server_it_asks(town: Town, lab: Lab, where: str):
    other = town.member()
    pod = town.member(WEB)
    place, address = (other.pod, other.address(4)) if where == "a pod on its bridge" else (town.host, "10.1.0.1")
    if town.kind == "routed" and where == "the node":
        town.host.run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
        address = "10.99.0.1"
    with Gate(town.host), Resolver(place, ZONE, address=address) as resolver:
        assert ask(pod.pod, address, "api.example.com").addresses == ["198.51.100.7"]
        assert ask(pod.pod, address, "api.example.com", tcp=True).addresses == ["198.51.100.7"]
        assert ask(pod.pod, address, "evil.example").code == "REFUSED"
        assert ask(pod.pod, address, "evil.example", tcp=True).code == "REFUSED"
        assert ask(other.pod, address, "evil.example").addresses == ["198.51.100.66"], "another pod is not judged"
        assert ("evil.example", "A", "udp") in resolver.asked()


def test_a_macvlan_pod_is_judged_in_its_own_namespace(site: Site, lab: Lab):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "eth0", "policy": WEB}
    conf |= {"ipam": {"ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100"}]]}}
    pod, other = lab.pod(), lab.pod()
    plain = {key: value for key, value in conf.items() if key != "policy"}
    address = site.host.add(plain, other)["ips"][0]["address"].split("/")[0]
    result = site.host.add(conf, pod)
    other.run("ip", "address", "add", "198.51.100.7/32", "dev", "lo")
    pod.run("ip", "route", "add", "198.51.100.0/24", "via", address)
    with Gate(site.host), Resolver(other, ZONE), Actor(other) as serves, Actor(pod) as asks:
        serves.listen("it", 80)
        assert not reaches(asks, "198.51.100.7")
        for tcp in (False, True):
            assert ask(pod, address, "api.example.com", tcp=tcp).addresses == ["198.51.100.7"]
            assert ask(pod, address, "evil.example", tcp=tcp).code == "REFUSED"
        assert reaches(asks, "198.51.100.7")
        site.host.check(conf, pod, result).ok()
    site.host.delete_pod(conf, pod)
    assert not pod.run("nft", "list", "ruleset").stdout
    site.host.delete_pod(plain, other)


def test_without_the_gate_nothing_is_resolved_and_what_was_reached_stays(town: Town, lab: Lab):
    World(lab, town.host, town.held)
    pod = town.member(WEB)
    gate = Gate(town.host)
    with gate:
        assert ask(pod.pod, OUTSIDE[4], "api.example.com").addresses
    assert ask(pod.pod, OUTSIDE[4], "www.example.com", seconds=0.5) is None
    assert reaches(pod.actor, "198.51.100.7")
    with gate:
        assert reaches(pod.actor, "198.51.100.7")
        assert ask(pod.pod, OUTSIDE[4], "www.example.com").addresses == ["198.51.100.8"]


def test_an_answer_that_points_inward_admits_nothing_unless_it_is_said(town: Town, lab: Lab):
    World(lab, town.host, town.held)
    own = "10.99.0.1"
    town.host.run("ip", "address", "add", f"{own}/32", "dev", "lo")
    zone = {"in.example.com": [("A", own, 5)]}
    names = {"egress": [{"to": [{"domainNames": ["*.example.com"]}]}]}
    pod, trusting = town.member(names), town.member(names | {"resolveInto": ["10.99.0.0/24"]})
    with Gate(town.host), Resolver(town.host, zone, address=own), Actor(town.host) as node:
        node.listen("it", 80)
        for member, opens in ((pod, False), (trusting, True)):
            assert ask(member.pod, own, "in.example.com").addresses == [own]
            assert reaches(member.actor, own) is opens


MANY = """
import socket, sys
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.connect((sys.argv[1], 53))
asking.settimeout(1)
for number in range(30):
    asking.send(number.to_bytes(2, "big") + bytes.fromhex(sys.argv[2])[2:])
try:
    for count in range(30):
        asking.recv(4096)
except TimeoutError:
    print(count)
"""


def test_nobody_asks_too_often(town: Town, lab: Lab):
    world = World(lab, town.host, town.held)
    pod = town.member(WEB | {"resolveRate": 7})
    question = dns.message.make_query("api.example.com", "A").to_wire().hex()
    with Gate(town.host):
        assert int(pod.pod.run("python3", "-c", MANY, OUTSIDE[4], question).stdout) in range(7, 12)
        assert len(world.resolver.asked()) < 12


def test_another_pod_by_the_same_name_of_an_address_is_let_through_for_itself_alone(town: Town, lab: Lab):
    World(lab, town.host, town.held)
    one, other = town.member(WEB), town.member(WEB)
    with Gate(town.host):
        assert ask(one.pod, OUTSIDE[4], "api.example.com").addresses
        assert reaches(one.actor, "198.51.100.7")
        assert not reaches(other.actor, "198.51.100.7")


def test_what_is_old_is_forgotten_but_not_while_a_connection_lives(lab: Lab, host: Host):
    with ExitStack() as held:
        town = Town(host, lab, "bridged", held)
        World(lab, host, held)
        pod = town.member(WEB | {"resolveKeep": 1})
        held.enter_context(Gate(host))
        zone = {"api.example.com": [("A", "198.51.100.7", 1)], "www.example.com": [("A", "198.51.100.8", 1)]}
        held.enter_context(Resolver(host, zone, address="192.0.2.1"))
        for name in zone:
            assert ask(pod.pod, "192.0.2.1", name).addresses
        assert pod.actor.connect("198.51.100.7", 80, keep="open")["who"] == "it"
        # who asks whether it is reached begins a connection
        assert eventually(lambda: "198.51.100.8" not in host.run("nft", "list", "table", *TABLE).stdout)
        assert not reaches(pod.actor, "198.51.100.8")
        assert pod.actor.echo("open")
        assert reaches(pod.actor, "198.51.100.7"), "a connection lives: the address stays"
