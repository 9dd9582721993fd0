"""What systemd knows of the suite: the node agent's units and its enabled socket, the member's, the recorder's of flows, those for names
and of the DNS gate with what starts them enabled, and drop-ins for networkd and udev.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cni.errors import ToolFailed
from cni.installation import tree
from cni.installation.item import Item, open_folder
from cni.installation.place import Place
from cni.kernel import process
from cni.kernel.writing import put_whole, take_whole

_FOLDER = Path("/etc/systemd")
_SOCKET, _SERVICE, _MEMBER = "agent-cni.socket", "agent-cni.service", "agent-cni-member.service"
_PATH, _NAMES, _FLOWS = "agent-cni-names.path", "agent-cni-names.service", "agent-cni-flows.service"
_HELD, _GATE = "agent-cni-dnsgate.path", "agent-cni-dnsgate.service"
_EVERY = (_SOCKET, _PATH, _HELD, _SERVICE, _MEMBER, _NAMES, _GATE, _FLOWS)
#: By which targets those are started that may be enabled; and those that are from the first installation on: they start a service that
#: somebody needs.
_TARGETS = {
    _SOCKET: "sockets.target",
    _PATH: "multi-user.target",
    _HELD: "multi-user.target",
    _MEMBER: "multi-user.target",
    _FLOWS: "multi-user.target",
}
_ENABLED = (_SOCKET, _PATH, _HELD)
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
    """The units of the node agent, the member, for names, the DNS gate and for flows, and what keeps systemd-networkd and udev from what the plugins make."""
    for name, source in tree.shared("systemd").items():
        text = source.read_text().replace("@PREFIX@", str(place.prefix))
        yield Item(place.now(_FOLDER / name), text)


def files(place: Place) -> list[Path]:
    """Where the units are, or would be."""
    return [place.now(_UNITS / name) for name in _EVERY]


def wanted(place: Place) -> Iterator[Path]:
    """The links by which systemd starts units of ours, where they are enabled. They are absolute, as systemctl makes them."""
    return (place.now(_UNITS / f"{target}.wants") / unit for unit, target in _TARGETS.items())


@contextmanager
def following(place: Place) -> Iterator[Following]:
    """What systemd is to go by after an installation. What was there before is written down until it does, so that the installation
    after one that was killed does what is left, too.
    """
    note = _note(place)
    unfinished = note.exists()
    there = note.read_text().split() if unfinished else [path.name for path in files(place) if path.exists()]
    if not unfinished:
        open_folder(note.parent)
        put_whole(note, "".join(f"{name}\n" for name in there), 0o644)
    yield Following(place, {place.now(_UNITS / name) for name in there}, unfinished)
    note.unlink()


class Following(NamedTuple):
    """The units that were there before, and whether the installation before this one is `unfinished`."""

    place: Place
    before: Collection[Path]
    unfinished: bool

    def follow(self, put: Collection[Path], *, renewed: bool, are_lent: bool) -> list[str]:
        """Have systemd go by the files that were `put` down and a copy that was `renewed`, where units are not of another installation
        (`are_lent`); what it does not go by yet, a line each. Raises ToolFailed with systemd's words.
        """
        every = units(self.place) if self.unfinished and not are_lent else ()
        put = {*put, *(item.path for item in every if item.path.exists())}
        return _follow(self.place, self.before, put, renewed=(renewed or self.unfinished) and not are_lent)


def _note(place: Place) -> Path:
    return place.now(place.prefix.with_name(f".{place.prefix.name}.before"))


def _follow(place: Place, before: Collection[Path], put: Collection[Path], *, renewed: bool) -> list[str]:
    """What starts a service and is new does so at every start of the node, and now where systemd runs; else whoever disabled it meant it.
    What runs by another unit than its own now is started anew, and so are the daemons of a copy that was `renewed` which nobody waits
    for: calls that run end first.
    """
    new = [unit for unit in _ENABLED if (file := place.now(_UNITS / unit)) in put and file not in before]
    for unit in new:
        _enable(place, unit)
    if not _is_live(place):
        return []
    if {*files(place)} & {*put}:
        _systemctl("daemon-reload")
    if new:
        _systemctl("start", *new)
    daemons = {place.now(_UNITS / name) for name in (_MEMBER, _NAMES, _GATE, _FLOWS)} if renewed else set()
    outdated = {*before} & ({*put} | daemons)
    if outdated:
        _systemctl("--no-block", "try-restart", *sorted(path.name for path in outdated))
    return _told_networkd(place, put)


def disable(place: Place) -> None:
    """End the agent and every daemon, and what would start them first, where they run. Raises ToolFailed with systemd's words."""
    there = [unit for unit in _EVERY if place.now(_UNITS / unit).exists()]
    if _is_live(place) and there:
        _systemctl("disable", "--now", *there)


def wants_flows() -> bool:
    """Whether a recorder of flows is started at every start of this node."""
    return (_UNITS / f"{_TARGETS[_FLOWS]}.wants" / _FLOWS).is_symlink()


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
    take_whole(_note(place))
    if _is_live(place):
        _systemctl("daemon-reload")


def _enable(place: Place, unit: str) -> None:
    link = next(link for link in wanted(place) if link.name == unit)
    open_folder(link.parent)
    if not link.is_symlink():
        link.symlink_to(_UNITS / unit)


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
