"""What systemd knows of the suite: the node agent's units and its enabled socket, the member's, and drop-ins for networkd and udev."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cni.errors import ToolFailed
from cni.installation import tree
from cni.installation.item import Item, open_folder
from cni.installation.place import Place
from cni.kernel import process

_FOLDER = Path("/etc/systemd")
_SOCKET, _SERVICE, _MEMBER = "agent-cni.socket", "agent-cni.service", "agent-cni-member.service"
#: By which targets those are started that may be enabled.
_TARGETS = {_SOCKET: "sockets.target", _MEMBER: "multi-user.target"}
_UNITS = _FOLDER / "system"
#: What says why the member does not run.
WHERE_TO_LOOK = f"systemctl status {_MEMBER}"
#: There where systemd is process 1 (sd_booted(3)).
_BOOTED = Path("/run/systemd/system")


def units(place: Place) -> Iterator[Item]:
    """The node agent's units and the member's, and what keeps systemd-networkd and udev from what the plugins make."""
    for name, source in tree.shared("systemd").items():
        text = source.read_text().replace("@PREFIX@", str(place.prefix))
        yield Item(place.now(_FOLDER / name), text)


def socket(place: Place) -> Path:
    """The unit by which the agent starts with the first call."""
    return place.now(_UNITS / _SOCKET)


def wanted(place: Place) -> Iterator[Path]:
    """The links by which systemd starts units of ours, where they are enabled. They are absolute, as systemctl makes them."""
    return (place.now(_UNITS / f"{target}.wants") / unit for unit, target in _TARGETS.items())


def enable(place: Place) -> None:
    """Have the socket opened at every start of the node, and now where it runs. Raises ToolFailed with systemd's words."""
    link, *_ = wanted(place)
    open_folder(link.parent)
    if not link.is_symlink():
        link.symlink_to(_UNITS / _SOCKET)
    if _is_live(place):
        _systemctl("daemon-reload")
        _systemctl("start", _SOCKET)


def disable(place: Place) -> None:
    """End the agent and the member and close the socket, where they run. Raises ToolFailed with systemd's words."""
    there = [unit for unit in (_SOCKET, _SERVICE, _MEMBER) if place.now(_UNITS / unit).exists()]
    if _is_live(place) and there:
        _systemctl("disable", "--now", *there)


def runs_members(place: Place) -> bool:
    """Whether systemd runs here and has the member's unit."""
    return _is_live(place) and member(place).exists()


def start_member(*, anew: bool) -> None:
    """Have the member run now and at every start of the node; `anew`: not the one that runs. Raises ToolFailed with systemd's words."""
    _systemctl("enable", _MEMBER)
    _systemctl("--no-block", "restart" if anew else "start", _MEMBER)


def renew_member() -> None:
    """Have a member that runs be one of the release that is there now. Raises ToolFailed with systemd's words."""
    _systemctl("daemon-reload")
    _systemctl("--no-block", "try-restart", _MEMBER)


def member(place: Place) -> Path:
    """The member's unit."""
    return place.now(_UNITS / _MEMBER)


def stop_member() -> None:
    """Have the member run no more. Raises ToolFailed with systemd's words."""
    _systemctl("disable", "--now", _MEMBER)


def member_state() -> str:
    """`active` when it is ready, `activating` before that, or another word of systemd's."""
    return process.run(["systemctl", "is-active", _MEMBER]).stdout.strip()


def forget(place: Place) -> None:
    """Have systemd read its units again, once they are gone. Raises ToolFailed with systemd's words."""
    if _is_live(place):
        _systemctl("daemon-reload")


def _is_live(place: Place) -> bool:
    return place.root == Place.root and _BOOTED.is_dir()


def _systemctl(*words: str, seconds: float = 60) -> None:
    done = process.run(["systemctl", *words], seconds=seconds)
    if done.returncode:
        raise ToolFailed(f"systemctl {' '.join(words)}: {done.stderr.strip()}")
