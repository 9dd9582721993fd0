"""This host's WireGuard key: private in a file that only we read, public for the others.

The file lives as long as the boot, and whoever deletes or replaces it changes the key.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from cni.errors import CniError, Unavailable
from cni.kernel import wireguard
from cni.kernel.writing import put_whole, take_whole

FILE = "wireguard.key"
#: The version where there is none.
NO_KEY = (0, 0)

_OTHERS_MAY_READ = 0o077


class Key:
    """The key in a folder, made when it is asked for and there is none; any thread's."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._lock = Lock()
        self._private = self._public = ""
        #: The public key that the device has been given, by who gives it; empty before that.
        self.in_use = ""

    def pair(self) -> tuple[str, str]:
        """The key of now, private and public, each base64. Raises Unavailable and ToolFailed."""
        with self._lock:
            text = self._read()
            if text != self._private:
                self._public = wireguard.public_key(text)
                self._private = text
            return self._private, self._public

    @property
    def public(self) -> str:
        """What others are to know it by: the one in use, so that who hears of it is answered; empty where none can be had."""
        if self.in_use:
            return self.in_use
        try:
            return self.pair()[1]
        except CniError:
            return ""

    @property
    def version(self) -> tuple[int, int]:
        """What is another when the file is."""
        try:
            status = self.file.stat()
        except OSError:
            return NO_KEY
        return status.st_ino, status.st_mtime_ns

    def delete(self) -> None:
        """Have none."""
        take_whole(self.file)

    def _read(self) -> str:
        try:
            if not self.file.exists():
                self._make()
            mode, text = self.file.stat().st_mode, self.file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the key file {self.file} cannot be read: {error}") from None
        if mode & _OTHERS_MAY_READ:
            raise Unavailable(f"the key file {self.file} may be read by others (mode {mode & 0o777:o}, not 600)")
        return text

    def _make(self) -> None:
        put_whole(self.file, wireguard.new_key() + "\n", 0o600)
