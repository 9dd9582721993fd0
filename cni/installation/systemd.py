"""What systemd knows of the suite: the node agent's units and its enabled socket, and drop-ins for networkd and udev."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cni.errors import ToolFailed
from cni.installation import tree
from cni.installation.item import Item, open_folder
from cni.installation.place import Place
from cni.kernel import process

_FOLDER = Path("/etc/systemd")
_SOCKET, _SERVICE = "agent-cni.socket", "agent-cni.service"
_UNITS = _FOLDER / "system"
#: There where systemd is process 1 (sd_booted(3)).
_BOOTED = Path("/run/systemd/system")


def units(place: Place) -> Iterator[Item]:
    """The node agent's units, and what keeps systemd-networkd and udev from what the plugins make."""
    for name, source in tree.shared("systemd").items():
        text = source.read_text().replace("@PREFIX@", str(place.prefix))
        yield Item(place.now(_FOLDER / name), text)


def socket(place: Place) -> Path:
    """The unit by which the agent starts with the first call."""
    return place.now(_UNITS / _SOCKET)


def wanted_by(place: Place) -> Path:
    """The link by which systemd starts that socket, where it is enabled. It is absolute, as systemctl makes it."""
    return place.now(_UNITS / "sockets.target.wants") / _SOCKET


def enable(place: Place) -> None:
    """Have the socket opened at every start of the node, and now where it runs. Raises ToolFailed with systemd's words."""
    link = wanted_by(place)
    open_folder(link.parent)
    if not link.is_symlink():
        link.symlink_to(_UNITS / _SOCKET)
    if _is_live(place):
        _systemctl("daemon-reload")
        _systemctl("start", _SOCKET)


def disable(place: Place) -> None:
    """End the agent and close its socket, where they run. Raises ToolFailed with systemd's words."""
    if _is_live(place) and socket(place).exists():
        _systemctl("disable", "--now", _SOCKET, _SERVICE)


def forget(place: Place) -> None:
    """Have systemd read its units again, once they are gone. Raises ToolFailed with systemd's words."""
    if _is_live(place):
        _systemctl("daemon-reload")


def _is_live(place: Place) -> bool:
    return place.root == Place.root and _BOOTED.is_dir()


def _systemctl(*words: str) -> None:
    done = process.run(["systemctl", *words])
    if done.returncode:
        raise ToolFailed(f"systemctl {' '.join(words)}: {done.stderr.strip()}")
