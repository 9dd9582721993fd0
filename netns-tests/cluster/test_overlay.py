"""The kernel's side of a cluster: what hosts know of each other's pods, and that nobody has to ask for it."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from cluster import Cluster
from cluster import conf as cluster_conf
from forge import send_several, send_vxlan
from lab import Host, Lab, Namespace, Pod, eventually, sh
from reconcilers import Hand, News, of_host, of_pod, own_of, pool, rows
from wire import Wire

from cni.cluster.model import Block, Endpoint, Network
from cni.naming import VTEP_TABLE
from cni.resources import VtepFilter
from cni.values import replace

V4 = pool("10.1.0.0/16", "10.1.0.1", "10.1.0.0", "10.1.255.254")
V6 = pool("fd00:1::/64", "fd00:1::1", "fd00:1::1", "fd00:1::ffff")
POOLS = {"4": (V4,), "6": (V6,), "46": (V4, V6)}


def conf(slot: int, families: str, **vxlan: Any) -> dict[str, Any]:
    """A host's part of the network, with addresses of its own block, and a tunnel that somebody else tells of the others."""
    ranges = {
        "4": {"subnet": "10.1.0.0/16", "rangeStart": f"10.1.{slot}.1", "rangeEnd": f"10.1.{slot}.254", "gateway": "10.1.0.1"},
        "6": {"subnet": "fd00:1::/64", "rangeStart": f"fd00:1::{slot}01", "rangeEnd": f"fd00:1::{slot}fe", "gateway": "fd00:1::1"},
    }  # fmt: skip
    base = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True}
    base["ipMasq"] = True
    ipam = {"ranges": [[ranges[family]] for family in families]}
    return base | {"vxlan": {"id": 100, "learning": False} | vxlan, "ipam": ipam}


class Scene:
    """Hosts of one network with a pod each, whose reconcilers know of each other."""

    def __init__(self, lab: Lab, stack: ExitStack, hosts: int, families: str, under: int = 4) -> None:
        self.lab, self.families, self.under = lab, families, under
        self.network = Network("net", POOLS[families], 256, "l2", 100)
        self.hosts = [lab.host() for _ in range(hosts)]
        self.switch = lab.underlay(*self.hosts)
        self.news = News()
        self.pods: list[Pod] = []
        self.results: list[dict[str, Any]] = []
        for number, host in enumerate(self.hosts, 11):
            sh("ip", "-n", host.name, "addr", "add", f"fd00:2::{number:x}/64", "dev", "eth0", "nodad")
            pod = lab.pod()
            self.pods.append(pod)
            self.results.append(host.add(conf(number - 10, families, **self.local(number)), pod))
            me = of_host(host, number, under)
            self.news.items |= {item.key: item for item in own_of(self.network, me, self.addresses(-1))}
            self.news.items |= {item.key: item for item in self.endpoints(-1, me)}
            self.news.hands.append(stack.enter_context(Hand(host, me, (self.network,))))

    def local(self, number: int) -> dict[str, str]:
        return {"local": f"fd00:2::{number:x}" if self.under == 6 else f"192.0.2.{number}"}

    def addresses(self, number: int) -> list[str]:
        return [item["address"].split("/")[0] for item in self.results[number]["ips"]]

    def endpoints(self, number: int, me: Any) -> list[Any]:
        mac = next(item["mac"] for item in self.results[number]["interfaces"] if item.get("sandbox"))
        return [of_pod(self.network, me, address, mac) for address in self.addresses(number)]

    def faults(self) -> list[str]:
        """Who does not reach whom, of pods and hosts and pods."""
        ways = [
            (at, one, address)
            for one, at in enumerate([*self.pods, *self.hosts])
            for other in range(len(self.pods))
            for address in self.addresses(other)
        ]
        return [f"{at.name} to {address}" for at, _, address in ways if not at.pings(address, 2)]


def inner(frame: bytes) -> bytes:
    """The Ethernet frame in a VXLAN packet, whatever it is sent over."""
    udp = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 0)
    is_vxlan = udp and frame[{34: 23, 54: 20}[udp]] == 17 and frame[udp + 2 : udp + 4] == (4789).to_bytes(2, "big")
    return frame[udp + 16 :] if is_vxlan else b""


def mac_of(pod: Pod) -> bytes:
    link = pod.link("eth0")
    assert link
    return bytes.fromhex(link["address"].replace(":", ""))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize(("families", "under"), [("46", 4), ("4", 6), ("6", 4), ("46", 6)])
def test_any_host_and_any_pod_reach_any_pod_and_nobody_asks_the_wire(
    lab: Lab, stack: ExitStack, families: str, under: int
):
    scene = Scene(lab, stack, 3, families, under)
    scene.news.listing()
    with Wire(scene.hosts[0], "eth0") as wire:
        assert scene.faults() == []
    inside = [frame for frame in map(inner, wire.frames) if frame]
    assert inside
    assert [frame.hex() for frame in inside if frame[0] & 1] == []  # no ARP, no ND, nothing flooded
    assert [frame.hex() for frame in inside if frame[12:14] == b"\x08\x06"] == []
    for hand, before in zip(scene.news.hands, map(rows, scene.hosts), strict=True):
        assert before
        assert hand.ask("compare") == 0
        assert hand.ask("clear") == ["4789 100"]
        assert rows(hand.host) == set()
        assert "elements" not in hand.host.run("nft", "list", "table", "inet", "agent_cni_vteps").stdout
    assert not scene.pods[0].pings(scene.addresses(1)[0], 1)
    scene.hosts[0].delete_pod(conf(1, families, **scene.local(11)), scene.pods[0])
    assert scene.news.hands[0].ask("clear") == []
    assert "agent_cni_vteps" not in scene.hosts[0].run("nft", "list", "tables").stdout


def test_an_address_moves_and_its_traffic_with_it(lab: Lab, stack: ExitStack):
    """A pod goes and another comes elsewhere with its address and MAC; a third host is told once."""
    scene = Scene(lab, stack, 3, "4")
    news = scene.news
    news.listing()
    (there,) = scene.endpoints(1, news.hands[1].me)
    assert scene.pods[0].pings(there.address)
    block = next(item for item in news.items.values() if isinstance(item, Block) and item.node == there.node)
    scene.hosts[1].delete_pod(conf(2, "4", local="192.0.2.12"), scene.pods[1])
    moved = lab.pod()
    here = conf(2, "4", local="192.0.2.13")
    result = scene.hosts[2].add(here, moved, CNI_ARGS=f"IgnoreUnknown=1;IP={there.address}")
    assert [item["mac"] for item in result["interfaces"] if item.get("sandbox")] == [there.mac]
    me = news.hands[2].me
    own = next(item for item in news.items.values() if isinstance(item, Endpoint) and item.mac == news.hands[1].me.mac)
    its = {"node": me.name, "machine": me.machine}
    news.change([replace(block, **its), there._replace(node=me.name), own._replace(node=me.name, mac=me.mac)])
    assert scene.pods[0].pings(there.address)
    assert scene.hosts[0].pings(there.address)
    assert [hand.ask("compare") for hand in news.hands] == [0, 0, 0]


def test_what_is_taken_away_comes_back_and_what_is_a_strangers_stays(lab: Lab, stack: ExitStack):
    scene = Scene(lab, stack, 2, "46")
    scene.news.listing()
    host, hand = scene.hosts[0], scene.news.hands[0]
    wanted, far = rows(host), scene.endpoints(1, scene.news.hands[1].me)[0]
    stranger = "0a:58:ff:00:00:01"
    for command in (
        f"bridge fdb add {stranger} dev vxlan100 self static dst 192.0.2.77",
        f"ip neigh add 10.1.77.77 lladdr {stranger} dev br0 nud permanent",
        "ip route add 198.51.100.0/24 dev br0",
    ):
        host.run(*command.split())
    others = strangers(host)
    for command in (
        f"bridge fdb replace {far.mac} dev vxlan100 self static dst 192.0.2.77",
        f"bridge fdb del {far.mac} dev vxlan100 master",
        f"bridge fdb del {far.mac} dev vxlan100 self",
        f"ip neigh del {far.address} dev br0",
        f"ip neigh replace {far.address} lladdr {stranger} dev br0 nud permanent",
        "ip route del 10.1.0.0/17 dev br0",
        "ip addr del 10.1.1.0/32 dev br0",
        "ip link set br0 down",
        "ip link set br0 up",
        "ip link set vxlan100 nomaster",
        "ip link set vxlan100 down",
        "ip link del vxlan100",
        "nft delete table inet agent_cni_vteps",
    ):
        host.run(*command.split())
        if command.startswith("nft"):
            hand.ask("compare")
        if command != "ip link set br0 down":
            assert eventually(lambda: rows(host) == wanted), (command, rows(host) ^ wanted)
        if command == "ip link set br0 up":
            for lost in ("neigh add 10.1.77.77 lladdr {} dev br0 nud permanent", "route add 198.51.100.0/24 dev br0"):
                host.run("ip", *lost.format(stranger).split())
    host.run("bridge", "fdb", "add", stranger, "dev", "vxlan100", "self", "static", "dst", "192.0.2.77")
    assert eventually(lambda: scene.faults() == [])
    assert hand.ask("compare") == 0
    assert strangers(host) == others
    # what is the member's and nobody's any more: of a life that ended before it could take it away
    host.run("bridge", "fdb", "add", "0a:58:0a:01:09:09", "dev", "vxlan100", "self", "master", "static", "extern_learn", "dst", "192.0.2.9")  # fmt: skip
    host.run("ip", "neigh", "add", "10.1.9.9", "lladdr", stranger, "dev", "br0", "nud", "permanent", "proto", "172")
    host.run("ip", "route", "add", "203.0.113.0/24", "dev", "br0", "proto", "172")
    assert hand.ask("compare") == 3
    assert rows(host) == wanted
    assert strangers(host) == others
    lost = host.folder.with_suffix(".lost")  # a state that is gone for a while, as one that is restored is
    lost.mkdir()
    for here, there in ((host.folder, lost), (lost, host.folder)):
        for file in here.glob("state.db*"):
            file.rename(there / file.name)
        assert hand.ask("look") == 0
        assert rows(host) == wanted
    lost.rmdir()


def strangers(host: Host) -> set[str]:
    """What of neighbours, routes and rows for good is nobody's of ours."""
    found = set()
    for command in ("bridge fdb show dev vxlan100", "ip neigh show dev br0 nud permanent", "ip route show"):
        lines = {line.strip() for line in host.run(*command.split()).stdout.splitlines()}
        found |= {
            line for line in lines if not {"extern_learn", "172"} & {*line.split()} and "dst 192.0.2.1" not in line
        }
    return {
        line for line in found if not line.startswith(("33:33:", "01:00:5e:")) and "master br0 permanent" not in line
    }


def test_vxlan_is_accepted_from_known_hosts_only_and_other_networks_are_none_of_its_business(
    lab: Lab, stack: ExitStack
):
    scene = Scene(lab, stack, 2, "46")
    scene.news.listing()
    host, pod = scene.hosts[0], scene.pods[0]
    sh("ip", "-n", scene.switch.name, "addr", "add", "fd00:2::77/64", "dev", "sw0", "nodad")
    static = [lab.pod(), lab.pod()]
    for slot, (one, at) in enumerate(zip(static, scene.hosts, strict=True)):
        ranges = [[{"subnet": "10.2.0.0/16", "rangeStart": f"10.2.{slot}.2", "rangeEnd": f"10.2.{slot}.2"}]]
        base = {
            "cniVersion": "1.1.0",
            "name": "static",
            "type": "bridge-vxlan",
            "bridge": "br1",
            "ipam": {"ranges": ranges},
        }
        at.add(base | {"vxlan": {"id": 200, "remotes": [f"192.0.2.{12 - slot}"]}}, one)
    frame = (
        mac_of(pod) + bytes.fromhex("0a5800000001") + b"\x88\xb5" + b"forged by somebody on the wire".ljust(60, b".")
    )
    for source, target in (("192.0.2.1", "192.0.2.11"), ("fd00:2::77", "fd00:2::b")):
        with Wire(pod, "eth0") as wire:
            send_vxlan(scene.switch, source, target, 100, frame)
        assert not wire.carried(b"forged")
    with Wire(pod, "eth0") as wire:
        send_vxlan(scene.hosts[1], "192.0.2.12", "192.0.2.11", 100, frame)
    assert wire.carried(b"forged")
    send = "import socket, sys; s = socket.socket(2, 2); s.bind(('', int(sys.argv[1]))); s.sendto(b'from a pod', (sys.argv[2], int(sys.argv[3])))"
    # behind the host's address a pod has no part in what the host sends and hears by VXLAN
    tried = ((4789, "192.0.2.1", 9), (4789, "192.0.2.12", 4789), (4790, "192.0.2.12", 4789), (4790, "192.0.2.1", 9))
    for port, *to in tried:
        with Wire(host, "eth0") as wire:
            pod.run(sys.executable, "-c", send, port, *to)
        assert wire.carried(b"from a pod") == (4789 not in (port, *to))
    for each in scene.hosts:  # where the range is wide some flow's hash is the VXLAN port too: here each is
        each.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=4789 4790")
    with Wire(host, "eth0") as wire:
        assert pod.pings(scene.addresses(1)[0])
    assert [item for item in wire.frames if inner(item) and item[34:38] == (4789).to_bytes(2) * 2]
    for each in scene.hosts:
        each.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999")
    frame = mac_of(static[0]) + frame[6:]
    with Wire(static[0], "eth0") as wire:
        send_vxlan(scene.switch, "192.0.2.1", "192.0.2.11", 200, frame)
    assert wire.carried(b"forged")
    assert static[1].pings("10.2.0.2")
    flooded = host.run("bridge", "fdb", "show", "dev", "vxlan200").stdout
    assert "00:00:00:00:00:00 dst 192.0.2.12 self permanent" in flooded
    assert "extern_learn" not in flooded


@pytest.mark.threat
@pytest.mark.parametrize("under", [4, 6])
def test_a_local_user_of_a_host_sends_no_frames_in_its_name(lab: Lab, stack: ExitStack, under: int):
    """He has its address, and reaches pods as himself."""
    scene = Scene(lab, stack, 2, "46", under=under)
    scene.news.listing()
    host, other = (LocalUser(each.name) for each in scene.hosts)
    for sender, passes in ((scene.hosts[1], True), (other, False), (host, False)):
        assert list(frames_of(scene, sender, vteps(scene)[sender.name == other.name])) == [passes] * 2
    for address in scene.addresses(0):
        asked = (
            f"import socket; print(socket.socket(socket.AF_INET{'6' * (':' in address)}).connect_ex(({address!r}, 9)))"
        )
        assert other.run(sys.executable, "-I", "-c", asked).stdout.strip() == str(errno.ECONNREFUSED)


@pytest.mark.threat
@pytest.mark.parametrize("under", [4, 6])
def test_no_pod_hides_a_vni_behind_another(lab: Lab, stack: ExitStack, under: int):
    """A pod of the host, who has no policy, asks its host, and the other one by way of it, which gives it its own address."""
    scene = Scene(lab, stack, 2, "46", under=under)
    scene.news.listing()
    for at, host in enumerate(scene.hosts):
        pod = lab.pod()
        host.add(conf(at + 1, "46", **scene.local(at + 11)), pod)
        source = next(item.split("/")[0] for item in pod.addresses("eth0") if (":" in item) == (under == 6))
        assert not any(frames_of(scene, pod, source))
    if under == 4:  # a wire that is software hands it on as it is
        assert list(frames_of(scene, scene.switch, "192.0.2.1")) == [False, True]


def vteps(scene: Scene) -> list[str]:
    return ["fd00:2::b", "fd00:2::c"] if scene.under == 6 else ["192.0.2.11", "192.0.2.12"]


def frames_of(scene: Scene, sender: Namespace, source: str) -> Iterator[bool]:
    """Whether a frame from there reaches the first host's pod by VXLAN; and one that is behind another network's in a packet."""
    frame = mac_of(scene.pods[0]) + bytes.fromhex("0a5800000001") + b"\x88\xb5" + b"in its name".ljust(60, b".")
    for vnis in ((100,), (9, 100)):
        with Wire(scene.pods[0], "eth0") as wire:
            send_several(sender, source, vteps(scene)[0], vnis, frame)
        yield wire.carried(b"in its name")


class LocalUser(Namespace):
    """What an ordinary user of a host runs there."""

    def run(self, *argv: object, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
        ids = ("setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "--inh-caps", "-all")
        return super().run(*ids, *argv, check=check, **options)


def test_an_ipv6_packet_that_hides_its_vni_in_a_later_fragment_is_dropped(lab: Lab, stack: ExitStack):
    scene = Scene(lab, stack, 2, "4", under=6)
    scene.news.listing()
    sh("ip", "-n", scene.switch.name, "addr", "add", "fd00:2::77/64", "dev", "sw0", "nodad")
    frame = mac_of(scene.pods[0]) + bytes.fromhex("0a5800000001") + b"\x88\xb5" + b"forged in pieces".ljust(60, b".")
    tunnel = VtepFilter(("fd00:2::c",), ("4789 100",), "tunnel").script()
    for sender, source, table, passes in (
        (scene.switch, "fd00:2::77", "", False),
        (scene.hosts[1], "fd00:2::c", "", True),
        (scene.hosts[1], "fd00:2::c", tunnel, False),
    ):
        if table:  # a host that is known, and does not send by the tunnel
            scene.hosts[0].run("nft", "-f", "-", input=f"delete table {VTEP_TABLE}\n{table}")
        for first, options in ((8, 0), (16, 0), (8, 72), (16, 72)):
            with Wire(scene.pods[0], "eth0") as wire:
                send_vxlan(sender, source, "fd00:2::b", 100, frame, first, options)
            assert wire.carried(b"forged") == passes, (source, first, options)


@pytest.mark.parametrize(
    ("mode", "families", "under"), [("l2", "46", 4), ("l3", "46", 4), ("l3", "4", 6), ("l3", "6", 6), ("l2", "6", 6)]
)
def test_members_of_one_cluster_have_their_pods_reach_each_other(lab: Lab, mode: str, families: str, under: int):
    with Cluster(lab, 2, family=under) as cluster:
        cluster.join()
        net = cluster_conf(mode, families=families, block=16)
        for node in cluster.nodes * 2:
            cluster.add(node, net)
        cluster.meshed()
        for placed in cluster.placed:
            placed.host.check(net, placed.pod, placed.result).ok()
            port = placed.host.run("bridge", "-d", "link", "show", "dev", "vxlan100").stdout
            assert ("learning off" in port) == (mode == "l2"), port
        overhead = 70 if under == 6 else 50
        far = cluster.placed[1].addresses[0]
        whole = 1500 - overhead - (48 if ":" in far else 28)
        for size, passes in ((whole, True), (whole + 1, False)):  # what is sent whole, with nobody to cut it up
            done = cluster.placed[0].pod.run("ping", "-c1", "-W5", "-Mdo", "-s", size, far, check=False)
            assert (done.returncode == 0) == passes, done.stdout
        with Wire(cluster.nodes[0], "eth0") as wire:
            assert cluster.faults() == []
        inside = [frame for frame in map(inner, wire.frames) if frame]
        assert inside
        assert [frame.hex() for frame in inside if frame[0] & 1 or frame[12:14] == b"\x08\x06"] == []


def test_where_it_is_direct_neighbours_do_without_the_tunnel_and_others_do_not(lab: Lab):
    """A host that is not on the link (here: by what its own says) is sent to as before, and answers likewise."""
    with Cluster(lab, 2) as cluster:
        cluster.join()
        net = cluster_conf("l3", families="46", block=16, vxlan={"direct": True})
        for node in cluster.nodes * 2:
            cluster.add(node, net)
        cluster.meshed()
        node, other = cluster.nodes
        assert len(routed_by(node, "eth0")) == len(routed_by(other, "eth0")) > 0
        with Wire(node, "eth0") as wire:
            assert cluster.faults() == []
        four = [frame for frame in map(inner, wire.frames) if frame and frame[12:14] == b"\x08\x00"]
        assert four == [], "IPv4 is in no tunnel"
        for host in cluster.nodes:
            assert host.run("ip", "route", "del", *routed_by(host, "eth0")[0].split()[:1], check=False).returncode == 0
        assert eventually(lambda: routed_by(node, "eth0") and routed_by(other, "eth0")), (
            "who takes one away sees it again"
        )
        for host, span in zip(cluster.nodes, ("192.0.2.11/32", "192.0.2.12/32"), strict=True):
            host.run("ip", "addr", "add", span, "dev", "eth0")
            host.run("ip", "addr", "del", span.replace("/32", "/24"), "dev", "eth0")
            host.run("ip", "route", "replace", "192.0.2.0/24", "dev", "eth0")
        assert eventually(lambda: not routed_by(node, "eth0") and not routed_by(other, "eth0"))
        cluster.meshed()


def routed_by(node: Any, link: str) -> list[str]:
    """The cluster's routes on a link."""
    shown = node.run("ip", "route", "show", "dev", link, "scope", "global").stdout.splitlines()
    return [line for line in shown if line.startswith("10.10.")]


def test_two_networks_on_one_tunnel_keep_their_rows_and_a_host_with_another_vtep_is_found(lab: Lab):
    with Cluster(lab, 2) as cluster:
        cluster.join()
        one = cluster_conf("l3", families="4", block=16)
        two = cluster_conf("l3", families="4", block=16, name="two", bridge="br1") | {"ipam": one["ipam"] | {"ranges": [[{"subnet": "10.11.0.0/16"}]]}}  # fmt: skip
        for node in cluster.nodes:
            cluster.add(node, one)
            cluster.add(node, two)
        cluster.meshed()
        node, other = cluster.nodes
        before = rows(node)
        node.run("ip", "link", "set", "vxlan100", "down")
        node.run("ip", "link", "set", "vxlan100", "up")
        assert eventually(lambda: rows(node) == before), rows(node) ^ before
        cluster.meshed()
        for address, verb in (("192.0.2.12/24", "del"), ("192.0.2.99/24", "add")):
            other.run("ip", "addr", verb, address, "dev", "eth0")
        cluster.configure(other, vtep="192.0.2.99")
        other.stop()
        other.start()
        cluster.meshed()
        assert "dst 192.0.2.99" in node.run("bridge", "fdb", "show", "dev", "vxlan100").stdout


def test_a_network_has_one_udp_port_on_all_hosts(lab: Lab):
    with Cluster(lab, 2) as cluster:
        cluster.join()
        one, other = cluster.nodes
        net = cluster_conf("l3", families="4", vxlan={"dstport": 8472})
        cluster.add(one, net)
        refused = other.cni("ADD", cluster_conf("l3", families="4"), lab.pod()).failed(101)
        assert "port is 4789 here and 8472 there" in refused
        cluster.add(other, net)
        cluster.sound()
