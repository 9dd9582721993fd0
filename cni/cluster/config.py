"""What a host is told of its cluster: /etc/agent-cni/cluster.json, by the schema beside this file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from cni.errors import InvalidConfig, Unavailable
from cni.kernel.writing import put_whole
from cni.protocol.addresses import address
from cni.protocol.config import read_by
from cni.protocol.schema import Schema
from cni.values import dataclass

#: Where a host has its own.
PATH = Path("/etc/agent-cni/cluster.json")
_SCHEMA = Path(__file__).with_name("cluster.schema.json")
#: What a host's name is before it was given one.
_NO_NAMES = ("", "localhost", "localhost.localdomain", "(none)")
#: Half of freeAfter is to be longer than a session may go unheard.
_SESSIONS_OF_FREE_AFTER = 4


@dataclass(frozen=True)
class EtcdConfig:
    """How etcd is reached: URLs, files of TLS and of the user's password, and what all keys begin with; empty: none."""

    endpoints: tuple[str, ...]
    cacert: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password_file: str = ""
    prefix: str = "/agent-cni"

    @property
    def files(self) -> tuple[str, ...]:
        """What this host must be able to read for it."""
        return tuple(filter(None, (self.cacert, self.cert, self.key, self.password_file)))

    #: Any process of the host can.
    is_for_pods: ClassVar[bool] = False

    def __str__(self) -> str:
        return f"etcd at {', '.join(self.endpoints)}"


@dataclass(frozen=True)
class KubernetesConfig:
    """How the Kubernetes API is reached: URL, and files of TLS and of a bearer token; empty: those a pod is given."""

    server: str = ""
    token: str = ""
    cacert: str = ""
    cert: str = ""
    key: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """What this host must be able to read for it."""
        return tuple(filter(None, (self.token, self.cacert, self.cert, self.key)))

    @property
    def is_for_pods(self) -> bool:
        """Whether only a pod can ask, and this process is of none."""
        return not (self.server or os.environ.get("KUBERNETES_SERVICE_HOST"))

    def __str__(self) -> str:
        return f"the Kubernetes API{self.server and f' at {self.server}'}"


#: What the cluster's store may be, by the key that says so.
_STORES = ("etcd", "kubernetes")


@dataclass(frozen=True)
class ClusterConfig:
    """A host's part in a cluster. `uplinks` are links, those to be preferred first; `session` and `free_after` are seconds, `metrics` is
    HOST:PORT, `conflists` a folder; empty and 0 are: none, or found out.
    """

    node: str
    store: EtcdConfig | KubernetesConfig
    vtep: str = ""
    uplinks: tuple[str, ...] = ()
    session: int = 15
    free_after: int = 0
    encryption: str = ""
    wireguard_port: int = 51820
    metrics: str = ""
    metrics_cert: str = ""
    metrics_key: str = ""
    metrics_client_ca: str = ""
    conflists: str = ""

    @classmethod
    def load(cls, path: Path = PATH) -> ClusterConfig:
        """What a file says. Raises Unavailable where there is none, and InvalidConfig naming file and keys."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise Unavailable(
                f"this host is in no cluster, there is no {path}: agent-cni join --etcd URL, or --kubernetes"
            ) from None
        document, found = read(text)
        if found:
            raise InvalidConfig(f"{path}: {'; '.join(found)}")
        return cls.of(document)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ClusterConfig:
        """What a document says in which nothing is wrong. Raises InvalidConfig where neither it nor the host has a name."""
        said = {name: value for name, value in document.items() if value != ""}
        kind = next(name for name in _STORES if name in said)
        where = {_FIELDS.get(name, name): value for name, value in said[kind].items() if value != ""}
        rest = {_FIELDS.get(name, name): value for name, value in said.items() if name not in ("node", kind)}
        rest |= {"uplinks": tuple(rest["uplinks"])} if "uplinks" in rest else {}
        if kind == "etcd":
            where |= {"endpoints": tuple(where["endpoints"])}
            return cls(said.get("node") or host_name(), EtcdConfig(**where), **rest)
        return cls(said.get("node") or node_name(), KubernetesConfig(**where), **rest)

    @property
    def document(self) -> dict[str, Any]:
        """As the file says it: what is not the default."""
        store: dict[str, Any]
        if isinstance(self.store, EtcdConfig):
            etcd = _given(self.store, EtcdConfig(())) | {"endpoints": list(self.store.endpoints)}
            store = {"etcd": etcd}
        else:
            store = {"kubernetes": _given(self.store, KubernetesConfig())}
        rest = _given(self, ClusterConfig(self.node, self.store))
        rest |= {"uplinks": list(self.uplinks)} if self.uplinks else {}
        return {"node": self.node} | store | rest

    def write(self, path: Path = PATH) -> None:
        """Have a file say it, in one rename; it is root's alone."""
        write(path, json.dumps(self.document, indent=2) + "\n")


def write(path: Path, text: str) -> None:
    """Give a file a text, in one rename; it is root's alone."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    put_whole(path, text, 0o600)


def read(text: bytes) -> tuple[dict[str, Any], list[str]]:
    """A document, and all that is wrong with it, each line with its JSON path."""
    said, found = read_by(text, schema())
    return said, found or list(_contradictions(said))


def host_name() -> str:
    """The host's own name, by which it is known in a cluster unless it is told another. Raises InvalidConfig where it has none."""
    name = os.uname().nodename
    if name.lower() in _NO_NAMES:
        raise InvalidConfig(f"$.node: this host has no name ({name!r}) others could know it by: give it one")
    return name


def node_name() -> str:
    """What kubelet calls this host, as far as nobody said it here: the pod is told (``NODE_NAME``), or it is the host's own name in small
    letters. Raises InvalidConfig where it has none.
    """
    return os.environ.get("NODE_NAME") or host_name().lower()


@cache
def schema() -> Schema:
    """What the file may say."""
    return dict(json.loads(_SCHEMA.read_text()))


#: Keys and fields that are spelled differently.
_FIELDS = {
    "passwordFile": "password_file", "freeAfter": "free_after", "wireguardPort": "wireguard_port",
    "metricsCert": "metrics_cert", "metricsKey": "metrics_key", "metricsClientCa": "metrics_client_ca",
}  # fmt: skip
_KEYS = {name: key for key, name in _FIELDS.items()}


def _given(config: object, defaults: object) -> dict[str, Any]:
    known = vars(defaults)
    return {_KEYS.get(name, name): value for name, value in vars(config).items() if value != known[name]}


def _contradictions(document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with keys that are right one by one."""
    stores = [name for name in _STORES if name in document]
    if len(stores) != 1:
        said = " and ".join(f"$.{name}" for name in stores)
        yield (
            f"{said}: a cluster has one store"
            if said
            else "$: neither etcd nor kubernetes: where is the cluster's store?"
        )
        return
    yield from _contradictions_of_store(stores[0], document[stores[0]])
    yield from _contradictions_of_metrics(document)
    free_after = document.get("freeAfter", 0)
    least = _SESSIONS_OF_FREE_AFTER * document.get("session", ClusterConfig.session)
    if 0 < free_after < least:
        yield f"$.freeAfter: {free_after} s is less than {_SESSIONS_OF_FREE_AFTER} sessions, {least} s"
    if free_after and stores == ["kubernetes"]:
        yield "$.freeAfter: it is Kubernetes that gives nodes their addresses, and frees them: kubectl delete node"
    if "vtep" in document and not is_a_hosts(document["vtep"]):
        yield f"$.vtep: {document['vtep']} is no address others can send to"
    if "vtep" in document and "uplinks" in document:
        yield "$.vtep: excludes uplinks, each of which has an address of its own"


def _contradictions_of_metrics(document: Mapping[str, Any]) -> Iterator[str]:
    for key, other in (
        ("metricsCert", "metricsKey"), ("metricsKey", "metricsCert"), ("metricsClientCa", "metricsCert"), ("metricsCert", "metrics"),
    ):  # fmt: skip
        if key in document and other not in document:
            yield f"$.{other}: missing, and $.{key} is of no use without it"
    place = document.get("metrics", "")
    if place and "metricsClientCa" not in document and not address(place.rpartition(":")[0].strip("[]")).is_loopback:
        yield f"$.metrics: {place!r} is no loopback address and port, such as 127.0.0.1:9402; any other needs metricsClientCa: who may ask"


def _contradictions_of_store(kind: str, store: Mapping[str, Any]) -> Iterator[str]:
    for one, other in (("cert", "key"), ("user", "passwordFile")):
        for given, missing in ((one, other), (other, one)):
            if given in store and missing not in store:
                yield f"$.{kind}.{missing}: missing, and $.{kind}.{given} is of no use without it"
    urls = store["endpoints"] if kind == "etcd" else [store.get("server", "")]
    at = f"$.{kind}.{'endpoints' if kind == 'etcd' else 'server'}"
    plain = [url for url in urls if url.startswith("http:")]
    if plain and any(key in store for key in ("cacert", "cert", "key")):
        yield f"{at}: {plain[0]} is without TLS, for which certificates are given: https"


def is_a_hosts(text: str) -> bool:
    """Whether others can send to an address."""
    found = address(text)
    return not (found.is_loopback or found.is_multicast or found.is_unspecified or found.is_reserved)
