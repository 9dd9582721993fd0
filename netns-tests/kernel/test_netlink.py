"""Our reading of rtnetlink against pyroute2's, on every kind of thing; and batches of every size."""

from __future__ import annotations

import json
import re
import sys

import pytest
from lab import ROOT, Lab, sh

READ = """
import json, sys
sys.path.insert(0, "tests/fakes")
import pyroute
from cni.kernel.netlink import Rtnl
from cni.kernel.netlink.channel import Channel

heard, ask = [], Channel.ask

def overheard(channel, *requests):
    heard[:] = ask(channel, *requests)
    return heard[:]

Channel.ask = overheard
rtnl = Rtnl()

SWITCHES = {"learning": "IFLA_BRPORT_LEARNING", "flood": "IFLA_BRPORT_UNICAST_FLOOD",
            "mcast_flood": "IFLA_BRPORT_MCAST_FLOOD", "bcast_flood": "IFLA_BRPORT_BCAST_FLOOD"}

def messages():
    return [pyroute.decoded(message)[2] for message in heard]

def attributes(message):
    return dict(slot[:2] for slot in message["attrs"]) if message else {}

def link(message):
    said = attributes(message)
    info = attributes(said.get("IFLA_LINKINFO"))
    port, data = attributes(info.get("IFLA_INFO_SLAVE_DATA")), attributes(info.get("IFLA_INFO_DATA"))
    kind = info.get("IFLA_INFO_KIND", "")
    local = data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6") or ""
    return {
        "index": message["index"], "name": said["IFLA_IFNAME"], "kind": kind, "mac": said.get("IFLA_ADDRESS", ""),
        "mtu": said["IFLA_MTU"], "up": bool(message["flags"] & 1), "loopback": bool(message["flags"] & 8), "state": said["IFLA_OPERSTATE"],
        "bridge": said.get("IFLA_MASTER", 0), "promiscuous": bool(message["flags"] & 0x100),
        "hairpin": bool(port.get("IFLA_BRPORT_MODE")), "isolated": bool(port.get("IFLA_BRPORT_ISOLATED")),
        "neigh_suppress": bool(port.get("IFLA_BRPORT_NEIGH_SUPPRESS")),
        "vxlan": [data["IFLA_VXLAN_ID"], data["IFLA_VXLAN_PORT"], local, data.get("IFLA_VXLAN_LINK", 0),
                  bool(data.get("IFLA_VXLAN_LEARNING"))]
        if kind == "vxlan" else None,
        "parent": said.get("IFLA_LINK", 0), "parent_elsewhere": "IFLA_LINK_NETNSID" in said,
        "alias": said.get("IFLA_IFALIAS", ""),
        "macvlan_mode": data["IFLA_MACVLAN_MODE"] if kind == "macvlan" else "",
        "multicast_router": port.get("IFLA_BRPORT_MULTICAST_ROUTER", 0),
        "switched_off": [name for name, key in SWITCHES.items() if port.get(key) == 0],
        "filtered": bool(data.get("IFLA_BR_NF_CALL_IPTABLES") and data.get("IFLA_BR_NF_CALL_IP6TABLES")),
    }

def plain(link):
    said = vars(link)
    return said | {"vxlan": said["vxlan"] and list(vars(said["vxlan"]).values())}

def address(message):
    text = message.get("local") if message["family"] == 2 else message.get("address")
    return f"{text}/{message['prefixlen']}"

def route(message, family):
    metrics = message.get("metrics")
    dst = message.get("dst") or ("0.0.0.0" if family == 4 else "::")
    return {
        "dst": f"{dst}/{message['dst_len']}", "gateway": message.get("gateway") or "",
        "table": message.get("table") or message["table"], "priority": message.get("priority") or 0,
        "mtu": (metrics and metrics.get("RTAX_MTU")) or 0, "advmss": (metrics and metrics.get("RTAX_ADVMSS")) or 0,
        "scope": message["scope"], "source": message.get("prefsrc") or "", "local": message["type"] == 2,
        "several": False, "protocol": message["proto"],
    }

def rows(of):
    return {str(row.get("dst")): str(row.get("lladdr")) for row in messages() if of(row)}

found = {"links": [[plain(item) for item in rtnl.links()], list(map(link, messages()))]}
for key in ("addresses", "routes", "neighbours", "rows", "flooded", "rules"):
    found[key] = [[], []]
ours, theirs = 0, 1
for item in rtnl.links():
    found["addresses"][ours] += [str(held.interface) for held in rtnl.addresses(item)]
    found["addresses"][theirs] += map(address, messages())
    for family in (4, 6):
        found["routes"][ours] += map(vars, rtnl.routes(item, family))
        found["routes"][theirs] += [route(one, family) for one in messages() if one.get("oif") == item.index]
    found["neighbours"][ours].append(rtnl.neighbours(item))
    found["neighbours"][theirs].append(rows(lambda row: row["ifindex"] == item.index and row["state"] & 0x80))
    if item.vxlan:
        found["rows"][ours].append({vtep: mac for mac, vtep in rtnl.fdb(item).items()})
        found["rows"][theirs].append(rows(lambda row: row.get("dst") and row.get("lladdr") != "00:00:00:00:00:00"))
        found["flooded"][ours] += sorted(rtnl.flood_targets(item))
        found["flooded"][theirs] += sorted(rows(lambda row: row.get("lladdr") == "00:00:00:00:00:00"))
for family in (4, 6):
    found["rules"][ours] += sorted(rtnl.mark_rules(family))
    found["rules"][theirs] += sorted((one.get("fwmark"), one.get("table")) for one in messages() if one.get("fwmark"))
print(json.dumps(found))
"""


#: Where the administrator left sockets 64 KiB (net.core.rmem_default).
BATCHES = """
import ipaddress, socket
from cni.kernel.netlink import Rtnl

rtnl = Rtnl()
rtnl._channel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)  # which the kernel doubles
link = rtnl.link_ref("lo")
with rtnl.batch():
    for number in range(1000):
        rtnl.add_address(link, ipaddress.ip_interface(f"10.{number // 250}.{number % 250}.1/32"))
with rtnl.batch():
    pass
print(len(list(rtnl.addresses(link))))
"""


def test_changes_of_any_number_are_made_in_a_batch(lab: Lab):
    host = lab.host()
    counted = host.run(ROOT / ".venv/bin/python3", "-I", "-c", BATCHES)
    assert int(counted.stdout) >= 1000
    assert len(host.addresses("lo")) >= 1000


#: A transaction of 400 KB, twice what a socket has to send with.
TRANSACTION = """
from cni.kernel import nfnetlink
from cni.kernel.netlink.wire import CREATE, attribute, string

named = [attribute(nfnetlink.TABLE_NAME, string(f"t{number}")) for number in range(10000)]
nfnetlink.change(nfnetlink.opened(), [nfnetlink.request(nfnetlink.TABLE, CREATE, 4, each) for each in named])
"""


@pytest.mark.parametrize(
    "whose", [[], ["unshare", "--user", "--map-root-user", "--net"]], ids=["the node's", "a pod's"]
)
def test_a_transaction_is_larger_than_a_socket_whoevers_root_sends_it(lab: Lab, whose: list[str]):
    """What root of other users may not do is go beyond net.core.wmem_max."""
    python = [str(ROOT / ".venv/bin/python3"), "-I", "-c", TRANSACTION]
    lab.host().run(*whose, *python)


def test_what_the_kernel_has_reads_as_pyroute2_reads_it(lab: Lab):
    host = lab.host()
    for words in (
        "link add br0 type bridge nf_call_iptables 1 nf_call_ip6tables 1",
        "link add plain type bridge",
        "link add port type veth peer name far",
        "link set port master br0 up",
        "link set far up promisc on",
        "link set port alias an_alias",
        "link set port type bridge_slave hairpin on isolated on neigh_suppress on learning off",
        "link add vx4 type vxlan id 7 dstport 4790 local 192.0.2.1 dev far",
        "link add vx6 type vxlan id 8 dstport 8472 local fd00::1",
        *(f"link add mv{mode} link far type macvlan mode {mode}" for mode in ("bridge", "vepa", "private", "source")),
        "link add tap0 type veth peer name tap1",
        "link add mvp link tap0 type macvlan mode passthru",
        "addr add 10.9.0.1/24 dev br0",
        "addr add 10.9.1.1 peer 10.9.1.2/32 dev br0",
        "addr add fd00:9::1/64 dev br0",
        "link set br0 up",
        "route add 198.51.100.0/24 via 10.9.0.9 mtu 1400 advmss 1360 metric 50",
        "route add 203.0.113.0/24 via 10.9.0.8 table 1000",
        "route add default via 10.9.0.9 src 10.9.0.1",
        "-6 route add fd00:77::/64 via fd00:9::9 dev br0",
        "route add local default dev lo table 133",
        "rule add fwmark 1337 lookup 133",
        "-6 rule add fwmark 7 lookup 1000",
        "neigh add 10.9.0.5 lladdr 0a:00:00:00:00:05 dev br0 nud permanent",
        "neigh add fd00:9::5 lladdr 0a:00:00:00:00:05 dev br0 nud permanent",
        "neigh add 10.9.0.6 lladdr 0a:00:00:00:00:06 dev br0 nud reachable",
    ):
        host.run("ip", *words.split())
    for mac, vtep in (("0a:00:00:00:00:01", "192.0.2.8"), ("00:00:00:00:00:00", "192.0.2.9")):
        host.run("bridge", "fdb", "append", mac, "dev", "vx4", "dst", vtep)
    host.run("bridge", "fdb", "append", "0a:00:00:00:00:02", "dev", "vx6", "dst", "fd00::8")
    pod = lab.pod()
    host.run("ip", "link", "add", "outer", "type", "veth", "peer", "inner", "netns", pod.name)
    found = json.loads(sh(*host.prefix(), sys.executable, "-c", READ, cwd=ROOT).stdout)
    assert {name: theirs for name, (_, theirs) in found.items()} == {name: ours for name, (ours, _) in found.items()}
    ours = {name: of_us for name, (of_us, _) in found.items()}
    assert {link["kind"] for link in ours["links"]} >= {"bridge", "veth", "vxlan", "macvlan"}
    assert set(ours["addresses"]) >= {"10.9.0.1/24", "10.9.1.1/32", "fd00:9::1/64"}
    ways = {(route["dst"], route["gateway"], route["table"], route["mtu"]) for route in ours["routes"]}
    assert ways >= {("198.51.100.0/24", "10.9.0.9", 254, 1400), ("203.0.113.0/24", "10.9.0.8", 1000, 0)}
    assert ways >= {("0.0.0.0/0", "10.9.0.9", 254, 0), ("0.0.0.0/0", "", 133, 0), ("fd00:77::/64", "fd00:9::9", 254, 0)}
    assert ours["rules"] == [[1337, 133], [7, 1000]]
    neighbours = {"10.9.0.5": "0a:00:00:00:00:05", "fd00:9::5": "0a:00:00:00:00:05"}
    assert neighbours in ours["neighbours"]
    assert ours["rows"] == [{"192.0.2.8": "0a:00:00:00:00:01"}, {"fd00::8": "0a:00:00:00:00:02"}]
    assert ours["flooded"] == ["192.0.2.9"]


WAYS = """
import json
from cni.kernel.netlink import Rtnl

rtnl = Rtnl()
links = {item.index: item for item in rtnl.links()}
ways = ((item.name, route) for item in links.values() for family in (4, 6) for route in rtnl.routes(item, family))
hops = [(name, route.gateway) for name, route in ways if route.dst in ("0.0.0.0/0", "::/0")]
print(json.dumps([[links[index].name for index in rtnl.default_route()], hops]))
"""


@pytest.mark.parametrize(
    "ways",
    [
        ["route add default nexthop via 10.0.1.1 nexthop via 10.0.2.1"],
        ["route add default nexthop via 10.0.1.1 nexthop via inet6 fd00:2::1 dev up2"],
        ["nexthop add id 1 via 10.0.1.1 dev up1", "nexthop add id 2 via 10.0.2.1 dev up2", "nexthop add id 3 group 1/2",
         "route add default nhid 3"],
        ["-6 route add default nexthop via fd00:1::1 nexthop via fd00:2::1"],
        ["nexthop add id 1 via fd00:1::1 dev up1", "nexthop add id 2 via fd00:2::1 dev up2", "nexthop add id 3 group 1/2",
         "-6 route add default nhid 3"],
    ],
    ids=["IPv4", "IPv4 by IPv6", "a group", "IPv6", "a group of IPv6"],
)  # fmt: skip
@pytest.mark.parametrize("compatible", [1, 0])
def test_every_next_hop_of_a_route_is_known(lab: Lab, ways: list[str], compatible: int):
    host = lab.host()
    host.run("sysctl", "-qw", f"net.ipv4.nexthop_compat_mode={compatible}")
    for number in (1, 2):
        host.run("ip", "link", "add", f"up{number}", "up", "type", "veth", "peer", "name", f"far{number}")
        host.run("ip", "link", "set", f"far{number}", "up")
        host.run("ip", "addr", "add", f"10.0.{number}.2/24", "dev", f"up{number}")
        host.run("ip", "addr", "add", f"fd00:{number}::2/64", "dev", f"up{number}", "nodad")
    for words in ways:
        host.run("ip", *words.split())
    links, hops = json.loads(sh(*host.prefix(), ROOT / ".venv/bin/python3", "-I", "-c", WAYS).stdout)
    assert links == ["up1", "up2"]
    first, second = re.findall(r"via (?:inet6 )?(\S+)", " ".join(ways))
    assert sorted(hops) == [["up1", first], ["up2", second]]


ENDS = """
import json
from cni.kernel.netlink import Rtnl

rtnl = Rtnl()
found = {}
for link in rtnl.links():
    namespace, end = rtnl.other_end(link) or (None, None)
    held = rtnl.addresses(end, namespace) if end else ()
    found[link.name] = [end and end.name, end and end.mac, sorted(str(each.interface) for each in held)]
print(json.dumps(found))
"""


def test_the_other_end_of_a_link_is_seen_without_entering_its_namespace(lab: Lab):
    host, pod = lab.host(), lab.pod()
    host.run("ip", "link", "add", "away", "type", "veth", "peer", "name", "eth9", "address", "0a:00:00:00:00:09")
    host.run("ip", "link", "add", "here", "type", "veth", "peer", "name", "there")
    sh("ip", "-n", host.name, "link", "set", "eth9", "netns", pod.name)
    for held in ("10.9.0.2/24", "10.9.0.3/24"):
        pod.run("ip", "addr", "add", held, "dev", "eth9")
    pod.run("ip", "link", "set", "eth9", "up")
    pod.run("ip", "addr", "add", "fd00:9::2/64", "dev", "eth9", "nodad")
    pod.run("ip", "addr", "add", "10.8.0.1/24", "dev", "lo")
    found = json.loads(host.run(ROOT / ".venv/bin/python3", "-I", "-c", ENDS).stdout)
    name, mac, held = found.pop("away")
    assert (name, mac) == ("eth9", "0a:00:00:00:00:09")
    assert held[:3] == ["10.9.0.2/24", "10.9.0.3/24", "fd00:9::2/64"]
    assert all(it.startswith("fe80:") for it in held[3:])
    assert all(it == [None, None, []] for it in found.values()), found


def test_who_may_not_ask_of_rules_waits_for_no_more_than_one_answer(lab: Lab):
    """However much he asks in one packet: the kernel refuses all of it at once (nfnetlink_rcv in net/netfilter/nfnetlink.c)."""
    asks = (
        "from cni.kernel.netlink.channel import NETFILTER, Channel; from cni.kernel.nfnetlink import GENERATION, GET, request\n"
        "Channel(NETFILTER).ask(*[request(GENERATION + GET, 0, 4)] * 3)"
    )
    weak = ("timeout", 10, "setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    done = lab.host().run(*weak, sys.executable, "-c", asks, check=False)
    assert done.stderr.splitlines()[-1] == "cni.errors.KernelRefused: Operation not permitted"
