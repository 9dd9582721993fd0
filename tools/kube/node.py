"""One machine of a cluster: a root, processes, mounts and a network of its own, and the daemons a node has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addressing import CONTROL_PLANE, DNS, PODS, on_wire
from shell import BIN, HOME, eventually, sh
from spaces import remove_groups

if TYPE_CHECKING:
    from cluster import Cluster

PAUSE = "rig.local/pause:1"

#: What kubelet wants of the kernel; it sees that without changing the machine's: these files lie over the real ones.
SYSCTLS = {
    "vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000,
}  # fmt: skip

#: Makes a node's root and becomes its first process. Arguments: the node's folder, its name, the rig's home.
BOOT = """set -e
folder=$1 name=$2 home=$3 root=$1/ram/root
hostname "$name"
mount --make-rprivate /
mount -t overlay node -o "lowerdir=/,upperdir=$folder/ram/upper,workdir=$folder/ram/work" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$home" && mount --bind "$home" "$root$home"
for part in containerd kubelet; do mkdir -p "$root/var/lib/$part" && mount --bind "$folder/disk/$part" "$root/var/lib/$part"; done
for file in "$folder"/sysctls/*; do mount --bind "$file" "$root/proc/sys/$(basename "$file" | tr : /)"; done
mkdir -p "$root/mnt/machine" && cd "$root" && pivot_root . mnt/machine && umount -l /mnt/machine
mount --make-rshared /
ip link set lo up
touch /run/booted
while :; do sleep 3600 & wait $!; done
"""

CONTAINERD = """version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


@dataclass
class Node:
    """One machine of the cluster."""

    name: str
    number: int
    cluster: Cluster
    pid: int = 0
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """Its own, of the cluster's first family first."""
        return [on_wire(CONTROL_PLANE + self.number, family) for family in self.cluster.families]

    @property
    def address(self) -> str:
        return self.addresses[0]

    @property
    def block(self) -> str:
        """Its first podCIDR."""
        return self.blocks[0]

    def has_blocks(self) -> bool:
        """Whether the controllers gave it its podCIDRs."""
        self.blocks = self.cluster.api("GET", f"/api/v1/nodes/{self.name}")["spec"].get("podCIDRs", [])
        return bool(self.blocks)

    @property
    def folder(self) -> Path:
        return self.cluster.folder / self.name

    @property
    def root(self) -> Path:
        """What this node's disk has beyond the machine's; to be furnished while the node is off."""
        return self.folder / "ram/upper"

    def prepare(self) -> None:
        """An empty disk."""
        for name in ("disk/containerd", "disk/kubelet", "sysctls", "ram"):
            (self.folder / name).mkdir(parents=True)
        sh("mount", "-t", "tmpfs", "tmpfs", self.folder / "ram")  # an overlay's upper may not lie in its lower
        for name in ("upper", "work", "root"):
            (self.folder / "ram" / name).mkdir()
        for key, value in SYSCTLS.items():
            (self.folder / "sysctls" / key.replace("/", ":")).write_text(f"{value}\n")
        for name in ("etc/kubernetes", "etc/containerd", "etc/cni/net.d", "opt/cni/bin"):
            (self.root / name).mkdir(parents=True)
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (self.root / "etc/containerd/config.toml").write_text(CONTAINERD.format(pause=PAUSE))
        (self.root / "etc/kubernetes/resolv.conf").write_text("")
        (self.root / "etc/kubernetes/kubelet.json").write_text(json.dumps(self._kubelet()))
        (self.root / "etc/kubernetes/proxy.json").write_text(json.dumps(self._proxy()))

    def power_on(self) -> None:
        """A new network namespace on the wire, a new first process; disks are as they were."""
        self._make_groups()
        self.cluster.plug(self.name, CONTROL_PLANE + self.number)
        sh("ip", "netns", "exec", self.name, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        log = (self.cluster.folder / f"logs/{self.name}-boot.log").open("ab")
        spaces = ("--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child")
        script = ("bash", "-c", BOOT, "node", str(self.folder), self.name, str(HOME))
        boot = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.name}", "unshare", *spaces, *script], stdout=log, stderr=log
        )
        self.services["boot"] = boot
        self.pid = int(eventually(lambda: _children(boot.pid), 10)[0])
        assert eventually(lambda: self.has("-e", "/run/booted"), 20), "the node does not boot"

    def power_off(self) -> None:
        """As if the cable were pulled: everything on it dies at once, its network with it."""
        os.kill(self.pid, signal.SIGKILL)
        for service in self.services.values():
            service.wait(20)
        self.services.clear()
        sh("ip", "link", "del", f"to-{self.name}", check=False)
        sh("ip", "netns", "del", self.name)
        remove_groups(f"{self.cluster.group}/{self.name}")

    def start(self, name: str, *argv: object) -> None:
        """A daemon on this node; its output goes into the run's logs."""
        with (self.cluster.folder / f"logs/{self.name}-{name}.log").open("ab") as log:
            self.services[name] = subprocess.Popen(
                self.entering(*argv), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End one daemon."""
        service = self.services.pop(name)
        for pid in _children(service.pid):  # nsenter's child is the daemon
            os.kill(int(pid), number)
        service.wait(30)

    def run(self, *argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command of this node's administrator."""
        return sh(*self.entering(*argv), check=check, **options)

    def has(self, kind: str, path: str) -> bool:
        """Whether it has such a file (test(1))."""
        return self.run("test", kind, path, check=False).returncode == 0

    def start_runtime(self) -> None:
        self.start("containerd", "containerd", "--config", "/etc/containerd/config.toml")
        assert eventually(lambda: self.has("-S", "/run/containerd/containerd.sock"), 20), "no containerd"

    def start_kubelet(self) -> None:
        self.start("kubelet", BIN / "kubelet", "--config", "/etc/kubernetes/kubelet.json", "--hostname-override", self.name,
                   "--node-ip", ",".join(self.addresses), "--kubeconfig", self.cluster.keys.kubeconfig(self.name), "-v", "2")  # fmt: skip

    def start_proxy(self) -> None:
        self.start(
            "kube-proxy", BIN / "kube-proxy", "--config", "/etc/kubernetes/proxy.json", "--hostname-override", self.name
        )

    def start_all(self) -> None:
        for step in (self.start_runtime, self.start_kubelet, self.start_proxy):
            step()

    def images(self, *tars: Path) -> None:
        for tar in tars:
            self.run("ctr", "--namespace", "k8s.io", "images", "import", tar)

    def _make_groups(self) -> None:
        """The node's cgroup in every hierarchy; cpuset's has to be told what its parent has."""
        for controller in (
            item for item in Path("/sys/fs/cgroup").iterdir() if item.is_dir() and not item.is_symlink()
        ):
            for path in (controller / self.cluster.group, controller / self.cluster.group / self.name):
                path.mkdir(exist_ok=True)
                for key in ("cpuset.cpus", "cpuset.mems"):
                    if (path / key).exists():
                        (path / key).write_text((path.parent / key).read_text())

    def entering(self, *argv: object) -> list[str]:
        """A command line that runs a program on this node."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--uts", "--ipc", *map(str, argv)]

    def _kubelet(self) -> dict[str, Any]:
        return {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                               "x509": {"clientCAFile": str(self.cluster.keys.folder / "ca.crt")}},
            "authorization": {"mode": "Webhook"}, "clusterDNS": [DNS[self.cluster.families[0]]], "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{self.cluster.group}/{self.name}", "enforceNodeAllocatable": [],
            "failSwapOn": False, "failCgroupV1": False, "oomScoreAdj": 0, "maxOpenFiles": 20000,
            "localStorageCapacityIsolation": False, "resolvConf": "/etc/kubernetes/resolv.conf",
            "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "10Mi"},
            "imageGCHighThresholdPercent": 100, "nodeStatusUpdateFrequency": "5s", "syncFrequency": "10s", "serializeImagePulls": False,
        }  # fmt: skip

    def _proxy(self) -> dict[str, Any]:
        return {
            "kind": "KubeProxyConfiguration", "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "mode": self.cluster.shape.proxy,
            "clientConnection": {"kubeconfig": str(self.cluster.keys.folder / "proxy.kubeconfig")}, "clusterCIDR": self.cluster.networks(PODS),
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        }  # fmt: skip


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
