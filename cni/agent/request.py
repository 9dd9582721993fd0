"""A call as the launcher hands it over: one packet of texts, then GO with descriptors.

The texts end in NUL: protocol, the suite's version, the installation's folder, the plugin's file, then the environment.
GO is followed by the letters of its descriptors: ``d`` the working folder, ``p`` the pod's namespace, ``0`` stdin, ``2``
stderr; stdout stays with the launcher. They come last, so an agent that hangs holds nobody's pipe open. The other side is
launcher/launcher.c.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cni import __version__
from cni.state import DEFAULT_FOLDER
from cni.values import dataclass, field

PROTOCOL = "agent-cni/2"
MOST_BYTES, MOST_FDS = 192 << 10, 4
_GO = "G"
_LETTERS = frozenset("dp02")


class Refused(Exception):
    """Not a call this agent may or can serve: the launcher runs it cold."""


@dataclass
class Request:
    """A call: the installation, its plugin's file, its environment, and its open descriptors by letter."""

    prefix: str
    script: str
    environ: dict[str, str]
    fds: dict[str, int] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        """What we open by name for it, as far as that is known before its configuration is read."""
        folders = self.environ.get("CNI_PATH", "").split(":")
        return [self.prefix, str(DEFAULT_FOLDER), *(folder for folder in folders if folder.startswith("/"))]

    def equip(self, go: bytes, fds: list[int]) -> None:
        """Take the descriptors that came with GO. Raises Refused for anything else; they are closed then."""
        letters = go.decode(errors="replace")
        if letters[:1] == _GO and _LETTERS.issuperset(letters[1:]) and len(set(letters[1:])) == len(fds) == len(go) - 1:
            self.fds = dict(zip(letters[1:], fds, strict=True))
            return
        for fd in fds:
            os.close(fd)
        raise Refused("the caller withdrew")

    def close(self) -> None:
        """Close every descriptor."""
        while self.fds:
            os.close(self.fds.popitem()[1])


def read(packet: bytes) -> Request:
    """A request from its packet. Raises Refused for what no launcher of this installation sends."""
    texts = os.fsdecode(packet).split("\0")
    if len(texts) < 5 or texts.pop():
        raise Refused("the request is cut off")
    protocol, version, prefix, script, *entries = texts
    if (protocol, version) != (PROTOCOL, __version__):
        raise Refused(f"the request is {protocol} of release {version}")
    if not _is_same(prefix, sys.prefix):
        raise Refused(f"the request is from the installation in {prefix}")
    return Request(prefix, script, _environ(entries))


def _environ(entries: list[str]) -> dict[str, str]:
    """An environment; of two entries with one name the first counts, as for a process of its own."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if name and equals:
            found.setdefault(name, value)
    return found


def _is_same(one: str, other: str) -> bool:
    try:
        return one == other or Path(one).samefile(other)
    except (OSError, ValueError):
        return False
