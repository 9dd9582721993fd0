"""A store that lost what it was told: this host still has what it has, as long as nobody else does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from cluster_memory import Memory
from member_host import Host, network

from cni.cluster.model import Block, Endpoint
from cni.state.membership import HELD, LOST

NET = network()


def with_pods(memory: Memory, folder: Path) -> tuple[Host, list[str]]:
    host = Host("node-a", memory, folder)
    host.share(NET)
    host.turn(2)
    addresses = [host.add(name, NET) for name in ("one", "two")]
    host.turn()
    return host, [address for address in addresses if address]


def wiped(memory: Memory) -> None:
    memory.write({}, list(memory.rows))


def states(host: Host) -> set[str]:
    with closing(host.state) as state:
        return {one.state for one in state.blocks()}


@pytest.mark.parametrize("heard", [False, True], ids=["not heard of yet", "heard of"])
def test_blocks_and_pods_are_said_again(tmp_path: Path, heard: bool):
    memory = Memory()
    host, addresses = with_pods(memory, tmp_path)
    host.add("three", NET)
    wiped(memory)
    if heard:
        host.hear()
    host.keeper.step()  # the session is over
    host.keeper.step()  # and there is another
    host.publisher.step()
    host.turn(3)
    assert states(host) == {HELD}
    items = memory.listing().items
    assert {it.address for it in items if isinstance(it, Endpoint) and it.container} >= set(addresses)
    assert len([it for it in items if isinstance(it, Block)]) >= 1


def test_a_lost_block_that_nobody_has_any_more_is_had_again(tmp_path: Path):
    memory = Memory()
    host, addresses = with_pods(memory, tmp_path)
    with closing(host.state) as state:
        (block,) = [one.block for one in state.blocks() if one.leased]
    wiped(memory)
    other = Block(block.network, block.span, "node-b", "node-b-machine")
    memory.put_text(other.key, '{"node": "node-b", "machine": "node-b-machine"}')
    host.turn(4)
    assert LOST in states(host)
    memory.write({}, [other.key])
    host.turn(3)
    assert LOST not in states(host)
    said = {it.address for it in memory.listing().items if isinstance(it, Endpoint) and it.container}
    assert said >= set(addresses)
