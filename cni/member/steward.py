"""The steward: what blocks this host is to have, decided from what it holds, what calls wait for, and what the cluster says.

Pure: who asks does what is answered, and asks again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from cni.cluster.blocks import ahead, blocks_in, capacity
from cni.cluster.model import Block, Network
from cni.cluster.pools import Pool
from cni.state.membership import HELD, Holding

#: Of whole empty blocks of a pool, how many stay.
_KEPT = 1
#: Hosts without pods begin to have a block while less of a pool than the first is had, and end when more than the second is.
_ROOMY, _CROWDED = 1 / 2, 3 / 4


def free(network: Network, holdings: Iterable[Holding]) -> int:
    """How many addresses these blocks can still give."""
    return sum(max(0, capacity(network, one.block.span) - one.leased) for one in holdings if one.state == HELD)


def of_pool(pool: Pool, holdings: Iterable[Holding]) -> list[Holding]:
    """The blocks that are of a pool."""
    subnet = ipaddress.ip_network(pool.subnet)
    return [one for one in holdings if one.block.addresses[0] in subnet]


def short(network: Network, holdings: Sequence[Holding]) -> list[Pool]:
    """The pools of which too few addresses are free ahead."""
    return [pool for pool in network.pools if free(network, of_pool(pool, holdings)) < ahead(network)]


def spare(network: Network, holdings: Sequence[Holding]) -> list[Holding]:
    """Of each pool the block that could go: the last of two that are whole and empty, without which enough is free still."""
    return [one for pool in network.pools for one in _spare(network, of_pool(pool, holdings))]


def _spare(network: Network, holdings: Sequence[Holding]) -> list[Holding]:
    empty = [one for one in holdings if one.state == HELD and not one.leased]
    if len(empty) <= _KEPT or free(network, [one for one in holdings if one is not empty[-1]]) < ahead(network):
        return []
    return empty[-1:]


def is_roomy(network: Network, pool: Pool, blocks: Iterable[Block]) -> bool:
    """Whether so few of a pool's blocks are had that a host without pods may have one, too."""
    return _had(pool, blocks) < blocks_in(network, pool) * _ROOMY


def is_crowded(network: Network, pool: Pool, blocks: Iterable[Block]) -> bool:
    """Whether so many of a pool's blocks are had that hosts without pods are to give theirs up."""
    return _had(pool, blocks) > blocks_in(network, pool) * _CROWDED


def _had(pool: Pool, blocks: Iterable[Block]) -> int:
    subnet = ipaddress.ip_network(pool.subnet)
    return sum(block.addresses[0] in subnet for block in blocks)


def differing(ours: Network, theirs: Network) -> str:
    """Why the cluster does not take a network as this host has it; empty where it does."""
    if ours == theirs:
        return ""
    said = [
        f"{name} is {_spelled(mine)} here and {_spelled(other)} there"
        for name in dict.fromkeys((*ours.value, *theirs.value))
        if (mine := ours.value.get(name, False)) != (other := theirs.value.get(name, False))
    ]
    return f"the cluster has {ours.name} differently: {'; '.join(said)}"


def _spelled(value: object) -> str:
    """Of a list there are pools in it, or spans."""
    if not isinstance(value, list):
        return str(value)
    return ", ".join(item if isinstance(item, str) else _spelled_pool(item) for item in value) or "none"


def _spelled_pool(pool: Mapping[str, str]) -> str:
    return f"{pool['subnet']} ({pool['first']}-{pool['last']}, gateway {pool['gateway'] or 'none'})"
