"""A network of the cluster as this host's configuration says it, and what of its ranges a block has: pure arithmetic."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cni.cluster.blocks import host_address
from cni.cluster.model import LAYER_3, IPNetwork, Network
from cni.cluster.pools import Pool
from cni.errors import InvalidConfig
from cni.ipam.config import IpamConfig, Span
from cni.ipam.ranges import Range, RangeSet
from cni.protocol.config import NetConf, folded
from cni.protocol.result import Route
from cni.state import uses
from cni.values import replace

DEFAULT_BLOCK, SMALLEST_SUBNET = 64, 8


def pools_of(config: IpamConfig, mode: str) -> tuple[Pool, ...]:
    """What addresses are given from. Where a block is a subnet it has a gateway, and the whole has none."""
    return tuple(
        Pool(str(part.subnet), str(part.first), str(part.last), "" if mode == LAYER_3 else str(part.gateway or ""))
        for item in config.sets
        for part in item.ranges
    )


def with_ways(config: IpamConfig) -> IpamConfig:
    """A configuration with routes to its subnets: a pod's way to the blocks that are not its own."""
    there = {route.dst for route in config.routes}
    subnets = dict.fromkeys(str(part.subnet) for item in config.sets for part in item.ranges)
    return replace(config, routes=(*config.routes, *(Route(dst) for dst in subnets if dst not in there)))


def within(config: IpamConfig, network: Network, blocks: Sequence[str]) -> IpamConfig:
    """A configuration with its ranges cut to blocks, and what of each is its host's own never given."""
    parts = [_of_block(network.name, network.spelled, span) for span in blocks]
    sets, number = [], 0
    for item in config.sets:
        numbers = range(number, number := number + len(item.ranges))
        cut = (part.ranges[number] for number in numbers for part in parts)
        sets.append(RangeSet(tuple(filter(None, cut)), item.key))
    return replace(config, sets=tuple(sets), reserved=(*config.reserved, *(part.own for part in parts)))


def spans_of(config: IpamConfig) -> Iterator[str]:
    """What is reserved, as all hosts are to spell it."""
    for family, low, high in sorted(set(config.reserved)):
        kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
        yield f"{kind(low)}-{kind(high)}"


class _Part(NamedTuple):
    """What of each pool's range a block has, if it has any, and the host's own address in it."""

    ranges: tuple[Range | None, ...]
    own: Span


@lru_cache(maxsize=1024)
def _of_block(name: str, spelled: str, span: str) -> _Part:
    network, block = Network.read((Network.room, name), json.loads(spelled)), ipaddress.ip_network(span)
    own = ipaddress.ip_address(host_address(network, span))
    ranges = tuple(_cut(network, pool, block) for pool in network.pools)
    return _Part(ranges, (block.version, int(own), int(own)))


def _cut(network: Network, pool: Pool, block: IPNetwork) -> Range | None:
    """Where blocks are subnets (l3) with its own gateway, else with the network's."""
    ends = {"rangeStart": pool.first, "rangeEnd": pool.last, "gateway": pool.gateway}
    whole = Range.read({"subnet": pool.subnet, **ends}, pool.subnet)
    if block.version != whole.subnet.version or not block.overlaps(whole.subnet):
        return None
    part = whole if pool.gateway else replace(whole, gateway=None)
    if network.mode == LAYER_3:
        part = Range.read({"subnet": str(block), "gateway": host_address(network, str(block))}, str(block))
    first = max(whole.first, part.first, block[0], key=int)
    last = min(whole.last, part.last, block[-1], key=int)
    return replace(part, first=first, last=last) if int(first) <= int(last) else None


def refuse_unshareable(config: IpamConfig, netconf: NetConf, mode: str) -> None:
    """Raise InvalidConfig for what one host alone could mean, or no two."""
    ipam = netconf["ipam"]
    for where, folder in (("$", netconf.get("dataDir")), ("$.ipam", ipam.get("dataDir"))):
        if folder and Path(folder) != uses.DEFAULT_FOLDER:
            raise InvalidConfig(f"{where}.dataDir: excludes ipam.cluster: the member looks into {uses.DEFAULT_FOLDER}")
    if folded(netconf.get("runtimeConfig"), "ipRanges"):
        raise InvalidConfig("$.runtimeConfig.ipRanges: excludes ipam.cluster: all hosts have the same ranges")
    families = [item.ranges[0].subnet.version for item in config.sets]
    if len(families) != len(set(families)):
        raise InvalidConfig("$.ipam.ranges: with cluster there is one range set of a family")
    for part in (part for item in config.sets for part in item.ranges):
        if part.subnet.num_addresses < SMALLEST_SUBNET:
            raise InvalidConfig(f"$.ipam: {part.subnet} is too small for several hosts")
    ranges = [ipam, *(part for item in ipam.get("ranges") or () for part in item)]
    if mode == LAYER_3 and any(item.get("gateway") for item in ranges):
        raise InvalidConfig("$.ipam: gateway: with vxlan.mode l3 each block of addresses has its own")
