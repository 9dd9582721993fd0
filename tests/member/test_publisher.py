from __future__ import annotations

import ipaddress
import json
from contextlib import closing
from pathlib import Path
from typing import Any

from cluster_memory import Memory, Row
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


def test_what_a_host_says_is_no_news_to_it_when_the_watch_is_quicker_than_the_answer(tmp_path: Path, monkeypatch: Any):
    """Else it looked once more at all it has, for each pod that comes or goes."""
    memory, net = Memory(), network()
    host = Host("node-a", memory, tmp_path)
    host.share(net)
    host.turn(3)
    news, publish = host.ledger.news, host.store.publish

    def slowly(*words: Any) -> bool:
        said: bool = publish(*words)
        host.hear()
        return said

    monkeypatch.setattr(host.store, "publish", slowly)
    given = host.add("c1", net)
    host.turn()
    assert given in [item.address for item in host.ledger.own_endpoints()]
    host.delete("c1", net)
    host.turn()
    assert given not in [item.address for item in host.ledger.own_endpoints()]
    assert host.ledger.news == news
    memory.write({}, [item.key for item in host.ledger.own_endpoints()])  # and what somebody else says is
    host.turn()
    assert host.ledger.news > news


def test_a_host_that_is_told_of_no_endpoints_knows_that_they_went_with_a_block(tmp_path: Path):
    """Somebody removed it while it was away; what it hears, late, is that its block went and that it has it again itself."""
    memory, net = Memory(), network(mode="l3")
    host, other = Host("node-a", memory, tmp_path / "a"), Host("node-b", memory, tmp_path / "b")
    host.spares = True
    host.share(net)
    host.turn(3)
    given = host.add("c1", net)
    host.turn()
    other.turn()
    memory.end_session("node-a")
    other.store.remove("node-a")
    assert given not in [item.address for item in memory.listing().items if isinstance(item, Endpoint)]
    host.deaf = True
    host.turn(3)
    host.deaf = False
    host.turn(3)
    assert given in [item.address for item in memory.listing().items if isinstance(item, Endpoint)]


def test_what_a_host_cannot_say_is_in_nobodys_way(tmp_path: Path):
    """Endpoints under its name that are in none of its blocks: of them it can say nothing, and it is not asked to."""
    memory, net = Memory(), network()
    host = Host("node-a", memory, tmp_path)
    host.share(net)
    host.turn(2)
    strays = [Endpoint("net", f"10.9.{at >> 8}.{at & 255}", "node-a", "0a:00:00:00:00:09") for at in range(1001)]
    with memory.changed:
        memory.write({stray.key: Row(json.dumps(stray.value), 0) for stray in strays}, [])
    host.turn()
    given = host.add("c1", net)
    host.turn()
    said = [item for item in memory.listing().items if isinstance(item, Endpoint) and item.container]
    assert [item.address for item in said] == [given]
    with closing(host.state) as state:
        assert state.unsaid() == []


def test_of_a_block_that_is_had_anew_what_nobody_has_is_withdrawn(tmp_path: Path):
    memory, net = Memory(), network()
    host = Host("node-a", memory, tmp_path)
    strays = [Endpoint("net", f"10.10.0.{at}", "node-a", "0a:00:00:00:00:09", "gone", "eth0") for at in range(2, 254)]
    with memory.changed:
        memory.write({stray.key: Row(json.dumps(stray.value), 0) for stray in strays}, [])
    host.share(net)
    host.turn(4)
    items = memory.listing().items
    ours = [item.addresses for item in items if isinstance(item, Block)]
    left = [ipaddress.ip_address(item.address) for item in items if isinstance(item, Endpoint) and item.container]
    assert ours
    assert not [address for address in left if any(address in block for block in ours)]
