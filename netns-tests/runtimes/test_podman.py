"""Podman's own networks on ours: its drivers are a fixed list, so bridge and host-local are our executables under those names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, BIN_DIR, PATIENCE, REFERENCE_DIR, ROOT, Host, Lab, Namespace, eventually, sh

UNPACKED = ROOT / ".cache/podman"
pytestmark = pytest.mark.skipif(
    not UNPACKED.exists(), reason="`make podman-test` fetches podman and what it needs from Debian"
)
OURS = {"bridge": "bridge-vxlan", "host-local": "agent-ipam"}
SETTINGS = """
[network]
network_backend = "cni"
cni_plugin_dirs = ["{folder}/cni"]
network_config_dir = "{folder}/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
conmon_path = ["{unpacked}/usr/bin/conmon"]
[engine.runtimes]
crun = ["{folder}/crun"]
[containers]
cgroups = "disabled"
seccomp_profile = "unconfined"
apparmor_profile = "unconfined"
"""
CRUN = '#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {unpacked}/usr/bin/crun "$@"\n'


class Podman:
    """Podman of one host, with its own storage; containers have busybox and nothing else."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._folder = folder = Path("/run") / host.name  # where it keeps what runs has 50 characters at most
        (folder / "cni").mkdir(parents=True)
        for name, ours in OURS.items():
            (folder / "cni" / name).symlink_to(BIN_DIR / ours)
        for name in ("portmap", "firewall", "tuning"):
            (folder / "cni" / name).symlink_to(REFERENCE_DIR / name)
        libraries = next(UNPACKED.glob("usr/lib/*-linux-gnu"))
        (folder / "containers.conf").write_text(SETTINGS.format(folder=folder, unpacked=UNPACKED))
        (folder / "crun").write_text(CRUN.format(libraries=libraries, unpacked=UNPACKED))
        (folder / "crun").chmod(0o755)
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            (folder / "root" / name).mkdir(parents=True)
        shutil.copy(ROOT / ".cache/busybox/bin/busybox", folder / "root/bin")
        self._environ = os.environ | {
            "LD_LIBRARY_PATH": str(libraries), "CONTAINERS_CONF": str(folder / "containers.conf"),
            "PATH": f"{UNPACKED}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip

    def __call__(self, *words: object) -> str:
        """A command; the mount namespace is this one, because a container's network is a mount in it."""
        place = ("--root", self._folder / "store", "--runroot", self._folder / "run", "--tmpdir", self._folder / "tmp")
        options = (*place, "--storage-driver", "vfs")
        return Namespace.run(self._host, "podman", *options, *words, env=self._environ).stdout.strip()

    def run(self, name: str, *options: object) -> None:
        """Start a container that serves its name on port 80."""
        serve = f"echo {name} >/tmp/index.html && exec /bin/busybox httpd -f -p 80 -h /tmp"
        words = ("--tmpfs", "/tmp", "--rootfs", self._folder / "root", "/bin/busybox", "sh", "-c", serve)
        self("run", "--detach", "--name", name, *options, *words)

    def addresses(self, name: str) -> dict[str, str]:
        """A container's IPv4 address on each link, as the kernel has it."""
        told = self("exec", name, "/bin/busybox", "ip", "-4", "-o", "addr").splitlines()
        return {words[1]: words[3] for words in map(str.split, told) if words[1] != "lo"}

    def asks(self, name: str, address: str) -> str:
        """What is served at an address, asked for by a container."""
        ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 {address} 80"
        return self("exec", name, "/bin/busybox", "sh", "-c", f"PATH=/bin; {ask}").splitlines()[-1]


def left(host: Host) -> dict[str, Any]:
    """What the node remembers."""
    shown = json.loads(Namespace.run(host, AGENT_CNI, "show", "--json").stdout)
    return {area: shown[area] for area in ("attachments", "leases")}


def test_networks_and_containers_live_and_leave_nothing(lab: Lab):
    host = lab.host()
    sh("umount", "/sys/fs/cgroup/unified", check=False)  # crun refuses a hybrid; this mount namespace is the test's
    podman = Podman(host)
    podman("network", "create", "--subnet", "10.89.5.0/24", "--gateway", "10.89.5.1", "mine")
    podman("network", "create", "--subnet", "10.89.6.0/24", "other")
    assert json.loads(podman("network", "inspect", "mine"))[0]["driver"] == "bridge"

    podman.run("web", "--network", "mine", "--ip", "10.89.5.77", "--publish", "18080:80")
    podman.run("two", "--network", "mine", "--network", "other")
    assert podman.addresses("web") == {"eth0": "10.89.5.77/24"}
    two = podman.addresses("two")  # which of both is eth0 podman leaves to chance
    assert (sorted(two), sorted(two.values())) == (["eth0", "eth1"], ["10.89.5.2/24", "10.89.6.2/24"])
    assert json.loads(podman("inspect", "web"))[0]["NetworkSettings"]["Networks"]["mine"]["IPAddress"] == "10.89.5.77"
    assert eventually(lambda: podman.asks("two", "10.89.5.77") == "web")
    ask = (
        "python3",
        "-c",
        f"from urllib.request import urlopen; print(urlopen('http://10.89.5.1:18080', timeout={PATIENCE}).read())",
    )
    assert "web" in Namespace.run(host, *ask).stdout

    podman("network", "connect", "other", "web")
    assert podman.addresses("web") == {"eth0": "10.89.5.77/24", "eth1": "10.89.6.3/24"}
    assert podman.asks("two", "10.89.6.3") == "web"
    podman("network", "disconnect", "other", "web")
    assert podman.addresses("web") == {"eth0": "10.89.5.77/24"}
    podman("restart", "--time", "0", "web")
    assert podman.addresses("web") == {"eth0": "10.89.5.77/24"}

    podman("rm", "--force", "--time", "0", "web", "two")
    assert left(host) == {"attachments": [], "leases": []}
    assert "veth" not in Namespace.run(host, "ip", "-o", "link").stdout
    podman("network", "rm", "mine", "other")
    assert podman("network", "ls", "--format", "{{.Name}}") == "podman"
