"""What is wrong with this node's overlays, as far as one node can see: its own tunnels, and what the other hosts answer."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

from cni import configured, plugin, uplink
from cni.command.node import networks_of
from cni.configured import Network
from cni.conflist.file import judgement
from cni.errors import CniError
from cni.ipam.own import Own
from cni.ipam.ranges import RangeSet
from cni.ipam.source import is_clustered
from cni.kernel import vteps
from cni.kernel.netlink import Rtnl
from cni.kernel.view import LinkRef
from cni.kernel.vteps import Heard
from cni.naming import IPAddress, mac_of_address
from cni.overlay.vxlan import OVERHEAD
from cni.plugin import PluginConfig
from cni.protocol.call import Call
from cni.protocol.config import NetConf
from cni.resources import Difference, FloodList, UplinkQuery, VxlanLink

_RANGES = "give each host a range of its own: rangeStart and rangeEnd"
_REMOTES = "put it among the remotes, then agent-cni refresh"
#: What a link is that has a tunnel's name, and is none of ours.
_ANOTHERS = re.compile(r" has VNI | exists on the host and is ")
_THERE = "put this host among its remotes, then agent-cni refresh there"


def overlay_faults(options: argparse.Namespace) -> Iterator[Difference]:
    """What is wrong with each network's tunnel. Raises CniError where the state cannot be read."""
    every = networks_of(options)
    for network in every:
        clustered = bool(network.netconf and is_clustered(network.netconf))
        tunnel = next((item for item in network.wanted if isinstance(item, VxlanLink)), None)
        if clustered and tunnel and _is_of_uplink(tunnel):
            continue
        if network.refused and not (network.netconf and judgement(network.netconf)["faults"]):  # which are the file's
            yield _of(network, network.refused, "edit its configuration, then agent-cni refresh")
        own = _causes(configured.behind(network, every))
        with closing(Rtnl()) as host:
            apart = _apart(host, network) if tunnel else []
            narrow = apart or (list(_narrow(host, network)) if tunnel else [])
            # what follows from the uplink, its address or its MTU, is said of the uplink
            yield from narrow or (_of(network, item.line, item.mend) for item in own)
            link = host.link_ref(tunnel.name) if tunnel else None
            if tunnel and link and not own and not apart and not clustered:
                yield from (_of(network, line, mend) for line, mend in _of_others(host, network, tunnel, link))


def ailing(options: argparse.Namespace) -> dict[str, list[str]]:
    """What is wrong with the tunnel of each network, without asking anybody else. Raises CniError where the state cannot be read."""
    every = networks_of(options)
    found = {
        network.place.network: [item.line for item in _causes(configured.behind(network, every))] for network in every
    }
    return {name: lines for name, lines in found.items() if lines}


def _causes(found: Sequence[Difference]) -> list[Difference]:
    """Of a tunnel that is gone that it is, and not all that went with it; of a link of somebody else that has its name likewise; of a
    configuration that was edited that, and what it comes to.
    """
    for item in found:
        if isinstance(item.resource, VxlanLink) and _ANOTHERS.search(item.line):
            return [item._replace(mend=f"ip link delete {item.resource.name} && agent-cni repair --all")]
    gone = {item.resource.name for item in found if isinstance(item.resource, VxlanLink) and "is missing" in item.line}
    left = [
        item
        for item in found
        if item.resource is None
        or isinstance(item.resource, VxlanLink)
        or gone.isdisjoint(vars(item.resource).values())
    ]
    if len(left) > 1 and left[0].resource is None:
        return [left[0]._replace(line=f"{left[0].line}: {'; '.join(item.line for item in left[1:])}")]
    return left


def _is_of_uplink(tunnel: VxlanLink) -> bool:
    """Whether the cluster's part says of the uplink what all else follows from: it has the VTEP's address no more, or less room than the tunnel takes."""
    with closing(Rtnl()) as host:
        vtep, found = ipaddress.ip_address(tunnel.local), host.link_by_name(tunnel.name)
        link = host.link_by_index(index) if (index := host.holding(vtep)) else None
        return link is None or bool(found and found.mtu > link.mtu - OVERHEAD[vtep.version])


def _apart(host: Rtnl, network: Network) -> list[Difference]:
    """A host that has no route to any of its remotes: it may have lost the address it had among them, and take that for another's."""
    remotes = [vtep for item in network.said or network.wanted if isinstance(item, FloodList) for vtep in item.vteps]
    others = [vtep for vtep in map(ipaddress.ip_address, remotes) if not host.holding(vtep)]
    if not others or any(host.route_to(vtep) for vtep in others):
        return []
    mend = f"ip address show, ip route get {others[0]}: bring the uplink, its address or its route back"
    return [_of(network, f"no route of this host leads to any of its remotes ({', '.join(remotes)})", mend)]


def _narrow(host: Rtnl, network: Network) -> Iterator[Difference]:
    """An uplink with less room than the tunnel's packets take: it was larger when that was made. Where no cluster says it, too."""
    tunnel = next(item for item in network.said or network.wanted if isinstance(item, VxlanLink))
    remotes = tuple(vtep for item in network.said if isinstance(item, FloodList) for vtep in item.vteps)
    found = host.link_by_name(tunnel.name)
    if found is None or tunnel.mac or not (remotes or tunnel.local):
        return
    with suppress(CniError):
        way = uplink.find(host, UplinkQuery(tunnel.dev, tunnel.local, remotes))
        over = OVERHEAD[ipaddress.ip_address((*remotes, tunnel.local)[0]).version]
        if way and found.mtu > way.mtu - over:
            room = f"room for {way.mtu - over} in a tunnel, and {tunnel.name} has {found.mtu}: larger packets are lost"
            mend = f"ip link set {way.name} mtu {found.mtu + over}, or agent-cni refresh and pods anew"
            yield _of(network, f"uplink {way.name} has MTU {way.mtu}, {room}", mend)


def shared_gateway(netconf: NetConf) -> str:
    """What is wrong with an overlay whose gateway every host has, or nothing.

    What a node sends to a pod of another host carries its gateway's address, and is answered at that pod's own host.
    """
    read = _read(netconf)
    for found in _ranges(read) if netconf.get("vxlan") and getattr(read, "gateway", False) else ():
        for part in found.ranges:
            # beside the range it is as a block's first: of all hosts at most one has it so
            beside = part.gateway and int(part.first) - 1 <= int(part.gateway) <= int(part.last) + 1
            if part.gateway and part.gateway not in found and not beside and part.first != part.last:
                return f"gateway {part.gateway} is not of this host's range {part}: a node does not reach pods of other hosts, nor do Services"
    return ""


def _of(network: Network, line: str, mend: str) -> Difference:
    return Difference(f"network {network.place.network}: {line}", mend)


def _of_others(host: Rtnl, network: Network, tunnel: VxlanLink, link: LinkRef) -> Iterator[tuple[str, str]]:
    """What the other hosts are heard to say, and what they answer."""
    behind, targets = host.fdb(link), host.flood_targets(link)
    ours = any(isinstance(item, FloodList) for item in network.wanted)
    for vtep in sorted(set(behind.values()) - targets) if ours else ():
        yield (
            f"pods of VTEP {vtep} are heard, which is not among the remotes: they are lost once they are silent",
            _REMOTES,
        )
    heard = [Heard(vtep, mac, str(address)) for mac, vtep in behind.items() if (address := address_of_mac(mac))]
    ranges = _ranges(_read(network.netconf)) if network.netconf else ()
    for vtep, _, text in heard:
        address = ipaddress.ip_address(text)
        if any(address in item and address not in (part.gateway for part in item.ranges) for item in ranges):
            yield f"VTEP {vtep} has {address}, which this host gives: two hosts give from one range", _RANGES
    lost = vteps.unreachable(sorted(targets), tunnel.port)
    for vtep, why in lost.items():
        yield (
            f"VTEP {vtep}, UDP port {tunnel.port}: {why}",
            f"look at that host, and at what filters UDP port {tunnel.port}",
        )
    one_each = list({item.vtep: item for item in heard if item.vtep not in lost}.values())
    answered, flooding = vteps.known_to(link.name, one_each) if one_each else (set(), set())
    for vtep in sorted(answered - flooding):
        yield f"VTEP {vtep} does not know of this host: pods here are lost to it once they are silent", _THERE


def _read(netconf: NetConf) -> PluginConfig:
    """What a plugin reads of all but `policy`, which says nothing of addresses, and may be about a pod that has a name."""
    said = {key: value for key, value in netconf.items() if key != "policy"}
    return plugin.load(netconf["type"]).Config.read(said, Call("ADD", "CONTAINER", "NETNS", "eth0"))


def _ranges(read: PluginConfig) -> tuple[RangeSet, ...]:
    source = getattr(read, "ipam", None)
    return source.config.sets if isinstance(source, Own) and not source.clustered else ()


def address_of_mac(mac: str) -> IPAddress | None:
    """The IPv4 address a MAC of ours says."""
    address = ipaddress.IPv4Address(bytes.fromhex(mac.replace(":", ""))[2:])
    return address if mac_of_address(address) == mac else None
