"""Files of names: what is written is read again, whatever the umask anybody may read it, and nothing half."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.errors import Unavailable
from cni.kernel import hostsdir
from cni.kernel.hostsdir import Entry
from cni.naming import Attachment

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
