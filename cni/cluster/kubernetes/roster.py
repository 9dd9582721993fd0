"""The cluster's Nodes, those that were deleted among them: a deleted one's blocks are free when the API said so twice, ten minutes apart,
and no pod shows that one lives there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cni.cluster.kubernetes.api import Api
from cni.cluster.kubernetes.items import addresses_of
from cni.cluster.kubernetes.objects import NODES, PODS, Node, Pod
from cni.errors import TryAgainLater
from cni.kernel.clock import boottime

#: Between the two times, in seconds.
APART = 600.0


class Roster:
    """They, as far as this process heard, however often it was told anew. `clock` is in seconds."""

    def __init__(self, api: Api, clock: Callable[[], float] = boottime) -> None:
        self._api, self._clock = api, clock
        self._there: dict[str, Node] = {}
        self._left: dict[str, tuple[Node, float]] = {}

    def __iter__(self) -> Iterator[Node]:
        """Those there are."""
        return iter(self._there.values())

    def of_name(self, name: str) -> Node | None:
        """One that is there."""
        return self._there.get(name)

    @property
    def departed(self) -> list[Node]:
        """Those that were deleted, and of whom it is not sure that nobody lives there."""
        return [node for node, _ in self._left.values()]

    def has_left(self, name: str) -> bool:
        """Whether one is among the departed."""
        return name in self._left

    def listed(self, nodes: Iterable[Node]) -> None:
        """These are all there are."""
        now = {node.metadata.name: node for node in nodes}
        for name in [name for name in self._there if name not in now]:
            self.left(name)
        for node in now.values():
            self.put(node)

    def put(self, node: Node) -> None:
        """One is there, and so."""
        self._left.pop(node.metadata.name, None)
        self._there[node.metadata.name] = node

    def left(self, name: str) -> None:
        """One is deleted."""
        if node := self._there.pop(name, None):
            self._left[name] = node, self._clock()

    def forget(self, name: str) -> None:
        """A departed one is to be waited for no more."""
        self._left.pop(name, None)

    def over(self) -> Iterator[str]:
        """Those who are gone for good. One that is not, and where nobody can say so, is looked at again after as long."""
        now = self._clock()
        for name, node in [(name, node) for name, (node, since) in self._left.items() if now - since >= APART]:
            self._left[name] = node, now
            try:
                is_gone = self._api.get(NODES, name) is None and not self._lives(name)
            except TryAgainLater:
                continue
            if is_gone:
                yield name

    def _lives(self, name: str) -> bool:
        pods = self._api.list(PODS, fieldSelector=f"spec.nodeName={name}").objects
        return any(isinstance(pod, Pod) and addresses_of(pod) for pod in pods)
