"""Holding attachments that are there to what their policies say now.

`agent-cni refresh` runs it for every attachment whose policy has a `policyDir`; an outside manager calls that
after it changed the folder.
"""

from __future__ import annotations

from cni import engine
from cni.kernel.signals import uninterrupted
from cni.node import Node, opened
from cni.nouns import Plugin, PluginConfig
from cni.policy.pod import as_of_today
from cni.protocol.call import Call
from cni.protocol.result import Result
from cni.resources import Resource
from cni.state import Record
from cni.survey import survey


def is_fed(record: Record) -> bool:
    """Whether an attachment's policy comes from a folder that may change."""
    return record.complete and bool((record.config.get("policy") or {}).get("policyDir"))


def refresh(plugin: Plugin, record: Record, call: Call) -> bool:
    """Replace an attachment's policy by today's, in one transaction; whether it was another one.

    Raises what an ADD with that policy would, and TryAgainLater while another call is at the attachment; the
    policy stays as it was then.
    """
    _, container, ifname = record.attachment
    namespace, _, name = record.pod.partition("/")
    args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}" if name else ""
    now = call.having(container=container, ifname=ifname, netns=record.netns, args=args)
    config = plugin.Config.read(record.config, now)
    with opened(plugin.name, now, record.config, patience=1) as node:
        if node.record is None:
            return False
        there = node.planned()
        wanted = _as_of_today(there, node, config, now)
        if wanted != there:
            _replace(node, there, wanted)
        return wanted != there


def _as_of_today(there: tuple[Resource, ...], node: Node, config: PluginConfig, call: Call) -> tuple[Resource, ...]:
    assert node.record
    attached = Result.read(node.record.result or {})
    attached = attached if attached.interfaces else Result.read(node.record.config.get("prevResult") or {})
    return as_of_today(there, config.policy, node.attachment, attached, survey(node, config, call))


def _replace(node: Node, there: tuple[Resource, ...], wanted: tuple[Resource, ...]) -> None:
    """The record is of both meanwhile: a DEL that comes between finds the chains of both."""
    assert node.record
    gone = tuple(item for item in there if item not in wanted and item.place not in {new.place for new in wanted})
    node.write(node.record, (*wanted, *gone))
    engine.apply([item for item in wanted if item not in there], node.world)
    with uninterrupted():
        engine.remove(gone, node.world)
    node.write(node.record, wanted)
