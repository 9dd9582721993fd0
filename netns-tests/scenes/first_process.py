"""A node whose first process is Debian's systemd itself, with our units and the targets they name, and no others."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Self

import pytest
from lab import PATIENCE, eventually, sh

SYSTEMD = Path("/usr/lib/systemd/systemd")
_TARGETS = ("sysinit", "basic", "sockets", "multi-user", "network-online", "shutdown", "umount", "node")
#: Folders of the node's own; /etc is the machine's with what the node writes over it. What is mounted in it its services see, too.
_NODE = f"""
set -e
mount --make-rprivate / && mount --make-rshared /
mount -t proc proc /proc && mount -t sysfs -o ro sysfs /sys && mount -t cgroup2 cgroup2 /sys/fs/cgroup
for folder in /run /var/log /opt /usr/local/bin {SYSTEMD.parent}/system {SYSTEMD.parent}/system-generators; do
    mount -t tmpfs -o mode=755 tmpfs $folder
done
mkdir -p /run/etc/over /run/etc/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/over,workdir=/run/etc/work /etc
mount -t tmpfs -o mode=755 tmpfs /etc/systemd
for target in {" ".join(_TARGETS)}; do echo '[Unit]' >{SYSTEMD.parent}/system/$target.target; done
mkdir -p /etc/systemd/system/service.d
printf '[Service]\\nStandardOutput=append:/run/journal\\nStandardError=inherit\\n' >/etc/systemd/system/service.d/journal.conf
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lab {SYSTEMD} --system --unit=node.target --log-target=console
"""


class BootedNode:
    """It, from the boot to the end of all its processes; use it with `with`. `folder` is for its console."""

    def __init__(self, folder: Path) -> None:
        self.console = folder / "console"
        self._groups = folder / "cgroup"
        self._own = self._groups / f"agent-cni-{time.monotonic_ns()}"

    def __enter__(self) -> Self:
        self._groups.mkdir()
        if not SYSTEMD.exists() or sh("mount", "-t", "cgroup2", "cgroup2", self._groups, check=False).returncode:
            pytest.skip("no systemd, or no second version of control groups")
        self._own.mkdir()
        namespaces = ("--cgroup", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child")
        begin = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        command = ["sh", "-c", begin, self._own, "unshare", *namespaces, "sh", "-c", _NODE]
        with self.console.open("w") as console:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        assert eventually(lambda: self.state("node.target") == "active"), self.console.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        print(self.console.read_text(), self.run("cat", "/run/journal", check=False).stdout)
        self._process.kill()  # and with it its child, and with that every process of the node
        self._process.wait(PATIENCE)
        assert eventually(self._is_empty)
        sh("umount", self._groups)

    def run(self, *argv: object, check: bool = True, **options: str) -> subprocess.CompletedProcess[str]:
        """Run a program on the node."""
        own = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        namespaces = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")
        return sh("nsenter", "--target", *(own or ["0"])[:1], *namespaces, *argv, check=check, **options)

    def state(self, unit: str) -> str:
        """A word of systemd's."""
        return self.run("systemctl", "is-active", unit, check=False).stdout.strip()

    def said_of(self, unit: str, name: str) -> str:
        """A property of a unit (systemctl(1), show)."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def _is_empty(self) -> bool:
        """Whether nothing runs any more; its control groups are gone then."""
        try:
            for folder in sorted(self._own.rglob("*/"), reverse=True):
                folder.rmdir()
            self._own.rmdir()
        except OSError:
            return False
        return True
