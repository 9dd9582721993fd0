"""Settings by the procfs a process has of its own, and by /proc where it may not have one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cni.kernel import netns, procfs, sysctl
from cni.kernel.procfs import Procfs

KEY = "net.ipv4.conf.lo.arp_notify"
NO_SUCH_CALL = 9999


@pytest.fixture(params=["a procfs of our own", "/proc"])
def proc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Procfs:
    """One that is replaced after every third lookup."""
    if request.param == "/proc":
        monkeypatch.setattr(procfs, "_FSOPEN", NO_SUCH_CALL)
    monkeypatch.setattr(procfs, "_MOST_LOOKUPS", 3)
    monkeypatch.setattr(sysctl, "_PROC", Procfs())
    assert (sysctl._PROC.root() is None) == (request.param == "/proc")
    return sysctl._PROC


def test_a_setting_is_that_of_the_namespace_the_thread_is_in(proc: Procfs):
    before = sysctl.read(KEY)
    for value in ("1", "0", "1"):
        with netns.fresh():
            assert sysctl.read(KEY) == "0"
            sysctl.write(KEY, value)
            assert sysctl.read(KEY) == value
        assert sysctl.read(KEY) == before


def test_a_link_that_came_later_and_one_that_went_are_seen(proc: Procfs):
    with netns.fresh():
        for _ in range(4):
            assert sysctl.read("net.ipv4.conf.late.arp_notify") is None
            subprocess.run(["ip", "link", "add", "late", "type", "veth"], check=True)
            assert sysctl.read("net.ipv4.conf.late.arp_notify") == "0"
            subprocess.run(["ip", "link", "del", "late"], check=True)


def test_neither_a_mount_nor_a_descriptor_is_left(proc: Procfs):
    def held() -> tuple[int, int]:
        """Descriptors, and mounts of procfs: other tests mount namespaces meanwhile."""
        return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/mountinfo").read_text().count(" - proc ")

    before = held()
    for _ in range(20):
        assert sysctl.read(KEY) is not None
    assert held() == before
