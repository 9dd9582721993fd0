"""A feed followed: what of it is read again, what stays when it cannot be read, and what of it all calls of a node know."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from cni.cluster.document import Document as Said
from cni.errors import InvalidConfig, TryAgainLater
from cni.policy import effects, feeds, folder
from cni.policy.cluster_feed import AsOf, told
from cni.policy.config import faults_in, section_of
from cni.policy.feeds import book_of, follow, reading_once
from cni.policy.known import KnownBook
from cni.policy.manifest import items_of
from cni.policy.objects import Pod, Rule
from cni.protocol.call import Call
from cni.state import Owners, owners_on_node
from cni.state.documents import Document, Documents, Feed, Source

POLICY = {"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "one"}, "spec": {"podSelector": {}}}


def pod(name: str, address: str = "10.1.0.5", **labels: str) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name, "labels": labels}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": "x"}, "status": {"podIP": address}}


class Place:
    """A folder that feeds, and which of its files were read."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.read: list[str] = []
        path.mkdir()
        real = folder._content

        def content(file: Path) -> Any:
            self.read.append(file.name)
            return real(file)

        monkeypatch.setattr(folder, "_content", content)
        monkeypatch.setattr(folder, "_TICK", 0)  # as if every file had been at rest for a while

    def put(self, name: str, *objects: Any, text: str | None = None) -> None:
        (self.path / "new").write_text("\n---\n".join(map(json.dumps, objects)) if text is None else text)
        (self.path / "new").rename(self.path / name)

    def book(self) -> KnownBook:
        return book_of(f"folder {self.path}")

    def pods(self) -> dict[str, tuple[str, ...]]:
        return {item.name: item.addresses for item in self.book().pods()}

    def looked(self) -> list[str]:
        """The files that were read since."""
        found, self.read = self.read, []
        return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path / "feed", monkeypatch)


def test_a_file_is_read_when_it_is_another(place: Place):
    place.put("a.json", POLICY)
    place.put("b.json", pod("web", app="web"))
    for _ in range(3):
        assert place.pods() == {"web": ("10.1.0.5",)}
    assert place.looked() == ["a.json", "b.json"]
    place.put("b.json", pod("web", "10.1.0.6", app="web"))
    assert place.pods() == {"web": ("10.1.0.6",)}
    assert place.looked() == ["b.json"]
    (place.path / "b.json").unlink()
    assert place.pods() == {}
    assert [item.name for item in place.book().policies("shop")] == ["one"]
    assert place.looked() == []


def test_of_a_file_that_was_noticed_nothing_else_is_looked_at_and_the_folder_is_known(place: Place):
    place.put("a.json", POLICY)
    place.put("b.json", pod("web", app="web"))
    assert place.pods() == {"web": ("10.1.0.5",)}
    place.looked()
    place.put("b.json", pod("web", "10.1.0.6", app="web"))
    place.put("c.json", pod("db", "10.1.0.7"))
    with closing(Documents.open()) as documents:
        assert follow(documents, f"folder {place.path}", ["b.json", "c.json"]) == 2
        assert place.looked() == ["b.json", "c.json"]
        assert place.pods() == {"web": ("10.1.0.6",), "db": ("10.1.0.7",)}
        (place.path / "c.json").unlink()
        assert follow(documents, f"folder {place.path}", ["c.json", "none.json"]) == 1
    assert place.pods() == {"web": ("10.1.0.6",)}
    assert place.looked() == []


def test_one_that_was_written_a_moment_ago_is_read_again(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "_TICK", 3600 * 10**9)
    file = place.path / "a.json"
    place.put("a.json", pod("web", "10.1.0.5"))
    assert place.pods() == {"web": ("10.1.0.5",)}
    before = file.stat()
    with file.open("r+") as opened:
        opened.write(json.dumps(pod("web", "10.1.0.6")))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place.pods() == {"web": ("10.1.0.6",)}


def test_what_a_file_said_last_holds_until_it_can_be_read_again(place: Place):
    place.put("a.json", pod("web", "10.1.0.5"))
    place.put("b.json", pod("db", "10.1.0.6"))
    assert place.pods() == {"web": ("10.1.0.5",), "db": ("10.1.0.6",)}
    place.put("a.json", text='{"kind": "Po')
    place.put("b.json", pod("db", "10.1.0.7"))
    assert place.pods() == {"web": ("10.1.0.5",), "db": ("10.1.0.7",)}, "another file's change counts"
    (told,) = faults_in(f"folder {place.path}")
    assert told.startswith(f"policyDir: {place.path}/a.json: ")
    place.looked()
    assert place.book().faults("shop") == [told]
    assert place.looked() == [], "it is known that it cannot be read"
    place.put("a.json", pod("web", "10.1.0.8"))
    assert (place.pods(), place.book().faults()) == ({"web": ("10.1.0.8",), "db": ("10.1.0.7",)}, [])


def test_a_folder_that_goes_leaves_what_it_said(place: Place):
    place.put("a.json", pod("web"))
    assert place.pods() == {"web": ("10.1.0.5",)}
    place.path.rename(place.path.with_name("away"))
    assert place.pods() == {"web": ("10.1.0.5",)}
    assert place.book().faults() == [f"policyDir: {place.path} is no folder"]
    place.path.with_name("away").rename(place.path)
    assert place.book().faults() == []
    assert place.looked() == ["a.json"]


def test_another_folder_without_a_file_is_one_that_is_not_mounted(place: Place):
    place.put("a.json", pod("web"))
    assert place.pods() == {"web": ("10.1.0.5",)}
    away = place.path.rename(place.path.with_name("away"))
    place.path.mkdir()
    for _ in range(2):
        assert place.pods() == {"web": ("10.1.0.5",)}
        (told,) = place.book().faults()
        assert told.startswith(
            f"policyDir: {place.path}: is another folder than the one that was read last, and has no file"
        )
    with closing(Documents.open()) as documents:
        assert follow(documents, f"folder {place.path}", ["a.json"]) == 0, "who is told of a file that went, likewise"
    place.path.rmdir()
    away.rename(place.path)
    assert (place.pods(), place.book().faults()) == ({"web": ("10.1.0.5",)}, [])


def test_another_folder_with_a_file_is_followed_and_one_that_is_emptied(place: Place):
    place.put("a.json", pod("web"))
    place.book()
    place.path.rename(place.path.with_name("away"))
    place.path.mkdir()
    assert list(place.pods()) == ["web"]
    place.put("none.json", {"kind": "List", "apiVersion": "v1", "items": []})
    assert (place.pods(), place.book().faults()) == ({}, [])
    place.put("a.json", pod("db"))
    assert list(place.pods()) == ["db"]
    for file in place.path.iterdir():
        file.unlink()
    assert (place.pods(), place.book().faults()) == ({}, [])


def test_nobody_goes_by_a_feed_that_never_was_whole(place: Place):
    place.put("a.json", pod("web"))
    place.put("b.json", text="{")
    for _ in range(2):
        with pytest.raises(InvalidConfig, match=r"b\.json"):
            place.book()
    place.put("b.json", POLICY)
    assert place.pods() == {"web": ("10.1.0.5",)}


def test_an_object_moves_from_file_to_file(place: Place):
    place.put("a.json", POLICY, pod("web", "10.1.0.5"))
    place.book()
    place.put("b.json", pod("web", "10.1.0.6"))
    assert place.pods() == {"web": ("10.1.0.5",)}, "two meanings: the one that was there holds"
    (told,) = place.book().faults()
    assert (
        told == f"policyDir: {place.path}/b.json: Pod shop/web is another one than in {place.path}/a.json: document 2"
    )
    place.put("a.json", POLICY)
    assert (place.pods(), place.book().faults()) == ({"web": ("10.1.0.6",)}, [])


def test_policies_without_a_name_are_as_many_as_there_are(place: Place):
    nameless = {"kind": "NetworkPolicy", "metadata": {"namespace": "shop"}, "spec": {"podSelector": {}}}
    place.put("a.json", nameless, nameless | {"spec": {"podSelector": {}, "policyTypes": ["Egress"]}})
    place.put("b.json", nameless | {"spec": {"podSelector": {}, "egress": [{}]}})
    assert len(place.book().policies("shop")) == 3


ODD = """
kind: NetworkPolicy
metadata: {namespace: shop, name: odd}
spec:
  podSelector: {matchLabels: {day: 2024-01-01, 1: x, "2": y}}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [true, 1.5]}}], ports: [{port: 2024-01-01}, {port: 1.5}, {port: 80}]}]
  1: 2
"""


@pytest.mark.parametrize("text", [ODD, yaml.safe_dump(POLICY), "kind: Pod\nmetadata: {name: a, labels: {1: x}}\n"])
def test_what_is_kept_of_an_object_is_read_as_it_was(place: Place, text: str):
    place.put("a.yaml", text=text)
    book = place.book()
    (item,) = items_of(f"policyDir: {place.path}/a.yaml", yaml.safe_load(text))
    read = book.pod("default", "a") if isinstance(item.read, Pod) else book.policies("shop")[0]
    assert len(getattr(read, "faults", ())) == len(getattr(item.read, "faults", ()))
    if text != ODD:
        assert read == item.read
    else:
        assert (read.selector, read.ingress) == (item.read.selector, item.read.ingress)  # type: ignore[union-attr]


@pytest.mark.parametrize("wrong", [b"no database at all, but long enough to be taken for one" * 20, b""])
def test_documents_that_are_damaged_or_gone_are_read_again(place: Place, no_node: Path, wrong: bytes):
    place.put("a.json", pod("web"))
    place.book()
    for file in no_node.glob("documents.db*"):
        file.unlink()
    (no_node / "documents.db").write_bytes(wrong)
    place.looked()
    assert place.pods() == {"web": ("10.1.0.5",)}
    assert place.looked() == ["a.json"]
    assert (no_node / "documents.db").stat().st_mode & 0o777 == 0o600


def test_documents_of_another_release_are_read_again(place: Place, no_node: Path):
    place.put("a.json", pod("web"))
    place.book()
    with closing(Documents.open()) as documents:
        documents._rows("PRAGMA user_version = 99")
    assert place.pods() == {"web": ("10.1.0.5",)}


def test_documents_of_a_later_release_that_only_has_more_tables_are_gone_on_with(place: Place, no_node: Path):
    """Of a member and calls of two releases each would begin the other's anew, and the cluster's documents come from a member alone."""
    place.put("a.json", pod("web"))
    place.book()
    with closing(sqlite3.connect(no_node / "documents.db")) as db:
        db.executescript(f"CREATE TABLE later (said TEXT); PRAGMA user_version = {5 << 16 | 6}")
        place.looked()
        assert place.pods() == {"web": ("10.1.0.5",)}
        assert place.looked() == []
        assert db.execute("PRAGMA user_version").fetchone() == (5 << 16 | 6,)


def test_who_only_asks_leaves_nothing_behind(place: Place, no_node: Path):
    place.put("a.json", pod("web"))
    section = {"policy": {"policyDir": str(place.path)}}
    args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"
    section_of(section, Call("STATUS", args=args))
    faults_in(f"folder {place.path}")
    with reading_once():
        section_of(section, Call("REFRESH", args=args))
    assert not no_node.exists()
    section_of(section, Call("ADD", args=args))
    place.put("a.json", pod("other"))
    assert faults_in(f"folder {place.path}") == []
    with closing(Documents.open()) as documents:
        assert [item.name for item in documents.everything(f"folder {place.path}")] == ["web"]


def test_many_calls_read_a_change_once(place: Place):
    place.put("a.json", *(pod(f"web-{at}", f"10.1.1.{at}") for at in range(200)))
    found: list[int] = []
    threads = [Thread(target=lambda: found.append(len(place.pods()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 8
    assert place.looked() == ["a.json"]


def test_what_became_another_since_is_told(place: Place):
    feed = f"folder {place.path}"
    place.put("a.json", pod("web"), pod("db", "10.1.0.6"))
    with closing(Documents.open()) as documents:
        assert follow(documents, feed) == 2
        revision = documents.feed(feed).revision
        assert documents.since(feed, revision) == []
        place.put("a.json", pod("web"), pod("new", "10.1.0.7"))
        assert follow(documents, feed) == 2
        assert follow(documents, feed) == 0
        told = {item.name: item.value is None for item in documents.since(feed, revision) or ()}
        assert told == {"db": True, "new": False}


def test_who_was_away_for_long_begins_anew():
    with closing(Documents.open()) as documents, documents.transaction():
        documents.put("folder /x", Feed(whole=True), {"a": Source("1")})
        for at in range(1100):
            documents.replace("folder /x", {"a": [Document("Pod", "shop", f"web-{at}", "a", "", "", 0, "{}")]})
        now = documents.feed("folder /x").revision
        assert documents.since("folder /x", now - 1001) is None
        assert len(documents.since("folder /x", now - 10) or ()) == 11
        assert len(documents._documents("TRUE")) <= 1002


def test_a_book_goes_on_with_its_feed(place: Place):
    place.put(
        "a.json",
        pod("web", app="web"),
        POLICY,
        {"kind": "Namespace", "metadata": {"name": "shop", "labels": {"x": "1"}}},
    )
    place.put("b.json", POLICY)
    book = place.book()
    assert (book.pods(), len(book.policies("shop")), book.labels_of("shop").known["x"]) == (
        (book.pod("shop", "web"),),
        1,
        "1",
    )
    place.put("a.json", pod("db", app="db"), {"kind": "Namespace", "metadata": {"name": "shop", "labels": {"x": "2"}}})
    assert place.book() is book
    assert (book.pod("shop", "web"), [item.name for item in book.pods()], book.labels_of("shop").known["x"]) == (
        None,
        ["db"],
        "2",
    )
    assert len(book.policies("shop")) == 1, "the other file says so, too"
    (place.path / "b.json").unlink()
    assert place.book().policies("shop") == []


def test_pods_without_a_name_are_as_many_as_there_are_and_go(place: Place):
    del (
        (one := pod("", "10.1.0.5", app="web"))["metadata"]["name"],
        (two := pod("", "10.1.0.6", app="web"))["metadata"]["name"],
    )
    place.put("a.json", one, two)
    book = place.book()
    assert sorted(item.addresses for item in book.pods_of("shop")) == [("10.1.0.5",), ("10.1.0.6",)]
    with closing(Documents.open()) as documents:
        gone = [item._replace(value=None) for item in documents.everything(book.feed)]
    before = effects.said(book, gone)
    assert book.heard(2, gone, ()).pods_of("shop") == ()
    assert effects.Effects(book, before, effects.said(book, gone)).addresses == {"10.1.0.5", "10.1.0.6"}


def test_whoever_is_told_which_files_changed_looks_at_no_others(place: Place):
    feed = f"folder {place.path}"
    for name in ("a", "b", "c"):
        place.put(f"{name}.json", pod(name))
    place.book()
    place.looked()
    place.put("a.json", pod("a", "10.1.0.6"))
    place.put("b.json", pod("b", "10.1.0.6"))
    (place.path / "c.json").unlink()
    with closing(Documents.open()) as documents:
        assert follow(documents, feed, ["a.json", "c.json", "never.json", "other.txt"]) == 2
        assert place.looked() == ["a.json"]
        assert follow(documents, feed) == 1
        assert place.looked() == ["b.json"]
        assert follow(documents, feed) == 0


def test_what_was_begun_and_not_ended_is_known():
    with closing(Documents.open()) as documents:
        assert documents.unfinished() == set()
        documents.begin(["one", "two"])
        documents.end(["two"])
        assert documents.unfinished() == {"one"}
        documents.begin(["one"])
        documents.end(["one"])
        assert documents.unfinished() == set()


@pytest.fixture
def attached(store: Any, record: Any) -> Callable[[str, str], None]:
    def attach(name: str, address: str) -> None:
        with store.transaction():
            store.put(record.having(pod=name))
            store.put_uses(record, [address, "fe80::1", "br0", "PolicyTable []", "1:2:3x"])

    return attach


@pytest.mark.parametrize(
    ("owner", "addresses"),
    [("shop/web", ("10.1.0.9", "10.1.0.5")), ("shop/db", ("10.1.0.5",)), ("", ("10.1.0.5",))],
)
def test_an_attachments_address_is_its_pods(
    place: Place, attached: Callable[[str, str], None], owner: str, addresses: tuple[str, ...]
):
    attached(owner, "10.1.0.9")
    assert owners_on_node() == {"10.1.0.9": owner}
    place.put("a.json", pod("web"), pod("thief", "10.1.0.9"))
    assert place.pods() == {"web": addresses, "thief": ()}


def test_a_line_of_a_folder_can_be_printed_anywhere():
    assert feeds.plain("a\x1b[2J\n") == "a?[2J?"


# --- what the cluster's store says


def said(**more: Any) -> tuple[str, dict[str, Any]]:
    return "NetworkPolicy shop/one", {**POLICY, "spec": {"podSelector": {}, **more}}


def tell(there: dict[str, tuple[str, Any]], *gone: str, whole: bool = False, as_of: AsOf | None = None) -> int:
    with closing(Documents.open()) as documents:
        return told(documents, there, gone, whole=whole, as_of=as_of or AsOf())


def policies() -> list[tuple[str, ...]]:
    return [(policy.namespace, policy.name, str(policy.ingress)) for policy in book_of("cluster").policies("shop")]


def test_who_was_not_told_yet_waits():
    tell({"NetworkPolicy shop one": said()})
    with pytest.raises(TryAgainLater, match="nobody told this host yet"):
        book_of("cluster")
    assert faults_in("cluster") == []
    tell({}, whole=True)
    assert policies() == []


def test_what_the_store_says_is_known_until_it_says_otherwise():
    assert tell({"NetworkPolicy shop one": said()}, whole=True) == 1
    assert policies() == [("shop", "one", "()")]
    assert tell({"NetworkPolicy shop one": said()}) == 0
    assert tell({"NetworkPolicy shop one": said(ingress=[{}])}) == 1
    assert policies() == [("shop", "one", str((Rule(),)))]
    assert tell({"Pod shop web": ("Pod shop/web", pod("web"))}) == 1
    assert tell({}, "NetworkPolicy shop one", "NetworkPolicy shop never") == 1
    assert policies() == []
    assert [item.name for item in book_of("cluster").pods()] == ["web"]
    assert tell({}, whole=True) == 1


@pytest.mark.parametrize(
    "wrong", [{}, [], {**POLICY, "apiVersion": "v9"}, pod("one"), {**POLICY, "metadata": {"name": "two"}}]
)
def test_what_is_no_such_document_is_named_and_the_one_of_before_stays(wrong: Any):
    tell({"NetworkPolicy shop one": said()}, whole=True)
    assert tell({"NetworkPolicy shop one": ("NetworkPolicy shop/one", wrong)}) == 0
    assert policies() == [("shop", "one", "()")]
    (fault,) = book_of("cluster").faults()
    assert fault.startswith("cluster: NetworkPolicy shop/one: ")
    tell({"NetworkPolicy shop one": said()})
    assert book_of("cluster").faults() == []


def test_before_all_of_it_could_be_read_it_is_no_feed():
    tell(
        {"NetworkPolicy shop one": ("NetworkPolicy shop/one", {}), "Pod shop web": ("Pod shop/web", pod("web"))},
        whole=True,
    )
    with pytest.raises(InvalidConfig, match="cluster: NetworkPolicy shop/one: "):
        book_of("cluster")
    tell({"NetworkPolicy shop one": said()})
    assert policies() == [("shop", "one", "()")]
    tell({"NetworkPolicy shop one": ("NetworkPolicy shop/one", {})})
    assert policies() == [("shop", "one", "()")]


AT = AsOf("etcd", 900)
ONE, TWO = {"NetworkPolicy shop one": said()}, {"Pod shop web": ("Pod shop/web", pod("web"))}


@pytest.mark.parametrize(
    "now",
    [AT._replace(revision=3), AT._replace(origin="another"), AT._replace(revision=2000, replaced=True)],
    ids=["an older copy", "made anew", "and came as far again"],
)
@pytest.mark.parametrize("left", [{}, TWO], ids=["emptied", "restored"])
def test_what_a_store_lost_with_its_memory_holds_until_somebody_deletes_it(now: AsOf, left: dict[str, Any]):
    tell({**ONE, **TWO}, whole=True, as_of=AT)
    assert tell(left, whole=True, as_of=now) == 0
    assert policies() == [("shop", "one", "()")]
    lost = book_of("cluster").faults()
    assert lost[0].startswith("cluster: NetworkPolicy shop/one: the store has lost it, and what it said holds")
    assert len(lost) == 2 - len(left)
    assert tell(left, whole=True, as_of=now._replace(revision=now.revision + 1, replaced=False)) == 0, "and goes on to"
    assert policies() == [("shop", "one", "()")]
    assert tell(ONE, as_of=now._replace(revision=now.revision + 2)) == 0
    assert len(book_of("cluster").faults()) == 1 - len(left), "it is there again"
    assert tell({}, "NetworkPolicy shop one", as_of=now._replace(revision=now.revision + 3)) == 1
    assert policies() == []


def test_what_is_deleted_while_nobody_listens_is_gone():
    tell({**ONE, **TWO}, whole=True, as_of=AT)
    assert tell({}, whole=True, as_of=AT._replace(revision=901)) == 2
    assert (policies(), book_of("cluster").faults()) == ([], [])


def test_a_store_whose_revisions_say_nothing_has_lost_nothing():
    tell(ONE, whole=True, as_of=AsOf("", 900))
    assert tell({}, whole=True, as_of=AsOf("", 1)) == 1


def test_a_document_that_is_no_json_is_there_and_wrong():
    """It is not taken for one that was deleted."""
    wrong = Said.read(("documents", "NetworkPolicy", "shop", "one"), b"{")
    tell(ONE, whole=True)
    assert tell({"NetworkPolicy shop one": ("NetworkPolicy shop/one", wrong.value)}, whole=True) == 0
    assert policies() == [("shop", "one", "()")]
    assert book_of("cluster").faults() == ["cluster: NetworkPolicy shop/one: not a Kubernetes object"]


def test_documents_come_from_one_place():
    with pytest.raises(InvalidConfig, match="both cluster and policyDir"):
        section_of(
            {"policy": {"cluster": True, "policyDir": "/x"}}, Call("ADD", args="K8S_POD_NAMESPACE=a;K8S_POD_NAME=b")
        )


def test_a_file_that_became_another_is_no_feed_by_itself(place: Place):
    """Where what was known of the others is lost, they are read again."""
    place.put("a.json", POLICY)
    place.put("b.json", pod("web"))
    with closing(Documents.open()) as documents:
        follow(documents, f"folder {place.path}", ["b.json"])
    assert place.looked() == ["a.json", "b.json"]
    assert [item.name for item in place.book().policies("shop")] == ["one"]


def test_a_file_whose_name_nobody_could_keep_is_named(place: Place):
    place.put("a.json", POLICY)
    place.book()
    odd = place.path / os.fsdecode(b"\xff.json")
    odd.write_text(json.dumps(pod("web")))
    assert place.book().faults() == [rf"policyDir: {place.path}: the name of '\udcff.json' is no UTF-8"]
    odd.unlink()
    assert place.book().faults() == []


def test_whose_addresses_are_is_asked_again_where_a_state_became_another(attached: Callable[[str, str], None]):
    owners = Owners()
    attached("shop/web", "10.1.0.9")
    first = owners()
    assert first == {"10.1.0.9": "shop/web"}
    assert owners() is first, "nothing became another"
    attached("shop/web", "10.1.0.8")
    assert owners() == owners_on_node() == {"10.1.0.8": "shop/web"}
