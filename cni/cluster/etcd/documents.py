"""What operators say for all hosts, in etcd."""

from __future__ import annotations

from collections.abc import Sequence

from cni.cluster.document import Document
from cni.cluster.etcd.engine import Engine
from cni.cluster.etcd.gateway import delete, encoded, is_at, put
from cni.cluster.model import Key


class Documents(Engine):
    """See ClusterStore."""

    def apply(self, documents: Sequence[Document]) -> int:
        """See ClusterStore."""
        return sum(self._is_written(item.key, item) for item in documents)

    def delete(self, documents: Sequence[Key]) -> int:
        """See ClusterStore."""
        return sum(self._is_written(key, None) for key in documents)

    def _is_written(self, key: Key, document: Document | None) -> bool:
        """Whether a key says something else than it did; a write whose answer was lost is found to be done."""
        at, attempts, begun = self.keys.of(key), self.attempts(), False
        while True:
            attempts.begin()
            (seen,) = self.look(key)
            if (seen.value == encoded(document.value) if document else False) if seen else document is None:
                return begun
            begun = True
            as_seen = is_at(at, modified=seen.modified) if seen else is_at(at, created=0)
            if attempts.write([as_seen], [put(at, document.value) if document else delete(at)]):
                return True
