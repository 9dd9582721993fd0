"""Pods that are held to names, and which: a file for each, which calls write and the DNS gate reads.

What the gate adds beside them: which address was told under which name, in the order in which it heard of it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni.decoding import decoded
from cni.errors import Unavailable
from cni.kernel.files import private_folder
from cni.kernel.writing import hidden, put_at_once
from cni.values import dataclass, fields

FOLDER = Path("/run/agent-cni/dns")
#: What is appended to for each address that is told under a name it was not known by; what it began with, when it was too long.
TOLD, TOLD_BEFORE = "told", "told.before"
#: What the gate has counted since it began, and after how many seconds without a word it hangs.
COUNTED = "counted"
SILENCE = 20.0

#: What a pod's file is called after its token.
SUFFIX = ".pod"
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A pod whose questions the gate judges; `token` names its sets, and its `rules` are the names of one rule each, with a
    space between two. `link` is the host end of its link, or with `netns` its own.

    It may have resolved what its rules name and `names`, or with `everything` anything; answers are kept for `keep` seconds at least.
    Those that point into the node or to pods let it reach nothing, but in the CIDRs `into`; names of the domains `own` are the cluster's.
    """

    token: str
    pod: str
    addresses: tuple[str, ...]
    link: str
    rules: tuple[str, ...]
    netns: str = ""
    names: tuple[str, ...] = ()
    everything: bool = False
    keep: int = 60
    into: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / f"{self.token}{SUFFIX}"

    @property
    def text(self) -> str:
        """What is in it."""
        return json.dumps(vars(self)) + "\n"

    @property
    def allowed(self) -> tuple[tuple[str, ...], ...]:
        """The names of each rule."""
        return tuple(tuple(names.split()) for names in self.rules)

    @classmethod
    def read(cls, text: str) -> Entry | None:
        """What a file says; None where it is none of ours, or of another release's."""
        try:
            raw: dict[str, Any] = decoded(text)
            known = {item.name: raw[item.name] for item in fields(cls) if item.name in raw}
            said: dict[str, Any] = {key: tuple(it) if isinstance(it, list) else it for key, it in known.items()}
            entry = cls(**said)
        except (ValueError, TypeError, AttributeError):
            return None
        return entry if entry._is_sound() and (entry.allowed or entry.names or entry.everything) else None

    def _is_sound(self) -> bool:
        """Whether everything is of the sort it is to be: who judges by it does so for every pod of the node."""
        texts = (self.addresses, self.rules, self.names, self.into, self.own)
        one = (self.token, self.pod, self.link, self.netns)
        try:
            for address in self.addresses:
                ipaddress.ip_address(address)
            for network in self.into:
                ipaddress.ip_network(network)
        except (ValueError, TypeError):
            return False
        return (
            all(isinstance(item, tuple) for item in texts)
            and all(isinstance(text, str) and text.isprintable() for item in (*texts, one) for text in item)
            and type(self.keep) is int
        )


def read(path: Path) -> str:
    """What is in a file; nothing where there is none. Raises Unavailable."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise _unavailable(path, error) from None


def entries() -> Iterator[Entry]:
    """Every pod's. Raises Unavailable."""
    try:
        names = sorted(os.listdir(FOLDER))  # noqa: PTH208  # one question for hundreds of names
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unavailable(FOLDER, error) from None
    for name in names:
        if is_of_pod(name) and (entry := Entry.read(read(FOLDER / name))):
            yield entry


def is_of_pod(name: str) -> bool:
    """Whether a file of that name is a pod's, and whole."""
    return name.endswith(SUFFIX) and not name.startswith(".")


def counted() -> Mapping[str, int]:
    """What the gate that runs, or ran last since the boot, has counted. Raises Unavailable."""
    try:
        raw: dict[str, Any] = decoded(read(FOLDER / COUNTED) or "{}")
        return {name: int(many) for name, many in raw.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def is_heard() -> bool:
    """Whether a gate has said something not long ago; whether it still runs nobody knows by that."""
    try:
        written = (FOLDER / COUNTED).stat().st_mtime
    except OSError:
        return False
    return abs(time.time() - written) < SILENCE


def put(path: Path, text: str) -> None:
    """Give a file a text, in one step. Raises Unavailable; of a text there is no room for nothing stays."""
    try:
        private_folder(FOLDER)
        put_at_once(path, text, 0o600)
    except OSError as error:
        raise _unavailable(path, error) from None


def drop(path: Path) -> None:
    """Have no such file, and nothing of one whose writer was killed. Raises Unavailable."""
    try:
        path.unlink(missing_ok=True)
        hidden(path).unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as error:
        raise _unavailable(path, error) from None


def tell(addresses: Collection[str], name: str) -> None:
    """Write down that addresses were told under a name; where that cannot be nobody knows them by that."""
    if not addresses:
        return
    with suppress(OSError):
        file = os.open(FOLDER / TOLD, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(file, "".join(f"{address} {name}\n" for address in addresses).encode())
            long = os.fstat(file).st_size > _LONGEST
        finally:
            os.close(file)
        if long:
            (FOLDER / TOLD).rename(FOLDER / TOLD_BEFORE)


def _unavailable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{path}: {error.strerror}")
