"""Who has what several may have: shared resources, addresses, namespaces and links, asked for by index.

A node is one, however many folders its networks keep their state in: what is used is asked in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cni.errors import Unavailable
from cni.kernel.files import private_folder
from cni.naming import Attachment, digest_of
from cni.state.records import Record, Records

#: Where state is that no configuration puts elsewhere; beside it stand links to every other folder in use on this node.
DEFAULT_FOLDER = Path("/run/agent-cni")

_ADDRESSES = (
    "FROM uses JOIN attachment USING (network, container, ifname, plugin)"
    " WHERE (place BETWEEN '0' AND ';' OR place BETWEEN 'a' AND 'g')"  # by index, which GLOB does not go by
    " AND (place GLOB '[0-9]*.[0-9]*.[0-9]*.[0-9]*' OR place GLOB '[0-9a-f:]*:*') AND place NOT GLOB '*[^0-9a-f.:]*'"
    " AND place NOT LIKE 'fe80:%'"
)


class Uses(Records):
    """What is asked of and done to the uses of one folder."""

    def put_uses(self, record: Record, places: Iterable[str]) -> None:
        """Say what a record's attachment has, instead of what it had."""
        key = (*record.attachment, record.plugin)
        self._db.execute("DELETE FROM uses WHERE (network, container, ifname, plugin) = (?,?,?,?)", key)
        rows = [(place, *key) for place in dict.fromkeys(places)]
        self._db.executemany("INSERT INTO uses VALUES (?,?,?,?,?)", rows)

    def end_uses(self, record: Record, places: Iterable[str]) -> None:
        """Have nobody find a record's attachment by these any more, while it still has them."""
        key = (*record.attachment, record.plugin)
        query = "DELETE FROM uses WHERE (place, network, container, ifname, plugin) = (?,?,?,?,?)"
        self._db.executemany(query, [(place, *key) for place in places])

    def has(self, record: Record, places: Iterable[str]) -> bool:
        """Whether the state says of a record's attachment that it has any of several places."""
        wanted = tuple(places)
        query = f"SELECT 1 FROM uses WHERE place IN ({','.join('?' * len(wanted))}) AND (network, container, ifname, plugin) = (?,?,?,?)"
        return bool(self._rows(query, *wanted, *record.attachment, record.plugin))

    def is_used(self, place: str) -> bool:
        """Whether anybody in this folder has it."""
        return bool(self._rows("SELECT 1 FROM uses WHERE place = ? LIMIT 1", place))

    def used_by_others(self, record: Record, places: Iterable[str]) -> set[str]:
        """Which of several places anybody in this folder has besides a record's attachment."""
        wanted = tuple(places)
        if not wanted:
            return set()
        query = (
            f"SELECT DISTINCT place FROM uses WHERE place IN ({','.join('?' * len(wanted))})"
            " AND (network, container, ifname, plugin) != (?,?,?,?)"
        )
        return {place for (place,) in self._rows(query, *wanted, *record.attachment, record.plugin)}

    def users(self, places: Iterable[str]) -> list[Record]:
        """The records of this folder that have one of several."""
        wanted = list(dict.fromkeys(places))
        marks = ",".join("?" * len(wanted))
        found = f"SELECT network, container, ifname, plugin FROM uses WHERE place IN ({marks})"
        return self._records(f"(network, container, ifname, plugin) IN ({found})", *wanted)

    def owners(self) -> dict[str, str]:
        """Whose each address in this folder is: a pod (``namespace/name``), or nothing where that has no name, or several have it. Not of
        those that are unique on a link only.
        """
        found: dict[str, str] = {}
        for address, pod in self._rows(f"SELECT DISTINCT place, pod {_ADDRESSES}"):
            found[address] = pod if found.get(address, pod) == pod else ""
        return found

    def tenants(self) -> dict[str, tuple[str, str]]:
        """The pod and container that have each of these addresses, but for those that several have."""
        found: dict[str, set[tuple[str, str]]] = {}
        for address, pod, container in self._rows(f"SELECT DISTINCT place, pod, container {_ADDRESSES}"):
            found.setdefault(address, set()).add((pod, container))
        return {address: next(iter(having)) for address, having in found.items() if len(having) == 1}

    def used_like(self, beginning: str) -> list[tuple[str, Attachment]]:
        """Each place that begins so, once, with one who has it."""
        query = (
            "SELECT place, network, container, ifname FROM uses WHERE place >= ? AND place < ? || char(1114111)"
            " GROUP BY place"
        )
        return [(place, Attachment(*key)) for place, *key in self._rows(query, beginning, beginning)]

    def places_like(self, beginning: str) -> list[str]:
        """Each place that begins so, once: from one to the next by index, for a place may have many users."""
        query = (
            "WITH RECURSIVE each(place) AS (SELECT min(place) FROM uses WHERE place >= ?1 AND place < ?2 UNION ALL"
            " SELECT (SELECT min(place) FROM uses WHERE place > each.place AND place < ?2) FROM each WHERE place NOT NULL)"
            " SELECT place FROM each WHERE place NOT NULL"
        )
        return [place for (place,) in self._rows(query, beginning, f"{beginning}\U0010ffff")]


def node_lock() -> Path:
    """The file whose bytes are the node's locks, whatever folder the state is in."""
    return DEFAULT_FOLDER / "lock"


def registered(folder: Path) -> None:
    """Have a folder found by calls that keep their state elsewhere. Raises OSError, and Unavailable as private_folder does."""
    if folder.absolute() == DEFAULT_FOLDER:
        return
    private_folder(DEFAULT_FOLDER)
    link = DEFAULT_FOLDER / "folders" / digest_of(str(folder.absolute()))[:32]
    if not link.is_symlink():
        link.parent.mkdir(exist_ok=True, mode=0o700)
        with suppress(FileExistsError):
            link.symlink_to(folder.absolute())


def other_folders(folder: Path, also: Iterable[Path] = ()) -> Iterator[Path]:
    """The folders of this node that are not `folder`, each once, and of others that somebody knows of.

    One that is missing is left out, and its link kept: it may be there for who sees other mounts. One that is there and
    cannot be looked at is among them, and opening it says why. Raises Unavailable where the links cannot be read.
    """
    seen = {None, _place(folder)}
    for target in (*_linked(), DEFAULT_FOLDER, *also):
        if (place := _place(target)) not in seen:
            seen.add(place)
            yield target


def _linked() -> list[Path]:
    links = DEFAULT_FOLDER / "folders"
    found = []
    try:
        for link in links.iterdir():
            with suppress(FileNotFoundError):
                found += [link.readlink()] if link.is_symlink() else []
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable(f"the folders of this node in {links} cannot be read: {error.strerror}") from None
    return found


def _place(folder: Path) -> object:
    """What tells folders apart, whatever they are called; None for one that is missing."""
    try:
        status = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return folder
    return status.st_dev, status.st_ino
