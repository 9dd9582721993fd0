"""Holding attachments that are there to what their policies say now.

`agent-cni refresh` runs it for every attachment whose policy has a `policyDir`; an outside manager calls that
after it changed the folder.
"""

from __future__ import annotations

from dataclasses import replace

from cni.kernel.signals import uninterrupted
from cni.node import Node, opened
from cni.nouns import Plugin, PluginConfig
from cni.policy.pod import isolating
from cni.protocol.call import Call
from cni.protocol.result import Result
from cni.resources import HostPort, PodPolicy, Resource
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
        wanted = tuple(_as_of_today(item, node, config, now) for item in there)
        if wanted != there:
            _replace(node, there, wanted)
        return wanted != there


def _as_of_today(resource: Resource, node: Node, config: PluginConfig, call: Call) -> Resource:
    if not isinstance(resource, PodPolicy) or node.record is None:
        return resource
    attached = Result.read(node.record.result or {})
    attached = attached if attached.interfaces else Result.read(node.record.config.get("prevResult") or {})
    port = None if resource.netns else HostPort("")
    isolation = isolating(config.policy, node.attachment, attached, survey(node, config, call), port)
    today = next(item for item in (*isolation.first, *isolation.then) if isinstance(item, PodPolicy))
    return replace(resource, rules=today.rules, closed=today.closed)


def _replace(node: Node, there: tuple[Resource, ...], wanted: tuple[Resource, ...]) -> None:
    """The record is of the new rules first: a DEL that comes between finds their chains, whose names are equal."""
    assert node.record
    node.write(node.record, wanted)
    for old, new in zip(there, wanted, strict=True):
        if new != old:
            with uninterrupted():
                new.ensure(node.world)
