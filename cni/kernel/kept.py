"""What a process keeps for its next question or call: each kind registers here, and is let go here."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cni.kernel import netns


class _Closing(Protocol):
    def close(self) -> None: ...


#: Whether this process serves many calls.
serves_many = False

T = TypeVar("T", bound=_Closing)

_OF_A_KEY = 2


class Kept:
    """A kind of thing that holds descriptors; for the main thread only."""

    def __init__(self) -> None:
        _every.append(self)

    def let_go(self) -> None:
        """Give up what is of another namespace than that this process lives in."""

    def close(self) -> None:
        """Give up all of it; what is asked for next is made again."""
        raise NotImplementedError


class PerNamespace(Kept, Generic[T]):
    """One in each namespace this process asked; it keeps the namespace alive. What is not `fit` any more is closed, and made again."""

    def __init__(self, make: Callable[[], T], fit: Callable[[T], bool] = lambda _: True) -> None:
        super().__init__()
        self._make, self._fit = make, fit
        self._by_inode: dict[int, T] = {}

    def here(self) -> T:
        """That of the namespace this thread is in."""
        place = Path(netns.OWN).stat().st_ino
        if place in self._by_inode and not self._fit(self._by_inode[place]):
            self._by_inode.pop(place).close()
        if place not in self._by_inode:
            self._by_inode[place] = self._make()
        return self._by_inode[place]

    def let_go(self) -> None:
        _, own = netns.home()
        for place in [place for place in self._by_inode if place != own]:
            self._by_inode.pop(place).close()

    def close(self) -> None:
        while self._by_inode:
            self._by_inode.popitem()[1].close()


class Spare(Kept, Generic[T]):
    """What one user at a time has, by what tells it apart: taken, and given back for the next. Two of a key are kept, for who has one and
    asks for another meanwhile, each for the same user again; `most` in all.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._by_key: dict[tuple[Hashable, int], T] = {}

    def take(self, key: Hashable) -> T | None:
        """The one that was given back last, for this user alone."""
        for nth in reversed(range(_OF_A_KEY)):
            if (item := self._by_key.pop((key, nth), None)) is not None:
                return item
        return None

    def give_back(self, key: Hashable, item: T) -> None:
        """Keep it for the next user, instead of who was given back longest ago; a third of one key is closed."""
        if not any(self._by_key.setdefault((key, nth), item) is item for nth in range(_OF_A_KEY)):
            item.close()
        for oldest in list(self._by_key)[: -self._most]:
            if spare := self._by_key.pop(oldest, None):  # else another thread has it
                spare.close()

    def close(self) -> None:
        while self._by_key:
            self._by_key.popitem()[1].close()


class Single(Kept, Generic[T]):
    """One for the process, made when it is asked for first, and again when it is not `fit` any more."""

    def __init__(self, make: Callable[[], T], fit: Callable[[T], bool] = lambda _: True) -> None:
        super().__init__()
        self._make, self._fit = make, fit
        self._made: T | None = None

    def get(self) -> T:
        """The one."""
        if self._made is not None and not self._fit(self._made):
            self.close()
        if self._made is None:
            self._made = self._make()
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None


_every: list[Kept] = []


def let_go() -> None:
    """Give up every other namespace than that this process lives in: a pod's would stay alive after its DEL."""
    for kind in _every:
        kind.let_go()


def close() -> None:
    """Give up everything."""
    for kind in _every:
        kind.close()
