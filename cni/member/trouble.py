"""What is wrong for longer than a moment, told once when it begins, once when it is another, and once when it is over."""

from __future__ import annotations

import re
import time

from cni import log

#: What changes from one attempt to the next of the same failure: endpoints in turn, ports, times.
_PASSING = re.compile(r"https?://\S+|\d+(?:\.\d+)*|0x[0-9a-f]+")


class Trouble:
    """What one of the member's rooms cannot do."""

    def __init__(self, room: str) -> None:
        self._room = room
        self._kind = ""
        self._began = 0.0
        #: When it began, for people.
        self.since = ""

    def is_so(self, why: str) -> bool:
        """Say why, unless it is the same again, whatever endpoint it names; whether it was said."""
        kind = _PASSING.sub("", why)
        if not self._kind:
            self._began = time.monotonic()
            self.since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        if kind == self._kind:
            return False
        self._kind = kind
        log.warning("member", why, verb=self._room)
        return True

    @property
    def is_there(self) -> bool:
        """Whether there is any."""
        return bool(self._kind)

    def over(self) -> None:
        """Say that it is well again, if it was not."""
        if self._kind:
            self._kind = ""
            lasted = round(time.monotonic() - self._began)
            log.warning("member", f"all is well again, after {lasted} s", verb=self._room)
