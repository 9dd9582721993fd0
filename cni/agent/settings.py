"""What the node agent is told: /etc/agent-cni/agent.json, by the schema beside this file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from cni.errors import InvalidConfig, Unavailable
from cni.log import FOLDER
from cni.protocol.config import read_by
from cni.protocol.schema import Schema
from cni.values import dataclass

#: Where a host has its own, if it has one.
PATH = Path("/etc/agent-cni/agent.json")
_SCHEMA = Path(__file__).with_name("agent.schema.json")


@dataclass(frozen=True)
class Otlp:
    """Where spans and flows are sent: a URL, and files of TLS; empty: none."""

    endpoint: str
    cacert: str = ""
    cert: str = ""
    key: str = ""

    @property
    def url(self) -> str:
        """Where it takes them."""
        return f"{self.endpoint.rstrip('/')}/v1/traces"

    @property
    def logs(self) -> str:
        """Where it takes log records, which flows are."""
        return f"{self.endpoint.rstrip('/')}/v1/logs"

    @property
    def files(self) -> tuple[str, ...]:
        """What this host must be able to read for it."""
        return tuple(filter(None, (self.cacert, self.cert, self.key)))


@dataclass(frozen=True)
class Flows:
    """Where the recorder of flows keeps them, of how much of the disk, in MiB, and whether it sends them to the collector, where there is one."""

    folder: Path = FOLDER / "flows"
    size: int = 64
    export: bool = True


@dataclass(frozen=True)
class Settings:
    """All that may be said of an agent, and of the recorder; `records`: something is said of that."""

    otlp: Otlp | None = None
    flows: Flows = Flows()
    records: bool = False

    @classmethod
    def load(cls, path: Path = PATH) -> Settings:
        """What a file says; nothing where there is none at the usual place. Raises Unavailable where there is none at another, and
        InvalidConfig naming file and keys.
        """
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            if path == PATH:
                return cls()
            raise Unavailable(f"there is no {path}") from None
        document, found = read(text)
        if found:
            raise InvalidConfig(f"{path}: {'; '.join(found)}")
        otlp = Otlp(**document["otlp"]) if "otlp" in document else None
        said = document.get("flows", {})
        return cls(otlp, Flows(**said | {"folder": Path(said.get("folder", Flows.folder))}), "flows" in document)


def read(text: bytes) -> tuple[dict[str, Any], list[str]]:
    """A document, and all that is wrong with it, each line with its JSON path."""
    said, found = read_by(text, _schema())
    otlp = said.get("otlp", {})
    if found or not otlp:
        return said, found
    for one, other in (("cert", "key"), ("key", "cert")):
        if one in otlp and other not in otlp:
            found.append(f"$.otlp.{other}: missing, and $.otlp.{one} is of no use without it")
    if otlp["endpoint"].startswith("http:") and otlp.keys() & {"cacert", "cert", "key"}:
        found.append(f"$.otlp.endpoint: {otlp['endpoint']} is without TLS, for which certificates are given: https")
    return said, found


@cache
def _schema() -> Schema:
    return dict(json.loads(_SCHEMA.read_text()))
