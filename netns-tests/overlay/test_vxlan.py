"""The overlay: what crosses the underlay, what fits, and what stands in its way."""

from __future__ import annotations

import json

import pytest
from lab import AGENT_CNI, PATIENCE, Host, Lab, Pod, sh
from overlay import address, conf, flooded, pair

SNIFF = """
import json, select, socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); raw.bind(("port11", 0))
print("ready", flush=True)
seen = []
while sys.stdin not in (ready := select.select([raw, sys.stdin], [], [])[0]) or raw in ready:
    seen.append(raw.recv(65535).hex())
print(json.dumps(seen))
"""


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_the_largest_packet_passes_whole_and_no_larger_one(lab: Lab, mtu: int):
    _, pods, results = pair(lab, mtu)
    payload = mtu - 50 - 28
    for pod, other in zip(pods, reversed(results), strict=True):
        assert pod.link("eth0")["mtu"] == mtu - 50
        assert (
            pod.run("ping", "-c1", f"-W{PATIENCE}", "-M", "do", "-s", payload, address(other), check=False).returncode
            == 0
        )
        assert pod.run("ping", "-c1", "-W1", "-M", "do", "-s", payload + 1, address(other), check=False).returncode != 0


def test_only_vxlan_crosses_and_no_arp_for_the_gateway(lab: Lab):
    _, pods, results = pair(lab)
    switch = next(space for space in lab.made if space.name.startswith("switch"))
    with switch.start("python3", "-c", SNIFF) as sniffer:
        assert sniffer.stdout.readline() == "ready\n"
        pods[0].run("ip", "neigh", "flush", "all")
        assert pods[0].pings("10.1.0.1")
        assert pods[0].pings(address(results[1]))
        sniffer.stdin.close()
        frames = [bytes.fromhex(item) for item in json.loads(sniffer.stdout.readline())]
    tunnelled = [
        frame[50:]
        for frame in frames
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == b"\x12\xb5"
    ]
    assert any(frame[12:14] == b"\x08\x00" and frame[23] == 1 for frame in tunnelled)
    gateway = bytes([10, 1, 0, 1])
    assert not [frame for frame in tunnelled if frame[12:14] == b"\x08\x06" and gateway in (frame[28:32], frame[38:42])]
    assert not [frame for frame in frames if frame[26:28] == b"\x0a\x01"]


def test_both_hosts_hold_the_same_gateway_with_the_same_mac(lab: Lab):
    hosts, pods, _ = pair(lab)
    macs = {host.link("br0")["address"] for host in hosts}
    for pod in pods:
        assert pod.pings("10.1.0.1")
        macs.add(pod.ip("neigh", "show", "10.1.0.1")[0]["lladdr"])
    assert macs == {"0a:58:0a:01:00:01"}


def test_an_ipv6_underlay_costs_70_bytes(lab: Lab):
    hosts, pods = [lab.host(), lab.host()], [lab.pod(), lab.pod()]
    lab.underlay(*hosts)
    for number, host in enumerate(hosts, 1):
        sh("ip", "-n", host.name, "addr", "add", f"fd00:aa::{number}/64", "dev", "eth0", "nodad")
    results = [
        host.add(conf([f"fd00:aa::{2 - slot}"], slot, vxlan={"local": f"fd00:aa::{slot + 1}"}), pod)
        for slot, (host, pod) in enumerate(zip(hosts, pods, strict=True))
    ]
    assert pods[0].link("eth0")["mtu"] == 1430
    assert (
        pods[0]
        .run("ping", "-c1", f"-W{PATIENCE}", "-M", "do", "-s", "1402", address(results[1]), check=False)
        .returncode
        == 0
    )


@pytest.mark.parametrize(
    ("keys", "path", "limit"),
    [
        ({"mtu": 1451}, "$.mtu", "1450"),
        ({"vxlan": {"mtu": 1451}}, "$.vxlan.mtu", "1450"),
        ({"mtu": 1400, "vxlan": {"mtu": 1399}}, "$.mtu", "1399"),
    ],
)
def test_an_mtu_that_does_not_fit_is_refused_with_the_limit(
    lab: Lab, host: Host, pod: Pod, keys: dict, path: str, limit: str
):
    lab.underlay(host)
    message = host.cni("ADD", conf(["192.0.2.12"], **keys), pod).failed(7)
    assert path in message
    assert limit in message
    assert host.link("br0") is None


def test_the_flood_list_follows_the_configuration(lab: Lab, host: Host):
    lab.underlay(host)
    for remotes in (["192.0.2.12", "192.0.2.13"], ["192.0.2.13", "192.0.2.14"], []):
        host.add(conf(remotes), lab.pod())
        assert flooded(host) == set(remotes)


def test_without_remotes_somebody_elses_list_is_left_alone(lab: Lab, host: Host):
    lab.underlay(host)
    host.add(conf(), lab.pod())
    host.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vxlan100", "dst", "192.0.2.99")
    host.add(conf(), lab.pod())
    assert flooded(host) == {"192.0.2.99"}


@pytest.mark.parametrize("local", ["", "192.0.2.11", "198.51.100.1"], ids=["no local", "local", "local on lo"])
@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_all_hosts_may_have_one_list(lab: Lab, host: Host, local: str, v6: bool):
    """A host's own addresses among the remotes are left out, and decide no MTU."""
    lab.underlay(host)
    sixth = {"192.0.2.11": "fd00:aa::11", "192.0.2.12": "fd00:aa::12", "198.51.100.1": "fd00:bb::1", "": ""}
    for mine, dev in (("192.0.2.11/24", "eth0"), ("198.51.100.1/32", "lo")):
        host.run("ip", "addr", "replace", mine, "dev", dev)
        host.run("ip", "addr", "replace", f"{sixth[mine.split('/')[0]]}/64", "dev", dev, "nodad")
    every = ["198.51.100.1", "192.0.2.11", "192.0.2.12"]
    where = {"local": sixth[local] if v6 else local} if local else {}
    wanted, pods = conf([sixth[one] for one in every] if v6 else every, vxlan=where), [lab.pod(), lab.pod()]
    results = [host.add(wanted, pod) for pod in pods]
    assert flooded(host) == {"fd00:aa::12" if v6 else "192.0.2.12"}
    assert pods[0].link("eth0")["mtu"] == (1430 if v6 else 1450)
    assert pods[0].pings(address(results[1]))
    for pod, result in zip(pods, results, strict=True):
        host.check(wanted, pod, result).ok()
    again = "fd00:aa::11" if v6 else "192.0.2.11"
    host.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vxlan100", "dst", again)
    assert f"{again}, which is this host itself" in host.check(wanted, pods[0], results[0]).failed(104)


OBSTACLES = {
    "the VNI is held": ("ip link add other type vxlan id 100 dstport 4789", {}, 101, "held by other"),
    "the name is held by another VNI": ("ip link add vxlan100 type vxlan id 7 dstport 4789", {}, 101, "VNI 7"),
    "the name is held by another port": ("ip link add vxlan100 type vxlan id 100 dstport 8472", {}, 101, "8472"),
    "the name is held by another kind": ("ip link add vxlan100 type bridge", {}, 101, "is bridge"),
    "the link is missing": ("true", {"vxlan": {"dev": "nope"}}, 7, "$.vxlan.dev"),
    "the address is missing": ("true", {"vxlan": {"local": "192.0.2.77"}}, 7, "$.vxlan.local"),
    "families are mixed": ("true", {"vxlan": {"local": "fd00::1"}}, 7, "one family"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_an_obstacle_is_named_and_nothing_is_left(lab: Lab, host: Host, pod: Pod, obstacle: str):
    command, keys, code, words = OBSTACLES[obstacle]
    lab.underlay(host)
    host.run("sh", "-c", command)
    before = host.snapshot()
    assert words in host.cni("ADD", conf(["192.0.2.12"], **keys), pod).failed(code)
    assert host.snapshot() == before
    assert pod.link("eth0") is None


def test_a_taken_udp_port_is_named_and_nothing_is_left(lab: Lab, host: Host, pod: Pod):
    lab.underlay(host)
    holder = "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',4789));print('ready',flush=True);import time;time.sleep(30)"
    before = host.snapshot()
    with host.start("python3", "-c", holder) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            assert "UDP port 4789" in host.cni("ADD", conf(["192.0.2.12"]), pod).failed(101)
        finally:
            process.terminate()
    assert host.snapshot() == before


@pytest.mark.parametrize(("served", "code"), [(False, 50), (True, 51)])
@pytest.mark.parametrize("lost", ["dev", "local"])
def test_status_tells_what_the_tunnel_lacks(lab: Lab, host: Host, pod: Pod, served: bool, code: int, lost: str):
    lab.underlay(host)
    wanted = {"dev": {"dev": "eth0"}, "local": {"local": "192.0.2.11"}}[lost]
    bound = conf(["192.0.2.12"], vxlan=wanted)
    host.cni("STATUS", bound).ok()
    result = host.add(bound, pod) if served else {}
    if lost == "dev":
        sh("ip", "-n", host.name, "link", "set", "eth0", "down")
        sh("ip", "-n", host.name, "link", "set", "eth0", "name", "gone0")
    else:  # another lease
        sh("ip", "-n", host.name, "addr", "del", "192.0.2.11/24", "dev", "eth0")
        sh("ip", "-n", host.name, "addr", "add", "192.0.2.99/24", "dev", "eth0")
    said = "'eth0'" if lost == "dev" else "192.0.2.11"
    assert said in host.cni("STATUS", bound).failed(code)
    if served and lost == "local":
        assert "192.0.2.11, which this host does not have" in host.check(bound, pod, result).failed(104)
        assert "192.0.2.11, which this host does not have" in host.run(AGENT_CNI, "doctor", check=False).stdout
        corrected = conf(["192.0.2.12"], vxlan={"local": "192.0.2.99"})
        host.add(corrected, lab.pod())
        assert host.link("vxlan100")["linkinfo"]["info_data"]["local"] == "192.0.2.99"
        host.check(bound, pod, result).ok()


UPLINKS = {
    "next hops": ["route add default nexthop via 10.0.1.1 nexthop via 10.0.2.1"],
    "a group": [
        "nexthop add id 1 via 10.0.1.1 dev up1",
        "nexthop add id 2 via 10.0.2.1 dev up2",
        "nexthop add id 3 group 1/2",
        "route add default nhid 3",
    ],
    "IPv6": ["-6 route add default nexthop via fd00:1::1 nexthop via fd00:2::1"],
    "IPv6, the first of which does not answer": [
        "-6 route add default nexthop via fd00:1::1 nexthop via fd00:2::1",
        "-6 neigh replace fd00:1::1 dev up1 nud failed",
    ],
}


@pytest.mark.parametrize("ways", UPLINKS)
def test_of_several_uplinks_the_least_mtu_counts_and_the_first_is_the_master(lab: Lab, ways: str):
    host, pod = lab.host(), lab.pod()
    host.run("sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0")
    for number, mtu in ((1, 1500), (2, 1400)):
        host.run("ip", "link", "add", f"up{number}", "mtu", mtu, "up", "type", "veth", "peer", "name", f"far{number}")
        host.run("ip", "link", "set", f"far{number}", "up")
        for own in (f"10.0.{number}.2/24", f"fd00:{number}::2/64"):
            host.run("ip", "addr", "add", own, "dev", f"up{number}")
    for words in UPLINKS[ways]:
        host.run("ip", *words.split())
    bridged, tunnelled = conf(isDefaultGateway=False), {"remotes": ["192.0.2.12"]}
    plain = {key: value for key, value in bridged.items() if key != "vxlan"}
    networks = [
        (bridged | {"name": "wide", "vxlan": tunnelled | {"id": 100}}, 1350),
        (bridged | {"name": "one", "bridge": "br1", "vxlan": tunnelled | {"id": 7, "dev": "up1"}}, 1450),
        (plain | {"name": "plain", "bridge": "br2"}, 1400),
        ({"cniVersion": "1.1.0", "name": "routed", "type": "custom-plugin", "ipam": {"subnet": "10.2.0.0/16"}}, 1400),
        ({"cniVersion": "1.1.0", "name": "mac", "type": "macvlan", "mtu": 1500}, 1500),
    ]
    for number, (network, mtu) in enumerate(networks):
        result = host.add(network, pod, ifname=f"net{number}")
        assert pod.link(f"net{number}")["mtu"] == mtu
        host.check(network, pod, result, ifname=f"net{number}").ok()
    assert pod.link("net4")["link_index"] == host.link("up1")["ifindex"]
    for number, (network, _) in enumerate(networks):
        host.delete_pod(network, pod, ifname=f"net{number}")
