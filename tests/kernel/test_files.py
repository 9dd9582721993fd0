from __future__ import annotations

import os
from pathlib import Path

import pytest

from cni.errors import Unavailable
from cni.kernel.files import private_folder
from cni.kernel.writing import put_asked


def test_a_private_folder_is_made_with_its_parents(tmp_path: Path):
    made = private_folder(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    assert private_folder(made) == made


@pytest.mark.parametrize("name", ["state.db-wal", "wireguard.key"])
def test_a_folder_of_ours_alone_is_closed(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    tmp_path.chmod(0o755)
    assert private_folder(tmp_path).stat().st_mode & 0o777 == 0o700


def test_a_folder_with_anything_else_keeps_its_mode(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    tmp_path.chmod(0o755)
    assert private_folder(tmp_path).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_a_folder_others_write_into_is_refused(tmp_path: Path, mode: int):
    (tmp_path / "theirs").touch()
    tmp_path.chmod(mode)
    with pytest.raises(Unavailable, match="others may write into it"):
        private_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == mode


@pytest.mark.threat
@pytest.mark.parametrize(
    "there", ["nothing", "his file", "another name", "a link", "a link to nothing", "a pipe", "a folder"]
)
def test_a_file_that_is_asked_for_is_a_new_one_whatever_somebody_put_there(tmp_path: Path, there: str):
    victim, path = tmp_path / "victim", tmp_path / "asked"
    victim.write_text("as it was")
    opened = None
    match there:
        case "his file":
            path.write_text("")
            opened = path.open()  # who could read it before reads what was there
        case "another name":
            path.hardlink_to(victim)
        case "a link":
            path.symlink_to(victim)
        case "a link to nothing":
            path.symlink_to(tmp_path / "nothing")
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
    before = sorted(tmp_path.iterdir())
    if there in ("nothing", "his file", "another name"):
        put_asked(path, b"ours", 0o600)
        assert (path.read_text(), path.stat().st_mode & 0o777, path.stat().st_nlink) == ("ours", 0o600, 1)
    else:
        with pytest.raises(OSError, match="no plain file"):
            put_asked(path, b"ours", 0o600)
        assert sorted(tmp_path.iterdir()) == before
    assert victim.read_text() == "as it was"
    assert not opened or opened.read() == ""
