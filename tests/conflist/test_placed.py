"""What was put where the runtime reads it is replaced, and what somebody edited is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cni.conflist import placed
from cni.installation.suite import Conflist


def test_it_is_known_again_until_somebody_edits_it(tmp_path: Path):
    file = tmp_path / "10-pods.conflist"
    assert not placed.is_as_put(file)
    assert (placed.put(file, "{}"), placed.put(file, "{}")) == (True, False)
    assert placed.is_as_put(file)
    assert placed.put(file, '{"a": 1}')
    assert (file.read_text(), placed.is_as_put(file)) == ('{"a": 1}', True)
    file.write_text("{}")
    assert not placed.is_as_put(file), "what it said once is not what was put last"


def test_an_administrator_checks_it_with_sha256sum(tmp_path: Path):
    for name in ("10-pods.conflist", "20 of another.conflist"):
        placed.put(tmp_path / name, name)
    checked = ["sha256sum", "--check", "--strict", placed.BOOK]
    assert subprocess.run(checked, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "10-pods.conflist").write_text("edited")
    assert (
        "10-pods.conflist: FAILED"
        in subprocess.run(checked, cwd=tmp_path, check=False, capture_output=True, text=True).stdout
    )


def test_whoever_is_killed_halfway_has_put_down_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "10-pods.conflist"
    placed.put(file, "old")
    for text in ("new", "newer"):
        with pytest.raises(KeyboardInterrupt), placed.putting(file, text):
            raise KeyboardInterrupt
        assert placed.is_as_put(file)
    file.write_text("newer")
    assert placed.is_as_put(file)
    placed.put(file, "newest")
    assert [len(hashes) for hashes in placed.known(tmp_path).values()] == [1]


def test_what_is_taken_is_forgotten(tmp_path: Path):
    one, other = tmp_path / "a.conflist", tmp_path / "b.conflist"
    placed.put(one, "a")
    placed.put(other, "b")
    placed.take(one)
    assert (placed.known(tmp_path).keys(), one.exists()) == ({"b.conflist"}, False)
    placed.take(other)
    assert list(tmp_path.iterdir()) == []


def test_a_book_that_says_something_else_says_nothing(tmp_path: Path):
    (tmp_path / placed.BOOK).write_bytes(b"\xff\nsomething\n" + b"0" * 64 + b"  a.conflist\n")
    assert placed.known(tmp_path) == {"a.conflist": ("0" * 64,)}


def test_an_installation_replaces_what_an_earlier_one_put_and_nothing_else(tmp_path: Path):
    file = tmp_path / "net.d/10-pods.conflist"
    assert Conflist(file, "earlier").put()
    later = Conflist(file, "later")
    assert not later.is_foreign
    assert (later.put(), later.put(), file.read_text()) == (True, False, "later")
    file.write_text("edited")
    assert later.is_foreign
    assert not later.take()
    file.write_text("later")
    assert later.put() is False
    assert later.take()
    assert list(file.parent.iterdir()) == []
