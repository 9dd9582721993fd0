"""Which blocks a network is made of, and which one a host asks for next: pure arithmetic."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from cni.cluster.model import LAYER_3, IPNetwork, Network
from cni.cluster.pools import Pool
from cni.naming import IPAddress, digest_of

#: Of a block, what is to be free ahead of the pods that come; at least so many addresses of a network.
AHEAD, AHEAD_OF_BLOCK = 16, 4
#: How many blocks are tried one by one from where a host begins, before all are looked through.
_TRIED = 1 << 12


def ahead(network: Network) -> int:
    """How many free addresses of each pool a host keeps."""
    return max(AHEAD, network.block // AHEAD_OF_BLOCK)


def block_of(network: Network, address: IPAddress) -> str | None:
    """The block an address is in, whoever has it; None where it is of no pool."""
    pool = network.pool_of(address)
    return str(ipaddress.ip_network((address, _length(pool, network.block)), strict=False)) if pool else None


def next_block(network: Network, pool: Pool, node: str, taken: Collection[str]) -> str | None:
    """A block of a pool nobody is known to have, and pods can have addresses of; hosts begin at different ones, so that they seldom
    want the same.
    """
    first, count = _grid(pool, network.block)
    start = _start(pool, node, count)
    for number in range(min(count, len(taken) + _TRIED)):
        at = first + (start + number) % count * network.block
        span = str(ipaddress.ip_network((at, _length(pool, network.block))))
        if span not in taken and capacity(network, span):
            return span
    return None


def blocks_in(network: Network, pool: Pool) -> int:
    """How many blocks a pool is made of."""
    return _grid(pool, network.block)[1]


def first_block(network: Network, pool: Pool, node: str, spans: Iterable[str]) -> str | None:
    """Of a host's blocks of a pool the one it would ask for first: which that is stays so when it has others later."""
    first, count = _grid(pool, network.block)
    start = _start(pool, node, count)

    def turn(span: str) -> int:
        return ((int(ipaddress.ip_network(span)[0]) - first) // network.block - start) % count

    return min(spans, key=turn, default=None)


@lru_cache(maxsize=1024)
def host_address(network: Network, span: str) -> str:
    """The address of a block that is its host's own and no pod's: the first that may be anybody's.

    Where blocks are subnets (l3) it is their gateway, else the one by which a host speaks to pods, which are within the ranges.
    """
    block = ipaddress.ip_network(span)
    never = [(gateway, gateway) for gateway in _gateways(network, block)]
    for low, high in _given(network, block) if network.mode != LAYER_3 else ():
        own = low
        for first, last in sorted([*never, *_withheld(network, block)]):
            if first <= own <= last:
                own = last + 1
        if own <= high:
            return str(type(block[0])(own))
    return str(block[min(1, block.num_addresses - 1)])


@lru_cache(maxsize=1024)
def capacity(network: Network, span: str) -> int:
    """How many pods a block has addresses for."""
    block = ipaddress.ip_network(span)
    own = [int(ipaddress.ip_address(host_address(network, span))), *_gateways(network, block)]
    if network.mode == LAYER_3:  # it is a subnet of its own
        own += [int(block[0]), *([int(block[-1])] if block.version == 4 else [])]
    never = sorted([*((one, one) for one in own), *_withheld(network, block)])
    return sum(_left(low, high, never) for low, high in _given(network, block))


def _left(low: int, high: int, never: Iterable[tuple[int, int]]) -> int:
    """How many addresses of a span are in none of others, which are in order."""
    count = high - low + 1
    for first, last in never:
        count -= max(0, min(last, high) - max(first, low) + 1)
        low = max(low, last + 1)
    return max(0, count)


def _given(network: Network, block: IPNetwork) -> list[tuple[int, int]]:
    """The spans of a block that are within the network's ranges."""
    found = []
    for first, last in ((ipaddress.ip_address(pool.first), ipaddress.ip_address(pool.last)) for pool in network.pools):
        low, high = max(int(block[0]), int(first)), min(int(block[-1]), int(last))
        if first.version == block.version and low <= high:
            found.append((low, high))
    return sorted(found)


def _gateways(network: Network, block: IPNetwork) -> list[int]:
    gateways = (ipaddress.ip_address(pool.gateway) for pool in network.pools if pool.gateway)
    return [int(gateway) for gateway in gateways if gateway.version == block.version]


def _withheld(network: Network, block: IPNetwork) -> Iterator[tuple[int, int]]:
    return ((low, high) for family, low, high in network.withheld if family == block.version)


def _start(pool: Pool, node: str, count: int) -> int:
    return int(digest_of(f"{node} {pool.subnet}")[:16], 16) % count


def _length(pool: Pool, size: int) -> int:
    subnet = ipaddress.ip_network(pool.subnet)
    return max(subnet.prefixlen, subnet.max_prefixlen - (size.bit_length() - 1))


def _grid(pool: Pool, size: int) -> tuple[int, int]:
    """The first address of the first block that pods get addresses of, and how many blocks there are; a subnet smaller than a
    block is one.
    """
    low, high = (int(ipaddress.ip_address(text)) // size for text in (pool.first, pool.last))
    subnet = ipaddress.ip_network(pool.subnet)
    if subnet.num_addresses <= size:
        return int(subnet[0]), 1
    return low * size, high - low + 1
