"""Files of names: what is written is read again, whatever the umask anybody may read it, and nothing half."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.errors import Unavailable
from cni.kernel import hostsdir
from cni.kernel.hostsdir import Entry
from cni.naming import Attachment
from cni.values import replace

WEB = Entry(Attachment("net", "c1", "eth0"), ("10.1.0.2", "fd00::2"), ("web.shop.net", "web.net", "web"), "shop/web")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(hostsdir, "FOLDER", tmp_path / "names")
    return tmp_path / "names"


def test_a_server_reads_the_addresses_and_names():
    assert [line for line in WEB.text.splitlines() if not line.startswith("#")] == [
        "10.1.0.2 web.shop.net web.net web",
        "fd00::2 web.shop.net web.net web",
    ]


def test_of_one_that_is_not_well_it_reads_nothing():
    ill = Entry(WEB.attachment, WEB.addresses, WEB.names, WEB.pod, "{}", "now: why")
    assert all(line.startswith("#") for line in ill.text.splitlines())


words = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)


@given(
    st.builds(
        Entry,
        st.builds(Attachment, st.just("net"), words, words),
        st.lists(st.sampled_from(["10.1.0.2", "fd00::2"]), unique=True, min_size=1).map(tuple),
        st.lists(words, min_size=1, max_size=4, unique=True).map(tuple),
        st.one_of(st.just(""), st.just("shop/web")),
        st.one_of(st.just(""), st.just('{"tcp": 80}')),
        st.one_of(st.just(""), st.just("2026-11-30: refused, 10.1.0.2 #x")),
    )
)
def test_what_is_written_is_read_again(entry: Entry):
    assert Entry.read("net", entry.text) == entry


@pytest.mark.parametrize("text", ["", "10.1.0.2 web\n", "#pod c1\n", "#pod\n10.1.0.2 web\n"])
def test_what_is_nobodys_is_read_as_nothing(text: str):
    assert Entry.read("net", text) is None


@pytest.mark.parametrize("mask", [0o022, 0o077, 0])
def test_anybody_may_read_it_and_nobody_else_write(folder: Path, mask: int):
    before = os.umask(mask)
    try:
        hostsdir.put(WEB.path, WEB.text)
    finally:
        os.umask(before)
    assert stat.S_IMODE(WEB.path.stat().st_mode) == 0o644
    for place in (folder, folder / "net", folder / "net/here", folder / "net/there"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_a_folder_of_who_was_killed_before_it_was_open_to_its_server_is_opened(folder: Path):
    folder.mkdir(0o700)
    (folder / "net").mkdir(0o700)
    hostsdir.put(WEB.path, WEB.text)
    assert {stat.S_IMODE(place.stat().st_mode) for place in (folder, folder / "net", folder / "net/here")} == {0o755}


def test_there_is_never_half_of_one(folder: Path):
    hostsdir.put(WEB.path, WEB.text)
    assert list(hostsdir.entries("net")) == [WEB]
    (WEB.path.parent / f".{WEB.path.name}").write_text("10.1.0.9 half")
    assert list(hostsdir.entries("net")) == [WEB]
    hostsdir.put(WEB.path, WEB.text)
    assert [file.name for file in WEB.path.parent.iterdir()] == [WEB.path.name]


def test_nothing_is_there_before_anything_was_written(folder: Path):
    assert hostsdir.networks() == []
    assert list(hostsdir.entries("net")) == []
    assert hostsdir.hosts("net") == []
    assert hostsdir.served("net") is None
    hostsdir.drop([WEB.path])


def test_a_folder_that_cannot_be_made_is_named(folder: Path):
    folder.write_text("")
    with pytest.raises(Unavailable, match=str(folder)):
        hostsdir.put(WEB.path, WEB.text)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of ours may be longer (setrlimit(2)): a write is short there, and the next one fails, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 10])
def test_what_there_is_no_room_for_is_not_half_there_and_leaves_nothing(folder: Path, size: int):
    hostsdir.put(WEB.path, WEB.text)
    other = replace(WEB, names=("other",))
    with room_for(size), pytest.raises(Unavailable, match=str(WEB.path)):
        hostsdir.put(WEB.path, other.text)
    assert list(hostsdir.entries("net")) == [WEB]
    assert [file.name for file in WEB.path.parent.iterdir()] == [WEB.path.name]


def test_what_is_no_text_any_more_is_nobodys_and_is_written_anew(folder: Path):
    hostsdir.put(WEB.path, WEB.text)
    WEB.path.write_bytes(b"\xff\xfe#pod c1 eth0\n")
    assert list(hostsdir.entries("net")) == []
    hostsdir.put(WEB.path, WEB.text)
    assert list(hostsdir.entries("net")) == [WEB]


def test_a_folder_where_a_file_was_is_nobodys_and_can_be_told_no_more(folder: Path):
    WEB.path.mkdir(parents=True)
    assert list(hostsdir.entries("net")) == []
    hostsdir.drop([WEB.path])
    with pytest.raises(Unavailable, match=str(WEB.path)):
        hostsdir.put(WEB.path, WEB.text)


@pytest.mark.parametrize(
    "lost", ["#pod c1 eth0\n", '#pod c1 eth0\n#health {"tcp": 80}\n', "#pod c1 eth0\n\n", "#pod c1 eth0\n10.1.0.2\n"]
)
def test_a_file_without_addresses_or_names_is_nobodys(lost: str):
    assert Entry.read("net", lost) is None


def test_a_file_that_is_where_the_folder_was_has_no_networks(folder: Path):
    folder.write_text("")
    assert hostsdir.networks() == []
    hostsdir.drop([WEB.path])


def test_a_book_is_kept_beside_networks_also_where_nothing_was(folder: Path):
    hostsdir.put(folder / ".consul", "[]")
    assert [(item.name, item.is_file()) for item in folder.iterdir()] == [(".consul", True)]


def test_a_link_in_the_place_of_a_folder_is_not_followed(folder: Path, tmp_path: Path):
    (tmp_path / "elsewhere/here").mkdir(parents=True)
    folder.mkdir()
    (folder / "net").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="net is no folder of ours"):
        hostsdir.put(WEB.path, WEB.text)
    assert list((tmp_path / "elsewhere/here").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
@pytest.mark.parametrize("place", ["", "net", "net/here"])
def test_a_strangers_folder_is_not_written_to(folder: Path, place: str):
    hostsdir.put(WEB.path, WEB.text)
    os.chown(folder / place, 1000, 1000)
    with pytest.raises(Unavailable, match="is no folder of ours"):
        hostsdir.put(WEB.path, WEB.text)


def test_what_a_killed_writer_left_goes_with_the_file_it_was_to_be(folder: Path):
    hostsdir.put(WEB.path, WEB.text)
    (WEB.path.parent / f".{WEB.path.name}").write_text("10.1.0.9 half")
    hostsdir.drop([WEB.path])
    assert list(WEB.path.parent.iterdir()) == []


def test_where_no_folder_can_be_nothing_is_read_and_nothing_is_to_be_taken_away(folder: Path):
    """A release before made a record of such a network, whose DEL failed for ever."""
    hostsdir.make_folders(folder)
    network = "n" * (hostsdir.MOST_BYTES + 1)
    nowhere = replace(WEB, attachment=Attachment(network, "c1", "eth0")).path
    with pytest.raises(Unavailable, match="File name too long"):
        hostsdir.put(nowhere, WEB.text)
    assert (list(hostsdir.entries(network)), hostsdir.hosts(network), hostsdir.read(nowhere)) == ([], [], "")
    hostsdir.drop([nowhere])
