"""What `show` says of a host's part in its cluster, and of whom the picture is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory
from member_host import Host, network

from cni.cluster.config import ClusterConfig, EtcdConfig
from cni.command.doctor.doctor import CHECKS
from cni.command.picture import part
from cni.command.picture.pictured import Far

NET = network()


@pytest.fixture
def hosts(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Host]:
    memory = Memory()
    made = []
    for name, place in (("a", folder), ("b", tmp_path / "there")):
        place.mkdir(mode=0o700)
        made.append(Host(name, memory, place))
        made[-1].share(NET)
        made[-1].turn(3)
    monkeypatch.setattr(part, "store_of", lambda config: made[0].store)
    return made[0], made[1]


def shown(agent: Any, folder: Path, *words: str) -> dict[str, Any]:
    return json.loads(agent("show", "--json", "--data-dir", folder, *words).out)


def test_a_host_in_no_cluster_shows_none(agent: Any, folder: Path):
    folder.mkdir()
    assert {area: shown(agent, folder)[area] for area in part.COLUMNS} == {"cluster": [], "networks": [], "blocks": []}
    assert "cluster" not in agent("show", "--data-dir", folder).out


def test_a_host_shows_its_networks_and_how_full_its_blocks_are(agent: Any, hosts: tuple[Host, Host], folder: Path):
    here, _ = hosts
    before = shown(agent, folder)
    assert here.add("one", NET)
    found = shown(agent, folder)
    (own,) = found["cluster"]
    assert (own["node"], own["machine"], own["state"], own["encryption"]) == ("a", "a-machine", "well", "")
    (net,) = found["networks"]
    assert (net["network"], net["mode"], net["vni"], net["subnets"]) == ("net", "l2", 100, ["10.10.0.0/24"])
    assert (net["used"], net["free"]) == (1, before["networks"][0]["free"] - 1)
    assert net["state"] == "agreed"
    assert sum(block["used"] for block in found["blocks"]) == 1
    assert {block["state"] for block in found["blocks"]} == {"held"}
    assert len(found["blocks"]) == net["blocks"]
    people = agent("show", "--data-dir", folder).out
    assert "10.10.0.0/24" in people
    assert found["blocks"][0]["block"] in people


def test_a_host_shows_the_networks_it_is_a_guest_of(agent: Any, tmp_path: Path, hosts: tuple[Host, Host]):
    """It has a block there, to be reached by, which nothing else would explain."""
    place = tmp_path / "guest"
    place.mkdir(mode=0o700)
    guest = Host("c", hosts[0].store.memory, place)
    guest.turn(3)
    found = shown(agent, place)
    assert [(net["network"], net["blocks"], net["state"]) for net in found["networks"]] == [
        ("net", 1, "a guest: no pods here")
    ]
    assert [block["network"] for block in found["blocks"]] == ["net"]


def test_what_troubles_a_host_is_its_state(agent: Any, hosts: tuple[Host, Host], folder: Path):
    here, _ = hosts
    here.store.cut = True
    here.turn()
    assert shown(agent, folder)["cluster"][0]["state"].startswith("the cluster's store is not reached")


def test_the_picture_is_told_of_hosts_that_share_a_network(hosts: tuple[Host, Host]):
    here, there = hosts
    there.add("x", NET)
    there.add("y", NET)
    there.turn()
    config = ClusterConfig("a", EtcdConfig(("http://[::1]:1",)))
    assert part.elsewhere(config) == ({100: [Far("b", there.config.vtep, 2, True)]}, {"net": 100}, "")
    here.store.memory.end_session("b")
    assert part.elsewhere(config).hosts[100][0].alive is False
    here.store.cut = True
    found, _, why = part.elsewhere(config)
    assert found == {}
    assert why


def test_what_programs_rely_on_is_written_down(agent: Any, hosts: tuple[Host, Host], folder: Path):
    page = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()
    found = shown(agent, folder)
    for area in part.COLUMNS:
        said = page.partition(f"`{area}` (")[2].partition(")")[0]
        assert set(re.findall(r"`(\w+)`", said.partition("`state`")[0])) | {"state"} == found[area][0].keys()
    areas = page.partition("a list for each area (")[2].partition(")")[0]
    assert re.findall(r"`(\w+)`", areas) == [*CHECKS]
