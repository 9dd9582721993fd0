"""What an operator says for all hosts of a cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from cni.decoding import decoded
from cni.values import dataclass

if TYPE_CHECKING:
    from cni.cluster.model import Key


@dataclass(frozen=True)
class Document:
    """A Kubernetes object that policies are made of, as an operator said it: `text` is JSON, or what stands in its place. Whether it is
    right each host judges.
    """

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
    def value(self) -> Any:
        """What the store holds of it, as JSON; the text itself where it is none."""
        try:
            return decoded(self.text.encode())
        except ValueError:
            return self.text

    @classmethod
    def read(cls, key: Key, raw: object) -> Document:
        """What a store holds."""
        _, kind, namespace, name = key
        text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        return cls(kind, namespace, name, text if isinstance(text, str) else json.dumps(raw))
