"""Addresses of a host's name, in bounded time: getaddrinfo(3) itself waits for half a minute, and longer, where no name server
answers (resolv.conf(5), `timeout` and `attempts`), and nobody can end it. So it waits in a thread of its own.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Condition, Thread
from typing import Any

#: A family, kind, protocol and address each, as getaddrinfo(3) has them.
Addresses = list[tuple[Any, ...]]
#: How long a name server is waited for where the addresses of before are known, in seconds.
_SOON = 0.5


class Name:
    """A host's name and a port. Threads may share it: there is one lookup at a time, for all who wait."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._changed = Condition()
        self._lookups, self._is_asked = 0, False
        self._known: Addresses = []
        self._refused = ""

    def addresses(self, seconds: float) -> Addresses:
        """What it means, asked anew; what it meant before, where nobody says anything now. Raises OSError."""
        with suppress(socket.gaierror):
            return self._asked(socket.AI_NUMERICHOST)
        with self._changed:
            lookups = self._lookups
            if not self._is_asked:
                self._is_asked = True
                Thread(target=self._look_up, name=f"name {self.host}", daemon=True).start()
            answered = self._changed.wait_for(lambda: self._lookups > lookups, _SOON if self._known else seconds)
            if self._known:
                return self._known
            raise OSError(self._refused if answered else f"{self.host}: no name server answers in {seconds:.1f} s")

    def _look_up(self) -> None:
        found, refused, is_final = Addresses(), "", False
        try:
            found = self._asked()
        except socket.gaierror as error:
            refused, is_final = f"{self.host}: {error.strerror}", error.errno == socket.EAI_NONAME
        except (OSError, UnicodeError) as error:
            refused = f"{self.host}: {error}"
        with self._changed:
            if found or is_final:
                self._known = found
            self._refused, self._is_asked = refused, False
            self._lookups += 1
            self._changed.notify_all()

    def _asked(self, flags: int = 0) -> Addresses:
        return list(socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=flags))
