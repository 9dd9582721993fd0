"""What gets past addresses: tags, groups, later addresses, discovery that is none, and what opens before it is guarded.

Every probe that must be blocked has one beside it that gets through.
"""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from forge import (
    ARP,
    EVERYBODY,
    IPV4,
    IPV6,
    SERVICE_VLAN,
    VLAN,
    VXLAN,
    icmpv6,
    igmp_query,
    router_advertisement,
    send,
    send_vxlan,
    tagged,
    udp,
)
from interception import address_of
from lab import AGENT_CNI, REFERENCE_DIR, Host, Lab, Namespace, Pod, Site, eventually, sh
from town import BRIDGED, RANGES, Member, Town, unguarded
from traffic import TIMED_OUT, Actor
from wire import Wire

KIND = {4: IPV4, 6: IPV6}
TAGS: dict[str, tuple[int, ...]] = {
    "802.1Q": (VLAN,), "802.1ad": (SERVICE_VLAN,), "QinQ": (SERVICE_VLAN, VLAN), "802.1Q twice": (VLAN, VLAN),
}  # fmt: skip
GROUP_MAC = {
    "255.255.255.255": EVERYBODY,
    "10.1.0.255": EVERYBODY,
    "224.0.0.251": "01:00:5e:00:00:fb",
    "ff02::1": "33:33:00:00:00:01",
}
ALL_NODES = "33:33:00:00:00:01"


@pytest.fixture
def town(lab: Lab) -> Iterator[Town]:
    with ExitStack() as held:
        yield Town(lab.host(), lab, "bridged", held)


@pytest.fixture(params=["bridged", "routed"])
def any_town(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Town]:
    with ExitStack() as held:
        yield Town(lab.host(), lab, request.param, held)


def mac(where: Namespace, name: str = "eth0") -> str:
    link = where.link(name)
    assert link
    return link["address"]


def index(where: Namespace, name: str) -> int:
    link = where.link(name)
    assert link
    return link["ifindex"]


def local(where: Namespace, name: str = "eth0") -> str:
    """The link-local address of a link."""
    words = where.run("ip", "-6", "-o", "addr", "show", "dev", name, "scope", "link").stdout.split()
    return words[words.index("inet6") + 1].split("/")[0]


def settled(where: Namespace, name: str) -> bool:
    """Whether duplicate address detection on a link is over."""
    return " tentative" not in where.run("ip", "-6", "addr", "show", "dev", name).stdout


def arrives(sender: Member, receiver: Member, kind: int, dst: str, payload: bytes, mark: str) -> bool:
    """Whether a frame from one pod gets to the other's end of the wire."""
    with Wire(receiver.pod, "eth0") as wire:
        send(sender.pod, kind, dst, mac(sender.pod), payload)
    return wire.carried(mark.encode())


# --- tags


@pytest.mark.tried("frames tagged 802.1Q or 802.1ad with VID 0, QinQ, tagged twice", "dropped in both directions")
@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("family", [4, 6])
def test_a_tag_is_no_way_around_either_direction(town: Town, tags: str, family: int):
    free, other, jailed = town.member(), town.member(), town.member({"egressDrop": True})
    shut = town.member({"ingress": []})
    first, *more = TAGS[tags]
    for number, (sender, receiver, through) in enumerate(
        [(free, other, True), (jailed, other, False), (free, shut, False), (jailed, shut, False)]
    ):
        mark = f"tagged-{number}"
        packet = udp(sender.address(family), receiver.address(family), 7000, mark)
        frame = tagged(*more, KIND[family], payload=packet)
        assert arrives(sender, receiver, first, mac(receiver.pod), frame, mark) == through, number


@pytest.mark.tried("frames of other EtherTypes", "dropped in both directions")
def test_no_other_ethertype_gets_in_or_out(town: Town):
    free, other, jailed, shut = (
        town.member(),
        town.member(),
        town.member({"egressDrop": True}),
        town.member({"ingress": []}),
    )
    for kind in (0x88B5, 0x8864, 0x8847):  # experimental, PPPoE, MPLS
        assert arrives(free, other, kind, mac(other.pod), b"ether-free", "ether-free")
        assert not arrives(jailed, other, kind, mac(other.pod), b"ether-out", "ether-out")
        assert not arrives(free, shut, kind, mac(shut.pod), b"ether-in", "ether-in")


# --- discovery that is none


@pytest.mark.tried(
    "ND and MLD types with 1,200 bytes and another hop limit, from a shut pod", "they reach neither pods nor the node"
)
@pytest.mark.parametrize("kind", [130, 131, 132, 133, 135, 136, 143])
def test_discovery_that_carries_something_else_stays_inside(any_town: Town, kind: int):
    town = any_town
    free, other, jailed = unguarded(town), town.member(), town.member({"defaultDeny": True})
    for sender, through in ((free, True), (jailed, False)):
        for hops in (64, 2) if kind in (133, 135, 136) else (64, 255):
            mark = f"payload-{kind}-{hops}-{through}"
            body = bytes(20) + mark.encode() + bytes(1160)
            packet = icmpv6(sender.address(6), other.address(6), kind, hops, body)
            way = mac(other.pod) if town.kind == "bridged" else mac(town.host, sender.port)
            assert arrives(sender, other, IPV6, way, packet, mark) == through, hops


@pytest.mark.tried("the same towards far hosts", "not routed")
def test_discovery_is_not_routed_to_far_hosts(lab: Lab):
    site_host, outside = lab.host(), lab.host()
    lab.underlay(site_host, outside)
    for number, member in enumerate((site_host, outside), 11):
        sh("ip", "-n", member.name, "addr", "add", f"fd00:2::{number}/64", "dev", "eth0", "nodad")
    outside.run("ip", "-6", "route", "add", "fd00:1::/64", "via", "fd00:2::11")
    with ExitStack() as held:
        town = Town(site_host, lab, "routed", held)
        free, jailed = unguarded(town), town.member({"defaultDeny": True})
        assert eventually(lambda: free.pod.pings("fd00:2::12", 1))
        for sender, through in ((free, True), (jailed, False)):
            for kind, hops in ((135, 255), (136, 64), (143, 64), (131, 255)):
                mark = f"far-{kind}-{through}"
                packet = icmpv6(sender.address(6), "fd00:2::12", kind, hops, bytes(20) + mark.encode() + bytes(600))
                with Wire(outside, "eth0") as wire:
                    send(sender.pod, IPV6, mac(site_host, sender.port), mac(sender.pod), packet)
                assert wire.carried(mark.encode()) == through, kind


# --- groups, broadcasts and addresses the policy's chains know nothing of


@pytest.mark.tried(
    "broadcast and multicast into a pod that lets nobody in", "unheard; heard where a rule allows their sender"
)
@pytest.mark.parametrize("group", GROUP_MAC)
def test_what_is_for_everybody_is_not_for_who_lets_nobody_in(town: Town, group: str):
    family = 6 if ":" in group else 4
    sender = town.member()
    members = {
        "open": town.member(), "policed": town.member({"egressDrop": True}), "shut": town.member({"ingress": []}),
        "some": town.member({"ingress": ["10.1.0.0/16"]}), "others": town.member({"ingress": ["192.0.2.0/24"]}),
        "port": town.member({"ingress": [{"ports": [{"protocol": "UDP", "port": 7001}]}]}),
    }  # fmt: skip
    wanted = {"open", "policed", *(["some"] if family == 4 else [])}
    packet = udp(sender.address(family), group, 7000, "to-everybody")
    with ExitStack() as held:
        wires = {name: held.enter_context(Wire(member.pod, "eth0")) for name, member in members.items()}
        send(sender.pod, KIND[family], GROUP_MAC[group], mac(sender.pod), packet)
    assert {name for name, wire in wires.items() if wire.carried(b"to-everybody")} == wanted
    packet = udp(sender.address(family), group, 7001, "to-the-port")
    assert arrives(sender, members["port"], KIND[family], GROUP_MAC[group], packet, "to-the-port")


def test_an_address_of_its_own_gets_a_shut_pod_nothing(town: Town):
    sender, open_, shut = town.member(), town.member(), town.member({"ingress": []})
    later = {"open": ("10.1.0.201", "fd00:1::201"), "shut": ("10.1.0.202", "fd00:1::202")}
    for name, member in (("open", open_), ("shut", shut)):
        for address in later[name]:
            whole = f"{address}/{64 if ':' in address else 24}"
            member.pod.run("ip", "addr", "add", whole, "dev", "eth0", *(["nodad"] if ":" in address else []))
        for address in later[name]:
            family = 6 if ":" in address else 4
            packet = udp(sender.address(family), address, 7000, "later")
            assert arrives(sender, member, KIND[family], mac(member.pod), packet, "later") == (name == "open")


@pytest.mark.tried("the fe80 address of an IPv4-only pod, from a neighbour and the node", "closed")
def test_ipv6_is_no_way_into_a_pod_that_has_ipv4_only(lab: Lab):
    with ExitStack() as held:
        town = Town(lab.host(), lab, "bridged", held)
        only = {"ipam": {"ranges": [RANGES[0]]}}
        sender, open_, shut = (
            town.member(**only),
            town.member(**only),
            town.member({"ingress": [], "hostAccess": False}, **only),
        )
        for member, through in ((open_, True), (shut, False)):
            target = local(member.pod)
            packet = udp(local(sender.pod), target, 7000, "local")
            assert arrives(sender, member, IPV6, mac(member.pod), packet, "local") == through
            for where, link in ((member.pod, "eth0"), (town.host, "br0")):
                assert eventually(lambda where=where, link=link: settled(where, link))
            town.host.run("sysctl", "-qw", f"net.ipv6.conf.{member.port}.disable_ipv6=0")
            for way in ("br0", member.port):  # who switches IPv6 on has a link-local address on the port itself, too
                sh("ip", "-n", town.host.name, "neigh", "replace", target, "lladdr", mac(member.pod), "dev", way)
                assert eventually(lambda way=way: settled(town.host, way))
                with Actor(town.host) as node, Wire(member.pod, "eth0") as wire:
                    node._do("send", to=[target, 7000, 0, index(town.host, way)], text="from the node")
                assert wire.carried(b"from the node") == through


def test_the_address_on_a_second_network_is_no_way_in_through_the_first(town: Town):
    sender = town.member()
    second = BRIDGED | {"name": "second", "bridge": "br1", "ipam": {"subnet": "10.2.0.0/24"}}
    for policy, through in ((None, True), ({"ingress": []}, False)):
        member = town.member(policy)
        given = town.host.add(second | {"isDefaultGateway": False}, member.pod, ifname="eth1")
        packet = udp(sender.address(4), address_of(given, 4), 7000, "second")
        assert arrives(sender, member, IPV4, mac(member.pod), packet, "second") == through


def test_a_shut_pod_still_finds_its_neighbours_and_is_found(any_town: Town):
    """Discovery works both ways without anybody knowing the other: or nothing above would mean anything."""
    client = any_town.member()
    web = any_town.member({"ingress": [f"{client.address(4)}/32", f"{client.address(6)}/128"], "egress": []})
    for family in (4, 6):
        for member in (client, web):
            member.pod.run(
                "ip",
                f"-{family}",
                "neigh",
                "flush",
                "dev",
                "eth0",
                "nud",
                "all" if any_town.kind == "bridged" else "stale",
            )
        assert client.actor.reaches(web.address(family), 80) == "it"
        assert web.actor.connect(client.address(family), 80) == TIMED_OUT


# --- VTEPs, queries, DHCP, duplicate address detection


@pytest.mark.tried("UDP to the port of any VXLAN device of the node, a foreign one too", "dropped")
def test_every_vtep_of_the_node_is_closed_to_pods(any_town: Town):
    town = any_town
    early = town.member({"ingress": []})
    town.host.run("ip", "link", "add", "foreign", "type", "vxlan", "id", "9", "dstport", "8473", "local", "127.0.0.1")
    tunnel = BRIDGED | {"name": "tunnel", "bridge": "br9", "ipam": {"subnet": "10.9.0.0/24"}}
    tunnel |= {"vxlan": {"id": 90, "dstport": 8472, "remotes": [], "local": "127.0.0.1"}}
    town.host.add(tunnel, town.lab.pod())
    assert "8473" in town.host.check(early.conf, early.pod, early.result).failed(104)
    free, victim = unguarded(town), town.member()
    for port in (4789, 8472, 8473, 8474):
        victim.actor.collect(port)
    late = town.member({"ingress": []})
    town.host.check(early.conf, early.pod, early.result).ok()
    for sender, open_ports in ((free, {4789, 8472, 8473, 8474}), (early, {8474}), (late, {8474})):
        for family in (4, 6):
            for port in (4789, 8472, 8473, 8474):
                sender.actor.send(victim.address(family), port, f"{port}")
            assert {int(text) for _, text in victim.actor.heard(len(open_ports))} == open_ports


@pytest.mark.tried("the same, to a device that was gone while the pod came, and is back", "dropped")
def test_a_vtep_that_comes_back_is_closed_to_who_came_meanwhile(any_town: Town):
    town = any_town
    foreign = ("foreign", "type", "vxlan", "id", "9", "dstport", "8473", "local", "127.0.0.1")
    town.host.run("ip", "link", "add", *foreign)
    town.member({"ingress": []})
    town.host.run("ip", "link", "delete", "foreign")
    between, free, victim = town.member({"ingress": []}), unguarded(town), town.member()
    town.host.run("ip", "link", "add", *foreign)
    town.member({"ingress": []})
    town.host.check(between.conf, between.pod, between.result).ok()
    victim.actor.collect(8473)
    for sender, through in ((free, True), (between, False)):
        sender.actor.send(victim.address(4), 8473, "frame")
        assert len(victim.actor.heard(through)) == through


@pytest.mark.tried("the same, in IPv6 fragments, behind options, and with the port in a later fragment", "dropped")
def test_no_fragment_hides_that_it_is_for_a_vtep(any_town: Town):
    """The kernel takes no first fragment that ends before the port (RFC 8200, 4.5); others have it."""
    town = any_town
    free, guarded, victim = unguarded(town), town.member({"ingress": []}), town.member()
    victim.actor.collect(VXLAN)
    for sender, arrives in ((free, True), (guarded, False)):
        for first, options in ((8, 0), (8, 72), (0, 72)):
            send_vxlan(sender.pod, sender.address(6), victim.address(6), 90, b"hidden", first, options)
        assert len(victim.actor.heard(2 * arrives)) == 2 * arrives


@pytest.mark.tried("a pod asks for listeners, in MLD and IGMP", "it does not become the bridge's querier")
def test_a_pod_does_not_become_who_asks_for_listeners(town: Town):
    free, victim, guarded = town.member(), town.member(), town.member({"defaultDeny": True})
    lenient = town.member({"egress": [{}], "ingress": []})
    for number, (sender, through) in enumerate(((free, True), (guarded, False), (lenient, False))):
        mark = f"query-{number}"
        query = icmpv6(local(sender.pod), "ff02::1", 130, 1, bytes(4) + bytes(16) + bytes(4) + mark.encode())
        assert arrives(sender, victim, IPV6, ALL_NODES, query, mark) == through
        with Wire(victim.pod, "eth0") as wire:
            send(sender.pod, IPV4, "01:00:5e:00:00:01", mac(sender.pod), igmp_query(sender.address(4)))
        assert wire.carried(igmp_query(sender.address(4))[12:]) == through
    ports = json.loads(sh("bridge", "-n", town.host.name, "-d", "-j", "link", "show").stdout)
    routers = {port["ifname"]: port["mcast_router"] for port in ports if "mcast_router" in port}
    assert (routers[free.port], routers[guarded.port]) == (1, 0)
    town.host.run("ip", "link", "set", guarded.port, "type", "bridge_slave", "mcast_router", "1")
    assert "multicast router" in town.host.check(guarded.conf, guarded.pod, guarded.result).failed(104)


@pytest.mark.tried("DHCPv6 answers, probes for others' addresses in ARP and ND", "end at the guard")
def test_dhcp_answers_and_probes_for_others_addresses_end_at_the_guard(town: Town):
    free, victim, guarded = town.member({"antiSpoof": False}), town.member(), town.member({"ingress": []})
    victim.actor.collect(546)
    victim.actor.collect(68)
    for sender, through in ((free, True), (guarded, False)):
        for family, port, to in ((4, 67, 68), (6, 547, 546)):
            source = "0.0.0.0" if family == 4 else "::"
            sender.actor.send(victim.address(family), to, f"dhcp{port}", source=[source, port])
        assert len(victim.actor.heard(2 * through)) == 2 * through
        for target, own in ((victim, False), (sender, True)):
            packed = ipaddress.ip_address(target.address(6)).packed
            solicited = str(ipaddress.ip_address(bytes.fromhex("ff02" + "00" * 9 + "01ff") + packed[-3:]))
            group = "33:33:" + packed[-4:].hex(":").replace(packed[-4:-3].hex(), "ff", 1)
            probe = icmpv6("::", solicited, 135, 255, bytes(4) + packed)
            with Wire(town.host, sender.port) as wire, Wire(town.host, "br0") as bridge:
                send(sender.pod, IPV6, group, mac(sender.pod), probe)
            assert wire.carried(probe[8:])
            assert bridge.carried(probe[8:]) == (through or own)
            asked = b"\0\1\x08\0\6\4\0\1" + bytes.fromhex(mac(sender.pod).replace(":", "")) + bytes(4) + bytes(6)
            asked += ipaddress.ip_address(target.address(4)).packed
            with Wire(town.host, "br0") as bridge:
                send(sender.pod, ARP, EVERYBODY, mac(sender.pod), asked)
            assert bridge.carried(asked) == (through or own)


# --- what opens before it is guarded, what changes after it


FORGED = b"forged-while-made"
FLOOD = """
import socket, sys, time
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
print("ready", flush=True)
deadline = time.monotonic() + 20
import fcntl, struct
control = socket.socket()
while time.monotonic() < deadline:
    try:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"eth0", 0x1043))
        raw.bind(("eth0", 0))
        while time.monotonic() < deadline:
            raw.send(bytes.fromhex(sys.argv[1]))
    except OSError:
        pass
"""


@pytest.mark.tried("forged frames while an interface is hot-plugged", "none gets out before the guard stands")
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
@pytest.mark.parametrize("kind", ["bridged", "routed"])
def test_nothing_forged_gets_out_while_an_interface_is_made(lab: Lab, guarded: bool, kind: str):
    with ExitStack() as held:
        town = Town(lab.host(), lab, kind, held)
        other, pod = town.member(), lab.pod()
        conf = town.conf({"ingress": []} if guarded else None if kind == "bridged" else {"antiSpoof": False})
        if kind == "bridged":
            frame, watched = "ffffffffffff" + "0a0000000099" + "88b5" + FORGED.hex() + "00" * 40, (town.host, "br0")
        else:
            packet = udp("fd00:1::99", other.address(6), 7000, FORGED.decode())
            frame = host_end(town.host, conf, pod).replace(":", "") + "0a0000000099" + "86dd" + packet.hex()
            watched = (other.pod, "eth0")
        with pod.start(sys.executable, "-I", "-c", FLOOD, frame) as flood:
            assert flood.stdout
            assert flood.stdout.readline() == "ready\n"
            with Wire(*watched) as wire:
                town.host.add(conf, pod)
            assert wire.carried(FORGED) == (not guarded)
            with Wire(pod, "eth0") as own:
                assert eventually(lambda: own.carried(FORGED)), "nobody forges anything"
            flood.kill()


def host_end(host: Host, conf: dict[str, Any], pod: Pod) -> str:
    """The MAC of a pod's host end, which it gets whenever it is attached."""
    given = host.add(conf, pod)
    host.delete_pod(conf, pod)
    return next(item["mac"] for item in given["interfaces"] if item["name"].startswith("veth"))


@pytest.mark.tried("`tuning` changes the MAC after us", "CHECK names it")
def test_a_mac_that_was_changed_afterwards_is_named(any_town: Town):
    web = any_town.member({"ingress": []})
    any_town.host.check(web.conf, web.pod, web.result).ok()
    web.pod.run("ip", "link", "set", "eth0", "address", "0a:00:00:00:00:77")
    reported = json.loads(json.dumps(web.result))
    next(item for item in reported["interfaces"] if item.get("sandbox"))["mac"] = "0a:00:00:00:00:77"
    words = any_town.host.check(web.conf, web.pod, reported).failed(104)
    assert "eth0 has MAC 0a:00:00:00:00:77, but only" in words
    free = any_town.member({"antiSpoof": False})
    free.pod.run("ip", "link", "set", "eth0", "address", "0a:00:00:00:00:78")
    reported = json.loads(json.dumps(free.result))
    next(item for item in reported["interfaces"] if item.get("sandbox"))["mac"] = "0a:00:00:00:00:78"
    said = any_town.host.check(free.conf, free.pod, reported)
    if any_town.kind == "bridged":
        said.ok()
    else:  # the kernel forgets a link's neighbours with its MAC, permanent ones too
        assert re.fullmatch(r"\S+: (neighbour [^;]+ is missing in the pod(; )?)+", said.failed(104))


@pytest.mark.parametrize("families", ["dual", "four"])
@pytest.mark.parametrize("policy", [None, {"ingress": []}], ids=["open", "policed"])
def test_a_routers_advertisement_adds_no_address_to_those_of_the_ipam(
    town: Town, families: str, policy: dict[str, Any] | None
):
    ranges = RANGES if families == "dual" else [RANGES[0]]
    router, pod = town.member(), town.member(policy, ipam={"ranges": ranges})
    plain = town.lab.pod()
    town.host.add({"cniVersion": "1.1.0", "name": "two", "type": "bridge-vxlan", "bridge": "br0"}, plain)
    before = pod.pod.addresses("eth0")
    assert eventually(lambda: "tentative" not in plain.run("ip", "-6", "addr", "show", "dev", "eth0").stdout)
    advertised = router_advertisement(local(router.pod), "fd00:77::")
    for _ in range(3):
        send(router.pod, IPV6, ALL_NODES, mac(router.pod), advertised)
    assert eventually(lambda: any(text.startswith("fd00:77:") for text in plain.addresses("eth0")))
    assert pod.pod.addresses("eth0") == before
    assert not any(route.get("protocol") == "ra" for route in pod.pod.routes(6))


# --- a bridge's switch


def filtered(host: Host, bridge: str) -> tuple[int, int]:
    link = host.link(bridge)
    assert link
    data = link["linkinfo"]["info_data"]
    return data["nf_call_iptables"], data["nf_call_ip6tables"]


def test_a_bridge_is_as_it_was_when_its_last_isolated_port_is_gone(town: Town):
    free, one, two = town.member(), town.member({"ingress": []}), town.member({"antiSpoof": False, "egress": []})
    elsewhere = town.member({"ingress": []}, name="other", bridge="br1", ipam={"subnet": "10.8.0.0/24"})
    town.host.delete_pod(one.conf, one.pod)
    assert filtered(town.host, "br0") == (1, 1), "somebody needs it"
    town.host.delete_pod(two.conf, two.pod)
    assert (filtered(town.host, "br0"), filtered(town.host, "br1")) == ((0, 0), (1, 1))
    town.host.delete_pod(elsewhere.conf, elsewhere.pod)
    town.host.delete_pod(free.conf, free.pod)
    assert filtered(town.host, "br1") == (0, 0)
    assert town.host.run("nft", "list", "ruleset").stdout == ""


def test_a_flush_of_all_rules_forgets_no_switch(town: Town):
    web = town.member({"ingress": []})
    town.host.run("nft", "flush", "ruleset")
    town.host.run(AGENT_CNI, "refresh")
    assert filtered(town.host, "br0") == (1, 1)
    town.host.run("nft", "flush", "ruleset")
    town.host.delete_pod(web.conf, web.pod)
    assert filtered(town.host, "br0") == (0, 0)


def test_a_switch_that_was_on_before_stays_on(town: Town):
    town.member()
    town.host.run("ip", "link", "set", "br0", "type", "bridge", "nf_call_iptables", "1", "nf_call_ip6tables", "1")
    web = town.member({"ingress": []})
    town.host.delete_pod(web.conf, web.pod)
    assert filtered(town.host, "br0") == (1, 1)


def test_the_bridge_of_another_plugin_is_given_back_as_it_was(lab: Lab):
    host, pod = lab.host(), lab.pod()
    theirs = {"cniVersion": "1.0.0", "name": "ref", "type": "bridge", "bridge": "cni7"}
    theirs["ipam"] = {"type": "host-local", "dataDir": "/run/agent-cni/reference", "ranges": RANGES}  # type: ignore[assignment]
    given = host.add(theirs, pod, bin_dir=REFERENCE_DIR)
    ours = {
        "cniVersion": "1.0.0",
        "name": "ref",
        "type": "custom-plugin",
        "policy": {"ingress": []},
        "prevResult": given,
    }
    host.add(ours, pod)
    port = next(item["name"] for item in given["interfaces"] if item["name"].startswith("veth"))
    state = sh("bridge", "-n", host.name, "-d", "-j", "link", "show", "dev", port)
    assert (filtered(host, "cni7"), json.loads(state.stdout)[0]["mcast_router"]) == ((1, 1), 0)
    host.delete_pod(ours, pod)
    state = sh("bridge", "-n", host.name, "-d", "-j", "link", "show", "dev", port)
    assert (filtered(host, "cni7"), json.loads(state.stdout)[0]["mcast_router"]) == ((0, 0), 1)
    assert host.link(port), "a lent veth stays"


# --- inside the pod


def test_a_macvlan_pod_that_lets_nobody_in_is_shut_for_whatever_comes_through_its_link(
    site: Site, lab: Lab, dual: dict[str, Any]
):
    pods = {name: lab.pod() for name in ("open", "shut", "some")}
    policies: dict[str, dict[str, Any]] = {
        "open": {}, "shut": {"policy": {"ingress": []}}, "some": {"policy": {"ingress": ["192.0.2.12/32", "fe80::/10"]}},
    }  # fmt: skip
    confs = {name: dual | policies[name] for name in pods}
    results = {name: site.host.add(confs[name], pod) for name, pod in pods.items()}
    assert eventually(lambda: settled(site.outside, "eth0")), "until then it would speak to all from its global address"
    with ExitStack() as held:
        far = held.enter_context(Actor(site.outside))
        actors = {name: held.enter_context(Actor(pod)) for name, pod in pods.items()}
        for name, pod in pods.items():
            actors[name].collect(7000)
            pod.run("ip", "addr", "add", f"192.0.2.{ {'open': 240, 'shut': 241, 'some': 242}[name] }/24", "dev", "eth0")
        for group in ("255.255.255.255", "192.0.2.255", "224.0.0.1", "ff02::1%eth0"):
            _broadcast(site.outside, group)
            heard = {name for name, actor in actors.items() if actor.heard(name != "shut")}
            assert heard == {"open", "some"}, group
        for name, through in (("open", True), ("shut", False)):
            far.send(f"192.0.2.{ {'open': 240, 'shut': 241}[name] }", 7000, "later")
            far.send(f"{local(pods[name])}%eth0", 7000, "local")
            assert len(actors[name].heard(2 * through)) == 2 * through
    for name, pod in pods.items():
        site.host.check(confs[name], pod, results[name]).ok()
        site.host.delete_pod(confs[name], pod)
        assert pod.run("nft", "list", "ruleset").stdout == ""


def _broadcast(where: Namespace, group: str) -> None:
    script = (
        "import socket, sys\n"
        "six = ':' in sys.argv[1]\n"
        "one = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "six or one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n"
        "one.sendto(b'everybody', (sys.argv[1], 7000))\n"
    )
    where.run(sys.executable, "-I", "-c", script, group)


def test_a_macvlan_pod_that_sends_nothing_sends_nothing_under_any_address(site: Site, lab: Lab, dual: dict[str, Any]):
    pods = {"open": lab.pod(), "jailed": lab.pod()}
    section = {"egressDrop": True, "antiSpoof": False}
    confs = {"open": dual, "jailed": dual | {"policy": section}}
    for name, pod in pods.items():
        site.host.add(confs[name], pod)
        pod.run("ip", "addr", "add", f"192.0.2.{240 + len(name)}/24", "dev", "eth0")
    with Actor(site.outside) as far:
        far.collect(7000)

        def arrived(name: str) -> set[bool]:
            """Of which families something got through: whether it is IPv6."""
            with Actor(pods[name]) as actor:
                actor.send("192.0.2.12", 7000, name, source=[f"192.0.2.{240 + len(name)}", 0])
                actor.send(f"{local(site.outside)}%eth0", 7000, name)
            return {":" in sender for sender, _ in far.heard()}

        assert eventually(lambda: arrived("open") == {True, False})
        assert arrived("jailed") == set()
    for name, pod in pods.items():
        site.host.delete_pod(confs[name], pod)


# --- what nobody remembers


CUSTOM = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "ipam": {"ranges": RANGES}}
SHAPES: dict[str, dict[str, Any]] = {
    "bridged": BRIDGED | {"ipam": {"ranges": RANGES}, "policy": {"defaultDeny": True}},
    "routed": CUSTOM | {"policy": {"defaultDeny": True}},
    "routed without a policy": CUSTOM,
    "all open": BRIDGED | {"ipam": {"ranges": RANGES}, "policy": {"antiSpoof": False}},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gone", ["nothing", "the pod", "the namespace's name"])
@pytest.mark.parametrize("remembered", [True, False], ids=["with prevResult", "without"])
def test_a_del_that_knows_nothing_but_who_takes_all_of_him_and_nobody_else(
    lab: Lab, shape: str, gone: str, remembered: bool
):
    conf, host = SHAPES[shape], lab.host()
    first, second = lab.pod(), lab.pod()
    result, other = host.add(conf, first), host.add(conf, second)
    host.lose_state()
    asked = conf | ({"prevResult": result} if remembered else {})
    if gone == "the pod":
        sh("ip", "netns", "del", first.name)
    for _ in range(2):
        host.cni("DEL", asked, None if gone == "the namespace's name" else first, container=first.container).ok()
    ruleset = host.run("nft", "list", "ruleset").stdout
    assert address_of(result, 4) not in ruleset
    assert address_of(result, 6) not in ruleset
    if shape != "routed without a policy":
        assert ruleset.count("chain in-") == 1, "the other pod is held as before"
        assert (f"{address_of(other, 4)} : jump" in ruleset) is (shape != "all open")
    veths = [item["ifname"] for item in host.ip("link", "show") if item["ifname"].startswith("veth")]
    assert veths == [item["name"] for item in other["interfaces"] if item["name"].startswith("veth")]
    host.cni("DEL", conf, second).ok()
    assert "chain in-" not in host.run("nft", "list", "ruleset").stdout
    assert "chain from-" not in host.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("remembered", [True, False], ids=["with prevResult", "without"])
def test_a_del_of_what_is_not_there_makes_nothing(lab: Lab, shape: str, remembered: bool):
    conf, host, pod = SHAPES[shape], lab.host(), lab.pod()
    result = host.add(conf, pod)
    host.delete_pod(conf, pod)
    assert host.run("nft", "list", "ruleset").stdout == ""
    for netns in (True, False):
        host.cni(
            "DEL",
            conf | ({"prevResult": result} if remembered else {}),
            pod if netns else None,
            container=pod.container,
        ).ok()
    host.cni("DEL", conf, None, container="never-added").ok()
    assert host.run("nft", "list", "ruleset").stdout == ""


def test_a_chained_isolation_that_nobody_remembers_is_taken_away_and_the_first_plugins_stays(lab: Lab):
    host, pod, other = lab.host(), lab.pod(), lab.pod()
    first = BRIDGED | {"ipam": {"ranges": RANGES}}
    second = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "policy": {"ingress": []}}
    given = host.add(first, pod)
    host.add(second | {"prevResult": given}, pod)
    held = host.add(first | {"policy": {"ingress": []}}, other)
    host.folder.joinpath("state.db").unlink()
    for extra in ({"prevResult": given}, {}):
        host.cni("DEL", second | extra, pod).ok()
    host.cni("DEL", second | {"prevResult": held}, other).ok()
    host.cni("DEL", second, other).ok()
    ruleset = host.run("nft", "list", "ruleset").stdout
    assert address_of(given, 4) not in ruleset
    assert f"{address_of(held, 4)} : jump" in ruleset
    assert pod.link("eth0")
    assert other.link("eth0")


@pytest.mark.tried(
    "a new pod gets the address of a dead one nobody remembers", "its own policy, nothing of the old one"
)
def test_who_gets_a_dead_pods_address_is_held_to_his_own_policy(any_town: Town):
    friend = any_town.member()
    dead = any_town.member({"defaultDeny": True})
    dead.actor.close()
    sh("ip", "netns", "del", dead.pod.name)
    assert eventually(lambda: any_town.host.link(dead.port) is None)
    any_town.host.lose_state()
    heir = any_town.member(
        {"egressDrop": True}, name="heir", ipam={"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": dead.address(4)}]]}
    )
    assert heir.address(4) == dead.address(4)
    assert friend.actor.reaches(heir.address(4), 80) == "it"
    any_town.host.check(heir.conf, heir.pod, heir.result).ok()
    any_town.host.delete_pod(heir.conf, heir.pod)
    ruleset = any_town.host.run("nft", "list", "ruleset").stdout
    assert heir.address(4) not in ruleset
    assert ruleset.count("chain in-") == (any_town.kind == "routed"), "the friend's alone"


@pytest.mark.tried("the state is lost, a new pod wants a living one's address", "refused (101)")
def test_the_address_of_a_pod_that_is_alive_is_not_taken_from_it(any_town: Town):
    friend, alive = any_town.member(), any_town.member({"ingress": []})
    any_town.host.lose_state()
    ipam = {"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": alive.address(4)}]]}
    pod, conf = any_town.lab.pod(), any_town.conf({"egress": []}, name="heir", ipam=ipam)
    assert f"behind {alive.port}" in any_town.host.cni("ADD", conf, pod).failed(101)
    any_town.host.delete_pod(conf, pod)
    assert friend.actor.connect(alive.address(4), 80) == {"error": "TimeoutError"}
