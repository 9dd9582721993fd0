"""A file that is put down whole, and never over somebody else's."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cni.errors import InvalidEnvironment
from cni.kernel.writing import clear, put_whole, take_whole
from cni.values import dataclass

#: The line by which a file of ours is known, whatever release made it; of a file that serves one prefix alone it names that.
MARK = "# installed by agent-cni"
_OF_PREFIX = re.compile(rf"^{MARK} in (/.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Item:
    """One file of an installation: ours if it holds these bytes, or the mark."""

    path: Path
    text: str
    mode: int = 0o644

    @property
    def is_right(self) -> bool:
        """Whether the file is there as it should be."""
        return self._present() == self.text and self.path.stat().st_mode & 0o7777 == self.mode

    @property
    def is_foreign(self) -> bool:
        """Whether something is there that no installation of ours made."""
        present = self._present()
        return present is not None and present != self.text and MARK not in present

    @property
    def is_the_nodes(self) -> bool:
        """Whether it serves every installation of the node."""
        return not _OF_PREFIX.search(self.text)

    @property
    def other(self) -> Path | None:
        """The prefix of another installation, where what is there is that one's."""
        there = _OF_PREFIX.search(self._present() or "")
        return Path(there[1]) if there and there[0] not in self.text else None

    def put(self) -> bool:
        """Bring it about in one rename; whether anything changed."""
        if self.is_right:
            return False
        open_folder(self.path.parent)
        # containerd sees what is renamed within its folder, and not what is renamed into it
        put_whole(self.path, self.text, self.mode)
        date(self.path)
        return True

    def take(self) -> bool:
        """Remove it unless it is foreign, or another installation's; whether anything changed."""
        if self._present() is None or self.is_foreign or self.other:
            clear(self.path)
            return False
        return take_whole(self.path)

    def _present(self) -> str | None:
        if not os.path.lexists(self.path):
            return None
        return self.path.read_text(errors="replace") if self.path.is_file() else ""


def open_folder(folder: Path) -> None:
    """Make a folder everybody may enter and its owner alone may change, with those above it, whatever the umask."""
    if not folder.is_dir():
        open_folder(folder.parent)
        umask = os.umask(0o022)  # who is killed leaves it as it is to be, or not at all
        try:
            folder.mkdir(0o755)
        finally:
            os.umask(umask)


def date(*paths: Path) -> None:
    """Give files the time SOURCE_DATE_EPOCH names, where it is set. Raises InvalidEnvironment where that is no time."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch and not epoch.isdecimal():
        raise InvalidEnvironment(f"SOURCE_DATE_EPOCH is no number of seconds: {epoch!r}")
    for path in paths if epoch else ():
        os.utime(path, (int(epoch), int(epoch)), follow_symlinks=False)
