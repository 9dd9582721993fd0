"""Hosts whose cluster is Kubernetes: an API they reach over the underlay, in which the test says what kubelets and controllers would."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Protocol, Self

from answers import within
from cluster import Cluster, Node, Placed
from etcd import Tls
from kube_api import PLURALS, KubeApi, node, pod
from lab import PATIENCE, ROOT, Answer, Namespace, Pod, eventually, sh

from cni.cluster.config import KubernetesConfig
from cni.cluster.kubernetes import KubernetesStore
from cni.cluster.model import Item
from cni.errors import TryAgainLater

#: `make kube-test` builds them from the Go module proxy, once.
BINARIES = Path(os.environ.get("KUBE_RIG", ROOT / ".cache/kube")) / "bin"
APISERVER, ETCD = BINARIES / "kube-apiserver", BINARIES / "etcd"
ADDRESS, PORT = "192.0.2.2", 6443
Json = dict[str, Any]
#: What the member may do, and nothing else: deploy/ has the same.
RULES = [
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]},
    {
        "apiGroups": ["policy.networking.k8s.io"],
        "resources": ["clusternetworkpolicies", "adminnetworkpolicies", "baselineadminnetworkpolicies"],
        "verbs": ["list", "watch"],
    },
]


class Server(Protocol):
    """An API server in a namespace, and an administrator of it."""

    config: Json

    def put(self, raw: Json) -> Json: ...

    def get(self, kind: str, name: str, namespace: str = "") -> Json: ...

    def delete(self, kind: str, name: str, namespace: str = "") -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Played:
    """One with nothing behind it."""

    def __init__(self, keeper: Namespace, folder: Path) -> None:
        self._keeper = keeper
        self.api = within(keeper, lambda: KubeApi(ADDRESS))
        self.put, self.get, self.delete, self.stop = self.api.put, self.api.get, self.api.delete, self.api.stop
        self.config: Json = {"server": self.api.url}

    def start(self) -> None:
        within(self._keeper, self.api.start)

    def close(self) -> None:
        self.api.stop()


class Real:
    """Kubernetes' own, with its etcd; what asks it as a member may do what a member may."""

    def __init__(self, keeper: Namespace, folder: Path) -> None:
        self._keeper, self._folder = keeper, folder
        self._processes: list[subprocess.Popen[bytes]] = []
        tls = self._tls = Tls(folder / "tls", [ADDRESS, "127.0.0.1"])
        self._admin, self._member = (
            tls.give("admin", subject="/O=system:masters/CN=admin"),
            tls.give("agent-cni", subject="/O=agent-cni/CN=node"),
        )
        self.config: Json = {
            "server": f"https://{ADDRESS}:{PORT}", "cacert": str(tls.ca), "cert": str(self._member[0]), "key": str(self._member[1]),
        }  # fmt: skip
        self._context = ssl.create_default_context(cafile=str(tls.ca))
        self._context.load_cert_chain(*self._admin)
        where = "http://127.0.0.1:2379"
        self._run(ETCD, "--data-dir", folder / "data", "--listen-client-urls", where, "--advertise-client-urls", where,
                  "--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level", "error")  # fmt: skip
        self.start()
        self.put(
            {
                "kind": "ClusterRole",
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "metadata": {"name": "agent-cni"},
                "rules": RULES,
            }
        )
        self.put({
            "kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "agent-cni"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent-cni"},
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "agent-cni"}],
        })  # fmt: skip

    def start(self) -> None:
        tls = self._tls
        accounts_key = self._folder / "accounts.key"
        if not accounts_key.exists():
            sh("openssl", "genrsa", "-out", accounts_key, "2048")
        accounts = ("--service-account-issuer", "https://kubernetes", "--service-account-key-file", accounts_key,
                    "--service-account-signing-key-file", accounts_key)  # fmt: skip
        self._run(APISERVER, "--etcd-servers", "http://127.0.0.1:2379", "--advertise-address", ADDRESS, "--secure-port", PORT,
                  "--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC", "--client-ca-file", tls.ca,
                  "--tls-cert-file", tls.server, "--tls-private-key-file", tls.server_key, *accounts,
                  "--disable-admission-plugins", "ServiceAccount", "--profiling=false")  # fmt: skip
        server = self._processes[-1]
        assert eventually(lambda: server.poll() is not None or self._is_ready(), 120)
        assert server.poll() is None, (self._folder / "kube-apiserver.log").read_text()[-3000:]

    def stop(self) -> None:
        process = self._processes.pop()
        process.kill()
        process.wait(PATIENCE)

    def close(self) -> None:
        while self._processes:
            self.stop()

    def _run(self, program: Path, *argv: object) -> None:
        with (self._folder / f"{program.name}.log").open("ab") as log:
            command = ["nsenter", f"--net={self._keeper.path}", *map(str, (program, *argv))]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _is_ready(self) -> bool:
        with suppress(OSError, HTTPException):
            return self._ask("GET", "/readyz")[0] == 200
        return False

    def _ask(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> tuple[int, Any]:
        def ask() -> tuple[int, Any]:
            connection = HTTPSConnection(ADDRESS, PORT, context=self._context, timeout=30)
            try:
                connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": kind})
                answer = connection.getresponse()
                text = answer.read()
                return answer.status, json.loads(text) if text.startswith(b"{") else text
            finally:
                connection.close()

        return within(self._keeper, ask)

    def put(self, raw: Json) -> Json:
        """Have an object be so, its status too."""
        at, name = self._at(raw["kind"], raw["metadata"].get("namespace", "")), raw["metadata"]["name"]
        status, said = self._ask("POST", at, raw)
        if status == 409:
            status, said = self._ask(
                "PATCH",
                f"{at}/{name}",
                {key: value for key, value in raw.items() if key != "status"},
                "application/merge-patch+json",
            )
        assert status < 300, said
        if "status" in raw:
            status, said = self._ask(
                "PATCH", f"{at}/{name}/status", {"status": raw["status"]}, "application/merge-patch+json"
            )
            assert status < 300, said
        return dict(said)

    def get(self, kind: str, name: str, namespace: str = "") -> Json:
        status, said = self._ask("GET", f"{self._at(kind, namespace)}/{name}")
        assert status == 200, said
        return dict(said)

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        status, said = self._ask("DELETE", f"{self._at(kind, namespace)}/{name}?gracePeriodSeconds=0")
        assert status < 300, said

    @staticmethod
    def _at(kind: str, namespace: str) -> str:
        plural = PLURALS.get(kind, f"{kind.lower()}s")
        base = "/apis/rbac.authorization.k8s.io/v1" if kind.startswith("ClusterRole") else "/api/v1"
        base = "/apis/networking.k8s.io/v1" if kind == "NetworkPolicy" else base
        return f"{base}/namespaces/{namespace}/{plural}" if namespace else f"{base}/{plural}"


@dataclass
class KubeCluster(Cluster):
    """Hosts of a Kubernetes cluster, which have two podCIDRs each once they are registered."""

    server: type[Played | Real] = Played

    def __enter__(self) -> Self:
        self.folder = Path("/run/hosts-etc") / f"{self.switch.name}-kube"
        shutil.rmtree(self.etcd.folder)
        self.folder.mkdir(parents=True)
        self.api: Server = self.server(self.keepers[0], self.folder)
        for host in self.nodes:
            self.register(host)
        self.answers.__enter__()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.api.close()
        super().__exit__(kind)
        shutil.rmtree(self.folder)

    def register(self, host: Node) -> None:
        """Have a host be a Node, with addresses for its pods."""
        cidrs = (f"10.10.{host.number}.0/24", f"fd00:10::{host.number:x}00/120")
        self.api.put(node(host.name, *cidrs, address=host.underlay()))

    def attached(self, node: Node, conf: dict[str, Any], pod: Pod, **options: Any) -> dict[str, Any]:
        """As kubelet does: again where the host has no block yet, for the first of a network has it declared and listed."""
        if node.transcript:
            node.transcript.drop()  # how often is the machine's
        answers = list[Answer]()

        def is_there() -> bool:
            answers.append(node.cni("ADD", conf, pod, **options))
            return answers[-1].code == 0 or json.loads(answers[-1].stdout)["code"] != TryAgainLater.code

        eventually(is_there)
        return answers[-1].ok()

    def configure(self, host: Node, **options: Any) -> None:
        known = {"node": host.name, "kubernetes": self.api.config, "vtep": host.underlay(), "session": self.session}
        said = {key: value for key, value in (known | options).items() if value is not None}
        (host.etc / "agent-cni/cluster.json").write_text(json.dumps(said))

    def alive(self, host: Node) -> bool:
        return "agent-cni.dev/session" in (self.api.get("Node", host.name)["metadata"].get("annotations") or {})

    def written(self) -> list[str]:
        return []

    def listing(self) -> list[Item]:
        config = KubernetesConfig(**self.api.config)
        listing = within(self.keepers[0], lambda: KubernetesStore(config, "", 15).listing())
        assert not listing.refused, listing.refused
        return list(listing.items)

    def show(self, placed: Placed, name: str, namespace: str = "default", **labels: str) -> Json:
        """Have the API know of a pod what its kubelet would say."""
        return self.api.put(pod(name, placed.host.name, *placed.addresses, namespace=namespace, **labels))
