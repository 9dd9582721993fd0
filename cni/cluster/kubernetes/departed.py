"""Nodes that were deleted: their blocks are free when the API said so twice, ten minutes apart, and no pod shows that one lives there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cni.cluster.kubernetes.api import Api
from cni.cluster.kubernetes.items import addresses_of
from cni.cluster.kubernetes.objects import NODES, PODS, Pod
from cni.errors import TryAgainLater
from cni.kernel.clock import boottime

#: Between the two times, in seconds.
APART = 600.0


class Departed:
    """They. `clock` is in seconds."""

    def __init__(self, api: Api, clock: Callable[[], float] = boottime) -> None:
        self._api, self._clock = api, clock
        self._since: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._since

    def left(self, name: str) -> None:
        """A Node is deleted."""
        self._since.setdefault(name, self._clock())

    def back(self, name: str) -> None:
        """It is there, or is to be waited for no more."""
        self._since.pop(name, None)

    def over(self) -> Iterator[str]:
        """Those who are gone for good. One that is not, and where nobody can say so, is looked at again after as long."""
        now = self._clock()
        for name in [name for name, since in self._since.items() if now - since >= APART]:
            self._since[name] = now
            try:
                is_gone = self._api.get(NODES, name) is None and not self._lives(name)
            except TryAgainLater:
                continue
            if is_gone:
                yield name

    def _lives(self, name: str) -> bool:
        pods = self._api.list(PODS, fieldSelector=f"spec.nodeName={name}").objects
        return any(isinstance(pod, Pod) and addresses_of(pod) for pod in pods)
