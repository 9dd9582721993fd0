"""What brings this node's state into order."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from cni import plugin
from cni.command.output import complain, print_json, say
from cni.configured import Network, networks
from cni.configured import refresh as reconfigured
from cni.conflist.file import configurations, data_dirs, plugins_of
from cni.errors import CniError, Unavailable
from cni.liveness import Liveness, Witness
from cni.policy.config import faults_in
from cni.policy.feeds import reading_once
from cni.protocol.call import Call
from cni.refresh import is_held
from cni.refresh import refresh as refreshed
from cni.standing import Standing, standing
from cni.state import DEFAULT_FOLDER, Record, Store
from cni.state.fed import feed_of
from cni.state.standing import Stood
from cni.state.uses import other_folders
from cni.verbs import sweep

T = TypeVar("T")


def gc(options: argparse.Namespace) -> int:
    """Remove every attachment whose network namespace is proven to be gone."""
    witness = Witness()
    records, faults = records_of(options.data_dir, options.conf_dir)
    judged = [(record, witness.of(record)) for record in records]
    stale = [record for record, fate in judged if fate is Liveness.GONE]
    unseen = [f"{record.attachment}: {unseen_from_here(record)}" for record, fate in judged if fate is Liveness.UNSEEN]
    call = Call("DEL", path=tuple(options.cni_path.split(":")), environ=os.environ)
    failed = list(filter(None, (_collected(record, call) for record in stale)))
    removed = len(stale) - len(failed)
    failed += [*unseen, *faults]
    _told(options, {"removed": removed, "failed": failed}, f"removed {removed} of {len(stale)} stale attachments")
    return 1 if failed else 0


def refresh(options: argparse.Namespace) -> int:
    """Hold attachments to their policyDir and overlays to their configuration as they are now, and make again what of them is gone."""
    witness = Witness()
    with reading_once(keep=True), standing(keep=True) as seen:
        found, unread = answers_of(options.data_dir, options.conf_dir, lambda store: list(_looked_at(store, seen)))
        held = [item for item in found if isinstance(item, Record) and witness.of(item) is not Liveness.GONE]
        feeds = [item.feed for item in found if isinstance(item, Stood)] + [feed_of(item.config) for item in held]
        faults = [line for feed in dict.fromkeys(feeds) for line in faults_in(feed, seen.faults_of)]
        answers = [(record, *_refreshed(record, seen)) for record in held]
    refused = [f"{record.attachment}: {line}" for record, _, line in answers if line and line not in faults]
    failed = list(dict.fromkeys([*unread, *faults, *refused]))
    changes = [(item.feed, False) for item in found if isinstance(item, Stood)]
    changes += [(feed_of(record.config), changed) for record, changed, _ in answers]
    fed, others = ([changed for feed, changed in changes if bool(feed) is kind] for kind in (True, False))
    said = f"changed {sum(fed)} of {len(fed)} attachments with a policyDir"
    said += f", {sum(others)} of {len(others)} with other rules" if others else ""
    overlays, unlike = _overlays_refreshed(options)
    failed += unlike
    said += f", {sum(overlays)} of {len(overlays)} overlays" if overlays else ""
    data = {"changed": sum(fed) + sum(others), "attachments": len(changes), "overlays": sum(overlays), "failed": failed}
    _told(options, data, said)
    return 1 if failed else 0


def _looked_at(store: Store, seen: Standing) -> Iterator[Stood | Record]:
    """The attachments of a folder that have rules: what is known of those that need nothing, and the record of each that is to be asked."""
    for (attachment, name), digest in store.digests().items():
        known = seen.stands(store, attachment, name, digest)
        if known:
            yield known
        elif (record := store.record(attachment, name)) and is_held(record):
            yield record


def networks_of(options: argparse.Namespace) -> list[Network]:
    """The networks of a node that have said something, judged by the configurations in its folder; a file that cannot be read says nothing."""
    given = []
    for file in configurations(options.conf_dir):
        with suppress(CniError, OSError):
            given += [netconf for _, netconf in plugins_of(file)]
    return networks(folders_of(options.data_dir, options.conf_dir), given)


def _overlays_refreshed(options: argparse.Namespace) -> tuple[list[bool], list[str]]:
    """Whether each network's overlay changed, and a line for each that cannot be as it says."""
    every = networks_of(options)
    changed, failed = [], [f"network {item.place.network}: {item.refused}" for item in every if item.refused]
    for network in every:
        try:
            changed.append(reconfigured(network, every))
        except CniError as error:
            changed.append(False)
            failed.append(f"network {network.place.network}: {error.msg}")
    return changed, failed


def reading(folder: Path) -> Store | None:
    """A node's state, or None where it has none yet. Raises Unavailable for a folder somebody named that is none."""
    if folder.exists() and not folder.is_dir():
        raise Unavailable(f"{folder} is no folder")
    if folder != DEFAULT_FOLDER and not folder.exists():
        raise Unavailable(f"there is no folder {folder}")
    return Store.reading(folder)


def folders_of(folder: Path, conf_dir: Path) -> list[Path]:
    """A folder that was named, or all of this node: in use since its boot, or in a file of `conf_dir`.

    Raises Unavailable where nobody can say which those are.
    """
    return [folder, *(other_folders(folder, data_dirs(conf_dir)) if folder == DEFAULT_FOLDER else ())]


def answers_of(folder: Path, conf_dir: Path, question: Callable[[Store], list[T]]) -> tuple[list[T], list[str]]:
    """What the folders of a node (see `folders_of`) answer, and a line for each that cannot be read.

    Raises what `reading` does where a folder was named: there is no other.
    """
    found: list[T] = []
    faults = []
    for each in folders_of(folder, conf_dir):
        try:
            if store := reading(each):
                with closing(store):
                    found += question(store)
        except CniError as error:
            if folder != DEFAULT_FOLDER:
                raise
            faults.append(error.msg)
    return found, faults


def records_of(folder: Path, conf_dir: Path) -> tuple[list[Record], list[str]]:
    """The records of a folder that was named, or of all on this node, and what `answers_of` says of those it cannot read."""
    return answers_of(folder, conf_dir, lambda store: store.records())


def unseen_from_here(record: Record) -> str:
    """Why nobody can say from here whether a pod is alive, and where one can."""
    where = f"whether {record.netns} is gone cannot be seen from here"
    return f"{where}; ask in the host's own mount, process and network namespaces. It is left as it is"


def _told(options: argparse.Namespace, data: dict[str, Any], said: str) -> None:
    if options.json:
        print_json(data)
        return
    for line in data["failed"]:
        complain(f"agent-cni: {line}")
    say(said)


def _collected(record: Record, call: Call) -> str:
    """Remove one attachment; the line of what failed, or nothing."""
    try:
        sweep(plugin.load(record.plugin) if record.plugin in plugin.names() else None, record, call)
    except CniError as error:
        return f"{record.attachment}: {error.msg}"
    return ""


def _refreshed(record: Record, seen: Standing) -> tuple[bool, str]:
    """Whether something of an attachment changed, and the line of what failed, or nothing."""
    if record.plugin not in plugin.names():
        return False, f"this release has no plugin {record.plugin}"
    try:
        return refreshed(plugin.load(record.plugin), record, Call("REFRESH"), seen)
    except CniError as error:
        return False, error.msg
    except (KeyError, TypeError, AttributeError):
        return False, "another release recorded what this one does not know"
