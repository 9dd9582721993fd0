"""What an operator says for all hosts of a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cni.values import dataclass

if TYPE_CHECKING:
    from cni.cluster.model import Key


@dataclass(frozen=True)
class Document:
    """A Kubernetes object that policies are made of, as an operator said it: `text` is JSON. Whether it is right each host judges."""

    kind: str
    namespace: str
    name: str
    text: str

    room: ClassVar[str] = "documents"

    @property
    def key(self) -> Key:
        """Where it is in the store."""
        return self.room, self.kind, self.namespace, self.name

    @property
    def value(self) -> dict[str, Any]:
        """What the store holds of it, as JSON."""
        return dict(json.loads(self.text))

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Document:
        """What a store holds."""
        _, kind, namespace, name = key
        return cls(kind, namespace, name, json.dumps(raw))
