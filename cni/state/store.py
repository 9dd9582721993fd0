"""A folder's state as one object, and the node's, which is that of all its folders together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from cni.errors import Busy, CniError, Unavailable
from cni.kernel.files import private_folder, refuse_strangers
from cni.kernel.locks import PATIENCE
from cni.naming import Attachment, IPAddress, digest_of
from cni.resources import Resource, Said
from cni.state import uses
from cni.state.boots import Boots
from cni.state.census import Census
from cni.state.clustered import Clustered
from cni.state.configured import Configured, Place, is_of_cluster
from cni.state.copies import Copies
from cni.state.fed import Feeding
from cni.state.file import busy
from cni.state.layout import VERSION
from cni.state.leases import Leases
from cni.state.records import Record
from cni.state.uses import DEFAULT_FOLDER, Uses
from cni.state.writers import Writers
from cni.values import replace

FILE = "state.db"
_PLANNING = digest_of("planning")
_SET = "PeerSet "  # of the kind, which is not loaded where nobody has one (`key_of`)

T = TypeVar("T")


class Store(Writers, Boots, Uses, Leases, Configured, Clustered, Copies, Census, Feeding):
    """The state file of one folder, open."""

    @classmethod
    def open(cls, folder: Path, patience: float = PATIENCE) -> Store:
        """Open the state file of a folder, making both where they are missing."""
        path = _writable(folder) / FILE
        store = cls(path, patience)
        with store.closed_if_it_fails():
            store._bring_up(patience)
            if not store.is_of_this_boot():
                with store.transaction():
                    store.outlive()
        return store

    @classmethod
    def reading(cls, folder: Path) -> Store | None:
        """Open without locks and without changing anything: a file of an earlier release or boot is read as the next call of
        its own will leave it. None where there is no state yet.
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
            if version := store.layout():
                if version != VERSION or not store.is_of_this_boot():
                    store.copy()
                    store.prepare()
                    store.outlive()
                return store
        store.close()
        return None

    def forget(self, attachment: Attachment, plugin: str) -> None:
        """Delete a record with its leases, those in the name of its link too, and have no other host know of them."""
        for one in (attachment, attachment.nameless):
            super().forget(one, plugin)
            self.unsay(one, plugin)

    def release(self, network: str, address: IPAddress) -> None:
        """Give back one address, whoever holds it, and have no other host know of it."""
        super().release(network, address)
        self.unsay_address(network, address)

    def outlive(self) -> None:
        """Forget what did not outlive a boot. Which blocks are this host's the cluster says anew, and who it is its member."""
        if not self.is_of_this_boot():
            super().outlive()
            self.begin_anew()

    def close(self) -> None:
        """Give up every lock, and the other folders that were asked."""
        self._close_elsewhere()
        if "lock" in self.__dict__:
            self.lock.close()
        super().close()

    @contextmanager
    def planning(self) -> Iterator[None]:
        """A transaction beside which nobody else on the node plans: of two that want the same thing one sees the other,
        whatever folders they are in.
        """
        if self._db.in_transaction:
            yield
            return
        with self.lock.exclusive(_PLANNING, "what is planned on this node", self.patience):
            self.look_elsewhere()
            with self.transaction():
                yield
                self.testify()

    def doubt_copy(self) -> None:
        """Give nothing of any block, if this is an older copy, before the member has asked which pods live."""
        with self.planning():
            if self.is_older():
                self.doubt_blocks()
                self.count_given()

    def look_elsewhere(self) -> None:
        """Open the files of the other folders there are now, and of no others: who asked before may have missed one."""
        self._close_elsewhere()
        _ = self._elsewhere

    def is_used_on_node(self, place: str) -> bool:
        """Whether anybody is known to have it, whichever folder says so. A no is worth something only without `unasked`."""
        return any(self._told(lambda store: store.is_used(place)))

    def used_elsewhere(self, places: Iterable[str]) -> set[str]:
        """Which of several places anybody is known to have whose state is in another folder; see `unasked`."""
        wanted = set(places)
        found = self._told_elsewhere(lambda store: {place for place in wanted if store.is_used(place)})
        return set().union(*found) if wanted else set()

    def records_on_node(self) -> list[Record] | None:
        """The records of all folders there are now; None where one cannot be read."""
        self.look_elsewhere()
        found = [record for records in self._told(lambda store: store.records()) for record in records]
        return None if self._unasked else found

    def users_on_node(self, places: Iterable[str]) -> list[Record]:
        """The records of all folders that have one of several."""
        wanted = tuple(places)
        return [record for found in self._told(lambda store: store.users(wanted)) for record in found]

    def resting_on_node(self, place: str, but: Attachment) -> Iterator[Record]:
        """The records of all folders that have a place, `but` one attachment's and of those no call is at; none begins
        while its record is looked at. Nobody is waited for.
        """
        for store, found in self._told(lambda store: (store, store.users((place,)))):
            for record in found:
                attachment = record.attachment
                with suppress(Busy):
                    if attachment != but:
                        with self.lock.exclusive(attachment.digest, str(attachment), patience=0):
                            yield from filter(None, [store.record(attachment, record.plugin)])

    def used_like_on_node(self, beginning: str) -> list[tuple[str, Attachment]]:
        """Each place of all folders that begins so, with one who has it."""
        return [place for found in self._told(lambda store: store.used_like(beginning)) for place in found]

    def places_on_node(self, beginning: str) -> list[str]:
        """Each place of all folders that begins so."""
        return list(
            dict.fromkeys(place for found in self._told(lambda store: store.places_like(beginning)) for place in found)
        )

    def sets_in_use(self) -> list[str]:
        """What sets of peers somebody has in any folder there is now: selection, family and namespace, as the place of each says it."""
        self.look_elsewhere()
        return [place.removeprefix(_SET) for place in self.places_on_node(_SET)]

    def said_on_node(self, besides: Iterable[Place]) -> list[Said]:
        """What the networks of all folders say now, but of some places of this one."""
        elsewhere = self._told_elsewhere(lambda store: store.said().values())
        return [*self.said(besides).values(), *(said for found in elsewhere for said in found)]

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

    def _close_elsewhere(self) -> None:
        for other in self.__dict__.pop("_elsewhere", ()):
            other.close()
        self.__dict__.pop("_unasked", None)

    def _here(self, resources: Sequence[Resource]) -> Sequence[Resource]:
        """A host may have moved since a network's last ADD: its devices are where the member is."""
        if not any(is_of_cluster(item) for item in resources) or not (member := self.member()):
            return resources
        from cni.resources import VxlanLink  # which is loaded: there is one

        return [
            replace(item, local=member.vtep, mac=member.mac) if isinstance(item, VxlanLink) and item.mac else item
            for item in resources
        ]

    def _bring_up(self, patience: float) -> None:
        if self.layout() != VERSION:
            with self.lock.exclusive("0", str(self.path), patience), busy(self.path):
                self.prepare()


class Owners:
    """Whose each address is, asked again and again: a folder of which nothing became another says what it said."""

    def __init__(self) -> None:
        self._said: dict[Path, tuple[object, dict[str, str]]] = {}
        self._together: dict[str, str] = {}

    def __call__(self) -> Mapping[str, str]:
        """See `owners_on_node`; the very same answer as before while that would be equal."""
        said = {folder: answer for folder in _folders() if (answer := self._asked(folder))}
        if said != self._said:
            self._said, self._together = said, _together(owners for _, owners in said.values())
        return self._together

    def _asked(self, folder: Path) -> tuple[object, dict[str, str]] | None:
        with suppress(CniError):
            if store := Store.reading(folder):
                with closing(store):
                    version, known = store.version, self._said.get(folder)
                    return known if known and known[0] == version else (version, store.owners())
        return None


def owners_on_node() -> Mapping[str, str]:
    """Whose each address is that an attachment of this node has, whatever folder its state is in (see `Uses.owners`); one that cannot
    be read says nothing.
    """
    return Owners()()


def _folders() -> Iterator[Path]:
    yield uses.DEFAULT_FOLDER
    yield from uses.other_folders(uses.DEFAULT_FOLDER)


def _together(folders: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What several say; what two have is nobody's."""
    found: dict[str, str] = {}
    for owners in folders:
        for address, pod in owners.items():
            found[address] = pod if found.get(address, pod) == pod else ""
    return found


def _writable(folder: Path) -> Path:
    try:
        private_folder(folder)
        uses.registered(folder)
    except OSError as error:
        raise Unavailable(f"the state folder {folder} cannot be used: {error.strerror}") from None
    return folder


__all__ = ["DEFAULT_FOLDER", "FILE", "Owners", "Store", "owners_on_node"]
