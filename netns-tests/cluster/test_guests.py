"""A host that has no pod of a network reaches those of others all the same, by an address of its own there; or it is refused, and
nothing of what it sends is on the wire in clear.
"""

from __future__ import annotations

import shutil

import pytest
from cluster import Cluster, Node, conf, subnet
from lab import AGENT_CNI, Lab, eventually, sh
from reconcilers import rows
from wire import Wire

DEVICE = "vxlan100"


def device_of(node: Node) -> int:
    """The index of a host's VXLAN device; 0 where there is none."""
    link = node.link(DEVICE)
    return link["ifindex"] if link else 0


def alone(node: Node) -> bool:
    """Whether a host has nothing of the network: no device, no row, no route that refuses."""
    left = [item for family in (4, 6) for item in node.routes(family) if item["dst"] in (subnet(4), subnet(6))]
    return not (device_of(node) or rows(node) or left)


@pytest.mark.parametrize(
    ("mode", "under", "encryption"),
    [("l2", 4, ""), ("l3", 4, ""), ("l2", 6, "wireguard"), ("l3", 4, "wireguard")],
)
def test_a_host_without_a_pod_reaches_every_pod_and_the_first_pod_takes_its_device_over(
    lab: Lab, mode: str, under: int, encryption: str
):
    with Cluster(lab, 3, family=under) as cluster:
        guest, *others = cluster.nodes
        cluster.join(encryption=encryption)
        assert alone(guest)
        net = conf(mode, block=16)
        for node in others:
            cluster.add(node, net)
        cluster.meshed()
        assert guest.remembered(lambda store: store.guest_of()) == ["net"]
        index = device_of(guest)
        for family, unused in ((4, "10.10.200.200"), (6, "fd00:10::200:200")):
            with Wire(guest, "eth0") as wire:
                assert not guest.pings(unused, 1)
            address = sh("python3", "-c", f"import ipaddress; print(ipaddress.ip_address('{unused}').packed.hex())")
            seen = [frame for frame in wire.frames if bytes.fromhex(address.stdout.strip()) in frame[:54]]
            assert seen == [], family
        guest.kill()
        cluster.join(guest, encryption=encryption)
        cluster.meshed()
        assert device_of(guest) == index

        guest.pause()
        assert "gave none" in guest.cni("ADD", net, lab.pod()).failed(11)
        guest.go_on()
        assert eventually(lambda: guest.remembered(lambda store: [why for _, why in store.shared()]) == [""])
        guest.kill()  # the pod's ADD itself leaves nothing of the host's own in the bridge's way
        placed = cluster.add(guest, net)
        assert device_of(guest) == index
        assert all(guest.pings(placed.address(family), 2) for family in (4, 6))
        cluster.join(guest, encryption=encryption)
        cluster.sound()
        assert guest.remembered(lambda store: store.guest_of()) == []
        guest.check(net, placed.pod, placed.result).ok()
        shown = sh("ip", "-n", guest.name, "-d", "link", "show", DEVICE).stdout
        assert ("master br0" in shown) == (mode == "l2")
        cluster.remove(placed)
        cluster.sound()
        cluster.leave()
        assert cluster.written() == []
        assert all(alone(node) for node in cluster.nodes)


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_what_a_guest_has_goes_with_the_network_or_the_host_and_comes_back_after_a_boot(lab: Lab, mode: str):
    with Cluster(lab, 3) as cluster:
        guest, other, third = cluster.nodes
        cluster.join(guest, other)
        net = conf(mode, block=16)
        cluster.add(other, net)
        cluster.meshed()
        wanted = rows(guest)

        for command in (
            f"ip link del {DEVICE}",
            f"ip link set {DEVICE} down",
            f"ip route flush dev {DEVICE} proto 172",
        ):
            guest.run(*command.split())
            assert eventually(lambda: rows(guest) == wanted), (command, rows(guest) ^ wanted)
        cluster.meshed()

        guest.kill()  # a boot
        guest.run("ip", "link", "del", DEVICE)
        for family in (4, 6):
            guest.run("ip", f"-{family}", "route", "flush", "proto", "172")
        shutil.rmtree(guest.folder)
        guest.folder.mkdir()
        cluster.join(guest)
        cluster.meshed()
        assert rows(guest) == wanted

        guest.run(AGENT_CNI, "leave")
        guest.wanted = False
        assert alone(guest), rows(guest)
        assert cluster.left(guest) == []

        cluster.join(third)
        cluster.meshed()
        for placed in list(cluster.placed):
            cluster.remove(placed)
        cluster.leave(other)
        assert eventually(lambda: not third.holdings()), "nobody has a pod of it any more"
        cluster.etcd.ctl("del", "/agent-cni/networks/net")
        assert eventually(lambda: alone(third)), rows(third)


@pytest.mark.parametrize(
    ("mode", "takes"),
    [("l2", "device"), ("l2", "bridge"), ("l2", "place"), ("l3", "device")],
)
def test_a_host_whose_last_pod_went_reaches_the_others_when_somebody_takes_its_device_away(
    lab: Lab, mode: str, takes: str
):
    """Nobody made it again before the next ADD: it had been a call's, and no pod was on it."""
    commands = {"device": f"link del {DEVICE}", "bridge": "link del br0", "place": f"link set {DEVICE} nomaster"}
    with Cluster(lab, 2) as cluster:
        cluster.join()
        host, other = cluster.nodes
        net = conf(mode, block=16)
        cluster.add(other, net)
        placed = cluster.add(host, net)
        cluster.sound()
        cluster.remove(placed)
        host.run("ip", *commands[takes].split())
        cluster.meshed()
        again = cluster.add(host, net)
        host.check(net, again.pod, again.result).ok()
        cluster.sound()
        cluster.leave()


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_a_guest_takes_no_block_that_pods_will_want_and_is_refused_where_it_has_none(lab: Lab, mode: str):
    with Cluster(lab, 2) as cluster:
        guest, other = cluster.nodes
        cluster.join()
        ipam = {"ranges": [[{"subnet": "10.10.0.0/27"}]]}
        placed = cluster.add(other, conf(mode, families="4", block=16, ipam=ipam))
        assert other.pings(placed.address(4))
        assert eventually(lambda: device_of(guest))
        assert guest.holdings() == set()
        with Wire(guest, "eth0") as wire:
            assert "No route to host" in guest.run("ping", "-c1", "-W1", placed.address(4), check=False).stderr
        assert not [frame for frame in wire.frames if bytes([10, 10, 0]) in frame[30:34]]


def test_a_network_becomes_another_when_nobody_but_guests_have_a_block_of_it(lab: Lab):
    with Cluster(lab, 2) as cluster:
        guest, other = cluster.nodes
        cluster.join()
        placed = cluster.add(other, conf("l3", block=16))
        cluster.meshed()
        cluster.remove(placed)
        another = conf("l3", block=32)
        assert "block is 32 here and 16 there" in other.cni("ADD", another, lab.pod()).failed(101)
        assert eventually(lambda: other.cni("STATUS", another).code == 0), other.said()
        cluster.add(other, another)
        cluster.meshed()
        assert eventually(lambda: {span.partition("/")[2] for span in guest.holdings()} == {"27", "123"})


def test_a_tunnel_of_another_network_is_nobody_elses(lab: Lab):
    with Cluster(lab, 2) as cluster:
        guest, other = cluster.nodes
        cluster.join()
        static = conf(name="static", bridge="br7") | {"vxlan": {"id": 100, "remotes": ["192.0.2.77"]}}
        static["ipam"] = {"type": "agent-ipam", "ranges": [[{"subnet": "10.77.0.0/24"}]]}
        pod = lab.pod()
        result = guest.add(static, pod)
        before = guest.link(DEVICE)
        placed = cluster.add(other, conf("l2", families="4", block=16))
        assert eventually(lambda: "10.10.0.0/16" in {item["dst"] for item in guest.routes(4)})
        assert not guest.pings(placed.address(4), 1)
        guest.check(static, pod, result).ok()
        after = guest.link(DEVICE)
        assert before
        assert after
        assert (before["ifindex"], before["address"], before["master"]) == (
            after["ifindex"], after["address"], after["master"],
        )  # fmt: skip
        assert "extern_learn" not in guest.run("bridge", "fdb", "show", "dev", DEVICE).stdout
        guest.run(AGENT_CNI, "leave")
        guest.wanted = False
        assert "10.10.0.0/16" not in {item["dst"] for item in guest.routes(4)}
        guest.check(static, pod, result).ok()
        guest.delete_pod(static, pod)
