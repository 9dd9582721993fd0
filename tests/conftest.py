from __future__ import annotations

import difflib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from nf_tables import NfTables

from cni import log
from cni.kernel import gatedir, hostsdir, process
from cni.naming import Attachment
from cni.state import Record, Store, uses

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's own log is left alone."""
    monkeypatch.setattr(log, "FOLDER", Path("/dev/null/log"))


@pytest.fixture(autouse=True)
def no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's own state, its pods' names and what they may ask are left alone; other folders are registered here instead."""
    monkeypatch.setattr(hostsdir, "FOLDER", tmp_path / "node-names")
    monkeypatch.setattr(gatedir, "FOLDER", tmp_path / "node-dns")
    monkeypatch.setattr(uses, "DEFAULT_FOLDER", tmp_path / "node")
    return tmp_path / "node"


@pytest.fixture
def log_folder(no_log: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(log, "FOLDER", tmp_path / "log")
    return tmp_path / "log"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with tests/golden/NAME; UPDATE_GOLDEN=1 writes that file instead."""
    return _compare


def _compare(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
        return
    expected = file.read_text() if file.exists() else ""
    if text != expected:
        lines = difflib.unified_diff(expected.splitlines(True), text.splitlines(True), f"golden/{name}", "now")
        pytest.fail(f"{''.join(lines)}\nif this is meant: UPDATE_GOLDEN=1 pytest tests", pytrace=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    opened = Store.open(folder)
    yield opened
    opened.close()


@pytest.fixture
def recorded_too(folder: Path) -> Callable[..., None]:
    """Write resources as JSON into a container's record, beside what it has, as another release would."""

    def write(container: str, *raws: dict[str, Any]) -> None:
        with closing(sqlite3.connect(folder / "state.db")) as db:
            (text,) = db.execute("SELECT resources FROM attachment WHERE container = ?", (container,)).fetchone()
            row = (json.dumps([*json.loads(text), *raws]), container)
            db.execute("UPDATE attachment SET resources = ? WHERE container = ?", row)
            db.commit()

    return write


@pytest.fixture
def attachment() -> Attachment:
    return Attachment("pods", "c1", "eth0")


@pytest.fixture
def record(attachment: Attachment) -> Record:
    return Record(attachment, "bridge-vxlan", "/run/netns/c1", "default/web", {"name": "pods"})


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every system program is installed, in /usr/sbin; with `fp` none of them runs."""
    monkeypatch.setattr(process, "find", lambda program: f"/usr/sbin/{program}")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> NfTables:
    """A kernel that has no rules yet."""
    return NfTables(monkeypatch)
