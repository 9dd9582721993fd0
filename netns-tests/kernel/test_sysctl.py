"""Settings by the procfs a process has of its own, and by /proc where it may not have one."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
from lab import ROOT, Host, Lab, environment

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


def test_where_our_own_mount_is_shut_proc_is_open(monkeypatch: pytest.MonkeyPatch):
    """A security module goes by the mount."""
    opened = os.open

    def guarded(path: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *args)

    with netns.fresh():
        sysctl.read(KEY)
        monkeypatch.setattr(os, "open", guarded)
        sysctl.write(KEY, "1")
        assert (sysctl.read(KEY), sysctl.is_writable(KEY)) == ("1", True)
        assert sysctl.read("net.ipv4.conf.none.arp_notify") is None


def test_neither_a_mount_nor_a_descriptor_is_left(proc: Procfs):
    def held() -> tuple[int, int]:
        """Descriptors, and mounts of procfs: other tests mount namespaces meanwhile."""
        return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/mountinfo").read_text().count(" - proc ")

    before = held()
    for _ in range(20):
        assert sysctl.read(KEY) is not None
    assert held() == before


#: A call of a process that may not mount: it has /proc/sys, and that is read-only, as in many containers.
BARRED = """
import sys
from cni.kernel import procfs
from cni.main import main
procfs._FSOPEN = 9999
raise SystemExit(main(sys.argv[1]))
"""


@pytest.mark.parametrize("plugin", ["bridge-vxlan", "macvlan", "custom-plugin"])
@pytest.mark.parametrize("forwarding", [1, 0], ids=["forwarding is on", "forwarding is off"])
def test_read_only_settings_that_are_right_or_may_be_missed_stop_nobody(
    node: Host, lab: Lab, conf: dict, plugin: str, forwarding: int
):
    node.run("ip", "link", "add", "phy0", "up", "type", "veth", "peer", "name", "wire0")
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        node.run("sysctl", "-qw", f"{key}={forwarding}")
    node.run("sysctl", "-qw", "net.ipv4.conf.default.rp_filter=1")
    netconf = {"cniVersion": "1.1.0", "name": "net", "type": plugin, "ipam": conf["ipam"]}
    netconf |= {"bridge-vxlan": {"isGateway": True}, "macvlan": {"master": "phy0"}}.get(plugin, {})
    pod, script = lab.pod(), 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
    argv = ("sh", "-c", script, "sh", ROOT / ".venv/bin/python3", "-I", "-c", BARRED, ROOT / "plugins" / plugin)

    def call(verb: str, **more: object) -> subprocess.CompletedProcess[str]:
        return node.run(*argv, input=json.dumps(netconf | more), env=environment(verb, pod), check=False)

    added = call("ADD")
    if not forwarding and plugin != "macvlan":
        assert "Read-only file system" in json.loads(added.stdout)["msg"]
        assert (json.loads(added.stdout)["code"], pod.link("eth0")) == (100, None)
        return
    assert added.returncode == 0, added.stdout + added.stderr
    assert "Read-only file system: left as it is" in added.stderr
    checked = call("CHECK", prevResult=json.loads(added.stdout))
    assert checked.returncode == 0, checked.stdout
    assert call("DEL").returncode == 0
    assert pod.link("eth0") is None
