"""Giving the suite to a node or to an image of one, and taking it away."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cni.agent.listener import PATH, is_listened_on
from cni.command.conflist import configurations, judged
from cni.command.node import records_of
from cni.command.output import complain, print_json, say
from cni.errors import CniError, Conflict, InvalidConfig, Unavailable
from cni.installation import suite, tree
from cni.installation.item import Item
from cni.installation.place import Place
from cni.kernel.netlink import Rtnl
from cni.log import FOLDER
from cni.naming import OWNER
from cni.state import DEFAULT_FOLDER


def install(options: argparse.Namespace) -> int:
    """Give the plugins to this node, or to the image under --root. Repeating it changes nothing."""
    place = _place(options)
    place.refuse_without_python()
    if "/" in options.conf:
        _refuse_invalid(Path(options.conf))
    node = [*(suite.units(place) if options.systemd else ()), *([suite.command(place)] if options.link else [])]
    items = [*suite.executables(place), *(node if options.force else _not_lent(node))]
    items += [suite.conflist(place, options.conf)] if options.conf else []  # last: it lets pods come
    if not options.force:
        suite.refuse_foreign(items)
    changed = [str(place.now(place.prefix))] if tree.copy(place) else []
    changed += [str(item.path) for item in items if item.put()]
    if not tree.has_launcher():
        complain("agent-cni: without a launcher, for there was no C compiler: every call starts Python")
    _told(options, "installed", changed)
    return 0


def uninstall(options: argparse.Namespace) -> int:
    """Take away everything an installation and its plugins made, state, logs and idle bridges included.

    What the node has one of stays where another installation is there. A conflist somebody changed stays, and kernel
    settings do (ip_forward), on which others rely too.
    """
    place = _place(options)
    others = suite.other_prefixes(place)
    if not options.force:
        _refuse_in_use(place, others)
    every = [*suite.conflists(place), *suite.executables(place), *suite.units(place), suite.command(place)]
    items = [item for item in every if not (others and item.is_the_nodes)]
    left = _left(items, place)  # what could tell goes next
    remains = _remains(place, others)
    removed = [str(item.path) for item in items if item.take()]
    removed += [str(path) for path in remains if tree.remove(path)]
    removed += _idle_links() if place.root == Place.root and not others else []
    _told(options, "removed", removed)
    for path, why in left.items():
        complain(f"agent-cni: {path} {why}, and is left")
    if others:
        said = f"what this node has one of is left to the installation in {', '.join(map(str, sorted(others)))}"
        complain(f"agent-cni: {said}")
    return 0


def _place(options: argparse.Namespace) -> Place:
    given = {name: value for name, value in vars(options).items() if name in Place.__match_args__}
    place = Place(**given)
    if not place.root.is_dir():
        raise Unavailable(f"{place.root} is no folder")
    return place


def _refuse_invalid(conf: Path) -> None:
    try:
        faults = [f"{item['where']}: {fault}" for item in judged(conf) for fault in item["faults"]]
    except CniError as error:
        faults = [error.msg]
    if faults:
        raise InvalidConfig(f"{conf}: {'; '.join(faults)}")


def _refuse_in_use(place: Place, others: set[Path]) -> None:
    """Raise Conflict where pods would be left without the plugins that must detach them, or calls with half an agent."""
    folder = place.now(DEFAULT_FOLDER)
    records, unread = records_of(folder) if folder == DEFAULT_FOLDER or folder.exists() else ([], [])
    attached = len(records)
    if unread and not others:
        raise Conflict(
            f"whether pods are attached here cannot be told: {'; '.join(unread)}; drain the node, and --force"
        )
    if attached and not others:
        raise Conflict(
            f"pods are attached here ({attached}), and only the plugins can detach them: drain the node, or --force"
        )
    if is_listened_on(place.now(PATH)) and not _agent_is_anothers(place):
        mend = "systemctl disable --now agent-cni.socket agent-cni.service"
        raise Conflict(f"an agent listens on {place.now(PATH)}: {mend}, or --force")


def _agent_is_anothers(place: Place) -> bool:
    return any(item.other for item in suite.units(place))


def _remains(place: Place, others: set[Path]) -> list[Path]:
    """What is no single file, the copy that runs this at the end."""
    target = place.now(place.prefix)
    kept = [] if others else [place.now(DEFAULT_FOLDER), place.now(FOLDER)]
    kept += [] if _agent_is_anothers(place) else [suite.wanted_by(place)]
    return [*kept, target] if tree.is_ours(target) else kept


def _idle_links() -> list[str]:
    """Delete what stays of ours on the host when pods go: bridges, and VXLAN devices on them, that nothing else is on."""
    rtnl = Rtnl()
    links = rtnl.links()
    others = [link for link in links if link.alias != OWNER]
    busy = {link.bridge for link in others} | {link.parent for link in others if not link.parent_elsewhere}
    idle = [link for link in links if link.alias == OWNER and not {link.index, link.bridge or link.index} & busy]
    for link in idle:
        rtnl.delete_link(link)
    rtnl.close()
    return [f"link {link.name}" for link in idle]


def _left(items: list[Item], place: Place) -> dict[str, str]:
    """Why files that are somebody's own stay: also configurations that name our plugins."""
    left = {str(item.path): "was changed, or is somebody else's" for item in items if item.is_foreign}
    for file in configurations(place.now(place.conf_dir)):
        with suppress(CniError, OSError):
            if file not in {item.path for item in items} and any(item["ours"] for item in judged(file)):
                left.setdefault(str(file), "is your own and still names plugins of this suite")
    return left


def _not_lent(items: list[Item]) -> Iterator[Item]:
    """Those that no other installation of this node has put there; of the rest it is said that they stay its own."""
    for item in items:
        if item.other:
            complain(f"agent-cni: {item.path} is of the installation in {item.other}, and is left; --force takes it")
        else:
            yield item


def _told(options: argparse.Namespace, done: str, paths: list[str]) -> None:
    if options.json:
        print_json({done: paths})
        return
    say(*[f"{done} {path}" for path in paths] or [f"nothing to be {done}"])
