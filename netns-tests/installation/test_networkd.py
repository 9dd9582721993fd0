"""systemd-networkd with a .network file that matches every link, as many node images have it, beside our pods."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import AGENT_CNI, Host, Lab, eventually, sh

CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "cni0", "isDefaultGateway": True,
    "ipam": {"subnet": "10.1.0.0/24"},
}  # fmt: skip
CATCH_ALL = "[Match]\nName=*\n[Network]\nDHCP=yes\n"
NETWORKD = """
set -e
mount --bind "$0" /etc/systemd
mount -t sysfs -o ro sysfs /sys  # it waits for udev unless this cannot be written, as in a container
mkdir -p /run/systemd && mount -t tmpfs -o mode=755 tmpfs /run/systemd
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network: /run/systemd/netif
exec /lib/systemd/systemd-networkd
"""


@pytest.fixture
def etc_systemd(tmp_path: Path) -> Path:
    folder = tmp_path / "etc/systemd"
    (folder / "network").mkdir(parents=True)
    (folder / "network/50-all.network").write_text(CATCH_ALL)
    return folder


def install(root: Path) -> None:
    """Give a node that has Python in its usual place all that --systemd means."""
    for path in ("usr/bin/python3", "usr/lib/python3.11/sqlite3/__init__.py"):
        (root / path).parent.mkdir(parents=True)
        (root / path).touch()
    sh(AGENT_CNI, "install", "--root", root, "--python", "/usr/bin/python3", "--systemd")


@contextmanager
def networkd(host: Host, etc_systemd: Path) -> Iterator[Path]:
    """It runs; the file is its log."""
    log = etc_systemd.parent / "log"
    with log.open("w") as file:
        command = [*map(str, host.prefix()), "sh", "-c", NETWORKD, str(etc_systemd)]
        process = subprocess.Popen(command, stdout=file, stderr=file, env={"SYSTEMD_LOG_LEVEL": "debug"})
    assert eventually(lambda: "Enumeration completed" in log.read_text()), log.read_text()
    yield log
    process.terminate()
    process.wait()


def test_without_the_drop_ins_it_takes_a_pods_interface_off_its_bridge(host: Host, lab: Lab, etc_systemd: Path):
    pod = lab.pod()
    host.add(CONF, pod)
    assert pod.pings("10.1.0.1")
    with networkd(host, etc_systemd):
        assert eventually(lambda: not pod.pings("10.1.0.1", 1))
    host.delete_pod(CONF, pod)


def test_with_them_it_leaves_what_we_made(host: Host, lab: Lab, etc_systemd: Path):
    install(etc_systemd.parent.parent)
    first, second = lab.pod(), lab.pod()
    results = [(first, host.add(CONF, first))]
    with networkd(host, etc_systemd) as log:
        results.append((second, host.add(CONF, second)))
        host.run("ip", "link", "add", "plain0", "type", "veth", "peer", "name", "plain1")
        assert eventually(lambda: "plain0: Configuring with /etc/systemd/network/50-all.network" in log.read_text())
        for pod, result in results:
            veth = result["interfaces"][1]["name"]
            assert eventually(lambda veth=veth: f"{veth}: State changed: initialized -> unmanaged" in log.read_text())
            host.check(CONF, pod, result).ok()
            assert pod.pings("10.1.0.1")
    host.run("ip", "link", "delete", "plain0")
    for pod in (first, second):
        host.delete_pod(CONF, pod)
