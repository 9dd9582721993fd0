from __future__ import annotations

import ipaddress
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni.errors import CniError, TryAgainLater, Unavailable
from cni.kernel.files import LockFile
from cni.naming import Attachment
from cni.state import Record, Store

ADDRESS = ipaddress.ip_address("10.0.0.2")
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
    (folder / "state.db").write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def test_only_root_may_look_inside(folder: Path, store: Store):
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm", "lock"), 0o600)


def test_a_folder_open_to_others_is_closed_to_them(folder: Path):
    folder.mkdir(mode=0o755)
    Store.open(folder).close()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_records_are_read_back_as_written(store: Store, record: Record):
    whole = record.having(resources=({"kind": "Bridge", "mtu": 1450},), result={"ips": []}, complete=True)
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


def test_an_address_is_kept_for_one_pod_and_a_pod_keeps_one_address(store: Store):
    store.set_sticky("pods", "set", "a/1", ADDRESS)
    store.set_sticky("pods", "set", "a/2", ADDRESS)
    store.set_sticky("pods", "set", "a/2", ADDRESS + 1)
    assert store.sticky("pods", "set") == {"a/2": ADDRESS + 1}
    assert store.sticky("other", "set") == {}


def test_a_process_keeps_the_file_it_used_last(folder: Path, record: Record):
    for _ in range(2):
        with closing(Store.open(folder)) as store, store.transaction():
            store.put(record)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with closing(Store.open(folder)) as store:
        assert store.record(record.attachment, record.plugin) == record
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


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


def test_a_signal_waits_until_a_transaction_is_over(store: Store, record: Record):
    with pytest.raises(KeyboardInterrupt):
        _interrupted(store, record)
    assert store.record(record.attachment, record.plugin) == record
    with store.transaction():
        store.forget(record.attachment, record.plugin)


def _interrupted(store: Store, record: Record) -> None:
    with store.transaction():
        signal.raise_signal(signal.SIGINT)  # to this thread: the process may have others, which hold back nothing
        store.put(record)


def test_records_are_found_by_what_their_plans_mention(store: Store, record: Record):
    store.put(record.having(resources=({"kind": "PodPolicy", "addresses": ["10.0.0.2", "fd00::2"]},)))
    assert [found.attachment for found in store.mentioning(["fd00::2", "nobody"])] == [record.attachment]
    assert store.mentioning(["10.0.0"]) == store.mentioning(["10.0.0.20"]) == []


def test_a_resource_is_mentioned_by_the_records_that_hold_it(store: Store, record: Record):
    rules = {"kind": "MasqueradeRules", "backend": "nftables", "family": 4}
    store.put(record.having(resources=({"kind": "Bridge"}, rules)))
    assert store.mentions(rules)
    assert not store.mentions(rules | {"family": 6})


def test_another_writer_is_waited_for_only_so_long(folder: Path, store: Store, record: Record):
    impatient = Store.open(folder, patience=0.01)

    def write() -> None:
        with impatient.transaction():
            impatient.put(record)

    with store.transaction(), pytest.raises(TryAgainLater, match=r"state\.db cannot be used now: .*locked"):
        write()
    write()
    impatient.close()


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


def test_the_making_of_the_file_is_waited_for_only_so_long(tmp_path: Path):
    making = LockFile(tmp_path / "lock")
    with making.exclusive("0", "the state"), pytest.raises(TryAgainLater, match=r"state\.db"):
        Store.open(tmp_path, patience=0)
    making.close()


@pytest.mark.parametrize("opening", [Store.open, Store.reading], ids=["opening", "reading"])
def test_another_layout_is_refused_by_its_number(written: Path, opening: Callable[[Path], Any]):
    relabel(written, 99)
    with pytest.raises(Unavailable, match=r"state\.db was written by another release \(layout 99, ours \d+\)"):
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
        lambda store: store.mentions({}),
        lambda store: store.mentioning(["x"]),
    ],
    ids=["records", "all_leases", "leases", "holder", "leased", "last_given", "sticky", "mentions", "mentioning"],
)
def test_every_question_to_a_damaged_file_ends_in_a_clear_error(written: Path, ask: Callable[[Store], Any]):
    damage(written)
    store = Store.reading(written)
    with pytest.raises(CniError, match=r"^the state in .*state\.db is damaged: "):
        ask(store)


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
