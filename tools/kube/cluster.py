"""A real Kubernetes cluster on one machine: nodes are namespaces, everything in them is the real thing.

A node has a root of its own (an overlay over the machine's), process, mount, network and host name namespaces, a
containerd, a kubelet and a kube-proxy. The control plane (etcd, API server, controllers, scheduler) runs in a network
namespace of its own, and the rig itself stands outside, on the same wire: it is the client of NodePorts.

All of it lives in one process namespace: when that ends, nothing of it runs any more, and its mounts are gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from addressing import API, CONTROL, CONTROL_PLANE, PODS, RIG, SERVICES, on_wire, with_prefix
from api import Api, condition
from keys import Keys
from node import Node
from shell import BIN, eventually, sh
from spaces import isolated

NO_DAD: dict[int, tuple[str, ...]] = {4: (), 6: ("nodad",)}
#: Members of a cluster of ours may have it as their store, too.
ETCD = ("--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", f"http://{CONTROL}:2379")


class Network(Protocol):
    """What brings a cluster's network: files on a disk before its node is on, a configuration once the node has a block."""

    @property
    def lacks(self) -> Mapping[str, str]:
        """Checks that it is known not to pass, and why."""

    @property
    def manifest(self) -> Path | None:
        """What is applied to the cluster to have it."""

    def prepare(self, node: Node) -> None: ...

    def configure(self, node: Node) -> None: ...


@dataclass(frozen=True)
class Shape:
    """How many nodes at first, kube-proxy's mode, and the IP versions of pods and Services, the first of them first."""

    nodes: int = 3
    proxy: str = "nftables"
    families: tuple[int, ...] = (4,)


class Cluster:
    """Use it with `with`. Its nodes have registered and are configured then, and may not be ready yet."""

    def __init__(
        self,
        network: Network,
        shape: Shape | None = None,
        images: Sequence[Path] = (),
        manifest: Path | None = None,
        kinds: Sequence[Path] = (),
    ) -> None:
        self.folder, self.group = isolated()
        self.network, self.images, self.manifest, self.kinds = network, images, manifest, kinds
        self.shape = shape or Shape()
        self.nodes = [Node(f"n{number}", number, self) for number in range(1, self.shape.nodes + 1)]
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.since = time.monotonic()

    def __enter__(self) -> Self:
        for name in ("logs", "policies"):
            (self.folder / name).mkdir()
        self._wire()
        self._certify()
        self.api = Api(self.keys)
        for node in self.nodes:
            node.prepare()
            self.network.prepare(node)
            node.power_on()
        self._control()
        for file in self.kinds:
            self.kubectl("apply", "--server-side", "-f", file)
        for node in self.nodes:
            self._register(node)
        for node in self.nodes:
            assert eventually(node.has_blocks, 120), f"{node.name} has no podCIDR"
        for node in self.nodes:
            self._way(node)
            self.network.configure(node)
        for manifest in filter(None, (self.network.manifest, self.manifest)):
            self.kubectl("apply", "-f", "-", input=self._own(manifest.resolve()))
            self._applied = time.monotonic()
        return self

    def _own(self, manifest: Path) -> str:
        """A manifest, or what a kustomization makes, with this cluster's addresses in its conflist."""
        text = self.kubectl("kustomize", manifest).stdout if manifest.is_dir() else manifest.read_text()
        ranges = json.dumps([[{"subnet": PODS[family]}] for family in self.families])
        return text if self.families == (4,) else text.replace(f'"subnet": "{PODS[4]}"', f'"ranges": {ranges}')

    def since_applied(self) -> float:
        """Seconds since the manifest was."""
        return time.monotonic() - self._applied

    def _way(self, node: Node) -> None:
        """The API server asks pods too (proxy, webhooks), and its host is no node: it goes by the pod's own."""
        for block, address in zip(node.blocks, node.addresses, strict=True):
            sh("ip", "-n", "control", "route", "replace", block, "via", address)

    def _register(self, node: Node) -> None:
        node.start_runtime()
        node.images(*self.images)
        node.start_kubelet()
        node.start_proxy()

    def join(self) -> Node:
        """One more node; then every node is configured anew, as an administrator who keeps lists by hand would."""
        node = Node(f"n{len(self.nodes) + 1}", len(self.nodes) + 1, self)
        self.nodes.append(node)
        self.keys.issue(node.name, f"system:node:{node.name}", "system:nodes")
        node.prepare()
        self.network.prepare(node)
        node.power_on()
        self._register(node)
        assert eventually(node.has_blocks, 60), f"{node.name} has no podCIDR"
        self._way(node)
        for each in self.nodes:
            self.network.configure(each)
        return node

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.pid:
                with contextlib.suppress(OSError, RuntimeError, subprocess.TimeoutExpired):
                    node.power_off()
        for daemon in reversed(self.daemons):
            daemon.kill()
            daemon.wait()

    @property
    def families(self) -> tuple[int, ...]:
        return self.shape.families

    def age(self) -> float:
        """Seconds since the rig began."""
        return time.monotonic() - self.since

    def kubectl(self, *argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return sh(BIN / "kubectl", "--kubeconfig", self.keys.folder / "admin.kubeconfig", *argv, check=check, **options)

    def ready(self) -> list[str]:
        """The nodes that say they are ready."""
        nodes = self.api("GET", "/api/v1/nodes")["items"]
        return [node["metadata"]["name"] for node in nodes if condition(node, "Ready")]

    def networks(self, by_family: Mapping[int, str]) -> str:
        """Those of the cluster's families, as daemons are told."""
        return ",".join(by_family[family] for family in self.families)

    def plug(self, name: str, number: int) -> None:
        """A network namespace on the wire, with addresses and default routes of both families, and each time the same MAC, as a machine has it
        that boots: who knows another one sends there for eight seconds (RFC 4861, 7.3).
        """
        sh("ip", "netns", "add", name)
        end = ("name", "eth0", "address", f"0a:fe:00:00:00:{number:02x}", "netns", name)
        sh("ip", "link", "add", f"to-{name}", "type", "veth", "peer", *end)
        sh("ip", "link", "set", f"to-{name}", "master", "wire", "up")
        sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "-n", name, "link", "set", "eth0", "up")
        for family in (4, 6):
            sh("ip", "-n", name, "addr", "add", with_prefix(number, family), "dev", "eth0", *NO_DAD[family])
            sh("ip", "-n", name, "route", "add", "default", "via", on_wire(RIG, family))

    def _wire(self) -> None:
        Path("/run/netns").mkdir()
        for kind in ("iptables", "ip6tables"):
            sh("sysctl", "-qw", f"net.bridge.bridge-nf-call-{kind}=0", check=False)
        sh("ip", "link", "add", "wire", "type", "bridge")
        for family in (4, 6):
            sh("ip", "addr", "add", with_prefix(RIG, family), "dev", "wire", *NO_DAD[family])
        sh("ip", "link", "set", "wire", "up")
        self.plug("control", CONTROL_PLANE)

    def _certify(self) -> None:
        self.keys = Keys(self.folder / "keys")
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
        own = (on_wire(CONTROL_PLANE, family) for family in (4, 6))
        addresses = (f"IP:{address}" for address in (*own, *API.values(), "127.0.0.1"))
        self.keys.issue("server", "kube-apiserver", names=",".join((*addresses, *(f"DNS:{name}" for name in names))))
        self.keys.issue("admin", "admin", "system:masters")
        self.keys.issue("controllers", "system:kube-controller-manager")
        self.keys.issue("scheduler", "system:kube-scheduler")
        self.keys.issue("proxy", "system:kube-proxy")
        for node in self.nodes:
            self.keys.issue(node.name, f"system:node:{node.name}", "system:nodes")
        for name in ("admin", "controllers", "scheduler", "proxy"):
            self.keys.kubeconfig(name)

    def _control(self) -> None:
        at = self.keys.folder
        kept = ("--data-dir", self.folder / "etcd", "--unsafe-no-fsync")
        self._daemon("etcd", "etcd", *ETCD, *kept, "--log-level", "warn")
        self._daemon("kube-apiserver", BIN / "kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379",
                     "--advertise-address", on_wire(CONTROL_PLANE, self.families[0]), "--service-cluster-ip-range", self.networks(SERVICES), "--authorization-mode", "Node,RBAC", "--allow-privileged",
                     "--enable-admission-plugins", "NodeRestriction", "--client-ca-file", at / "ca.crt",
                     "--tls-cert-file", at / "server.crt", "--tls-private-key-file", at / "server.key",
                     "--kubelet-client-certificate", at / "admin.crt", "--kubelet-client-key", at / "admin.key",
                     "--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
                     "--service-account-key-file", at / "accounts.key", "--service-account-signing-key-file", at / "accounts.key",
                     "--kubelet-preferred-address-types", "InternalIP")  # fmt: skip
        assert eventually(lambda: self.api("GET", "/readyz") == "ok", 120), "no API server"
        self._daemon("kube-controller-manager", BIN / "kube-controller-manager", "--kubeconfig", at / "controllers.kubeconfig",
                     "--allocate-node-cidrs", "--cluster-cidr", self.networks(PODS), "--service-cluster-ip-range", self.networks(SERVICES),
                     "--root-ca-file", at / "ca.crt", "--service-account-private-key-file", at / "accounts.key",
                     "--use-service-account-credentials", "--leader-elect=false", "--node-monitor-grace-period", "20s")  # fmt: skip
        config = ("--kubeconfig", at / "scheduler.kubeconfig")
        self._daemon("kube-scheduler", BIN / "kube-scheduler", *config, "--leader-elect=false")

    def _daemon(self, name: str, *argv: object) -> None:
        with (self.folder / f"logs/{name}.log").open("wb") as log:
            path = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
            command = ["nsenter", "--net=/run/netns/control", *map(str, argv)]
            self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=path))
