"""What a pod with every capability tries against its policy, and against its neighbours' addresses.

Each attack is shown to work where nothing guards, so that failing means something.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from forge import ARP, EVERYBODY, IPV4, IPV6, advertisement, arp, redirect, send, tcp, udp
from lab import Lab, sh
from town import KINDS, Member, Town, cidrs, unguarded
from traffic import TIMED_OUT
from wire import Wire

FAMILIES = (4, 6)
KIND = {4: IPV4, 6: IPV6}


@pytest.fixture(params=KINDS)
def town(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Town]:
    host = lab.host()
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
    with ExitStack() as held:
        yield Town(host, lab, request.param, held)


def mac(member: Member, name: str = "eth0") -> str:
    link = member.pod.link(name)
    assert link
    return link["address"]


def next_hop(town: Town, attacker: Member, victim: Member) -> str:
    """Where the attacker sends a frame so that the victim may get it."""
    host_end = next(item["mac"] for item in attacker.result["interfaces"] if item["name"].startswith("veth"))
    return mac(victim) if town.kind == "bridged" else host_end


def test_flushing_every_rule_in_the_pod_changes_nothing(town: Town):
    victim, jailed = town.member(), town.member({"defaultDeny": True})
    jailed.pod.run("nft", "flush", "ruleset")
    jailed.pod.run("iptables-legacy", "-F")
    for family in FAMILIES:
        assert jailed.actor.connect(victim.address(family), 80) == TIMED_OUT
        assert victim.actor.connect(jailed.address(family), 80) == TIMED_OUT
        assert victim.actor.reaches(victim.address(family), 80) == "it"


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
def test_an_address_a_pod_gives_itself_is_of_no_use(town: Town, guarded: bool):
    friend = town.member()
    victim = town.member({"ingress": cidrs(friend)})
    attacker = town.member({"ingress": []}) if guarded else unguarded(town)
    victim.actor.collect(7000)
    for family in FAMILIES:
        stolen = friend.address(family)
        whole = f"{stolen}/{32 if family == 4 else 128}"
        attacker.pod.run("ip", "addr", "add", whole, "dev", "eth0", *(["nodad"] if family == 6 else []))
        attacker.actor.send(victim.address(family), 7000, "stolen", source=[stolen, 0])
        strict = town.kind == "routed" and family == 4  # the host's rp_filter, policy or not
        expected = [] if guarded or strict else ["stolen"]
        assert [text for _, text in victim.actor.heard(len(expected))] == expected
        friend.actor.send(victim.address(family), 7000, "honest")
        assert [text for _, text in victim.actor.heard(1)] == ["honest"]


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
def test_a_forged_source_from_a_raw_socket_is_of_no_use(town: Town, guarded: bool):
    friend = town.member()
    victim = town.member({"ingress": cidrs(friend)})
    attacker = town.member({"ingress": []}) if guarded else unguarded(town)
    victim.actor.collect(7000)
    for family in FAMILIES:
        packet = udp(friend.address(family), victim.address(family), 7000, "forged")
        send(attacker.pod, KIND[family], next_hop(town, attacker, victim), mac(attacker), packet)
        strict = town.kind == "routed" and family == 4
        expected = [] if guarded or strict else ["forged"]
        assert [text for _, text in victim.actor.heard(len(expected))] == expected


def test_a_raw_socket_does_not_get_around_egress(town: Town):
    victim, jailed, free = town.member(), town.member({"egressDrop": True}), town.member()
    victim.actor.collect(7000)
    for family in FAMILIES:
        for sender, arrives in ((jailed, False), (free, True)):
            packet = udp(sender.address(family), victim.address(family), 7000, "raw")
            send(sender.pod, KIND[family], next_hop(town, sender, victim), mac(sender), packet)
            assert bool(victim.actor.heard(arrives)) == arrives


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
def test_another_mac_is_of_no_use(town: Town, guarded: bool):
    victim, attacker = town.member(), town.member({"ingress": []}) if guarded else unguarded(town)
    victim.actor.collect(7000)
    packet = udp(attacker.address(4), victim.address(4), 7000, "masked")
    send(attacker.pod, IPV4, next_hop(town, attacker, victim), "0a:00:00:00:00:99", packet)
    assert bool(victim.actor.heard(not guarded)) == (not guarded)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
def test_a_forged_neighbour_is_not_believed(lab: Lab, guarded: bool):
    host = lab.host()
    with ExitStack() as held:
        town = Town(host, lab, "bridged", held)
        friend, victim = town.member(), town.member()
        attacker = town.member({"ingress": []}) if guarded else unguarded(town)
        for family in FAMILIES:
            assert victim.actor.reaches(friend.address(family), 80) == "it"
        time.sleep(1.1)  # a neighbour that was just learned is not replaced (arp(7), locktime)
        claims = arp(mac(attacker), friend.address(4), victim.address(4))
        send(attacker.pod, ARP, EVERYBODY, mac(attacker), claims)
        claim = advertisement(attacker.address(6), victim.address(6), friend.address(6), mac(attacker))
        send(attacker.pod, IPV6, mac(victim), mac(attacker), claim)
        for family in FAMILIES:
            known = {entry["dst"]: entry.get("lladdr") for entry in victim.pod.ip("neigh", "show", family=family)}
            assert known[friend.address(family)] == (mac(friend) if guarded else mac(attacker))


def test_link_local_addresses_are_no_way_around(town: Town):
    victim, jailed = town.member({"defaultDeny": True}), town.member({"defaultDeny": True})
    free, other = town.member(), town.member()

    def local(member: Member) -> str:
        lines = member.pod.run("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link").stdout.split()
        return lines[lines.index("inet6") + 1].split("/")[0]

    assert not jailed.pod.pings(f"{local(victim)}%eth0", 1)
    assert free.pod.pings(f"{local(other)}%eth0") == (town.kind == "bridged"), "a routed pod's link ends at the node"


def test_an_interface_that_is_moved_away_takes_its_policy_along(town: Town):
    victim = town.member()
    for member, through in ((town.member(), True), (town.member({"egressDrop": True}), False)):
        hideout = town.lab.pod()
        sh("ip", "-n", member.pod.name, "link", "set", "eth0", "netns", hideout.name)
        for line in (
            "link set eth0 up",
            f"addr add {member.address(4)}/32 dev eth0",
            f"route add {victim.address(4)} dev eth0",
            f"neigh replace {victim.address(4)} lladdr {next_hop(town, member, victim)} dev eth0",
        ):
            sh("ip", "-n", hideout.name, *line.split())
        assert hideout.pings(victim.address(4), 2 if through else 1) == through


def test_a_pod_forges_no_tunnel_packets_and_no_dhcp_answers(town: Town):
    free, guarded, victim = unguarded(town), town.member({"ingress": []}), town.member()
    victim.actor.collect(4789)
    for sender, arrives in ((guarded, False), (free, True)):
        sender.actor.send(victim.address(4), 4789, "vxlan")
        assert bool(victim.actor.heard(arrives)) == arrives
    victim.actor.collect(7000)
    for sender, arrives in ((guarded, False), (free, True)):
        sender.actor.send(victim.address(4), 7000, "dhcp", source=["0.0.0.0", 67])
        assert bool(victim.actor.heard(arrives)) == arrives


@pytest.mark.threat
@pytest.mark.tried(
    "segments of connections that nobody began, which conntrack takes up all the same, from a pod that sends nothing",
    "dropped",
)
def test_a_segment_in_the_middle_of_nothing_begins_nothing(town: Town):
    """ACK, SYN and ACK, FIN, RST, and none: from a port that serves, too, so that it looks like an answer."""
    victim, jailed, free = town.member(), town.member({"egressDrop": True}), town.member()
    for family in FAMILIES:
        assert victim.actor.reaches(jailed.address(family), 80) == "it", "answers are sent"
        for sender, arrives in ((jailed, False), (free, True)):
            with Wire(victim.pod, "eth0") as wire:
                for flags in (0x10, 0x12, 0x11, 0x18, 0x00):
                    for port in (80, 40000):
                        packet = tcp(
                            sender.address(family), victim.address(family), port, 9090, flags, "out of nowhere"
                        )
                        send(sender.pod, KIND[family], next_hop(town, sender, victim), mac(sender), packet)
            assert wire.carried(b"out of nowhere") == arrives, family


@pytest.mark.threat
@pytest.mark.tried("ICMP redirects in the gateway's name", "end at the guard")
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
def test_a_pod_leads_nobody_elsewhere_in_the_gateways_name(lab: Lab, guarded: bool):
    with ExitStack() as held:
        town = Town(lab.host(), lab, "bridged", held)
        victim, attacker = town.member(), town.member({"ingress": []}) if guarded else unguarded(town)
        for gateway, about in (("10.1.0.1", "198.51.100.1"), ("fd00:1::1", "2001:db8::1")):
            family = 6 if ":" in gateway else 4
            packet = redirect(gateway, victim.address(family), attacker.address(family), about)
            with Wire(victim.pod, "eth0") as wire:
                send(attacker.pod, KIND[family], mac(victim), mac(attacker), packet)
            assert wire.carried(packet[-16:]) != guarded, gateway
