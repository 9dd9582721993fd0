"""What a node has and how its calls go, as figures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory
from member_host import Host, network
from prometheus_client.parser import text_string_to_metric_families

from cni.cluster.model import Endpoint
from cni.command.main import main
from cni.errors import RangeExhausted
from cni.kernel.counters import Counted
from cni.member import census
from cni.naming import Attachment
from cni.policy.feeds import book_of
from cni.state import Record, Store
from cni.state.membership import LOST
from cni.state.tally import MEND, counted
from cni.values import replace


def told() -> dict[str, Any]:
    return {
        f"{sample.name.removeprefix('agent_cni_')} {' '.join(value for _, value in sample.labels)}".strip(): sample.value
        for family in census.of_node()
        for sample in family.samples
    }


def test_a_node_that_had_no_call_says_its_release_alone(no_node: Path):
    (name,) = told()
    assert name.startswith("build_info ")
    assert not no_node.exists()


def test_calls_are_told_by_how_they_ended(no_node: Path):
    no_node.mkdir(mode=0o700)
    for _ in range(3):
        with counted("macvlan", "ADD"):
            pass
    with pytest.raises(RangeExhausted), counted("macvlan", "ADD"):
        raise RangeExhausted("none")
    found = told()
    assert found["call_seconds_count macvlan ADD 0"] == 3
    assert found["call_seconds_bucket macvlan ADD 103 +Inf"] == 1
    assert found["call_failures_total macvlan ADD"] == 1


def test_what_was_put_right_unasked_is_no_call(no_node: Path):
    no_node.mkdir(mode=0o700)
    with counted("rules", MEND):
        pass
    found = told()
    assert found["repairs_total rules"] == 1
    assert not any(name.startswith("call_seconds") for name in found)


def test_attachments_and_addresses_of_all_folders_are_counted(no_node: Path, tmp_path: Path):
    for folder, names in ((no_node, "ab"), (tmp_path / "elsewhere", "c")):
        with closing(Store.open(folder)) as store, store.transaction():
            for name in names:
                record = Record(Attachment("net", name, "eth0"), "macvlan", "/run/netns/x", "", {})
                store.put(replace(record, complete=name != "b"))
    found = told()
    assert found["attachments net macvlan complete"] == 2
    assert found["attachments net macvlan incomplete"] == 1


def test_what_cannot_be_read_of_a_feed_is_counted(tmp_path: Path):
    place = tmp_path / "feed"
    place.mkdir()
    for name, text in (("a", '{"kind": "List", "items": []}'), ("b", '{"kind": "List", "items": []}')):
        (place / f"{name}.json").write_text(text)
    book_of(f"folder {place}")
    assert told()[f"policy_faults folder {place}"] == 0
    for name in ("a", "b"):
        (place / f"{name}.json").write_text("{")
    book_of(f"folder {place}")
    assert told()[f"policy_faults folder {place}"] == 2
    place.rename(tmp_path / "away")
    book_of(f"folder {place}")
    assert told()[f"policy_faults folder {place}"] == 3


@pytest.fixture
def host(no_node: Path) -> Host:
    no_node.mkdir(mode=0o700)
    return Host("a", Memory(), no_node)


def test_a_host_tells_of_its_blocks_and_of_what_it_has_not_said(host: Host):
    net = network()
    host.turn()
    host.share(net)
    host.turn(2)
    assert host.add("one", net)
    found = told()
    assert found["member_info a"] == 1
    assert found["member_troubled"] == 0
    assert found["network_refused net"] == 0
    assert found["blocks net 4 held"] >= 1
    assert found["block_addresses_leased net 4"] == 1
    before = found["block_addresses_free net 4"]
    assert found["endpoints_unpublished net"] == 1
    host.turn()
    assert host.add("two", net)
    found = told()
    assert found["block_addresses_free net 4"] == before - 1
    host.turn()
    assert told()["endpoints_unpublished net"] == 0


def test_a_host_whose_store_is_away_is_troubled_and_keeps_what_it_has_to_say(host: Host):
    net = network()
    host.share(net)
    host.turn(3)
    host.store.cut = True
    host.add("one", net)
    host.turn()
    found = told()
    assert found["member_troubled"] == 1
    assert found["endpoints_unpublished net"] >= 1


def test_of_what_is_in_none_of_its_blocks_a_host_has_nothing_to_say(host: Host):
    net = network()
    host.share(net)
    host.turn(3)
    host.add("one", net)
    host.turn()
    with closing(host.state) as state, state.transaction():
        state.say([Endpoint("net", "10.99.0.9", "a", "0a:00:00:00:00:09", "two", "eth0")], "bridge-vxlan")
        for block in [item.block for item in state.blocks("net") if item.leased]:
            state.put_block(block, LOST)
            state.unlearn(block)
    assert told()["endpoints_unpublished net"] == 0


def test_calls_that_wait_are_told(host: Host):
    net = network()
    host.share(net)
    host.turn(2)
    with closing(host.state) as state, state.transaction():
        state.wish("net", 4, "10.10.0.200")
    assert told()["wishes net"] == 1


def test_how_long_a_host_gives_addresses_yet_is_told_where_it_ends(no_node: Path):
    no_node.mkdir(mode=0o700)
    host = Host("a", Memory(), no_node, free_after=600)
    host.turn(2)
    assert 290 < told()["member_fence_seconds"] <= 300


def test_a_state_that_is_damaged_keeps_the_rest_from_nobody(no_node: Path, log_folder: Callable[[], None]):
    no_node.mkdir(mode=0o700)
    (no_node / "state.db").write_bytes(b"no database" * 1000)
    (no_node / "state.db").chmod(0o600)
    with counted("macvlan", "ADD"):
        pass
    assert told()["call_seconds_count macvlan ADD 0"] == 1


def test_the_command_prints_what_prometheus_reads(no_node: Path, capsys: pytest.CaptureFixture[str]):
    no_node.mkdir(mode=0o700)
    with counted("macvlan", "ADD"):
        pass
    assert main(["metrics"]) == 0
    families = {family.name: family for family in text_string_to_metric_families(capsys.readouterr().out)}
    assert families["agent_cni_call_seconds"].samples[-1].value == 1


def test_the_command_writes_a_file_whole_and_for_all_to_read(no_node: Path, tmp_path: Path):
    file = tmp_path / "agent-cni.prom"
    file.write_text("before")
    assert main(["metrics", "--output", str(file)]) == 0
    assert "agent_cni_build_info" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert main(["metrics", "--output", str(tmp_path / "none/a.prom")]) == 1
    assert [item.name for item in tmp_path.iterdir() if item.is_file()] == ["agent-cni.prom"]


def test_what_documents_decided_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [
        Counted("NetworkPolicy a/b", "return", 3, 300),
        Counted("NetworkPolicy a/b", "drop", 2, 80),
        Counted("ClusterNetworkPolicy c", "goto", 1, 60),
    ]
    monkeypatch.setattr(census, "counted", lambda table: every)
    found = {
        sample.labels: sample.value
        for item in census.of_node()
        if item.name == "agent_cni_policy_packets_total"
        for sample in item.samples
    }
    assert found == {
        (("document", "NetworkPolicy a/b"), ("verdict", "accept")): 3,
        (("document", "NetworkPolicy a/b"), ("verdict", "deny")): 2,
        (("document", "ClusterNetworkPolicy c"), ("verdict", "pass")): 1,
    }
