"""Putting attachments right where they are, with what stands on them and while traffic goes on.

`agent-cni repair` makes so again, by the same resources, what CHECK would call different, and holds rules to what `refresh` would.
Only the pod's own link is made anew, where it is lost. What is shared follows its network's configuration (configured.py).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cni import engine
from cni.engine import Repaired
from cni.errors import CniError, InvalidNetns
from cni.kernel.signals import uninterrupted
from cni.node import Node, is_of, opened
from cni.plugin import Plugin
from cni.protocol.call import Call
from cni.protocol.result import Result
from cni.refresh import call_about, wanted_today
from cni.resources import Difference, Resource
from cni.retirement import wait_for_retirements
from cni.state import Record

_STRANDED = "its address is in a block that is another host's by now, and it is cut off"
_ANOTHER = "its policy is not what its policyDir says now"


def repair(plugin: Plugin, record: Record, call: Call, reported: dict[str, Any], *, dry: bool = False) -> Repaired:
    """Put one attachment right under its lock, as far as can be told from a chain's `reported` result; `dry` only looks.

    What holds the pod stays as repaired whatever fails after that; a link that cannot be made whole again is taken back, and that raised.
    Raises InvalidNetns where the pod is gone, and TryAgainLater while another call is at it.
    """
    now = call_about(record, call)
    with opened(plugin.name, now, record.config, patience=1) as node:
        if node.record is None or not node.record.complete:
            return Repaired()
        if node.world.netns is None or not is_of(node.record, node.world.netns):
            raise InvalidNetns(f"{node.record.netns} is not the namespace that was attached any more")
        if node.record.attachment in node.store.stranded():  # another pod has its address: its port is to be down
            return Repaired(failed=[Difference(_STRANDED)])
        node.world.current = True
        wanted, refused = wanted_today(plugin, node, node.record, now)
        asked = _asked(node, node.record.having(resources=wanted), reported)
        changed = wanted != node.record.resources
        found = engine.lacking(asked, node.world) if dry else _repaired(node, wanted, asked)
        found.mended += [_ANOTHER] * changed
        _lease(plugin, node, now, found, dry=dry)
        if refused:
            found.failed.append(Difference(refused, "put the folder or file right, then agent-cni refresh"))
        return found


def _asked(node: Node, record: Record, reported: dict[str, Any]) -> list[Resource]:
    """What is to be there, in the order of its plan: what plugins after it changed as they said, what is configured as it is now."""
    given = Result.read(reported)
    said = [item for item in node.store.as_said(record).resources if item.configured]
    places = {item.place: item for item in said}
    there = (places.get(item.place, item) if item.configured else item for item in record.resources)
    every = dict.fromkeys((*there, *said))
    return [item for item in (resource.accepting(given) for resource in every) if item]


def _repaired(node: Node, wanted: tuple[Resource, ...], asked: list[Resource]) -> Repaired:
    assert node.record
    node.store.lock.share_node()
    changed = wanted != node.record.resources
    if changed:
        node.begin(wanted)
    try:
        wait_for_retirements(node.store, node.record, asked)
        found = engine.repair(asked, node.world)
    except BaseException as error:
        _taken_back(node, error)
        raise
    if changed:
        node.keep_only(wanted)
    return found


def _taken_back(node: Node, error: BaseException) -> None:
    try:
        with uninterrupted():
            node.world.others = cache(node.shared_by_others)
            node.world.undo.close()
    except CniError as second:
        error.add_note(f"and undoing it failed: {second.msg}")


def _lease(plugin: Plugin, node: Node, call: Call, found: Repaired, *, dry: bool) -> None:
    """What the pod has the kernel's word for is leased to it again, unless it is another's by now."""
    assert node.record
    given = Result.read(node.record.result or {})
    try:
        ipam = plugin.Config.read(node.record.config, call).ipam
        lost = list(ipam.differences(node.store, node.record, given))
        if lost and not dry:
            ipam.restore(node.store, node.record, given)
        left = lost if dry else list(ipam.differences(node.store, node.record, given))
    except CniError as error:
        found.failed.append(Difference(error.msg))
        return
    found.mended += lost if dry else [line for line in lost if line not in left]
    found.failed += map(Difference, () if dry else left)
