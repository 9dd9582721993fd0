"""What pods send across hosts fits the wire, packet by packet: where no device cuts or joins segments for anybody, a whole transfer
comes through, and nothing is fragmented, refused or dropped for its size.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import permutations

import pytest
from answers import within
from cluster import Cluster, conf
from lab import PATIENCE, Lab, Namespace
from wire import Wire

#: ethtool(7) by ioctl: how TSO, GSO and GRO are asked for, and set.
SIOCETHTOOL, OFFLOADS = 0x8946, {"tso": (0x1E, 0x1F), "gso": (0x23, 0x24), "gro": (0x2B, 0x2C)}
#: What nstat(8) counts of packets too large for where they go, and of their pieces.
COUNTED = (
    "IpFragCreates", "IpFragOKs", "IpFragFails", "IpReasmReqds", "Ip6FragCreates", "Ip6FragOKs", "Ip6FragFails", "Ip6ReasmReqds",
    "Ip6InTooBigErrors", "Icmp6OutPktTooBigs", "Icmp6InPktTooBigs", "IcmpOutDestUnreachs",
)  # fmt: skip
SIZE, PORT = 4 << 20, 5001
#: A tunnel without a flood list drops and counts what is for groups (neighbours that introduce themselves): here that does not get so far.
NO_GROUPS = """
table netdev no_groups {
    chain out { type filter hook egress device vxlan100 priority 0; ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop; }
}
"""


def ethtool(link: str, command: int) -> int:
    """Ask a link of this namespace for a value, or set it to 0."""
    value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, struct.pack("16sP", link.encode(), ctypes.addressof(value)))
    return struct.unpack_from("=I", value, 4)[0]


def plain(where: Namespace) -> list[str]:
    """Have all links of a namespace send and take packets as they are on the wire; those that still do otherwise."""

    def switched() -> list[str]:
        left = []
        for link in (item["ifname"] for item in where.ip("link", "show") if item["ifname"] != "lo"):
            for name, (ask, switch) in OFFLOADS.items():
                with suppress(OSError):  # it never had it
                    ethtool(link, switch)
                left += [f"{where.name} {link} {name}"] if ethtool(link, ask) else []
        return left

    return within(where, switched)


def troubles(places: Iterable[Namespace]) -> Counter[str]:
    """What was counted so far, by place."""
    found: Counter[str] = Counter()
    for where in places:
        kernel = json.loads(where.run("nstat", "-asz", "--json").stdout)["kernel"]
        found.update({f"{where.name} {name}": kernel[name] for name in COUNTED})
        for link in where.ip("-s", "link", "show"):
            for way, counted in link["stats64"].items():
                found[f"{where.name} {link['ifname']} {way}"] += counted["dropped"] + counted["errors"]
    return found


def transfer(source: Namespace, target: Namespace, address: str) -> None:
    """Send to an address of another namespace, over a connection that was made that way."""
    data, family = random.randbytes(SIZE), socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        within(target, lambda: socket.create_server((address, PORT), family=family)) as server,
        within(source, lambda: socket.create_connection((address, PORT), PATIENCE)) as client,
        server.accept()[0] as taken,
        ThreadPoolExecutor(1) as thread,
    ):
        taken.settimeout(PATIENCE)
        sending = thread.submit(lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        with taken.makefile("rb") as stream:
            assert stream.read() == data
        sending.result()


@pytest.mark.parametrize(("mode", "under", "encryption"), [("l2", 4, ""), ("l3", 6, ""), ("l2", 6, "wireguard"), ("l3", 4, "wireguard")])  # fmt: skip
def test_a_transfer_between_hosts_is_whole_without_a_fragment_or_a_drop(
    lab: Lab, mode: str, under: int, encryption: str
):
    with Cluster(lab, 2, family=under) as cluster:
        cluster.join(encryption=encryption)
        net = conf(mode, block=16)
        one, other = (cluster.add(node, net) for node in cluster.nodes)
        cluster.meshed()
        places = (one.pod, other.pod, *cluster.nodes, cluster.switch)
        assert [line for where in places for line in plain(where)] == []
        for node in cluster.nodes:
            node.run("nft", "-f", "-", input=NO_GROUPS)
        before = troubles(places)
        with Wire(one.host, "eth0") as wire:
            for family in (4, 6):
                for source, target in permutations((one, other)):
                    transfer(source.pod, target.pod, target.address(family))
                    transfer(source.host, target.pod, target.address(family))
        assert troubles(places) - before == Counter()
        largest = max(map(len, wire.frames)) - 14
        assert largest <= 1500
        assert largest > 1500 - 32, "WireGuard rounds what it carries to 16 bytes"

        whole = one.pod.link("eth0")["mtu"]
        one.pod.run("ip", "link", "set", "eth0", "mtu", whole + 1)
        one.pod.run("ping", "-c1", "-W1", "-Mdo", "-s", whole + 1 - 28, other.address(4), check=False)
        assert troubles(places) - before, "a byte more would have been seen"
