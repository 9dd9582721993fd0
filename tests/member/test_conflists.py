"""The conflist is there when, and only when, this host can serve pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from cni.cluster.model import Block
from cni.conflist import placed
from cni.errors import Forbidden
from cni.member.conflists import Conflists, Written
from cni.naming import Attachment
from cni.state import Store

FOUR, SIX = "10.244.1.0/24", "fd00:244:0:1::/64"
VERSIONS = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"]}
ROUTED = {
    "type": "bridge-vxlan", "isDefaultGateway": True, "vxlan": {"id": 100, "mode": "l3"},
    "ipam": {"type": "agent-ipam", "cluster": True, "ranges": [[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:244::/56"}]]},
}  # fmt: skip
ALONE = {"type": "custom-plugin", "ipam": {"type": "agent-ipam"}}


class Scene:
    def __init__(self, folder: Path, state: Store) -> None:
        self.templates, self.runtime, self.state = folder / "templates", folder / "net.d", state
        self.templates.mkdir()
        self.runtime.mkdir()
        self.file = self.runtime / "10-pods.conflist"
        self.conflists = Conflists(self.templates, self.runtime, folder / "bin")
        self.said, self.forbidden = 0, ""

    def say(self, *plugins: dict[str, Any], name: str = "10-pods.conflist", **more: Any) -> str:
        text = json.dumps(VERSIONS | {"name": "pods", "plugins": plugins} | more)
        (self.templates / name).write_text(text)
        return text

    def keep(self, *spans: str) -> bool:
        return self.conflists.keep(self.state, spans, self.serves)

    def serves(self) -> None:
        self.said += 1
        if self.forbidden:
            raise Forbidden(self.forbidden)

    def agree(self, *spans: str) -> None:
        """What the publisher does of it: the cluster takes the network, and the blocks are this host's."""
        with self.state.transaction():
            for network, _ in self.state.shared():
                self.state.refuse_network(network.name, "")
                for span in spans:
                    self.state.put_block(Block(network.name, span, "n1", "machine"))

    def there(self) -> Any:
        return json.loads(self.file.read_text())["plugins"][0]["ipam"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with closing(Store.open(tmp_path / "state")) as state:
        yield Scene(tmp_path, state)


def test_it_waits_for_the_blocks_of_each_family_of_its_network(scene: Scene):
    scene.say(ROUTED)
    assert not scene.keep(FOUR, SIX)
    assert scene.conflists.lacking == "network 'pods' has no block of addresses here yet"
    assert [network.name for network, _ in scene.state.shared()] == ["pods"], "as a first pod would"
    scene.agree()
    assert not scene.keep(FOUR, SIX)
    scene.agree(FOUR)
    assert not scene.keep(FOUR, SIX)
    assert not scene.file.exists()
    scene.agree(SIX)
    assert scene.keep(FOUR, SIX)
    assert scene.there() == ROUTED["ipam"]


def test_of_one_family_the_other_is_not_waited_for(scene: Scene):
    scene.say(ROUTED)
    scene.keep(FOUR)
    scene.agree(FOUR)
    assert scene.keep(FOUR)
    assert scene.there()["ranges"] == [[{"subnet": "10.244.0.0/16"}]]


def test_whoever_waits_for_it_is_told_when_it_is_there(scene: Scene, capfd: pytest.CaptureFixture[str]):
    scene.say(ROUTED)
    scene.keep(FOUR)
    assert scene.said == 0
    scene.agree(FOUR)
    scene.forbidden = "may not patch nodes/status"
    assert (scene.keep(FOUR), scene.keep(FOUR), scene.file.exists()) == (False, False, True)
    assert capfd.readouterr().err.count("may not patch nodes/status") == 1
    scene.forbidden = ""
    assert scene.keep(FOUR)


def test_where_no_blocks_are_assigned_nothing_is_filled_in(scene: Scene):
    text = scene.say(ROUTED)
    assert not scene.conflists.keep(scene.state, None, scene.serves)
    scene.agree(FOUR, SIX)
    assert scene.conflists.keep(scene.state, None, scene.serves)
    assert scene.file.read_text() == text


def test_a_node_that_has_no_block_yet_waits_for_it(scene: Scene, capfd: pytest.CaptureFixture[str]):
    scene.say(ALONE)
    assert not scene.keep()
    assert "no block of addresses yet" in capfd.readouterr().err
    assert not scene.file.exists()
    assert scene.keep(FOUR)


def test_what_has_nothing_to_be_filled_in_is_as_it_was_written(scene: Scene):
    text = scene.say({"type": "custom-plugin", "ipam": {"type": "agent-ipam", "subnet": "192.0.2.0/24"}})
    assert scene.keep(FOUR)
    assert scene.file.read_text() == text


def test_another_template_and_other_blocks_replace_it_and_nothing_takes_it_away(scene: Scene):
    scene.say(ALONE)
    assert scene.keep(FOUR)
    assert scene.there()["ranges"] == [[{"subnet": FOUR}]]
    assert scene.keep(FOUR, SIX)
    scene.say(ALONE | {"ipMasq": True})
    assert Conflists(scene.templates, scene.runtime, scene.runtime).keep(scene.state, (FOUR, SIX), scene.serves), (
        "another process knows it too"
    )
    assert json.loads(scene.file.read_text())["plugins"][0]["ipMasq"]
    (scene.templates / "10-pods.conflist").unlink()
    assert not scene.keep(FOUR)
    assert scene.file.exists()


def test_one_of_another_name_takes_its_place_once_it_is_there(scene: Scene):
    scene.say(ALONE)
    scene.keep(FOUR)
    scene.say(ROUTED, name="05-pods.conflist")
    (scene.templates / "10-pods.conflist").unlink()
    (scene.runtime / "99-theirs.conflist").write_text("{}")
    assert not scene.keep(FOUR)
    assert scene.file.exists()
    scene.agree(FOUR)
    assert scene.keep(FOUR)
    assert sorted(item.name for item in scene.runtime.glob("*.conflist")) == ["05-pods.conflist", "99-theirs.conflist"]


def test_what_somebody_edited_is_named_and_kept(scene: Scene, capfd: pytest.CaptureFixture[str]):
    scene.say(ALONE)
    scene.keep(FOUR)
    scene.file.write_text("edited")
    scene.say(ALONE | {"ipMasq": True})
    assert (scene.keep(FOUR), scene.keep(FOUR)) == (False, False)
    assert scene.file.read_text() == "edited"
    assert capfd.readouterr().err.count(f"{scene.file} is somebody's own, or was edited, and is kept") == 1
    scene.file.unlink()
    assert scene.keep(FOUR)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "not an object"),
        (json.dumps(VERSIONS | {"name": "pods", "plugins": [ROUTED | {"mtu": -1}]}), "$.plugins[0]: $.mtu"),
        (json.dumps(VERSIONS | {"name": "pods", "plugins": [ROUTED]}).replace("10.244", "10.9"), "is not in 10.9.0.0/16"),
        (json.dumps(VERSIONS | {"name": "pods", "plugins": [ROUTED]}).replace("4.0.0/16", "4.0.1/16"), "10.244.0.1/16 has host bits set"),
        (json.dumps(VERSIONS | {"name": "pods", "plugins": [ROUTED]}).replace("subnet", "subnets"), "'subnet' is a required property"),
        (json.dumps(VERSIONS | {"name": "pods", "plugins": [ROUTED | {"ipam": ROUTED["ipam"] | {"routes": [{}]}}]}), "'dst' is a required property"),
        (b'{"name": "\xff"}', "is not JSON"),
        (None, "has no conflist"),
    ],
)  # fmt: skip
def test_a_wrong_one_is_not_put_and_what_is_there_stays(
    scene: Scene, capfd: pytest.CaptureFixture[str], text: str | bytes | None, said: str
):
    scene.say(ALONE)
    scene.keep(FOUR)
    before = scene.file.read_text()
    if text is None:
        (scene.templates / "10-pods.conflist").unlink()
    else:
        (scene.templates / "10-pods.conflist").write_bytes(text.encode() if isinstance(text, str) else text)
    assert not scene.keep(FOUR)
    assert said in capfd.readouterr().err
    assert scene.file.read_text() == before


def test_what_is_null_is_not_said(scene: Scene):
    scene.say(ROUTED | {"ipam": ROUTED["ipam"] | {"subnet": None, "routes": None}}, {"type": "theirs", "ipam": None})
    scene.keep(FOUR)
    scene.agree(FOUR)
    assert scene.keep(FOUR)
    assert scene.there()["ranges"] == [[{"subnet": "10.244.0.0/16"}]]


def test_what_somebody_elses_plugin_is_told_is_not_ours_to_read(scene: Scene, tmp_path: Path):
    (tmp_path / "bin").mkdir()
    for name in ("theirs", "custom-plugin"):
        (tmp_path / "bin" / name).touch()
    scene.say({"type": "theirs", "ipam": 5}, {"type": "theirs", "ipam": {"type": ""}})
    assert scene.keep(FOUR)


def test_a_network_that_the_cluster_has_otherwise_is_not_put(scene: Scene, capfd: pytest.CaptureFixture[str]):
    scene.say(ROUTED)
    scene.keep(FOUR)
    with scene.state.transaction():
        scene.state.refuse_network("pods", "its mode is l2 there")
    assert not scene.keep(FOUR)
    assert "its mode is l2 there" in capfd.readouterr().err
    assert not scene.file.exists()


def test_one_that_was_taken_away_comes_again(scene: Scene):
    scene.say(ALONE)
    scene.keep(FOUR)
    scene.file.unlink()
    assert scene.keep(FOUR)
    assert placed.is_as_put(scene.file)


def test_a_plugin_that_is_not_there_is_waited_for(scene: Scene, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Else every pod would fail, until somebody installs it."""
    theirs = {"type": "ptp", "ipam": {"type": "agent-ipam"}}
    scene.say(ALONE, {"type": "portmap", "capabilities": {"portMappings": True}})
    scene.say(theirs, name="20-theirs.conflist")
    assert scene.keep(FOUR), "where none of ours is, the runtime finds them somewhere else"
    scene.say(ALONE | {"ipMasq": True}, {"type": "portmap", "capabilities": {"portMappings": True}})
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, lacking in {
        "bridge-vxlan": "custom-plugin, portmap",
        "custom-plugin": "portmap",
        "portmap": "ptp, agent-ipam",
    }.items():
        (programs / name).touch()
        assert not scene.keep(FOUR)
        assert f"{programs} has no {lacking}: " in capfd.readouterr().err
    assert "ipMasq" in scene.file.read_text(), "each is put that can be"
    for name in ("ptp", "agent-ipam"):
        (programs / name).touch()
    assert scene.keep(FOUR)


def shared(scene: Scene) -> dict[str, list[str]]:
    return {network.name: [pool.subnet for pool in network.pools] for network, _ in scene.state.shared()}


def written(scene: Scene, file: str, name: str = "pods", *plugins: dict[str, Any]) -> None:
    (scene.runtime / file).write_text(json.dumps(VERSIONS | {"name": name, "plugins": plugins or [ROUTED]}))


def test_of_what_somebody_wrote_for_the_runtime_the_networks_are_shared_before_a_pod_asks(scene: Scene):
    found = Written(scene.runtime)
    found.share(scene.state)
    assert shared(scene) == {}
    written(scene, "10-pods.conflist")
    written(scene, "20-alone.conflist", "alone", ALONE | {"ipam": {"type": "agent-ipam", "subnet": FOUR}})
    found.share(scene.state)
    assert shared(scene) == {"pods": ["10.244.0.0/16", "fd00:244::/56"]}
    written(scene, "30-more.conflist", "more", ROUTED | {"vxlan": {"id": 101, "mode": "l3"}})
    found.share(scene.state)
    assert sorted(shared(scene)) == ["more", "pods"]


def test_what_calls_share_otherwise_is_theirs(scene: Scene):
    one = ROUTED | {"ipam": {"type": "agent-ipam", "cluster": True, "subnet": "10.245.0.0/16"}}
    written(scene, "10-pods.conflist", "pods", one)
    Written(scene.runtime).share(scene.state)
    written(scene, "10-pods.conflist")
    Written(scene.runtime).share(scene.state)
    assert shared(scene) == {"pods": ["10.245.0.0/16"]}


def test_a_network_whose_pods_have_addresses_of_before_waits_for_a_call_that_refuses(scene: Scene):
    written(scene, "10-pods.conflist")
    with scene.state.transaction():
        scene.state.lease(Attachment("pods", "old", "eth0"), "bridge-vxlan", ip_address("10.244.0.9"))
    Written(scene.runtime).share(scene.state)
    assert shared(scene) == {}


@pytest.mark.parametrize(
    "plugins", ["{", "[]", '[{"type": "bridge-vxlan", "ipam": {"cluster": true}}]', '[{"type": 5}]']
)
def test_what_is_wrong_with_a_file_keeps_nothing_from_the_others(scene: Scene, plugins: str):
    wrong = f'{{"cniVersion": "1.0.0", "name": "wrong", "plugins": {plugins}}}'
    (scene.runtime / "10-wrong.conflist").write_text(wrong)
    (scene.runtime / "11-gone.conflist").symlink_to("nowhere")
    written(scene, "20-pods.conflist")
    Written(scene.runtime).share(scene.state)
    assert list(shared(scene)) == ["pods"]
