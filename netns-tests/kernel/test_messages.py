"""Our reading of rtnetlink against pyroute2's, on links and addresses of every kind."""

from __future__ import annotations

import json
import sys

from lab import ROOT, Lab, sh

READ = """
import ipaddress, json
from cni.kernel import messages, requests
from cni.kernel.channel import Channel
from cni.kernel.codec import ADDRESS, LINK, decoded

def attributes(message):
    return dict(slot[:2] for slot in message["attrs"]) if message else {}

def theirs(message):
    said = attributes(message)
    info = attributes(said.get("IFLA_LINKINFO"))
    port, data = attributes(info.get("IFLA_INFO_SLAVE_DATA")), attributes(info.get("IFLA_INFO_DATA"))
    kind = info.get("IFLA_INFO_KIND", "")
    local = data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6") or ""
    return {
        "index": message["index"], "name": said["IFLA_IFNAME"], "kind": kind, "mac": said.get("IFLA_ADDRESS", ""),
        "mtu": said["IFLA_MTU"], "up": bool(message["flags"] & 1), "state": said["IFLA_OPERSTATE"],
        "bridge": said.get("IFLA_MASTER", 0), "promiscuous": bool(message["flags"] & 0x100),
        "hairpin": bool(port.get("IFLA_BRPORT_MODE")), "isolated": bool(port.get("IFLA_BRPORT_ISOLATED")),
        "neigh_suppress": bool(port.get("IFLA_BRPORT_NEIGH_SUPPRESS")),
        "vxlan": [data["IFLA_VXLAN_ID"], data["IFLA_VXLAN_PORT"], local, data.get("IFLA_VXLAN_LINK", 0)]
        if kind == "vxlan" else None,
        "parent": said.get("IFLA_LINK", 0), "parent_elsewhere": "IFLA_LINK_NETNSID" in said,
        "alias": said.get("IFLA_IFALIAS", ""),
        "macvlan_mode": data["IFLA_MACVLAN_MODE"] if kind == "macvlan" else "",
        "multicast_router": port.get("IFLA_BRPORT_MULTICAST_ROUTER", 0),
        "filtered": bool(data.get("IFLA_BR_NF_CALL_IPTABLES") and data.get("IFLA_BR_NF_CALL_IP6TABLES")),
    }

def ours(message):
    link = vars(messages.link_of(message))
    return link | {"vxlan": link["vxlan"] and list(vars(link["vxlan"]).values())}

def address(message):
    text = message.get("local") if message["family"] == 2 else message.get("address")
    return f"{text}/{message['prefixlen']}"

channel = Channel()
links = [(ours(raw), theirs(decoded(LINK, raw))) for raw in channel.ask(requests.links())]
held = [
    (str(messages.address_of(raw).interface), address(decoded(ADDRESS, raw)))
    for own, _ in links
    for raw in channel.ask(requests.addresses(own["index"]))
]
print(json.dumps([links, held]))
"""


TOGETHER = """
import ipaddress
from cni.kernel.netlink import Rtnl

rtnl = Rtnl()
link = rtnl.named("lo")
with rtnl.together():
    for number in range(1000):
        rtnl.add_address(link, ipaddress.ip_interface(f"10.{number // 250}.{number % 250}.1/32"))
with rtnl.together():
    pass
print(len(list(rtnl.addresses(link))))
"""


def test_changes_of_any_number_are_made_together(lab: Lab):
    host = lab.host()
    counted = host.run(ROOT / ".venv/bin/python3", "-I", "-c", TOGETHER)
    assert int(counted.stdout) >= 1000
    assert len(host.addresses("lo")) >= 1000


def test_links_and_addresses_read_as_pyroute2_reads_them(lab: Lab):
    host = lab.host()
    for words in (
        "link add br0 type bridge nf_call_iptables 1 nf_call_ip6tables 1",
        "link add plain type bridge",
        "link add port type veth peer name far",
        "link set port master br0 up",
        "link set far up promisc on",
        "link set port alias an_alias",
        "link set port type bridge_slave hairpin on isolated on neigh_suppress on",
        "link add vx4 type vxlan id 7 dstport 4790 local 192.0.2.1 dev far",
        "link add vx6 type vxlan id 8 dstport 8472 local fd00::1",
        *(f"link add mv{mode} link far type macvlan mode {mode}" for mode in ("bridge", "vepa", "private", "source")),
        "link add tap0 type veth peer name tap1",
        "link add mvp link tap0 type macvlan mode passthru",
        "addr add 10.9.0.1/24 dev br0",
        "addr add 10.9.1.1 peer 10.9.1.2/32 dev br0",
        "addr add fd00:9::1/64 dev br0",
    ):
        host.run("ip", *words.split())
    pod = lab.pod()
    host.run("ip", "link", "add", "outer", "type", "veth", "peer", "inner", "netns", pod.name)
    done = sh(*host.prefix(), sys.executable, "-c", READ, cwd=ROOT)
    links, held = json.loads(done.stdout)
    assert {own["kind"] for own, _ in links} >= {"bridge", "veth", "vxlan", "macvlan"}
    assert [own for own, _ in links] == [other for _, other in links]
    assert {own for own, _ in held} >= {"10.9.0.1/24", "10.9.1.1/32", "fd00:9::1/64"}
    assert [own for own, _ in held] == [other for _, other in held]
