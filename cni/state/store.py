"""A folder's state as one object, and the node's, which is that of all its folders together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

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


class Store(Uses, Leases):
    """The state file of one folder, open."""

    _blind = False

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
        if not (folder / FILE).exists():
            return None
        refuse_strangers(folder)
        store = cls(folder / FILE, patience=1)
        with store.closed_if_it_fails():
            if store.layout():
                store._bring_up(patience=1)
                return store
        store.close()
        return None

    def close(self) -> None:
        """Give up every lock; this folder's file is kept, the others' are not."""
        for other in self.__dict__.pop("_elsewhere", None) or ():
            other.close()
        super().close()

    def is_used_on_node(self, place: str) -> bool:
        """Whether anybody has it, whichever folder says so. What cannot be asked has it: nothing is taken from it."""
        return self.is_used(place) or any(other.is_used(place) for other in self._elsewhere) or self._blind

    def users_on_node(self, places: Iterable[str]) -> list[Record]:
        """The records of all folders that have one of several."""
        wanted = tuple(places)
        return [record for store in (self, *self._elsewhere) for record in store.users(wanted)]

    def used_like_on_node(self, beginning: str) -> list[tuple[str, Attachment]]:
        """Each place of all folders that begins so, with one who has it."""
        return [found for store in (self, *self._elsewhere) for found in store.used_like(beginning)]

    @cached_property
    def _elsewhere(self) -> tuple[Store, ...]:
        return tuple(self._others())

    def _others(self) -> Iterator[Store]:
        """The others that can be read: one that is damaged keeps what is shared, and stops nobody's ADD."""
        for folder in uses.other_folders(self.path.parent):
            try:
                if store := Store.reading(folder):
                    yield store
            except CniError:
                self._blind = True

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
