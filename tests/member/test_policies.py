"""What follows feeds, told of files one at a time: nothing it was told of is lost, and nobody is left with what a feed said before."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni import together
from cni.cluster.document import Document as Said
from cni.cluster.store import Change, Listing
from cni.errors import CniError, KernelRefused, TryAgainLater
from cni.kernel.inotify import Noticed
from cni.member import following
from cni.member import policies as room
from cni.member.elements import Elements
from cni.member.policies import Policies
from cni.naming import CLUSTER, Attachment
from cni.policy import folder
from cni.state import Record, Store, uses
from cni.state.documents import FILE, Documents
from cni.state.fed import Fed
from cni.together import Followed


def policy(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name}
    return {"kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}, **spec}}


class Clock:
    """A clock that stands until it is set."""

    now = 1e9

    def __call__(self) -> float:
        return self.now


class Node:
    """A node of pods that follow one folder, what is done for them counted, and refused as often as is said."""

    def __init__(self, tmp_path: Path, no_node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = tmp_path / "feed"
        self.place.mkdir()
        self.folder, self.other = no_node, tmp_path / "other"
        self.held: list[str] = []
        self.filled = self.put_in = 0
        self.refusals: dict[str, list[CniError]] = {"held": [], "fill": [], "put": []}
        Store.open(self.folder).close()
        monkeypatch.setattr(folder, "_TICK", 0)
        monkeypatch.setattr(following, "_LEAST", 0.0)
        monkeypatch.setattr(together, "follow", self._follow)
        self.policies = Policies(self.folder, lambda: None)

    def _refuse(self, what: str) -> None:
        if self.refusals[what]:
            raise self.refusals[what].pop(0)

    def _follow(self, items: list[Fed], besides: list[Elements]) -> Followed:
        found = Followed()
        for item in items:
            try:
                self._refuse("held")
                self.held.append(item.pod)
                found.changed.append(item)
            except TryAgainLater:
                found.again.append(item)
            except CniError as error:
                found.failed[item] = error
        try:
            for elements in besides:
                self._refuse("put" if elements.effects else "fill")
                self.put_in += elements.effects is not None
                self.filled += elements.effects is None
        except CniError as error:
            found.besides = error
        return found

    def attach(self, name: str, folder: Path | None = None, *, complete: bool = True, fed: bool = True) -> Record:
        config = {"name": "net", **({"policy": {"policyDir": str(self.place)}} if fed else {})}
        record = Record(Attachment("net", f"c-{name}", "eth0"), "bridge", "", f"shop/{name}", config, complete=complete)
        with closing(Store.open(folder or self.folder)) as store, store.transaction():
            store.put(record)
        return record

    def detach(self, record: Record) -> None:
        with closing(Store.open(self.folder)) as store, store.transaction():
            store.forget(record.attachment, record.plugin)

    def write(self, name: str, said: dict[str, Any] | None = None, **spec: Any) -> None:
        (self.place / "new").write_text(json.dumps(said or policy(name, **spec)))
        (self.place / "new").rename(self.place / f"{name}.json")
        self.policies._notice([Noticed(self.place, f"{name}.json")])

    def look(self) -> list[str]:
        """The pods that were held to what the feed says in one look."""
        self.held = []
        self.policies.look()
        return self.held

    def known(self, feed: str = "") -> list[str]:
        with closing(Documents.open()) as documents:
            return sorted(item.name for item in documents.everything(feed or f"folder {self.place}"))


@pytest.fixture
def node(tmp_path: Path, no_node: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    found = Node(tmp_path, no_node, monkeypatch)
    found.write("one")
    found.write("two")
    found.attach("web")
    found.policies._notice([Noticed(found.place)])
    assert found.look() == ["shop/web"]
    assert (found.look(), found.known()) == ([], ["one", "two"])
    return found


def test_a_file_alone_is_no_feed_where_what_was_known_is_lost(node: Node):
    for file in uses.DEFAULT_FOLDER.glob(f"{FILE}*"):
        file.unlink()
    node.write("two", policyTypes=["Egress"])
    assert node.look() == ["shop/web"]
    assert node.known() == ["one", "two"]


def test_who_is_complete_after_one_that_came_later_and_as_another_goes_is_followed(node: Node):
    older = node.attach("older")
    node.attach("begun", complete=False)
    node.attach("later")
    assert node.look() == ["shop/older", "shop/later"]
    node.attach("begun")
    node.detach(older)
    assert node.look() == ["shop/begun"]


def test_who_comes_again_with_a_feed_is_followed(node: Node):
    node.attach("chained", fed=False)
    assert node.look() == []
    node.attach("chained")
    assert node.look() == ["shop/chained"]


def test_what_the_cluster_said_is_known_again_where_that_is_lost(node: Node):
    texts = {name: json.dumps(policy(name)) for name in ("one", "two", "three")}
    said = {name: Said("NetworkPolicy", "shop", name, text) for name, text in texts.items()}
    node.policies.heard(Listing(5, (said["one"], said["two"])))
    node.policies.heard(Change(6, (said["three"],), (said["one"].key,)))
    node.look()
    assert node.known(CLUSTER) == ["three", "two"]
    for file in uses.DEFAULT_FOLDER.glob(f"{FILE}*"):
        file.unlink()
    node.look()
    assert node.known(CLUSTER) == ["three", "two"]


def test_what_began_anew_at_an_earlier_time_is_begun_with(node: Node, monkeypatch: pytest.MonkeyPatch):
    for file in uses.DEFAULT_FOLDER.glob(f"{FILE}*"):
        file.unlink()
    monkeypatch.setattr("cni.state.documents.time.time_ns", lambda: 10**9)
    node.write("two", policyTypes=["Egress"])
    assert node.look() == ["shop/web"]


def test_a_notice_is_kept_until_its_file_could_be_read(node: Node, monkeypatch: pytest.MonkeyPatch):
    def busy(*_: object) -> None:
        raise TryAgainLater("another reads it")

    with monkeypatch.context() as patched:
        patched.setattr(room.feeds, "follow", busy)
        node.write("three")
        assert node.look() == []
    assert node.look() == ["shop/web"]
    assert node.known() == ["one", "three", "two"]


@pytest.mark.parametrize("error", [TryAgainLater("busy"), KernelRefused("no buffer space", 105)])
def test_sets_that_could_not_be_changed_are_filled(node: Node, error: CniError):
    node.refusals["put"] = [error]
    node.refusals["fill"] = [error]
    filled = node.filled
    node.write("pod", {"kind": "Pod", "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web"}}})
    for _ in range(3):
        node.look()
    assert node.filled == filled + 1


def test_an_attachment_that_was_refused_is_held_soon_after(node: Node, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr("cni.member.backoff.time.monotonic", clock)
    node.refusals["held"] = [KernelRefused("no buffer space", 105)] * 3
    node.write("three")
    assert (node.look(), node.look()) == ([], [])
    for pause in (1.0, 2.0, 4.0):
        assert node.policies.owed == pause
        clock.now += pause - 0.1
        assert node.look() == []
        clock.now += 0.1
        held = node.look()
    assert (held, node.policies.owed) == (["shop/web"], math.inf)


def test_an_attachment_that_was_refused_is_held_with_the_next_comparison_at_the_latest(node: Node):
    node.refusals["held"] = [KernelRefused("no buffer space", 105)]
    node.write("three")
    assert (node.look(), node.look()) == ([], [])
    node.policies.look(compares=True)
    assert node.held == ["shop/web"]


def test_a_folder_that_nobody_is_fed_from_is_forgotten_after_an_hour(node: Node, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr("cni.member.policies.time.monotonic", clock)
    node.policies.heard(Listing(5, (Said("NetworkPolicy", "shop", "one", json.dumps(policy("one"))),)))
    node.detach(node.attach("web"))
    for _ in range(2):
        clock.now += 3000
        node.policies.look(compares=True)
        assert node.known() == ["one", "two"], "one that comes need not read it again"
    clock.now += 700
    node.policies.look(compares=True)
    assert (node.known(), node.known(CLUSTER)) == ([], ["one"])
    node.attach("web")
    clock.now += 1
    node.policies.look(compares=True)
    assert (node.held[-1], node.known()) == ("shop/web", ["one", "two"])


def test_one_that_comes_is_held_to_what_was_said_while_it_came(node: Node):
    node.write("three")
    node.look()
    node.attach("db")
    assert node.look() == ["shop/db"]


def test_one_that_takes_the_last_ones_row_is_found(node: Node):
    web = node.attach("web")
    node.detach(web)
    node.attach("db")
    node.look()
    node.write("three")
    assert node.look() == ["shop/db"]


def test_a_folder_that_comes_leaves_those_of_others_followed(node: Node):
    node.attach("db", node.other)
    node.look()
    node.write("three")
    assert node.look() == ["shop/web", "shop/db"]


def test_a_folder_that_cannot_be_read_leaves_those_of_others_followed(node: Node):
    node.attach("db", node.other)
    node.look()
    for file in node.other.glob("state.db*"):
        file.write_text("spoiled " * 1000)
    node.write("three")
    assert "shop/web" in node.look()
