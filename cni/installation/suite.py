"""Everything a node has of the suite beside the copy itself: executables, the command, and the conflist that activates it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from cni import plugin
from cni.conflist import placed
from cni.errors import Conflict, InvalidConfig
from cni.installation import systemd, tree
from cni.installation.item import MARK, Item, date, open_folder
from cni.installation.place import Place
from cni.log import FOLDER
from cni.values import replace

_EXECUTABLE = """#!{interpreter}
{mark}
from cni.main import cold

raise SystemExit(cold(__file__))
"""


def executables(place: Place, more: Iterable[str] = (), only: Iterable[str] | None = None) -> Iterator[Item]:
    """The doors runtimes call, or `only` some, also under `more` names: started by the launcher, or by Python where there is none."""
    interpreter = place.prefix / tree.LAUNCHER if tree.has_launcher() else f"{place.prefix}/bin/python3 -I"
    text = _EXECUTABLE.format(interpreter=interpreter, mark=f"{MARK} in {place.prefix}")
    return (
        Item(place.now(place.bin_dir / name), text, 0o755)
        for name in (*(plugin.names() if only is None else only), *more)
    )


def stand_ins(place: Place) -> Iterator[Item]:
    """Those that are there under the name of a reference plugin they stand for."""
    every = executables(place, plugin.STANDS_FOR)
    return (item for item in every if item.path.name in plugin.STANDS_FOR and not item.is_foreign)


def command(place: Place) -> Item:
    """The operator's command, where a shell finds it."""
    text = f'#!/bin/sh\n{MARK} in {place.prefix}\nexec {shlex.quote(f"{place.prefix}/bin/agent-cni")} "$@"\n'
    return Item(place.now(place.command), text, 0o755)


def rotation(place: Place) -> Item:
    """How logrotate(8) bounds the logs: a line is one open, so nobody is to be told, and a file is as new as its name."""
    text = f"""{MARK}
{FOLDER}/*.log {{
    weekly
    maxsize 10M
    rotate 4
    compress
    missingok
    notifempty
    nocreate
}}
"""
    return Item(place.now(Path("/etc/logrotate.d/agent-cni")), text)


class Conflist(Item):
    """What was put down is known again by what it says, for it has no line of ours."""

    @property
    def is_foreign(self) -> bool:
        """Whether somebody made it, or edited it."""
        return super().is_foreign and not placed.is_as_put(self.path)

    def put(self) -> bool:
        """Bring it about in one rename, and remember it; whether anything changed."""
        open_folder(self.path.parent)
        with placed.putting(self.path, self.text):
            changed = super().put()
        date(self.path.with_name(placed.BOOK))
        return changed

    def take(self) -> bool:
        """Remove it unless somebody edited it; whether anything changed."""
        taken = super().take()
        placed.forget(self.path)
        return taken


def conflist(place: Place, name: str) -> Conflist:
    """One of conf.d, or with a slash in its name a file of the operator's, where the runtime reads it."""
    if "/" in name:
        return Conflist(place.now(place.conf_dir / Path(name).name), Path(name).read_text())
    known = tree.shared("conf.d")
    if name not in known:
        raise InvalidConfig(f"there is no conflist {name!r}; there are: {', '.join(known)}")
    return Conflist(place.now(place.conf_dir / name), known[name].read_text())


def conflists(place: Place) -> Iterator[Conflist]:
    """What may have been put where the runtime reads it: all of conf.d, and what is remembered."""
    every = tree.shared("conf.d")
    yield from (conflist(place, name) for name in every)
    folder = place.now(place.conf_dir)
    yield from (Conflist(folder / name, "") for name in placed.known(folder) if name not in every)


def refuse_foreign(items: list[Item]) -> None:
    """Raise Conflict where one would replace somebody else's file, or another installation's."""
    foreign = [str(item.path) for item in items if item.is_foreign]
    if foreign:
        raise Conflict(f"not agent-cni's, or changed since: {', '.join(foreign)}; --force replaces it")
    for item in items:
        if item.other:
            raise Conflict(f"{item.path} is of the installation in {item.other}; --bin-dir, or --force replaces it")


def other_prefixes(place: Place) -> set[Path]:
    """The installations whose files stand where a node has one of each kind, and that are there."""
    usual = replace(place, bin_dir=Place.bin_dir)
    items: Iterable[Item] = (command(place), *systemd.units(place), *executables(place), *executables(usual))
    found = {item.other for item in items if item.other} | {Place.prefix} - {place.prefix}
    return {prefix for prefix in found if tree.is_ours(place.now(prefix))}
