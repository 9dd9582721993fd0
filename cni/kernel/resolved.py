"""By which names addresses were resolved on this node, as far as the DNS gate was asked (gatedir.py)."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress

from cni.kernel import gatedir

#: Addresses that are remembered, and names of each.
_MOST, _NAMES = 50_000, 8


class Resolved:
    """What was told, read on where the last reading ended."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._file, self._at = 0, 0

    def names_of(self, address: str) -> tuple[str, ...]:
        """The names an address was told under, the latest first."""
        self._go_on()
        return self._names.get(address, ())

    def _go_on(self) -> None:
        with suppress(OSError):
            status = (gatedir.FOLDER / gatedir.TOLD).stat()
            if (status.st_ino, status.st_size) == (self._file, self._at):
                return
            if status.st_ino != self._file:
                self._take(gatedir.TOLD_BEFORE, self._at if self._file else 0)
                self._file, self._at = status.st_ino, 0
            self._at = self._take(gatedir.TOLD, self._at)

    def _take(self, name: str, at: int) -> int:
        """Read a file on; a line that is not whole yet is for the next time."""
        with suppress(OSError), (gatedir.FOLDER / name).open("rb") as file:
            file.seek(at)
            told = file.read()
            whole = told[: told.rfind(b"\n") + 1]
            for line in whole.decode(errors="replace").splitlines():
                address, _, said = line.partition(" ")
                before = self._names.pop(address, ())
                self._names[address] = (said, *(item for item in before if item != said))[:_NAMES]
            while len(self._names) > _MOST:
                self._names.popitem(last=False)
            return at + len(whole)
        return at
