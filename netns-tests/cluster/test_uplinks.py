"""Uplinks that fail in every way there is: pods go on talking between hosts after a moment, and no host flaps."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cluster import conf
from lab import AGENT_CNI, Lab, eventually
from uplinks import FAILURES, Uplinks, pauses

#: What doctor says of an uplink that failed.
SAID = {
    "silent": "its gateway 192.0.2.1 is silent", "unplugged": "carries nothing: it has no carrier",
    "down": "carries nothing: it is set down", "deleted": "there is no such link", "bare": "has no address",
}  # fmt: skip
#: What a busy machine may take on top of the aim of 1.5 s, which `make bench` holds.
MOST = 4.0


@pytest.mark.parametrize("failure", FAILURES)
def test_pods_of_a_host_whose_uplink_fails_go_on_talking_by_the_other(failure: str, lab: Lab):
    with Uplinks(lab, hosts=2) as town:
        town.join()
        one, other = town.nodes
        net = conf("l2", block=8)
        here, far = town.add(one, net), town.add(other, net)
        town.sound()
        assert town.is_at(one, "eth0")
        with pauses(here, far) as talk:
            time.sleep(1)
            FAILURES[failure](one)
            assert eventually(lambda: town.is_at(one, "eth1")), one.said()
            town.meshed()
            longest = talk.longest()
        print(f"{failure}: {longest:.2f} s")
        assert longest < MOST
        assert one.check(net, here.pod, here.result).code == 0
        told = one.run(AGENT_CNI, "doctor", check=False).stdout
        assert [line for line in told.splitlines() if "uplink eth0" in line and SAID[failure] in line], told
        assert "uplink eth1" not in told
        town.add(one, net)
        town.sound()
        town.wire(one, "eth0")
        one.silence("eth0", silent=False)
        assert eventually(lambda: town.is_at(one, "eth0")), one.said()
        town.sound()
        town.leave()


#: Underlays and overlays: what the cluster is, its network's mode, and what its hosts are told besides.
WORLDS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "l3": ({}, "l3", {}),
    "ipv6": ({"family": 6}, "l2", {}),
    "one subnet": ({"one": True}, "l2", {}),
    "no gateways": ({"one": True, "gateways": False}, "l3", {}),
    "encrypted": ({}, "l3", {"encryption": "wireguard"}),
}


@pytest.mark.parametrize("world", WORLDS)
def test_hosts_whose_uplinks_fall_silent_at_the_same_time_meet_by_the_others(world: str, lab: Lab):
    made, mode, told = WORLDS[world]
    with Uplinks(lab, hosts=2, **made) as town:
        town.join(**told)
        one, other = town.nodes
        net = conf(mode, block=8)
        here, far = town.add(one, net), town.add(other, net)
        town.sound()
        assert all(town.is_at(node, "eth0") for node in town.nodes)
        with pauses(here, far) as talk:
            time.sleep(1)
            for node in town.nodes:
                node.silence("eth0")
            assert eventually(lambda: all(town.is_at(node, "eth1") for node in town.nodes)), one.said()
            town.meshed()
            longest = talk.longest()
        print(f"{world}: {longest:.2f} s")
        assert longest < MOST
        for placed in (here, far):
            assert placed.host.check(net, placed.pod, placed.result).code == 0
        town.add(other, net)
        town.sound()
        one.silence("eth0", silent=False)  # and the other one stays
        assert eventually(lambda: town.is_at(one, "eth0") or not town.gateways), one.said()
        town.sound()
        town.leave()


def test_nobody_moves_for_a_host_that_is_gone_or_where_nobody_answers_at_all(lab: Lab):
    with Uplinks(lab, hosts=3, one=True, gateways=False) as town:
        town.join()
        one, other, third = town.nodes
        net = conf("l2", families="4", block=8)
        for node in town.nodes:
            town.add(node, net)
        town.sound()
        third.kill()
        for link in ("eth0", "eth1"):
            third.silence(link)
        time.sleep(4)
        for link in ("eth0", "eth1"):
            other.silence(link)
        time.sleep(4)
        assert town.is_at(one, "eth0")
        assert "uplink eth1 is taken" not in one.said() + other.said()
        for link in ("eth0", "eth1"):
            other.silence(link, silent=False)
        assert eventually(lambda: town.joined(other)), other.said()
        assert "uplink eth1 is taken" not in one.said()


def test_a_member_that_is_killed_while_it_moves_goes_on_and_what_leaves_the_host_goes_by_the_uplink(lab: Lab):
    """Its state and its routes may say different things then; a macvlan's link is that of the default route, and a masqueraded
    packet has the address of the link it leaves by.
    """
    with Uplinks(lab, hosts=2) as town:
        town.join()
        one, other = town.nodes
        net = conf("l3", families="4", block=8) | {"ipMasq": True}
        here = town.add(one, net)
        town.add(other, net)
        town.sound()
        for number in range(4):
            one.silence("eth0", silent=not number % 2)
            time.sleep(0.6 + 0.15 * number)
            one.kill()
            one.start()
        one.silence("eth0")
        assert eventually(lambda: town.is_at(one, "eth1")), one.said()
        town.sound()
        assert here.pod.pings("203.0.113.1"), "another router, masqueraded"
        lone = {"cniVersion": "1.1.0", "name": "lone", "type": "macvlan", "ipam": {"subnet": "10.99.0.0/24"}}
        pod = lab.pod()
        one.add(lone, pod)
        parent = next(item for item in pod.ip("link", "show") if item["ifname"] == "eth0")["link_index"]
        assert next(item["ifname"] for item in one.ip("link", "show") if item["ifindex"] == parent) == "eth1"
        one.delete_pod(lone, pod)
        town.leave()
