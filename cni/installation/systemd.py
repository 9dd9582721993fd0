"""What systemd knows of the suite: the node agent's units and its enabled socket, the member's, and drop-ins for networkd and udev."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
_NETWORKD, _NETWORKDS = (
    "systemd-networkd.service",
    ("network/10-agent-cni.network", "networkd.conf.d/50-agent-cni.conf"),
)
#: What says why the member does not run.
WHERE_TO_LOOK = f"systemctl status {_MEMBER}"
#: There where systemd is process 1 (sd_booted(3)).
_BOOTED = Path("/run/systemd/system")


def units(place: Place) -> Iterator[Item]:
    """The node agent's units and the member's, and what keeps systemd-networkd and udev from what the plugins make."""
    for name, source in tree.shared("systemd").items():
        text = source.read_text().replace("@PREFIX@", str(place.prefix))
        yield Item(place.now(_FOLDER / name), text)


def files(place: Place) -> list[Path]:
    """Where the units are, or would be: the agent's and the member's."""
    return [place.now(_UNITS / name) for name in (_SOCKET, _SERVICE, _MEMBER)]


def wanted(place: Place) -> Iterator[Path]:
    """The links by which systemd starts units of ours, where they are enabled. They are absolute, as systemctl makes them."""
    return (place.now(_UNITS / f"{target}.wants") / unit for unit, target in _TARGETS.items())


def follow(place: Place, before: Collection[Path], put: Collection[Path], *, renewed: bool) -> list[str]:
    """Have systemd go by the files that were `put` down where some units were there `before`; what it does not go by yet, a line each.

    A socket that is new is opened at every start of the node, and now where systemd runs; else whoever disabled it meant it. What
    runs by another unit than its own now is started anew, and so is the member of a copy that was `renewed`, which nobody waits
    for: calls that run end first. Raises ToolFailed with systemd's words.
    """
    service, socket, member = (place.now(_UNITS / name) for name in (_SERVICE, _SOCKET, _MEMBER))
    is_new = socket in put and socket not in before
    if is_new:
        _enable(place)
    if not _is_live(place):
        return []
    if {service, socket, member} & {*put}:
        _systemctl("daemon-reload")
    if is_new:
        _systemctl("start", _SOCKET)
    outdated = {*before} & ({*put} | ({member} if renewed else set()))
    if outdated:
        _systemctl("--no-block", "try-restart", *sorted(path.name for path in outdated))
    return _told_networkd(place, put)


def disable(place: Place) -> None:
    """End the agent and the member and close the socket, where they run. Raises ToolFailed with systemd's words."""
    there = [unit for unit in (_SOCKET, _SERVICE, _MEMBER) if place.now(_UNITS / unit).exists()]
    if _is_live(place) and there:
        _systemctl("disable", "--now", *there)


def runs_members(place: Place) -> bool:
    """Whether systemd runs here and has the member's unit."""
    return _is_live(place) and place.now(_UNITS / _MEMBER).exists()


def start_member(*, anew: bool) -> None:
    """Have the member run now and at every start of the node; `anew`: not the one that runs. Raises ToolFailed with systemd's words."""
    _systemctl("enable", _MEMBER)
    _systemctl("--no-block", "restart" if anew else "start", _MEMBER)


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


def _enable(place: Place) -> None:
    link, *_ = wanted(place)
    open_folder(link.parent)
    if not link.is_symlink():
        link.symlink_to(_UNITS / _SOCKET)


def _told_networkd(place: Place, put: Collection[Path]) -> list[str]:
    """Where it runs it reads .network files when it is asked to, and its own settings when it starts. Udev looks by itself."""
    links, settings = (place.now(_FOLDER / name) for name in _NETWORKDS)
    if not {links, settings} & {*put} or process.run(["systemctl", "is-active", _NETWORKD]).returncode:
        return []
    if links in put and (done := process.run(["networkctl", "reload"], seconds=60)).returncode:
        raise ToolFailed(f"networkctl reload: {done.stderr.strip()}")
    return [f"{_NETWORKD} goes by {settings} once it is restarted"] if settings in put else []


def _is_live(place: Place) -> bool:
    return place.root == Place.root and _BOOTED.is_dir()


def _systemctl(*words: str, seconds: float = 60) -> None:
    done = process.run(["systemctl", *words], seconds=seconds)
    if done.returncode:
        raise ToolFailed(f"systemctl {' '.join(words)}: {done.stderr.strip()}")
