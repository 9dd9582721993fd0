"""Whose an address is and was: pods of this node by their attachments, those of others by endpoints and by their objects."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from cni.errors import CniError
from cni.naming import CLUSTER
from cni.state import Store, uses
from cni.state.documents import FILE, Documents

#: So much of a container's id is what people know it by.
_SHORT = 12
#: Of so many addresses it is remembered who had them: a connection may be over long after its pod.
_REMEMBERED = 8192


class Owner(NamedTuple):
    """A pod: by its name, ``namespace/name``, empty for one that has none, and the beginning of its container's id, empty for another host's."""

    pod: str
    container: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.pod or self.container


class Whose:
    """Asked again and again; `look` goes on to what there is now."""

    def __init__(self) -> None:
        self._here: dict[bytes, Owner] = {}
        self._there: dict[bytes, str] = {}
        #: Who had an address, and until when at least.
        self._gone: dict[bytes, tuple[Owner, float]] = {}
        self._versions: dict[object, object] = {}
        self._folders: dict[Path, dict[bytes, Owner]] = {}
        self._looked = 0.0

    def __contains__(self, address: object) -> bool:
        """Whether it is, or was, of a pod of this node."""
        return address in self._here or address in self._gone

    def look(self) -> None:
        """Know what changed; of what cannot be read now what is known stays."""
        now = time.time()
        changed = False
        with suppress(CniError):
            folders = {uses.DEFAULT_FOLDER, *uses.other_folders(uses.DEFAULT_FOLDER)}
            for folder in folders | self._folders.keys():
                with suppress(CniError):
                    changed |= self._look_into(folder)
        if changed:
            self._become({address: owner for found in self._folders.values() for address, owner in found.items()})
        with suppress(CniError):
            self._look_elsewhere()
        self._looked = now

    def here(self, address: bytes, at: float = 0.0) -> Owner | None:
        """The pod of this node that has an address, or had it at a time."""
        before = self._gone.get(address)
        if before and at and at <= before[1]:
            return before[0]
        return self._here.get(address) or (before[0] if before else None)

    def called(self, address: bytes) -> str:
        """What another host's pod with an address is called; nothing where nobody knows."""
        return self._there.get(address, "")

    def _look_into(self, folder: Path) -> bool:
        store = Store.reading(folder)
        if store is None:
            return self._folders.pop(folder, None) is not None
        with closing(store):
            if self._versions.get(folder) == (version := store.version):
                return False
            self._folders[folder] = {
                _packed(address): Owner(pod, container[:_SHORT])
                for address, (pod, container) in store.tenants().items()
            }
            self._versions[folder] = version
        return True

    def _become(self, found: dict[bytes, Owner]) -> None:
        for address, owner in self._here.items():
            if found.get(address) != owner:
                self._gone.pop(address, None)  # it is the youngest now
                self._gone[address] = owner, self._looked
        for address in list(self._gone)[: max(0, len(self._gone) - _REMEMBERED)]:
            del self._gone[address]
        self._here = found

    def _look_elsewhere(self) -> None:
        if not (uses.DEFAULT_FOLDER / FILE).exists():
            return
        with closing(Documents.open(patience=1)) as documents:
            if self._versions.get(FILE) == (version := documents.version):
                return
            found = {_packed(address): name for address, name in _by_objects(documents)}
            found |= {_packed(spot[0]): f"{far.namespace}/{far.name}" for spot, far in documents.far().items()}
            self._there, self._versions[FILE] = found, version


def _by_objects(documents: Documents) -> Iterator[tuple[str, str]]:
    for feed in (CLUSTER, *documents.folders()):
        for item in documents.everything(feed):
            if item.kind == "Pod" and item.name:
                for address in json.loads(item.value or "{}").get("addresses", ()):
                    yield address, f"{item.namespace}/{item.name}"


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed
