"""What a process keeps of namespaces for its next question or call, and how it is let go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from cni.kernel import netns


class _Closing(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closing)


class PerNamespace(Generic[T]):
    """One of a kind in each namespace this process asked; it keeps the namespace alive. For the main thread only.

    What is not `fit` any more is closed, and made again.
    """

    def __init__(self, make: Callable[[], T], fit: Callable[[T], bool] = lambda _: True) -> None:
        self._make, self._fit = make, fit
        self._by_inode: dict[int, T] = {}
        _every.append(self)

    def here(self) -> T:
        """That of the namespace this thread is in."""
        place = Path(netns.OWN).stat().st_ino
        if place in self._by_inode and not self._fit(self._by_inode[place]):
            self._by_inode.pop(place).close()
        if place not in self._by_inode:
            self._by_inode[place] = self._make()
        return self._by_inode[place]

    def let_go(self) -> None:
        """Close all but that of the namespace this process lives in."""
        _, own = netns.home()
        for place in [place for place in self._by_inode if place != own]:
            self._by_inode.pop(place).close()


_every: list[PerNamespace[Any]] = []


def let_go() -> None:
    """Give up every other namespace than that this process lives in: a pod's would stay alive after its DEL."""
    for kind in _every:
        kind.let_go()
