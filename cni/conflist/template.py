"""A conflist as it is for all nodes, made one of a node's own from the blocks of addresses that node has. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from cni.cluster.model import IPNetwork
from cni.errors import InvalidConfig
from cni.ipam.config import RANGE_KEYS
from cni.ipam.source import is_clustered
from cni.naming import OWN_IPAM
from cni.protocol.config import NetConf, Section

#: Whose ``ipam`` sections have ``ranges``.
_BY_RANGES = (OWN_IPAM, "host-local")


def filled(conflist: NetConf, spans: Sequence[str]) -> NetConf:
    """A conflist for a node that has these blocks, such as ``10.244.1.0/24`` and ``fd00:244:0:1::/64``.

    Its plugins' schemas have nothing against it. An ``ipam`` section that says no addresses has the node's blocks for ranges. A network of the cluster says its subnets itself,
    of which those stay that are of a family the node has. Raises InvalidConfig for a block that is in none of them.
    """
    blocks = [ipaddress.ip_network(span) for span in spans]
    plugins = [_plugin(f"$.plugins[{number}]", item, blocks) for number, item in enumerate(conflist["plugins"])]
    return conflist | {"plugins": plugins}


def _plugin(where: str, netconf: NetConf, blocks: list[IPNetwork]) -> NetConf:
    ipam = netconf.get("ipam")
    if not (isinstance(ipam, dict) and ipam and ipam.get("type", OWN_IPAM) in _BY_RANGES):
        return netconf
    if is_clustered(netconf):
        return netconf | {"ipam": _of_cluster(f"{where}.ipam", ipam, blocks)}
    if ipam.get("subnet") or ipam.get("ranges"):
        return netconf
    return netconf | {"ipam": ipam | {"ranges": [[{"subnet": str(block)}] for block in blocks]}}


def _of_cluster(where: str, ipam: Section, blocks: list[IPNetwork]) -> Section:
    families = {block.version for block in blocks}
    subnets = list(_subnets(ipam))
    for block in blocks:
        alike = [subnet for subnet in subnets if subnet.version == block.version]
        if alike and not any(block.subnet_of(subnet) for subnet in alike):  # type: ignore[arg-type]
            there = ", ".join(map(str, alike))
            raise InvalidConfig(f"{where}: this node's {block} is not in {there}: say the cluster's own pod subnet")
    if not families & {subnet.version for subnet in subnets}:
        has = ", ".join(map(str, blocks))
        raise InvalidConfig(f"{where}: no subnet of a family this node has a block of ({has})")
    left = {key: value for key, value in ipam.items() if key not in RANGE_KEYS}
    if ipam.get("subnet") and _family(ipam) in families:
        left |= {key: ipam[key] for key in RANGE_KEYS if key in ipam}
    if ipam.get("ranges"):
        left["ranges"] = [item for item in ipam["ranges"] if _family(item[0]) in families]
    if ipam.get("routes"):
        left["routes"] = [route for route in ipam["routes"] if (6 if ":" in route["dst"] else 4) in families]
    return left


def _subnets(ipam: Section) -> Iterator[IPNetwork]:
    flat = [ipam] if ipam.get("subnet") else []
    for part in (*flat, *(part for item in ipam.get("ranges") or () for part in item)):
        yield ipaddress.ip_network(part["subnet"])


def _family(part: dict[str, Any]) -> int:
    return ipaddress.ip_network(part["subnet"]).version
