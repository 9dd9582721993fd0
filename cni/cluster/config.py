"""What a host is told of its cluster: /etc/agent-cni/cluster.json, by the schema beside this file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cni.errors import InvalidConfig, Unavailable
from cni.protocol.addresses import address
from cni.protocol.config import faults_by
from cni.protocol.decoding import decoded
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


@dataclass(frozen=True)
class ClusterConfig:
    """A host's part in a cluster. `session` and `free_after` are seconds, `metrics` is HOST:PORT; empty and 0 are: none, or found out."""

    node: str
    etcd: EtcdConfig
    vtep: str = ""
    session: int = 15
    free_after: int = 0
    encryption: str = ""
    wireguard_port: int = 51820
    metrics: str = ""

    @classmethod
    def load(cls, path: Path = PATH) -> ClusterConfig:
        """What a file says. Raises Unavailable where there is none, and InvalidConfig naming file and keys."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise Unavailable(f"this host is in no cluster, there is no {path}: agent-cni join --etcd URL") from None
        document, found = read(text)
        if found:
            raise InvalidConfig(f"{path}: {'; '.join(found)}")
        return cls.of(document)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ClusterConfig:
        """What a document says in which nothing is wrong. Raises InvalidConfig where neither it nor the host has a name."""
        said = {name: value for name, value in document.items() if value != ""}
        etcd = {name: value for name, value in said["etcd"].items() if value != ""}
        store = EtcdConfig(tuple(etcd.pop("endpoints")), **{_FIELDS.get(name, name): etcd[name] for name in etcd})
        rest = {_FIELDS.get(name, name): value for name, value in said.items() if name not in ("node", "etcd")}
        return cls(said.get("node") or host_name(), store, **rest)

    @property
    def document(self) -> dict[str, Any]:
        """As the file says it: what is not the default."""
        etcd = _given(self.etcd, EtcdConfig(())) | {"endpoints": list(self.etcd.endpoints)}
        return {"node": self.node, "etcd": etcd} | _given(self, ClusterConfig(self.node, self.etcd))

    def write(self, path: Path = PATH) -> None:
        """Have a file say it, in one rename; it is root's alone."""
        write(path, json.dumps(self.document, indent=2) + "\n")


def write(path: Path, text: str) -> None:
    """Give a file a text, in one rename; it is root's alone."""
    from tempfile import NamedTemporaryFile  # of no use to who reads

    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:  # it is 0600
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).rename(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def read(text: bytes) -> tuple[dict[str, Any], list[str]]:
    """A document, and all that is wrong with it, each line with its JSON path."""
    try:
        document = decoded(text)
    except ValueError as error:
        return {}, [f"$: it is not JSON: {error}"]
    if not isinstance(document, dict):
        return {}, ["$: it is no JSON object"]
    said = _without_nothing(document)
    return said, [line for _, line in faults_by(said, schema())] or list(_contradictions(said))


def host_name() -> str:
    """The host's own name, by which it is known in a cluster unless it is told another. Raises InvalidConfig where it has none."""
    name = os.uname().nodename
    if name.lower() in _NO_NAMES:
        raise InvalidConfig(f"$.node: this host has no name ({name!r}) others could know it by: give it one")
    return name


@cache
def schema() -> Schema:
    """What the file may say."""
    return dict(json.loads(_SCHEMA.read_text()))


#: Keys and fields that are spelled differently.
_FIELDS = {"passwordFile": "password_file", "freeAfter": "free_after", "wireguardPort": "wireguard_port"}
_KEYS = {name: key for key, name in _FIELDS.items()}


def _given(config: object, defaults: object) -> dict[str, Any]:
    known = vars(defaults)
    return {_KEYS.get(name, name): value for name, value in vars(config).items() if value != known[name]}


def _without_nothing(value: Any) -> Any:
    """A document without keys of null or "", which say nothing."""
    if not isinstance(value, dict):
        return value
    return {key: _without_nothing(item) for key, item in value.items() if item not in (None, "")}


def _contradictions(document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with keys that are right one by one."""
    etcd = document["etcd"]
    for one, other in (("cert", "key"), ("user", "passwordFile")):
        for given, missing in ((one, other), (other, one)):
            if given in etcd and missing not in etcd:
                yield f"$.etcd.{missing}: missing, and $.etcd.{given} is of no use without it"
    plain = [url for url in etcd["endpoints"] if url.startswith("http:")]
    if plain and any(key in etcd for key in ("cacert", "cert", "key")):
        yield f"$.etcd.endpoints: {plain[0]} is without TLS, for which certificates are given: https"
    free_after = document.get("freeAfter", 0)
    least = _SESSIONS_OF_FREE_AFTER * document.get("session", ClusterConfig.session)
    if 0 < free_after < least:
        yield f"$.freeAfter: {free_after} s is less than {_SESSIONS_OF_FREE_AFTER} sessions, {least} s"
    if "vtep" in document and not _is_a_hosts(document["vtep"]):
        yield f"$.vtep: {document['vtep']} is no address others can send to"


def _is_a_hosts(text: str) -> bool:
    found = address(text)
    return not (found.is_loopback or found.is_multicast or found.is_unspecified or found.is_reserved)
