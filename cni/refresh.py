"""Holding attachments that are there to what their policies say now, and to the rules they were made with.

`agent-cni refresh` runs it for every attachment that has rules on this node. An outside manager calls that after it
changed a `policyDir`, an operator after somebody flushed the ruleset: what the kernel lacks is made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cni.errors import CniError
from cni.node import Node, opened
from cni.plugin import Plugin
from cni.policy.held import as_of_today
from cni.protocol.call import Call
from cni.protocol.result import Result
from cni.resources import Difference, Resource, VethPair
from cni.resources.base import REFRESH
from cni.standing import Look, Standing, before
from cni.state import Record
from cni.state.fed import feed_of
from cni.survey import surveyed_for_rules
from cni.values import dataclass, replace

_ANOTHER = Difference("its policy is not what its policyDir says now", REFRESH)


@dataclass(frozen=True)
class _Standing:
    """An attachment's rules: `wanted` today in place of what is recorded, `behind` what refreshing them mends,
    `refused` why they cannot be those of today.
    """

    node: Node
    wanted: tuple[Resource, ...] = ()
    behind: tuple[Difference, ...] = ()
    refused: str = ""


def is_held(record: Record) -> bool:
    """Whether an attachment has rules on this node."""
    return record.complete and any(_rules_of(record.resources))


def is_fed(record: Record) -> bool:
    """Whether an attachment's policy comes from documents that may change."""
    return record.complete and bool(feed_of(record.config))


def refresh(plugin: Plugin, record: Record, call: Call, seen: Standing) -> tuple[bool, str]:
    """Make an attachment's rules those of today, each resource in one transaction.

    Says whether something was mended, and why today's policy cannot be had: then it stays as it was, but is made
    again where it is missing. Raises TryAgainLater while another call is at the attachment.
    """
    rules = tuple(_rules_of(record.resources))
    seen_before = before(rules, feed_of(record.config))
    with _standing(plugin, record, call, seen) as found:
        if found.behind:
            found.node.store.lock.share_node()
            found.node.begin(found.wanted)
            found.node.apply(tuple(_rules_of(found.wanted)))
            found.node.keep_only(found.wanted)
            seen.mended(_rules_of(found.wanted))
        elif found.wanted == record.resources and not found.refused and _goes_by_documents(record):
            seen.remember(found.node, rules, seen_before)
        return bool(found.behind), found.refused


def behind(plugin: Plugin, record: Record, call: Call, seen: Look) -> tuple[tuple[Difference, ...], str]:
    """What `refresh` would mend, and why today's policy cannot be had. Changes nothing."""
    with _standing(plugin, record, call, seen) as found:
        return found.behind, found.refused


def call_about(record: Record, call: Call) -> Call:
    """A call as it would be about an attachment that is recorded."""
    _, container, ifname = record.attachment
    namespace, _, name = record.pod.partition("/")
    args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}" if name else ""
    return call.having(container=container, ifname=ifname, netns=record.netns, args=args)


@contextmanager
def _standing(plugin: Plugin, record: Record, call: Call, seen: Look) -> Iterator[_Standing]:
    now = call_about(record, call)
    with opened(plugin.name, now, record.config, patience=1) as node:
        if node.record is None or not is_held(node.record):
            yield _Standing(node)
            return
        node.world.current = True
        there = node.record.resources
        wanted, refused = wanted_today(plugin, node, node.record, now)
        behind = [_ANOTHER] if wanted != there else []
        behind += seen.differences(_rules_of(there), node.world, again=node.record != record)
        yield _Standing(node, wanted, tuple(behind), refused)


def _goes_by_documents(record: Record) -> bool:
    """Whether what an attachment is to have follows from its record and its feed alone: no link of the node has a say in it."""
    made = any(isinstance(item, VethPair) for item in record.resources)
    return not is_fed(record) or (made and not record.config.keys() & {"vxlan", "sidecar"})


def wanted_today(plugin: Plugin, node: Node, record: Record, call: Call) -> tuple[tuple[Resource, ...], str]:
    """What an attachment is to have, its rules as of today; or what is recorded, and why those of today cannot be had."""
    try:
        return rules_of_today(plugin, node, record, call) if is_fed(record) else record.resources, ""
    except CniError as error:
        return record.resources, error.msg


def rules_of_today(plugin: Plugin, node: Node, record: Record, call: Call) -> tuple[Resource, ...]:
    """What an attachment is to have, of which its rules may be others by now. Raises as its configuration does, and Conflict."""
    config = plugin.Config.read(record.config, call)
    host = surveyed_for_rules(node, config, call)
    return as_of_today(record.resources, config.policy, node.attachment, _attached(record), host)


def _attached(record: Record) -> Result:
    """The pod's interface and its own addresses, whoever made it."""
    own = Result.read(record.result or {})
    found = own if own.interfaces else Result.read(record.config.get("prevResult") or {})
    ends = [at for at, item in enumerate(found.interfaces) if item.sandbox and item.name == record.attachment.ifname]
    return replace(found, ips=tuple(ip for ip in found.ips if ip.interface in (None, *ends)))


def _rules_of(resources: Iterable[Resource]) -> Iterator[Resource]:
    return (item for item in resources if item.mend == REFRESH and not item.configured)
