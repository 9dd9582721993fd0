"""A folder's state as one object, and the node's, which is that of all its folders together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from cni.errors import CniError, Unavailable
from cni.kernel.files import PATIENCE, private_folder, refuse_strangers
from cni.naming import Attachment
from cni.state import uses
from cni.state.file import busy
from cni.state.layout import VERSION
from cni.state.leases import Leases
from cni.state.records import Record
from cni.state.uses import DEFAULT_FOLDER, Uses

FILE = "state.db"

T = TypeVar("T")


class Store(Uses, Leases):
    """The state file of one folder, open."""

    @classmethod
    def open(cls, folder: Path, patience: float = PATIENCE) -> Store:
        """Open the state file of a folder, making both where they are missing."""
        path = _writable(folder) / FILE
        store = cls(path, patience)
        with store.closed_if_it_fails():
            store._bring_up(patience)
        return store

    @classmethod
    def reading(cls, folder: Path) -> Store | None:
        """Open without locks and without making anything, but for a file of an earlier release, which is brought up to this
        one; None where there is no state yet.
        """
        try:
            (folder / FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unavailable(f"the state folder {folder} cannot be read: {error.strerror}") from None
        refuse_strangers(folder)
        store = cls(folder / FILE, patience=1)
        with store.closed_if_it_fails():
            if store.layout():
                store._bring_up(patience=1)
                return store
        store.close()
        return None

    def close(self) -> None:
        """Give up every lock, those in the other folders that were asked too."""
        for other in self.__dict__.pop("_elsewhere", None) or ():
            other.close()
        super().close()

    def open_elsewhere(self) -> None:
        """Open the other folders' files: who asks the node within a transaction is not to wait for that."""
        _ = self._elsewhere

    def is_used_on_node(self, place: str) -> bool:
        """Whether anybody is known to have it, whichever folder says so. A no is worth something only without `unasked`."""
        return any(self._told(lambda store: store.is_used(place)))

    def used_elsewhere(self, places: Iterable[str]) -> set[str]:
        """Which of several places anybody is known to have whose state is in another folder; see `unasked`."""
        wanted = set(places)
        found = self._told_elsewhere(lambda store: {place for place in wanted if store.is_used(place)})
        return set().union(*found) if wanted else set()

    def users_on_node(self, places: Iterable[str]) -> list[Record]:
        """The records of all folders that have one of several."""
        wanted = tuple(places)
        return [record for found in self._told(lambda store: store.users(wanted)) for record in found]

    def used_like_on_node(self, beginning: str) -> list[tuple[str, Attachment]]:
        """Each place of all folders that begins so, with one who has it."""
        return [place for found in self._told(lambda store: store.used_like(beginning)) for place in found]

    @property
    def unasked(self) -> list[str]:
        """Why who uses what is not wholly known: a line for each other folder that could not be asked so far."""
        return list(dict.fromkeys(self._unasked))

    def _told(self, question: Callable[[Store], T]) -> Iterator[T]:
        """What each folder answers."""
        yield question(self)
        yield from self._told_elsewhere(question)

    def _told_elsewhere(self, question: Callable[[Store], T]) -> Iterator[T]:
        """What the others answer. One that is damaged keeps what is shared, and stops nobody's ADD or DEL."""
        for other in self._elsewhere:
            try:
                answer = question(other)
            except CniError as error:
                self._unasked.append(error.msg)
                continue
            yield answer

    @cached_property
    def _unasked(self) -> list[str]:
        return []

    @cached_property
    def _elsewhere(self) -> tuple[Store, ...]:
        return tuple(self._others())

    def _others(self) -> Iterator[Store]:
        try:
            for folder in uses.other_folders(self.path.parent):
                try:
                    if store := Store.reading(folder):
                        yield store
                except CniError as error:
                    self._unasked.append(error.msg)
        except Unavailable as error:
            self._unasked.append(error.msg)

    def _bring_up(self, patience: float) -> None:
        if self.layout() != VERSION:
            with self.lock.exclusive("0", str(self.path), patience), busy(self.path):
                self.prepare()


def _writable(folder: Path) -> Path:
    try:
        private_folder(folder)
        uses.registered(folder)
    except OSError as error:
        raise Unavailable(f"the state folder {folder} cannot be used: {error.strerror}") from None
    return folder


__all__ = ["DEFAULT_FOLDER", "FILE", "Store"]
