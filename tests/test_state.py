from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cni.cluster.model import Block, Endpoint, Network
from cni.cluster.pools import Pool
from cni.errors import Busy, CniError, TryAgainLater, Unavailable
from cni.kernel.bell import Bell, answering
from cni.kernel.locks import LockFile
from cni.kernel.netns import home_identity, whereabouts
from cni.naming import Attachment, digest_of
from cni.resources import Bridge, FloodList, Said, VxlanLink, uses_of
from cni.resources.base import Unknown
from cni.state import Record, Store
from cni.state.configured import Place
from cni.state.file import StateFile
from cni.state.layout import SCHEMA, VERSION
from cni.state.membership import Member
from cni.values import replace

ADDRESS = ipaddress.ip_address("10.0.0.2")
EARLIER = [Path(__file__).parent / "fixtures" / f"state-layout-{number}.sql" for number in (1, 2, 3, 4)]
LAYOUT_1, LAYOUT_2, LAYOUT_3, _ = EARLIER
GARBAGE = b"this is no database, however long one looks at it; " * 40


@pytest.fixture
def written(folder: Path, record: Record) -> Path:
    """A folder whose state holds one record with one lease; the file is closed."""
    store = Store.open(folder)
    with store.transaction():
        store.put(record)
        store.lease(record.attachment, record.plugin, ADDRESS)
    store.close()
    return folder


def relabel(folder: Path, version: int) -> None:
    db = sqlite3.connect(folder / "state.db")
    db.execute(f"PRAGMA user_version = {version}")
    db.close()


def damage(folder: Path) -> None:
    """Overwrite everything behind the first page."""
    for name in ("state.db-wal", "state.db-shm"):
        (folder / name).unlink(missing_ok=True)
    content = (folder / "state.db").read_bytes()
    (folder / "state.db").unlink()
    (folder / "state.db").write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def test_only_root_may_look_inside(folder: Path, no_node: Path, store: Store):
    assert folder.stat().st_mode & 0o777 == no_node.stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm"), 0o600)
    assert (no_node / "lock").stat().st_mode & 0o777 == 0o600


def test_a_folder_open_to_others_is_closed_to_them(folder: Path):
    folder.mkdir(mode=0o755)
    Store.open(folder).close()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_records_are_read_back_as_written(store: Store, record: Record):
    whole = record.having(resources=(Bridge("br0", "", 1450, promiscuous=False),), result={"ips": []}, complete=True)
    with store.transaction():
        store.put(record)
        store.put(whole)
    assert store.record(record.attachment, record.plugin) == whole
    assert store.records() == store.records("pods", "bridge-vxlan") == store.records("pods") == [whole]
    assert store.records("other") == store.records("pods", "other") == []
    assert store.record(record.attachment, "other") is None


def test_two_plugins_of_a_chain_keep_a_record_each(store: Store, record: Record):
    with store.transaction():
        store.put(record)
        store.put(record.having(plugin="custom-plugin"))
        store.forget(record.attachment, "custom-plugin")
    assert store.records() == [record]


def test_an_error_undoes_the_whole_transaction(store: Store, record: Record):
    def fail() -> None:
        with store.transaction():
            store.put(record)
            store.lease(record.attachment, record.plugin, ADDRESS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert store.records() == []
    assert store.all_leases() == []


def test_forgetting_gives_the_leases_back(store: Store, record: Record):
    with store.transaction():
        store.put(record)
        store.lease(record.attachment, record.plugin, ADDRESS)
        store.forget(record.attachment, record.plugin)
        store.forget(record.attachment, record.plugin)
    assert store.records() == store.all_leases() == []


def test_an_address_is_leased_once_in_a_network(store: Store, record: Record):
    with store.transaction():
        store.lease(record.attachment, record.plugin, ADDRESS)
        store.lease(Attachment("other", "c2", "eth0"), record.plugin, ADDRESS)
        with pytest.raises(sqlite3.IntegrityError):
            store.lease(Attachment("pods", "c2", "eth0"), record.plugin, ADDRESS)
    assert store.holder("pods", ADDRESS) == record.attachment
    assert store.holder("pods", ADDRESS + 1) is None


def test_leases_between_two_addresses_are_sorted_as_numbers(store: Store):
    for number, text in enumerate(["10.0.0.200", "10.0.0.9", "10.0.1.0", "::a00:9"]):
        store.lease(Attachment("pods", f"c{number}", "eth0"), "test", ipaddress.ip_address(text))
    ends = (ipaddress.ip_address("10.0.0.0"), ipaddress.ip_address("10.0.0.255"))
    assert [str(ipaddress.ip_address(value)) for value in store.leased("pods", *ends)] == ["10.0.0.9", "10.0.0.200"]


def test_the_last_given_address_is_remembered_per_network_and_range(store: Store):
    store.set_last_given("pods", "10.0.0.0/24", ADDRESS)
    store.set_last_given("pods", "10.0.0.0/24", ADDRESS + 1)
    assert store.last_given("pods", "10.0.0.0/24") == ADDRESS + 1
    assert store.last_given("pods", "10.0.1.0/24") is store.last_given("other", "10.0.0.0/24") is None


def test_an_address_is_kept_for_one_pod_and_an_interface_keeps_one_address(store: Store):
    store.set_sticky("pods", "set", "a/1", "eth0", ADDRESS)
    store.set_sticky("pods", "set", "a/2", "eth0", ADDRESS)
    store.set_sticky("pods", "set", "a/2", "eth0", ADDRESS + 1)
    store.set_sticky("pods", "set", "a/2", "net1", ADDRESS + 2)
    assert store.sticky("pods", "set") == {("a/2", "eth0"): ADDRESS + 1, ("a/2", "net1"): ADDRESS + 2}
    assert store.sticky("other", "set") == {}


def test_a_process_keeps_the_file_it_used_last(folder: Path, record: Record):
    for _ in range(2):
        with closing(Store.open(folder)) as store, store.transaction():
            store.put(record)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with closing(Store.open(folder)) as store:
        assert store.record(record.attachment, record.plugin) == record
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_a_process_keeps_the_files_of_other_folders_too_but_not_ever_more(
    tmp_path: Path, no_node: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(3):
        Store.open(tmp_path / str(number)).close()
    for _ in range(2):  # one that is made is not kept yet
        with closing(Store.open(no_node)) as store:
            assert not store.is_used_on_node("anything")
    connect = Mock(side_effect=sqlite3.connect)
    monkeypatch.setattr(sqlite3, "connect", connect)
    with closing(Store.open(no_node)) as store:
        assert not store.is_used_on_node("anything")
    assert connect.mock_calls == []
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(3, 12):
        Store.open(tmp_path / str(number)).close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_one_file_that_is_open_twice_is_kept_once(folder: Path):
    Store.open(folder).close()
    counts = []
    for _ in range(5):
        for store in [Store.open(folder), Store.open(folder)]:
            store.close()
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert len(set(counts)) == 1, counts  # SQLite closes late what it has locks of


def test_each_thread_finds_its_own_again(folder: Path):
    """Or of a member's threads those that come second would open the file anew each time."""

    def opened() -> object:
        with closing(Store.open(folder)) as store:
            return store._db

    opened()  # one that is made is not kept yet
    with ThreadPoolExecutor(1) as other:
        mine, theirs = opened(), other.submit(opened).result()
        assert theirs is not mine
        with closing(Store.open(folder)):
            assert other.submit(opened).result() is theirs
    assert opened() is mine


def test_a_file_that_was_replaced_is_another(folder: Path, record: Record):
    for _ in range(2):
        with closing(Store.open(folder)) as store, store.transaction():
            store.put(record)
    shutil.rmtree(folder)
    with closing(Store.open(folder)) as store:
        assert store.records() == []


def test_what_was_left_half_done_is_not_kept(folder: Path, record: Record):
    for _ in range(2):
        store = Store.open(folder)
        store._db.execute("BEGIN IMMEDIATE")
        store.put(record)
        store.close()
    with closing(Store.open(folder)) as store:
        assert store.records() == []


class _NoCommit:
    """A connection that cannot write."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql == "COMMIT":
            refused = sqlite3.OperationalError("disk I/O error")
            refused.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise refused
        return self._real.execute(sql, *values)


def test_a_commit_that_is_refused_is_taken_back_and_the_next_one_stands(store: Store, record: Record):
    """Else what follows, such as that the attachment is forgotten, would be part of it, and never be written."""
    store.put(record)
    real = store._db
    store._db = _NoCommit(real)
    with pytest.raises(TryAgainLater, match="disk I/O error"), store.transaction():
        store.forget(record.attachment, record.plugin)
    store._db = real
    assert not store._db.in_transaction
    with store.transaction():
        store.forget(record.attachment, record.plugin)
    with closing(sqlite3.connect(store.path)) as seen:
        assert seen.execute("SELECT count(*) FROM attachment").fetchone() == (0,)


def test_a_full_disk_is_what_is_told_of_it(store: Store, record: Record):
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(TryAgainLater, match="database or disk is full"), store.transaction():
        store.put(replace(record, config={"name": "x" * 100_000}))
    assert store.records() == []


def test_a_signal_waits_until_a_transaction_is_over(store: Store, record: Record):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupted(store, record)
    finally:
        signal.signal(signal.SIGINT, before)
    assert store.record(record.attachment, record.plugin) == record
    with store.transaction():
        store.forget(record.attachment, record.plugin)


def _interrupted(store: Store, record: Record) -> None:
    with store.transaction():
        signal.raise_signal(signal.SIGINT)  # to this thread: the process may have others, which hold back nothing
        store.put(record)


def test_who_has_something_is_found_by_it(store: Store, record: Record):
    store.put(record)
    store.put_uses(record, ["10.0.0.2", "MasqueradeRules nftables 4", "gateway 10.0.0.1/8 br0", "10.0.0.2"])
    assert store.users(["10.0.0.2", "nobody"]) == store.users_on_node(["10.0.0.2"]) == [record]
    assert store.users(["10.0.0"]) == store.users(["10.0.0.20"]) == store.users([]) == []
    assert store.is_used("MasqueradeRules nftables 4")
    assert not store.is_used("MasqueradeRules nftables 6")
    assert store.used_like("gateway ") == [("gateway 10.0.0.1/8 br0", record.attachment)]


def test_whether_others_have_something_is_asked_apart_from_oneself_and_from_other_folders(
    tmp_path: Path, store: Store, record: Record
):
    other = record.having(plugin="custom-plugin")
    for each, places in ((record, "ab"), (other, "bc")):
        store.put(each)
        store.put_uses(each, places)
    assert store.used_by_others(record, "abcd") == {"b", "c"}
    assert store.used_by_others(other, ["a"]) == {"a"}
    assert store.used_by_others(record, []) == store.used_elsewhere("abc") == set()
    with closing(Store.open(tmp_path / "another")) as elsewhere:
        assert elsewhere.used_elsewhere("abcd") == {"a", "b", "c"}


def test_what_is_used_is_replaced_whole_and_forgotten_with_the_record(store: Store, record: Record):
    store.put(record)
    store.put_uses(record, ["a", "b"])
    store.put_uses(record, ["b", "c"])
    assert [place for place in "abc" if store.is_used(place)] == ["b", "c"]
    store.forget(record.attachment, record.plugin)
    assert not store.is_used("b")
    assert store.users(["b"]) == []


def test_a_node_is_all_its_folders(tmp_path: Path, no_node: Path, record: Record):
    folders = [no_node, tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders):
        with closing(Store.open(folder)) as store, store.transaction():
            other = record.having(attachment=Attachment("pods", f"c{number}", "eth0"))
            store.put(other)
            store.put_uses(other, [f"place {number}", "common"])
    for folder in folders:
        with closing(Store.open(folder)) as store:
            assert all(store.is_used_on_node(f"place {number}") for number in range(3))
            assert not store.is_used_on_node("place 3")
            assert {found.attachment.container for found in store.users_on_node(["common"])} == {"c0", "c1", "c2"}
            assert [place for place, _ in store.used_like_on_node("place ")].sort() is None
            assert len(store.used_like_on_node("place ")) == 3


def test_a_node_has_one_set_of_locks(tmp_path: Path, no_node: Path):
    folders = (no_node, tmp_path / "one")
    with closing(Store.open(folders[0])) as first, closing(Store.open(folders[1], patience=0)) as second:
        with first.lock.exclusive("1f", "it"), pytest.raises(TryAgainLater):
            second.lock.wait_for("1f", "it", 0)
        with first.planning(), pytest.raises(TryAgainLater, match="what is planned on this node"), second.planning():
            pass
        first.lock.share_node()
        assert not second.lock.alone()


def test_a_folder_that_appears_later_is_found_by_who_looks_again(tmp_path: Path, no_node: Path, record: Record):
    with closing(Store.open(no_node)) as store:
        assert store.records_on_node() == []
        with closing(Store.open(tmp_path / "one")) as later, later.transaction():
            later.put(record)
            later.put_uses(record, ["place"])
        assert store.used_elsewhere(["place"]) == set()
        assert store.records_on_node() == [record]
        assert store.used_elsewhere(["place"]) == {"place"}
        damage(tmp_path / "one")
        assert store.records_on_node() is None


def test_who_looks_at_records_at_rest_passes_by_those_a_call_is_at(tmp_path: Path, no_node: Path, record: Record):
    made = [record.having(attachment=record.attachment._replace(container=f"c{number}")) for number in range(3)]
    with closing(Store.open(tmp_path / "one")) as store, closing(Store.open(tmp_path / "two")) as other:
        for each in made:
            holder = other if each == made[2] else store
            with holder.transaction():
                holder.put(each)
                holder.put_uses(each, ["common"])

        def resting() -> set[str]:
            return {found.attachment.container for found in store.resting_on_node("common", made[0].attachment)}

        store.look_elsewhere()
        assert resting() == {"c1", "c2"}
        with other.lock.exclusive(made[2].attachment.digest, "a call"):
            assert resting() == {"c1"}
        assert resting() == {"c1", "c2"}


def test_a_folder_that_is_missing_is_not_asked_and_not_forgotten(tmp_path: Path, no_node: Path, record: Record):
    """Who sees other mounts sees it again."""
    with closing(Store.open(tmp_path / "one")) as store, store.transaction():
        store.put(record)
        store.put_uses(record, ["place"])
    (tmp_path / "one").rename(tmp_path / "hidden")
    with closing(Store.open(no_node)) as store:
        assert not store.is_used_on_node("place")
        assert store.unasked == []
    (tmp_path / "hidden").rename(tmp_path / "one")
    with closing(Store.open(no_node)) as store:
        assert store.is_used_on_node("place")


@pytest.mark.parametrize("earlier", EARLIER, ids=["1", "2", "3", "4"])
def test_who_asks_another_folder_changes_nothing_in_it(tmp_path: Path, no_node: Path, earlier: Path):
    Store.open(tmp_path / "one").close()
    with closing(sqlite3.connect(tmp_path / "one/state.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        db.executescript(" ".join(f"DROP TABLE {name};" for name in tables if name != "uses") + "DROP TABLE uses;")
        db.executescript(earlier.read_text())
        before = list(db.iterdump())
        with closing(Store.open(no_node)) as store:
            store.look_elsewhere()
            assert "10.1.0.2" in {place for place, _ in store.used_like_on_node("10.1.0.")}
            assert store.unasked == []
        assert list(db.iterdump()) == before
        assert db.execute("PRAGMA user_version").fetchone()[0] < VERSION


@pytest.mark.parametrize("how", ["garbage", "pages"])
def test_a_damaged_file_in_another_folder_stops_nobody_and_is_told(
    tmp_path: Path, no_node: Path, record: Record, how: str
):
    for name in ("one", "two"):
        with closing(Store.open(tmp_path / name)) as store, store.transaction():
            store.put(record)
            store.put_uses(record, [f"place {name}"])
    with closing(Store.open(no_node)) as store:
        assert not store.is_used_on_node("place")
        assert store.unasked == []
    damage(tmp_path / "one")
    if how == "garbage":
        (tmp_path / "one" / "state.db").write_bytes(GARBAGE)
    with closing(Store.open(no_node)) as store:
        assert store.is_used_on_node("place two")
        assert not store.is_used_on_node("place one")
        assert store.users_on_node(["place two"]) == [record]
        assert store.used_like_on_node("place ") == [("place two", record.attachment)]
        (line,) = store.unasked
        assert line.startswith(f"the state in {tmp_path}/one/state.db is damaged: ")


def test_what_is_odd_among_the_links_to_other_folders_stops_nobody(
    tmp_path: Path, no_node: Path, record: Record, monkeypatch: pytest.MonkeyPatch
):
    with closing(Store.open(tmp_path / "one")) as store, store.transaction():
        store.put(record)
        store.put_uses(record, ["place"])
    links = no_node / "folders"
    (links / "file").touch()
    (links / "folder").mkdir()
    (links / "again").symlink_to(tmp_path / "one" / ".." / "one")
    (links / "below a file").symlink_to(tmp_path / "one" / "state.db" / "x")
    (links / "nowhere").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with closing(Store.open(no_node)) as store:
        assert store.users_on_node(["place"]) == [record]
        assert store.unasked == []
    (links / "loop").symlink_to(tmp_path / "loop")
    with closing(Store.open(no_node)) as store:
        assert store.users_on_node(["place"]) == [record]
        assert store.unasked == [f"the state folder {tmp_path}/loop cannot be read: Too many levels of symbolic links"]
    (links / "loop").unlink()
    read = Path.readlink

    def raced(link: Path) -> Path:
        link.unlink(missing_ok=True)
        return read(link)

    monkeypatch.setattr(Path, "readlink", raced)
    with closing(Store.open(no_node)) as store:
        assert store.users_on_node(["place"]) == store.unasked == []


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_the_folder_of_links_is_private_whatever_the_umask(tmp_path: Path, no_node: Path, mask: int):
    before = os.umask(mask)
    try:
        Store.open(tmp_path / "one").close()
        Store.open(no_node).close()
    finally:
        os.umask(before)
    assert no_node.stat().st_mode & 0o777 == 0o700
    assert (no_node / "folders").stat().st_mode & 0o777 == 0o700


def test_one_that_is_there_and_open_to_others_is_closed(tmp_path: Path, no_node: Path):
    (no_node / "folders").mkdir(parents=True)
    no_node.chmod(0o777)
    Store.open(no_node).close()
    assert no_node.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("column", "text"), [("config", "{"), ("config", "[]"), ("resources", "null"), ("resources", "[1]"), ("result", "")]
)
def test_a_column_that_is_no_json_of_ours_is_told_and_the_rest_is_read(
    written: Path, record: Record, column: str, text: str
):
    db = sqlite3.connect(written / "state.db")
    db.execute(f"UPDATE attachment SET {column} = ?", (text,))
    db.commit()
    db.close()
    with closing(Store.open(written)) as store:
        (found,) = store.records()
    assert found.unreadable == (column,)
    assert found.attachment == record.attachment
    assert found.config["name"] == "pods"


@pytest.mark.parametrize("column", ["config", "resources", "result"])
def test_a_column_that_is_no_json_of_ours_stays_when_the_rest_changes(written: Path, column: str):
    db = sqlite3.connect(written / "state.db")
    db.execute(f"UPDATE attachment SET {column} = '{{odd'")
    db.commit()
    with closing(Store.open(written)) as store:
        (found,) = store.records()
        store.put(found.having(complete=True))
        (found,) = store.records()
    (text,) = db.execute(f"SELECT {column} FROM attachment").fetchone()
    db.close()
    assert found.complete
    assert text == "{odd" if column != "resources" else json.loads(text) == [{"kind": "unreadable", "text": "{odd"}]


def test_a_configuration_that_comes_anew_is_read_again(written: Path):
    with closing(sqlite3.connect(written / "state.db")) as db:
        db.execute("UPDATE attachment SET config = '{odd'")
        db.commit()
    with closing(Store.open(written)) as store:
        (found,) = store.records()
        store.put(found.configured({"name": "pods", "type": "test"}, "default/web"))
        (found,) = store.records()
    assert (found.config, found.pod, found.unreadable) == ({"name": "pods", "type": "test"}, "default/web", ())


RECORDED = "SELECT network, container, ifname, plugin, resources FROM attachment ORDER BY 1, 2, 3"


@pytest.mark.parametrize("opening", [Store.open, Store.reading], ids=["opening", "reading"])
@pytest.mark.parametrize("earlier", EARLIER, ids=["1", "2", "3", "4"])
def test_a_file_of_an_earlier_layout_is_read_and_brought_up_in_place(
    folder: Path, earlier: Path, opening: Callable[[Path], Any]
):
    folder.mkdir()
    db = sqlite3.connect(folder / "state.db")
    db.executescript(earlier.read_text())
    before = db.execute(RECORDED).fetchall()
    leases = db.execute("SELECT count(*) FROM lease").fetchone()[0]
    db.close()
    for _ in range(2):
        with closing(opening(folder)) as store:
            records = store.records()
            assert [(*item.attachment, item.plugin) for item in records] == [row[:4] for row in before]
            assert [len(item.resources) for item in records] == [len(json.loads(row[4])) for row in before]
            assert not [item for record in records for item in record.resources if isinstance(item, Unknown)]
            assert store._rows(RECORDED) == before
            assert len(store.all_leases()) == leases
            for record in records:
                wanted = set(uses_of(record.resources, record.lasting))
                assert wanted
                assert {place for place in wanted if not store.is_used(place)} == set()
                assert all(record in store.users([place]) for place in wanted)


def shape(folder: Path) -> list[Any]:
    """How a file is laid out, once it was opened."""
    with closing(Store.open(folder)) as store:
        tables = [name for (name,) in store._rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
        about = ("table_xinfo", "index_list", "foreign_key_list")
        return (
            [store._rows("PRAGMA user_version")]
            + [store._rows(f"PRAGMA {what}({table})") for table in tables for what in about]
            + [tables]
        )


@pytest.mark.parametrize("earlier", EARLIER, ids=["1", "2", "3", "4"])
def test_a_file_that_was_brought_up_is_laid_out_as_a_new_one(folder: Path, tmp_path: Path, earlier: Path):
    folder.mkdir()
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.executescript(earlier.read_text())
    assert shape(folder) == shape(tmp_path / "new")


#: Layouts as they came about, each with the number of what it was to be.
HALF = {
    "3, whose attachments have no rowid": (3, "", ") WITHOUT ROWID;"),
    "4 without boots and what networks say": (4, "boot configured", ""),
    "4 without what networks say": (4, "configured", ""),
    "5 without who is away": (5, "away", ""),
    "5 without an index": (5, "", "DROP INDEX endpoint_unsaid;"),
}


def half_made(folder: Path, how: str) -> None:
    """A state of such a release."""
    number, gone, text = HALF[how]
    folder.mkdir()
    with closing(sqlite3.connect(folder / "state.db")) as db:
        if number < VERSION:
            script = EARLIER[number - 1].read_text()
            db.executescript(script.replace(");", text, 1) if text else script)
        else:
            db.executescript(SCHEMA + text)
        db.executescript("".join(f"DROP TABLE {table};" for table in gone.split()))


@pytest.mark.parametrize("how", HALF)
def test_a_layout_that_came_about_is_brought_up_whatever_its_number_says(folder: Path, tmp_path: Path, how: str):
    half_made(folder, how)
    with closing(sqlite3.connect(folder / "state.db")) as db:
        before = db.execute(RECORDED).fetchall(), db.execute("SELECT * FROM lease ORDER BY 1, 2, 3").fetchall()
    for opening in (Store.reading, Store.open):
        with closing(opening(folder)) as store:
            assert store
            assert (store._rows(RECORDED), store._rows("SELECT * FROM lease ORDER BY 1, 2, 3")) == before
            wanted = {place for item in store.records() for place in uses_of(item.resources, item.lasting)}
            assert {place for place in wanted if not store.is_used(place)} == set()
            assert store.away() == {}
    assert shape(folder) == shape(tmp_path / "new")


def test_a_layout_has_one_shape(folder: Path):
    """Whoever changes a table of a layout that was released says so by its number (and by EARLIEST where no earlier release could write it)."""
    of_each = {5: "d158e9d491c019a28d458103302a8559b8a4c2bdfe0c44218d153b6f12c930e1"}
    assert digest_of(repr(shape(folder))) == of_each[VERSION]


@pytest.mark.parametrize("table", ["attachment", "lease", "uses"])
def test_a_file_that_lacks_what_all_have_is_damaged_and_stays_so(written: Path, table: str):
    """Without its leases it would give an address twice, without users take away what is used."""
    with closing(sqlite3.connect(written / "state.db")) as db:
        db.executescript(f"PRAGMA foreign_keys = OFF; DROP TABLE {table}")
        before = list(db.iterdump())
        for opening in (Store.reading, Store.open):
            with pytest.raises(Unavailable, match=r"state\.db is damaged: of its tables there are"):
                opening(written)
        assert list(db.iterdump()) == before


def test_a_column_that_is_not_there_does_not_come_by_trying_again(written: Path):
    with closing(sqlite3.connect(written / "state.db")) as db:
        db.executescript("ALTER TABLE attachment DROP COLUMN home")
    with (
        closing(Store.open(written)) as store,
        pytest.raises(Unavailable, match=r"state\.db is damaged: no such column"),
    ):
        store.records()


def test_what_layout_2_allowed_and_cannot_be_is_left_behind(folder: Path):
    """Uses of nobody, which would keep what is shared for ever, and one address that is kept for two pods."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.executescript(LAYOUT_2.read_text())
        db.execute("INSERT INTO uses VALUES ('place', 'net', 'nobody', 'eth0', 'bridge-vxlan')")
        packed = ADDRESS.packed
        db.executemany("INSERT INTO sticky VALUES ('net', ?, 'set', 4, ?)", [("a/1", packed), ("a/2", packed)])
        db.commit()
    with closing(Store.open(folder)) as store:
        assert not store.is_used("place")
        assert store.sticky("net", "set") == {("a/2", "eth0"): ADDRESS}
        assert store.records()


def test_what_layout_3_kept_for_a_pod_is_its_interfaces(folder: Path):
    """As far as one holds it now; most pods have but one."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.executescript(LAYOUT_3.read_text())
        held = ipaddress.ip_address("10.1.0.2")
        db.execute("UPDATE lease SET ifname = 'net1' WHERE address = ?", (held.packed,))
        rows = [("net", pod, "set", 4, address.packed) for pod, address in (("a/1", held), ("a/2", ADDRESS))]
        db.executemany("INSERT INTO sticky VALUES (?,?,?,?,?)", rows)
        db.commit()
    with closing(Store.open(folder)) as store:
        assert store.sticky("net", "set") == {("a/1", "net1"): held, ("a/2", "eth0"): ADDRESS}


def test_what_layout_3_recorded_of_an_overlay_is_what_its_network_says(folder: Path):
    """The latest record's: an older one may be of remotes that have changed since."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.executescript(LAYOUT_3.read_text())
        ((before,),) = db.execute("SELECT resources FROM attachment WHERE network = 'vx'").fetchall()
        later = before.replace('["192.0.2.12"]', '["192.0.2.77"]')
        row = "INSERT INTO attachment SELECT network, 'a-later-one', ifname, plugin, netns, pod, complete, config, ?, result,"
        db.execute(f"{row} created, netns_id, home FROM attachment WHERE network = 'vx'", (later,))
        db.commit()
    with closing(Store.open(folder)) as store:
        ((place, said),) = store.said().items()
        assert place == ("vx", "bridge-vxlan", "overlay br1")
        assert said.resources[1:] == (FloodList("vxlan100", ("192.0.2.77",)),)
        assert (said.resources[0].kind, said.in_use) == ("VxlanLink", True)
        for record in store.records("vx"):
            store.forget(record.attachment, record.plugin)
        assert store.said() == {place: Said("vx", said.resources, False)}
        assert store.said([place]) == {}


def test_a_clusters_device_is_where_the_host_is_by_now(store: Store, record: Record):
    """What its network's last ADD said is of before the host moved, and so is what its pods' records say."""
    clusters, own = (
        VxlanLink(f"vxlan{vni}", vni, 4789, "192.0.2.1", "", 1450, f"br{vni}", mac=mac)
        for vni, mac in ((1, "fe:00:00:00:00:01"), (2, ""))
    )
    place = Place(record.attachment.network, record.plugin, "overlay br1")
    with store.transaction():
        store.put_configured(place, [clusters, own])
    assert store.said()[place].resources == (clusters, own)
    with store.transaction():
        store.put_member(Member("node-a", "machine-a", "life", "198.51.100.1", "fe:00:00:00:00:02"))
    moved = replace(clusters, local="198.51.100.1", mac="fe:00:00:00:00:02")
    assert store.said()[place].resources == (moved, own)
    assert store.as_said(record.having(resources=(clusters,))).resources == (moved, own)
    other = replace(clusters, name="vxlan3", bridge="br3")
    assert store.as_said(record.having(resources=(other,))).resources == (replace(moved, name="vxlan3", bridge="br3"),)


def test_only_who_is_recorded_uses_something(store: Store, record: Record):
    with pytest.raises(sqlite3.IntegrityError):
        store.put_uses(record, ["place"])
    store.put(record)
    store.put_uses(record, ["place"])
    store.put(record.having(complete=True))
    assert store.is_used("place")


def test_who_read_an_identity_of_layout_1_is_kept_beside_it(folder: Path):
    """Without it nobody could tell later whether a path that leads nowhere is hidden or gone."""
    folder.mkdir()
    db = sqlite3.connect(folder / "state.db")
    db.executescript(LAYOUT_1.read_text())
    paths = ["/proc/self/ns/net", "/nowhere"]
    for path, (container,) in zip(
        paths, db.execute("SELECT DISTINCT container FROM attachment").fetchall(), strict=False
    ):
        db.execute("UPDATE attachment SET netns = ? WHERE container = ?", (path, container))
    db.commit()
    db.close()
    with closing(Store.open(folder)) as store:
        seen = {record.netns: (record.netns_id, record.home) for record in store.records()}
    assert seen["/proc/self/ns/net"] == (home_identity(), whereabouts())
    assert seen["/nowhere"] == ("", "")


ODD = {
    "a number": "3",
    "null": "null",
    "no JSON": "{",
    "items that are none": '[1, null, "x", [{}]]',
    "kind is a list": '[{"kind": ["x"]}]',
    "kind is an object": '[{"kind": {}}]',
    "a gateway of nothing": '[{"kind": "GatewayAddress"}]',
    "a gateway of null": '[{"kind": "GatewayAddress", "address": null, "link": 3}]',
    "an address of null": '[{"kind": "PodAddress", "address": null}]',
    "addresses of objects": '[{"kind": "PodPolicy", "addresses": [{}, 3, null]}]',
    "a master that is an object": '[{"kind": "Macvlan", "master": {}}]',
    "a shared thing of lists": '[{"kind": "MasqueradeRules", "backend": [], "family": {}}]',
    "deep": "[" * 50_000 + "]" * 50_000,
    "deep inside": '[{"kind": "PodPolicy", "addresses": ' + "[" * 50_000 + "]" * 50_000 + "}]",
    "bytes": b"\xff\xfe",
}


@pytest.mark.parametrize("resources", ODD.values(), ids=ODD)
def test_one_odd_record_of_layout_1_is_not_the_nodes(folder: Path, resources: str | bytes):
    folder.mkdir()
    db = sqlite3.connect(folder / "state.db")
    db.executescript(LAYOUT_1.read_text())
    everybody = db.execute("SELECT count(*) FROM attachment").fetchone()[0]
    (odd,) = db.execute("SELECT container FROM attachment ORDER BY container LIMIT 1").fetchone()
    db.execute("UPDATE attachment SET resources = ? WHERE container = ?", (resources, odd))
    db.commit()
    db.close()
    with closing(Store.open(folder)) as store:
        records = store.records()
        assert len(records) == everybody
        other = next(item for item in records if item.attachment.container != odd and item.resources)
        assert all(store.is_used(place) for place in uses_of(other.resources, other.lasting))
        its = next(item for item in records if item.attachment.container == odd)
        assert isinstance(its.resources, tuple)
        store.forget(its.attachment, its.plugin)
        assert its not in store.records()


def test_another_writer_is_waited_for_only_so_long(folder: Path, store: Store, record: Record):
    impatient = Store.open(folder, patience=0.01)

    def write() -> None:
        with impatient.transaction():
            impatient.put(record)

    with store.transaction(), pytest.raises(Busy, match=r"state\.db cannot be used now: .*locked"):
        write()
    write()
    impatient.close()


def test_who_writes_waits_in_the_kernels_line(written: Path, record: Record):
    """SQLite's own is none: two hundred who look now and then have it by luck, and some not at all."""
    with closing(Store.open(written)) as one, closing(Store.open(written, patience=0.01)) as other:
        with (
            one.transaction(),
            pytest.raises(Busy, match=r"another call holds the state in .*state\.db"),
            other.transaction(),
        ):
            pass
        with other.transaction():
            other.put(record)
        with one.transaction(), one.transaction():
            one.put(record)


def test_readers_never_wait_for_a_writer(folder: Path, store: Store, record: Record):
    with store.transaction():
        store.put(record)
        reader = Store.reading(folder)
        assert reader
        assert reader.records() == []
    assert reader.records() == [record]
    reader.close()


@pytest.mark.parametrize("opening", [Store.open, Store.reading], ids=["opening", "reading"])
def test_a_file_that_cannot_be_opened_costs_no_descriptor(folder: Path, store: Store, opening: Any):
    store._db.execute("PRAGMA user_version = 99")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(Unavailable):
            opening(folder)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4  # the one that is kept: file, WAL, its index


def test_the_making_of_the_file_is_waited_for_only_so_long(tmp_path: Path, no_node: Path):
    no_node.mkdir()
    making = LockFile(no_node / "lock")
    with making.exclusive("0", "the state"), pytest.raises(TryAgainLater, match=r"state\.db"):
        Store.open(tmp_path, patience=0)
    making.close()


@pytest.mark.parametrize("opening", [Store.open, Store.reading], ids=["opening", "reading"])
def test_another_layout_is_refused_by_its_number(written: Path, opening: Callable[[Path], Any]):
    relabel(written, 99)
    with pytest.raises(
        Unavailable,
        match=r"state\.db was written by another release \(layout 99, ours is up to \d+\): install that one again, or drain this node and boot it",
    ):
        opening(written)


@pytest.mark.parametrize("opening", [Store.open, Store.reading], ids=["opening", "reading"])
def test_a_later_file_that_only_has_more_tables_is_gone_on_with(
    written: Path, record: Record, opening: Callable[[Path], Any]
):
    """Who goes back to the release before finds such a one."""
    with closing(sqlite3.connect(written / "state.db")) as db:
        db.executescript(f"CREATE TABLE later (said TEXT); PRAGMA user_version = {VERSION << 16 | 99};")
    with closing(opening(written)) as store:
        assert record in store.records()
    with closing(Store.open(written)) as store:
        store.forget(record.attachment, record.plugin)
        store.put(record)
    with closing(sqlite3.connect(written / "state.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION << 16 | 99,)
        assert db.execute("SELECT * FROM later").fetchall() == []
        db.execute(f"PRAGMA user_version = {VERSION + 1 << 16 | 99}")
    with pytest.raises(Unavailable, match="layout 99"):
        opening(written)


@pytest.mark.parametrize("opening", [Store.open, Store.reading], ids=["opening", "reading"])
def test_a_file_that_is_no_database_is_called_damaged(folder: Path, opening: Callable[[Path], Any]):
    folder.mkdir()
    (folder / "state.db").write_bytes(GARBAGE)
    with pytest.raises(Unavailable, match=r"^the state in .*state\.db is damaged: "):
        opening(folder)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.records(),
        lambda store: store.all_leases(),
        lambda store: store.leases(Attachment("pods", "c1", "eth0"), "bridge-vxlan"),
        lambda store: store.holder("pods", ADDRESS),
        lambda store: list(store.leased("pods", ADDRESS, ADDRESS)),
        lambda store: store.last_given("pods", "x"),
        lambda store: store.sticky("pods", "x"),
        lambda store: store.is_used("x"),
        lambda store: store.users(["x"]),
        lambda store: store.used_like("x"),
        lambda store: store.used_by_others(Record(Attachment("pods", "c1", "eth0"), "x", "", "", {}), ["x"]),
    ],
    ids=[
        "records",
        "all_leases",
        "leases",
        "holder",
        "leased",
        "last_given",
        "sticky",
        "is_used",
        "users",
        "used_like",
        "used_by_others",
    ],
)
def test_every_question_to_a_damaged_file_ends_in_a_clear_error(written: Path, ask: Callable[[Store], Any]):
    damage(written)
    with pytest.raises(CniError, match=r"^the state in .*state\.db is damaged: "):
        ask(Store.reading(written))


def test_reading_makes_nothing(folder: Path):
    assert Store.reading(folder) is None
    assert not folder.exists()
    folder.mkdir()
    assert Store.reading(folder) is None
    assert list(folder.iterdir()) == []


def test_reading_a_file_another_call_is_just_making_finds_no_state(folder: Path):
    folder.mkdir()
    (folder / "state.db").touch()
    assert Store.reading(folder) is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=rf"^the state folder {tmp_path}/file/state cannot be used: "):
        Store.open(tmp_path / "file" / "state")


def test_a_transaction_inside_another_is_part_of_it(store: Store, record: Record):
    def inner_ends_outer_fails() -> None:
        with store.transaction():
            with store.transaction():
                store.put(record)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inner_ends_outer_fails()
    assert store.records() == []


def of_earlier_boot(folder: Path, known: bool = True, netns_id: str = "earlier:7") -> None:
    """Have a folder's state be of another boot, and its records with it."""
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.execute("DELETE FROM boot")
        if known:
            db.execute("INSERT INTO boot VALUES ('earlier')")
        db.execute("UPDATE attachment SET netns_id = ?", (netns_id,))
        db.commit()


@pytest.fixture
def of_before(written: Path, record: Record) -> Path:
    """A folder with one attachment whose address is ours, one whose address somebody else gave, and a lease of nobody."""
    theirs = record.having(
        attachment=Attachment("pods", "c2", "eth0"), config={"name": "pods", "ipam": {"type": "dhcp"}}
    )
    with closing(Store.open(written)) as store, store.transaction():
        store.put(theirs)
        store.put_uses(theirs, ["theirs"])
        store.put_uses(record, ["ours"])
        store.lease(Attachment("pods", "nobody", "eth0"), "test", ADDRESS + 1)
        store.set_last_given("pods", "set", ADDRESS)
        store.set_sticky("pods", "set", "a/1", "eth0", ADDRESS)
    return written


def outlived(store: Store) -> tuple[list[str], list[str], list[str]]:
    containers = [record.attachment.container for record in store.records()]
    return (
        containers,
        [str(address) for address, *_ in store.all_leases()],
        [x for x in ("ours", "theirs") if store.is_used(x)],
    )


@pytest.mark.parametrize("netns_id", ["earlier:7", ""], ids=["known", "of a kernel that does not say"])
def test_nothing_of_an_earlier_boot_lives(of_before: Path, netns_id: str):
    of_earlier_boot(of_before, netns_id=netns_id)
    for opening in (Store.reading, Store.open, Store.reading):
        with closing(opening(of_before)) as store:
            assert outlived(store) == (["c2"], [], [])
            assert store.last_given("pods", "set") == ADDRESS
            assert store.sticky("pods", "set") == {("a/1", "eth0"): ADDRESS}


def test_what_another_call_wrote_since_the_boot_lives(of_before: Path, record: Record, monkeypatch: pytest.MonkeyPatch):
    """It was the first, while this one looked."""
    of_earlier_boot(of_before)
    ask, looked = Store.is_of_this_boot, []

    def slow(store: Store) -> bool:
        answer = ask(store)
        if not looked:
            looked.append(answer)
            with closing(Store.open(of_before)) as first, first.transaction():
                first.put(record.having(attachment=Attachment("pods", "new", "eth0")))
                first.lease(Attachment("pods", "new", "eth0"), record.plugin, ADDRESS)
        return answer

    monkeypatch.setattr(Store, "is_of_this_boot", slow)
    with closing(Store.open(of_before)) as store:
        assert outlived(store) == (["c2", "new"], ["10.0.0.2"], [])
    assert looked == [False]


def test_who_reads_a_state_of_an_earlier_boot_leaves_it(of_before: Path):
    of_earlier_boot(of_before)
    with closing(sqlite3.connect(of_before / "state.db")) as db:
        before = list(db.iterdump())
        with closing(Store.reading(of_before)) as store:
            assert store.all_leases() == []
        assert list(db.iterdump()) == before


def test_this_boots_attachments_live(of_before: Path):
    for _ in range(2):
        with closing(Store.open(of_before)) as store:
            assert outlived(store) == (["c1", "c2"], ["10.0.0.2", "10.0.0.3"], ["ours", "theirs"])


@pytest.mark.parametrize(("netns_id", "left"), [("earlier:7", ["c2"]), ("", ["c1", "c2"])])
def test_of_a_file_that_says_no_boot_its_records_are_asked(of_before: Path, netns_id: str, left: list[str]):
    of_earlier_boot(of_before, known=False, netns_id=netns_id)
    with closing(Store.open(of_before)) as store:
        assert outlived(store)[0] == left
        assert "10.0.0.3" in outlived(store)[1], "a lease of nobody may be of this boot"


def test_a_member_of_another_release_is_read_by_what_this_one_knows(written: Path):
    """An upgrade goes on with the session there is, and so does a call that comes before the member is another."""
    member = Member("node-a", "machine-a", "a life", "192.0.2.1", "fe:00:00:00:00:01")
    with closing(Store.open(written)) as store, store.transaction():
        store.put_member(member)
        store._db.execute("UPDATE member SET value = json_set(value, '$.overhead', 60)")
        assert store.member() == member


def test_after_a_boot_the_member_says_anew_who_it_is_and_withdraws_what_the_cluster_was_told(
    written: Path, record: Record
):
    """A block may be another host's by now, and a pod's address is nobody's: but the cluster is to hear of it."""
    network = Network("pods", (Pool("10.0.0.0/24", "10.0.0.1", "10.0.0.254", "10.0.0.1"),), 64)
    said = [
        Endpoint("pods", f"10.0.0.{number}", "node-a", "0a:58:0a:00:00:02", container, "eth0")
        for number, container in ((2, "c1"), (3, "c1"), (4, ""))
    ]
    with closing(Store.open(written)) as store, store.transaction():
        store.put_member(Member("node-a", "machine-a", "a life", "192.0.2.1", "fe:00:00:00:00:01"))
        store.share(network)
        store.refuse_network("pods", "")
        store.put_block(Block("pods", "10.0.0.0/26", "node-a", "machine-a"))
        store.wish("pods", 4)
        store.say(said[:2], record.plugin)
        store.say(said[2:])
        store.told("pods", "10.0.0.2", said[0])
        store.told("pods", "10.0.0.4", said[2])
    of_earlier_boot(written)
    for opening in (Store.reading, Store.open):
        with closing(opening(written)) as store:
            assert store.member() is None
            assert store.shared() == [(network, None)]
            assert store.blocks() == store.wishes() == store.records() == []
            assert store.unsaid() == store.said_of("pods")
            assert [(item.address, item.wanted, item.published) for item in store.unsaid()] == [
                ("10.0.0.2", None, said[0]),
                ("10.0.0.4", None, said[2]),
            ]


def test_the_member_is_woken_of_a_pod_when_its_call_is_over_and_for_nothing_else(folder: Path, record: Record):
    """Before, it would only be in the way of the answer."""
    endpoint = Endpoint("pods", str(ADDRESS), "node-a", "0a:58:0a:00:00:02", "c1", "eth0")

    def rings(change: Callable[[Store], None]) -> bool:
        with answering():
            with closing(Store.open(folder)) as store:
                with store.transaction():
                    change(store)
                assert not bell.wait(0)
            assert not bell.wait(0), "a warm call is answered after its end"
        return bell.wait(0)

    def briefly(store: Store) -> None:
        store.put(record)
        store.lease(record.attachment, record.plugin, ADDRESS)
        store.forget(record.attachment, record.plugin)

    Store.open(folder).close()
    with closing(Bell(folder)) as bell:
        assert not rings(briefly)
        assert rings(lambda store: store.say([endpoint], record.plugin))
        assert not rings(lambda store: store.told("pods", str(ADDRESS), endpoint))
        assert rings(lambda store: store.forget(Attachment("pods", "c1", "eth0"), record.plugin))
        with closing(Store.open(folder)) as store, store.transaction():
            store.say([endpoint], record.plugin)
        assert bell.wait(0), "a cold one ends with its process"


def test_the_member_is_woken_at_once_of_what_a_call_waits_for(folder: Path):
    with closing(Store.open(folder)) as store, closing(Bell(folder)) as bell:
        with store.transaction():
            store.wish("pods", 4)
            assert not bell.wait(0)
        assert bell.wait(0)


def test_how_a_pod_is_the_cluster_hears_at_once_and_only_when_it_is_another(folder: Path, record: Record):
    pod, other = (
        Endpoint("pods", f"10.0.0.{it}", "node-a", "0a:58:0a:00:00:02", "c1", "eth0", names="web") for it in (2, 3)
    )
    with closing(Store.open(folder)) as store, closing(Bell(folder)) as bell:

        def rings(*addresses: str, unhealthy: bool) -> bool:
            with store.transaction():
                store.say_health("pods", addresses, unhealthy=unhealthy)
            return bell.wait(0)

        with store.transaction():
            store.say([pod, other], record.plugin)
            store.told("pods", pod.address, pod)
        assert not rings(pod.address, unhealthy=False)
        assert rings(pod.address, "10.0.0.9", unhealthy=True)
        assert [(item.wanted, item.published) for item in store.said_of("pods")] == [
            (pod._replace(unhealthy=True), pod), (other, None),
        ]  # fmt: skip
        assert not rings(pod.address, unhealthy=True)
        with store.transaction():
            store.unsay(record.attachment, record.plugin)
        assert not rings(pod.address, unhealthy=False), "who was taken away stays so"


@pytest.mark.parametrize("mac", ["", "fe:00:00:00:00:01"], ids=["of one host", "of a cluster's host"])
def test_a_member_hears_of_the_device_of_a_network(folder: Path, mac: str):
    """Its rows to other hosts are wanted with the first pod, and not a second later."""
    device = VxlanLink("vxlan100", 100, 4789, "192.0.2.1", "", 1450, "br0", mac=mac)
    with closing(Store.open(folder)) as store, closing(Bell(folder)) as bell:
        with store.transaction():
            store.put_configured(Place("net", "bridge-vxlan", "overlay br0"), [device])
        assert bell.wait(0) == bool(mac)


@pytest.mark.parametrize("odd", [b"\xff/x", 5], ids=ascii)
@pytest.mark.parametrize("column", ["netns", "pod", "netns_id", "home"])
def test_a_text_of_another_sort_is_still_a_text(folder: Path, store: Store, record: Record, column: str, odd: object):
    """A byte that fell over in the file makes a blob of it."""
    with store.transaction():
        store.put(record)
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.execute(f"UPDATE attachment SET {column} = ?", (odd,))
        db.commit()
    (found,) = store.records()
    assert isinstance(getattr(found, column), str)


def test_damage_that_sqlite_has_no_words_for_is_damage(folder: Path, store: Store):
    file = folder / "state.db"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other = file.with_name("other.db")
    other.write_bytes(file.read_bytes().replace(b"CREATE TABLE attachment", b"CREATE TABLE \xbd\xbdtachment"))
    with pytest.raises(Unavailable, match="is damaged"), closing(StateFile(other, 1.0)) as state:
        state.layout()
