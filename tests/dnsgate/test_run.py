from __future__ import annotations

import os
from pathlib import Path

import pytest

from cni.dnsgate import run
from cni.dnsgate.guest import Guest, labels_of
from cni.dnsgate.reached import Reached
from cni.dnsgate.run import Daemon
from cni.kernel import gatedir
from cni.kernel.gatedir import Entry
from cni.kernel.inotify import Noticed


class Folders:
    """Of which a test says what was noticed in them."""

    def __init__(self) -> None:
        self.noticed: list[Noticed] = []
        self._end, self._other = os.pipe()

    def fileno(self) -> int:
        return self._end

    def watch(self, folders: list[Path]) -> list[Path]:
        return []

    def wait(self, seconds: float) -> list[Noticed]:
        noticed, self.noticed = self.noticed, []
        return noticed

    def close(self) -> None:
        os.close(self._end)
        os.close(self._other)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gatedir, "FOLDER", tmp_path)
    made = Folders()
    yield made
    made.close()


def pod(token: str) -> Reached:
    return Reached(Guest(Entry(token, f"default/{token}", ("10.1.0.2",), "veth0", ("api.example.com",))))


def test_what_the_gate_itself_writes_has_it_look_at_nothing(folders: Folders, monkeypatch: pytest.MonkeyPatch):
    looked: list[str] = []
    daemon = Daemon(folders)
    monkeypatch.setattr(daemon._inward, "look", lambda: looked.append("inward"))
    monkeypatch.setattr(daemon, "_place", lambda now: looked.append("place"))
    folders.noticed = [Noticed(gatedir.FOLDER, gatedir.TOLD), Noticed(gatedir.FOLDER, gatedir.COUNTED)]
    daemon._look(0, everything=False)
    assert not looked
    folders.noticed = [Noticed(gatedir.FOLDER, "0123456789a.pod")]
    daemon._look(0, everything=False)
    assert looked == ["inward", "place"]


def test_a_pod_that_is_refused_many_names_leaves_room_in_the_log_for_others(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []
    monkeypatch.setattr(run.log, "event", lambda *_, pod, **__: said.append(pod))
    daemon = Daemon(folders)
    loud, other = pod("a" * 11), pod("b" * 11)
    for number in range(300):
        daemon._hear("", loud, labels_of(f"n{number}.evil.example"))
    daemon._hear("", other, labels_of("evil.example"))
    daemon._hear("", other, labels_of("evil.example"))
    assert (said.count(loud.guest.entry.pod), said.count(other.guest.entry.pod)) == (100, 1)
