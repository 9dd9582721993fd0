"""Conflists where the runtime reads them. What was put there is remembered, so that what follows may replace it; what somebody
edited since is his.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cni.kernel.writing import put_whole, take_whole
from cni.naming import digest_of

#: Where runtimes read them, and where the plugins are.
CONF_DIR, BIN_DIR = Path("/etc/cni/net.d"), Path("/opt/cni/bin")
#: What was put into a folder, there, as sha256sum(1) writes it and checks it. libcni reads nothing of such a name.
BOOK = ".agent-cni"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def is_as_put(file: Path) -> bool:
    """Whether a file says what was put there."""
    return file.is_file() and digest_of(file.read_bytes()) in known(file.parent).get(file.name, ())


def known(folder: Path) -> dict[str, tuple[str, ...]]:
    """The files that were put into a folder, each with the hashes it may have."""
    try:
        lines = (folder / BOOK).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for line in filter(None, map(_LINE.fullmatch, lines)):
        found[line[2]] = (*found.get(line[2], ()), line[1])
    return found


@contextmanager
def putting(file: Path, text: str) -> Iterator[None]:
    """Remember what a file is about to say; until it does, what it says now too: who is killed between has put down either."""
    before, new = known(file.parent), digest_of(text)
    had = before.get(file.name, ())
    if had != (new,):
        _remember(file.parent, before | {file.name: tuple(dict.fromkeys((*had, new)))})
    yield
    _remember(file.parent, before | {file.name: (new,)})


def put(file: Path, text: str) -> bool:
    """Have a file say a text, whatever it says; whether it was another. Raises OSError."""
    if file.is_file() and file.read_text(errors="replace") == text and is_as_put(file):
        return False
    with putting(file, text):
        put_whole(file, text, 0o644)
    return True


def take(file: Path) -> None:
    """Have a file no more, and remember nothing of it. Raises OSError."""
    take_whole(file)
    forget(file)


def forget(file: Path) -> None:
    """Remember nothing of a file; nothing is left where that was the last."""
    rest = {name: hashes for name, hashes in known(file.parent).items() if name != file.name}
    if rest:
        _remember(file.parent, rest)
    else:
        take_whole(file.parent / BOOK)


def _remember(folder: Path, book: dict[str, tuple[str, ...]]) -> None:
    if book != known(folder):
        lines = (f"{digest}  {name}\n" for name, hashes in sorted(book.items()) for digest in hashes)
        put_whole(folder / BOOK, "".join(lines), 0o644)
