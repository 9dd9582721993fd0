from __future__ import annotations

from contextlib import closing
from pathlib import Path

from cluster_memory import Memory
from member_host import Host, network

from cni.cluster.model import Block, Endpoint
from cni.state.membership import HELD


def test_a_host_that_joins_has_a_block_ahead_and_tells_of_its_pods(tmp_path: Path):
    memory, net = Memory(), network()
    host = Host("node-a", memory, tmp_path)
    assert host.add("c1", net) is None
    host.share(net)
    host.turn(2)
    given = host.add("c1", net)
    host.turn()
    items = memory.listing().items
    (mine,) = [item for item in items if isinstance(item, Endpoint) and item.container]
    assert (mine.address, mine.node, mine.container) == (given, "node-a", "c1")
    with closing(host.state) as state:
        held = {holding.block for holding in state.blocks() if holding.state == HELD}
        assert held == {item for item in items if isinstance(item, Block)}
        assert state.unsaid() == []
        assert state.wishes() == []
    host.delete("c1", net)
    host.turn()
    assert [item for item in memory.listing().items if isinstance(item, Endpoint) and item.container] == []
