"""Files that arrive whole, and never over somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cni.installation.item import MARK, Item, open_folder


def test_a_file_is_complete_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A rename within the folder is what containerd reads it again at; libcni overlooks the name it had before."""

    def rename(new: Path, path: Path) -> None:
        seen.append((new.read_text(), new.stat().st_mode & 0o777, path.parent == new.parent, path.exists()))
        assert (new.name[0], new.suffix in (".conf", ".conflist", ".json")) == (".", False)
        real(new, path)

    seen: list[tuple[str, int, bool, bool]] = []
    real = Path.rename
    monkeypatch.setattr(Path, "rename", rename)
    assert Item(tmp_path / "net.d/a.conflist", "{}").put()
    assert seen == [("{}", 0o644, True, False)]


@pytest.mark.parametrize(
    ("present", "foreign"), [("{}", False), (f"{MARK}, long ago", False), ("theirs", True), ("", True)]
)
def test_what_is_ours(tmp_path: Path, present: str, foreign: bool):
    item = Item(tmp_path / "file", "{}")
    assert (item.is_foreign, item.is_right, item.take()) == (False, False, False)
    item.path.write_text(present)
    assert item.is_foreign == foreign
    assert item.take() != foreign
    assert item.path.exists() == foreign


def test_a_dangling_link_is_somebodys(tmp_path: Path):
    item = Item(tmp_path / "file", "{}")
    item.path.symlink_to("nowhere")
    assert item.is_foreign


def test_a_wrong_mode_is_put_right(tmp_path: Path):
    item = Item(tmp_path / "file", "{}", 0o755)
    assert (item.put(), item.put()) == (True, False)
    item.path.chmod(0o600)
    assert (item.put(), item.is_right) == (True, True)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_a_folder_is_at_no_time_otherwise_than_it_is_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int):
    monkeypatch.setattr(Path, "chmod", lambda *_: pytest.fail("who is killed before leaves it so"))
    before = os.umask(mask)
    try:
        open_folder(tmp_path / "a/b")
    finally:
        assert os.umask(before) == mask
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755] * 2
