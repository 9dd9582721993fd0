"""Giving the suite to a node or to an image of one, and taking it away."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from cni.agent.listener import is_listened_on
from cni.cluster import config as cluster
from cni.command.doctor.remains import take_tables
from cni.command.node import records_of
from cni.command.output import complain, print_json, say
from cni.conflist.file import called_by, configurations, judged
from cni.errors import CniError, Conflict, InvalidConfig, Unavailable
from cni.installation import suite, systemd, tree
from cni.installation.item import Item, date
from cni.installation.place import Place
from cni.kernel import hostsdir
from cni.kernel.errand import PATH
from cni.kernel.netlink import Rtnl
from cni.kernel.view import Link
from cni.log import FOLDER
from cni.naming import OWNER
from cni.state import DEFAULT_FOLDER
from cni.state.daemons import GATE, NAMES, is_running


def install(options: argparse.Namespace) -> int:
    """Give the plugins to this node, or to the image under --root. Repeating it changes nothing."""
    place = _place(options)
    place.refuse_without_python()
    date()  # one that is none is refused before anything is begun
    if "/" in options.conf:
        _refuse_invalid(Path(options.conf))
    node = list(systemd.units(place)) if options.systemd else []
    node += [suite.command(place), suite.rotation(place)] if options.link else []
    items = [
        *suite.executables(place, options.stand_ins, _only(options)),
        *(node if options.force else _not_lent(node)),
    ]
    items += [suite.conflist(place, options.conf)] if options.conf else []  # last: it lets pods come
    if not options.force:
        suite.refuse_foreign(items)
    are_lent = any(item.other for item in systemd.units(place))
    tree.refuse_foreign(place.now(place.prefix))
    with systemd.following(place) as change:
        copied = tree.copy(place)
        put = [item.path for item in items if item.put()]
        for line in change.follow(put, renewed=copied, are_lent=are_lent):
            complain(f"agent-cni: {line}")
    if not tree.has_launcher():
        complain("agent-cni: without a launcher, for there was no C compiler: every call starts Python")
    _told(options, "installed", [str(path) for path in (*[place.now(place.prefix)] * copied, *put)])
    return 0


def uninstall(options: argparse.Namespace) -> int:
    """Take away everything an installation and its plugins made, state, logs and idle bridges included.

    A host in a cluster leaves that first. What the node has one of stays where another installation is there. A conflist
    somebody changed stays, and kernel settings do (ip_forward), on which others rely too.
    """
    place = _place(options)
    others = suite.other_prefixes(place)
    agent_is_ours = not any(item.other for item in systemd.units(place))
    if not (options.force or others):
        _refuse_attached(place)
        _refuse_clustered(place)
    if agent_is_ours:
        systemd.disable(place)
    if agent_is_ours and not options.force:
        _refuse_served(place)
    every = [*suite.conflists(place), *suite.executables(place), *suite.stand_ins(place), *systemd.units(place)]
    every += [suite.command(place), suite.rotation(place)]
    items = [item for item in every if not (others and item.is_the_nodes)]
    left = _left(items, place)  # what could tell goes next
    is_whole_node = place.root == Place.root and not others
    tables, stay = take_tables() if is_whole_node else ([], [])
    left |= {
        f"table {table}": f"keeps others from pods that are here still (nft delete table {table})" for table in stay
    }
    folders = [] if others else [place.now(path) for path in (DEFAULT_FOLDER, hostsdir.FOLDER, FOLDER)]
    folders += systemd.wanted(place) if agent_is_ours else []
    removed = [str(item.path) for item in items if item.take()]
    removed += [str(path) for path in folders if tree.remove(path)]
    removed += [f"table {table}" for table in tables]
    removed += take_idle_links() if is_whole_node else []
    if agent_is_ours:
        systemd.forget(place)
    prefix = place.now(place.prefix)
    removed += [str(prefix)] * tree.take(prefix)  # last, for it is what somebody who is killed here does it again by
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


def _only(options: argparse.Namespace) -> list[str] | None:
    """The plugins that are wanted; None: all."""
    wanted = set(options.only or ())
    for file in configurations(options.called_by) if options.called_by else ():
        wanted |= called_by(file)
    return sorted(wanted) if options.only or options.called_by else None


def _refuse_invalid(conf: Path) -> None:
    try:
        faults = [f"{item['where']}: {fault}" for item in judged(conf) for fault in item["faults"]]
    except CniError as error:
        faults = [error.msg]
    if faults:
        raise InvalidConfig(f"{conf}: {'; '.join(faults)}")


def _refuse_attached(place: Place) -> None:
    """Raise Conflict where pods would be left without the plugins that must detach them."""
    folder = place.now(DEFAULT_FOLDER)
    records, unread = (
        records_of(folder, place.now(place.conf_dir)) if folder == DEFAULT_FOLDER or folder.exists() else ([], [])
    )
    attached = len(records)
    if unread:
        raise Conflict(
            f"whether pods are attached here cannot be told: {'; '.join(unread)}; drain the node, and --force"
        )
    if attached:
        raise Conflict(
            f"pods are attached here ({attached}), and only the plugins can detach them: drain the node, or --force"
        )


def _refuse_clustered(place: Place) -> None:
    """Raise Conflict where others would go on counting this host in, and keep its addresses for it."""
    if place.root == Place.root and (file := place.now(cluster.PATH)).exists():
        raise Conflict(f"this host is in a cluster, by {file}: agent-cni leave, or --force")


def _refuse_served(place: Place) -> None:
    """Raise Conflict where an agent, who answers for names or who judges questions would be left without what it is made of."""
    if is_listened_on(place.now(PATH)):
        mend = "end it (systemctl disable --now agent-cni.socket agent-cni.service)"
        raise Conflict(f"an agent listens on {place.now(PATH)}: {mend}, or --force")
    for kind, command in ((NAMES, "names"), (GATE, "dnsgate")):
        if place.root == Place.root and is_running(kind):
            raise Conflict(f"a {kind} runs here: end it (agent-cni {command}), or --force")


def take_idle_links(chosen: Callable[[Link], bool] = bool) -> list[str]:
    """Delete what stays of ours on the host when pods go: bridges, and VXLAN devices on them, that nothing else is on."""
    rtnl = Rtnl()
    links = rtnl.links()
    others = [link for link in links if link.alias != OWNER]
    busy = {link.bridge for link in others} | {link.parent for link in others if not link.parent_elsewhere}
    idle = [link for link in links if link.alias == OWNER and not {link.index, link.bridge or link.index} & busy]
    idle = [link for link in idle if chosen(link)]
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
    if (file := place.now(cluster.PATH)).exists():
        left[str(file)] = "says how this host is in a cluster, which counts it in until agent-cni node remove"
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
