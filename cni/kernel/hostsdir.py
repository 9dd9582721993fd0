"""Names of a network's pods: files that its DNS server reads when they change (hosts(5); dnsmasq(8), --hostsdir).

A folder for each network: in `here` a file for each attachment of this node, in `there` one for each other host of the cluster,
and what the server is started with. Not root alone may read them, for the server is somebody else. What a comment says is ours.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cni.errors import Unavailable
from cni.kernel.files import is_trusted
from cni.kernel.writing import hidden, put_at_once
from cni.naming import Attachment
from cni.values import dataclass

FOLDER = Path("/run/agent-cni-names")
CONF = "dnsmasq.conf"
HERE, THERE = "here", "there"

#: Why an attachment is not answered that nobody has probed yet.
NOT_PROBED = "not probed yet"

#: A name that no folder can have (NAME_MAX, in bytes) is nobody's; so is what would be in it.
MOST_BYTES = 255

_POD, _HEALTH, _UNHEALTHY = "#pod ", "#health ", "#unhealthy "


@dataclass(frozen=True)
class Entry:
    """The names an attachment is known by, and its addresses. `pod` is Kubernetes' namespace/name, or nothing. `health` says how it
    is probed, as JSON, `unhealthy` since when and why it is not answered, likewise nothing.
    """

    attachment: Attachment
    addresses: tuple[str, ...]
    names: tuple[str, ...]
    pod: str = ""
    health: str = ""
    unhealthy: str = ""

    @property
    def path(self) -> Path:
        """Its file. One that begins with a point is not read (dnsmasq(8))."""
        return FOLDER / self.attachment.network / HERE / self.attachment.digest[:32]

    @property
    def text(self) -> str:
        """What is in its file."""
        _, container, ifname = self.attachment
        said = [f"{_POD}{container} {ifname} {self.pod}".rstrip()]
        said += [f"{_HEALTH}{self.health}"] if self.health else []
        said += [f"{_UNHEALTHY}{self.unhealthy}"] if self.unhealthy else []
        shut = "#" if self.unhealthy else ""
        return "".join(f"{line}\n" for line in (*said, *(f"{shut}{line}" for line in self.lines)))

    @property
    def lines(self) -> list[str]:
        """What is answered of it, as hosts(5) spells it."""
        return [" ".join((address, *self.names)) for address in self.addresses]

    @classmethod
    def read(cls, network: str, text: str) -> Entry | None:
        """What a file says, None where it is no attachment's."""
        lines = text.splitlines()
        told = {
            mark: line.removeprefix(mark)
            for line in lines
            for mark in (_POD, _HEALTH, _UNHEALTHY)
            if line.startswith(mark)
        }
        container, ifname, pod = (*told.get(_POD, "").split(" ", 2), "", "", "")[:3]
        if not (container and ifname):
            return None
        words = [line.lstrip("#").split(" ") for line in lines if not line.startswith((_POD, _HEALTH, _UNHEALTHY))]
        addresses, names = tuple(first for first, *_ in words), tuple(words[0][1:]) if words else ()
        if not (names and all((*addresses, *names))):
            return None
        attachment = Attachment(network, container, ifname)
        return cls(attachment, addresses, names, pod, told.get(_HEALTH, ""), told.get(_UNHEALTHY, ""))


class Served(NamedTuple):
    """A configuration of dnsmasq, and what comments in it say: the network's domain, and the URL of a Consul agent, if any."""

    text: str
    domain: str
    consul: str


def networks() -> list[str]:
    """The networks of which there is something. None begins with a point."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(item.name for item in FOLDER.iterdir() if not item.name.startswith("."))
    return []


def served(network: str) -> Served | None:
    """What a network's server is started with, None where it is to have none. Raises Unavailable."""
    text = read(FOLDER / network / CONF)
    told = dict(line[1:].partition(" ")[::2] for line in text.splitlines() if line.startswith("#"))
    return Served(text, told.get("domain", ""), told.get("consul", "")) if text else None


def entries(network: str) -> Iterator[Entry]:
    """What this node's attachments of a network are known by."""
    folder = FOLDER / network / HERE
    with _absent():
        for path in sorted(folder.iterdir()):
            text = "" if path.name.startswith(".") else read(path)
            if entry := Entry.read(network, text):
                yield entry


def hosts(network: str) -> list[str]:
    """Of which other hosts something is known in a network."""
    with _absent():
        return sorted(file.name for file in (FOLDER / network / THERE).iterdir() if not file.name.startswith("."))
    return []


def read(path: Path) -> str:
    """What is in a file; nothing where there is none. What is no text is another than was written. Raises Unavailable."""
    try:
        with _absent():
            return path.read_text(errors="replace")
    except OSError as error:
        raise _unavailable(path, error) from None
    return ""


def put(path: Path, text: str) -> None:
    """Give a file a text, in one step, and with it the folders it is in. Raises Unavailable; of a text there is no room for nothing stays."""
    try:
        make_folders(path.parent)
        put_at_once(path, text, 0o644)
    except OSError as error:
        raise _unavailable(path, error) from None


def make_folders(folder: Path) -> None:
    """Have a folder of names, and with one of a network's all of them: a server wants both. Raises Unavailable where one is a link, or may
    be written to by others: what is put there would be theirs.
    """
    network = FOLDER / folder.relative_to(FOLDER).parts[0] if folder != FOLDER else None
    for place in (FOLDER, network, network / HERE, network / THERE) if network else (FOLDER,):
        try:
            if not os.path.lexists(place):
                with suppress(FileExistsError):
                    place.mkdir(0o755)
            _refuse_strange(place)
            if place.stat().st_mode & 0o755 != 0o755:  # by the umask, also of one who was killed here
                place.chmod(0o755)
        except OSError as error:
            raise _unavailable(place, error) from None


def refuse_unwritable(network: str) -> None:
    """Raise Unavailable where nothing could be put into a network's folders; asks only, makes nothing."""
    there = [item for item in (FOLDER, FOLDER / network, FOLDER / network / HERE) if os.path.lexists(item)]
    for place in there:
        _refuse_strange(place)
    last = (FOLDER.parent, *there)[-1]
    if not os.access(last, os.W_OK | os.X_OK):
        raise Unavailable(f"the folder of names {last} cannot be written")


def _refuse_strange(place: Path) -> None:
    status = place.lstat()
    if not (stat.S_ISDIR(status.st_mode) and is_trusted(status.st_uid)) or status.st_mode & 0o022:
        raise Unavailable(f"{place} is no folder of ours: {stat.filemode(status.st_mode)}, user {status.st_uid}")


def folders(network: str) -> list[tuple[int, int]]:
    """Which folders a network's are, made again by the same names or not: a server watches those that were there when it began."""
    found = []
    for part in (HERE, THERE):
        with suppress(OSError):
            status = (FOLDER / network / part).stat()
            found.append((status.st_dev, status.st_ino))
    return found


def drop(paths: Iterable[Path]) -> None:
    """Have no such files, and nothing of one whose writer was killed. Raises Unavailable."""
    for path in paths:
        try:
            with _absent():  # nobody is answered by a folder
                path.unlink(missing_ok=True)
                hidden(path).unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(path, error) from None


@contextmanager
def _absent() -> Iterator[None]:
    """Where there is no such file, and can be none: nothing is read, and nothing is to be taken away."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            raise


def _unavailable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{path}: {error.strerror}")
