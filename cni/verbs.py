"""The story every plugin tells, once: parse -> validate -> plan -> apply -> result.

A plugin is two nouns, a `Config` and a `plan`. The verbs below are loops over what they say; to change
what a verb does for every plugin, change it here. Source: CNI specification 1.1.0, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from functools import cache
from typing import Any

from cni import engine, log, uplink
from cni.errors import (
    AlreadyAttached,
    Busy,
    CniError,
    Degraded,
    Drift,
    Incomplete,
    InvalidConfig,
    Stranded,
    Unavailable,
    own_terms,
)
from cni.ipam.own import Nothing
from cni.ipam.source import Delegate, Source, is_delegated
from cni.kernel.netns import link_exists
from cni.kernel.signals import uninterrupted
from cni.lost import whole_record
from cni.node import Node, folder_of, is_of, opened, refuse_unwritable
from cni.plugin import Plugin, PluginConfig
from cni.protocol.call import Call
from cni.protocol.config import NetConf, validate, version_of
from cni.protocol.result import Result
from cni.resources import Difference, Host, Plan, Resource, World
from cni.resources.base import REFRESH, Unknown
from cni.state import Record, Store
from cni.survey import survey, uplink_of
from cni.values import replace

Deliver = Callable[[dict[str, Any]], None]


def sweep(plugin: Plugin | None, record: Record, call: Call) -> None:
    """Detach what a record says; None is a plugin this release lacks. Raises Busy while another call is at it."""
    network, container, ifname = record.attachment
    stale = call.having(container=container, ifname=ifname, netns=record.netns)
    found = record.config | {"name": network} | ({"dataDir": str(record.folder)} if record.folder else {})
    with own_terms, opened(record.plugin, stale, found, patience=1) as node:
        if node.record:
            whole = whole_record(plugin, node, stale, found) if plugin else node.record
            _detach(node, whole, _releaser(record.config, stale))


def add(plugin: Plugin, call: Call, netconf: NetConf, deliver: Deliver) -> None:
    """Attach, and hand the result to `deliver`; when either fails, nothing of it stays."""
    config = _configured(plugin, call, netconf)
    if config.chained and not netconf.get("prevResult"):
        raise InvalidConfig(f"$.prevResult: missing; {plugin.name} is chained after a plugin that makes an interface")
    previous = Result.read(netconf.get("prevResult") or {}) if config.enters_pod else Result()
    with opened(plugin.name, call, netconf, config.enters_pod) as node:
        node.store.lock.share_node()
        same = node.record is None or is_of(node.record, node.world.netns)
        if config.chained and node.record and node.record.complete and same:
            # by the path that is recorded: by another it would be somebody else's rules that are made, and then removed as stale
            host = survey(node, config, call.having(netns=node.record.netns))
            node.record = node.record.configured(netconf, call.pod)
            _repeat(node, plugin.plan(config, node.attachment, Result(), host))
            deliver(netconf["prevResult"])
            return
        if node.record:
            _make_way(node, node.record, call, same)
        host = survey(node, config, call)
        record = node.new_record(call, netconf)
        try:
            link = _linked(plugin, config, node, record, host) if config.ipam.delegated else ()
            with config.ipam.reserving(node.store, record) as lease, node.store.planning():
                plan = plugin.plan(config, node.attachment, lease, host)
                record = node.write(record, plan.resources)
                config.ipam.told(node.store, record, plan.result)
            node.apply([item for item in plan.resources if item not in link])
            result = engine.observed(plan.result, node.world)
            node.complete(record.having(complete=True, result=result.render()))
            passed_on = netconf["prevResult"] if config.chained and result == Result() else None
            deliver(passed_on or result.after(previous).render(version_of(netconf)))
        except Stranded:
            raise
        except BaseException as error:
            _roll_back(node, config.ipam, error)
            raise


def check(plugin: Plugin, call: Call, netconf: NetConf, deliver: Deliver, *, rules_stand: bool = False) -> None:
    """Raise Drift naming everything of this attachment that is not as ADD left it; but what `refresh` mends where it is known that its
    `rules_stand`.
    """
    config = _configured(plugin, call, netconf)
    if not isinstance(netconf.get("prevResult"), dict):
        raise InvalidConfig("$.prevResult: CHECK needs the result of the ADD")
    reported = Result.read(netconf["prevResult"])
    with opened(plugin.name, call, netconf, config.enters_pod) as node:
        if not (node.record and node.record.complete):
            unknown = Difference(f"no completed attachment is recorded in {node.store.path}")
            raise Drift(node.attachment, (unknown,))
        if not is_of(node.record, node.world.netns):
            raise Drift(node.attachment, (Difference("CNI_NETNS is another namespace than the one that was attached"),))
        given = Result.read(node.record.result or {})
        recorded = node.store.as_said(node.record).resources
        asked = [item for item in recorded if not rules_stand or item.mend != REFRESH or item.configured]
        found = engine.differences(asked, node.world, reported)
        found += map(Difference, config.ipam.differences(node.store, node.record, given))
        lacking = (ip.address for ip in given.ips if not _reports(reported, ip.address))
        found += [Difference(f"prevResult lacks {address}") for address in lacking]
    if found:
        raise Drift(node.attachment, tuple(found))


def delete(plugin: Plugin, call: Call, netconf: NetConf, deliver: Deliver) -> None:
    """Detach: everything this attachment's ADD made, whether it completed or not."""
    with opened(plugin.name, call, netconf) as node:
        recorded = whole_record(plugin, node, call, netconf)
        _detach(node, recorded, _releaser(netconf if "config" in recorded.unreadable else recorded.config, call))


def gc(plugin: Plugin, call: Call, netconf: NetConf, deliver: Deliver) -> None:
    """Detach every recorded attachment of this network that the runtime does not list.

    An absent list means the runtime said nothing, not that all are stale.
    """
    listed = netconf.get("cni.dev/valid-attachments", netconf.get("cni.dev/attachments"))
    if listed is None:
        return
    valid = _listed(listed)
    records = _recorded(netconf, plugin.name)
    stale = [record for record in records if record.attachment[1:] not in valid]
    failed = [line for record in stale for line in _swept(plugin, record, call)]
    _releaser(netconf, call).sweep()
    if failed:
        raise Incomplete("; ".join(failed))


def status(plugin: Plugin, call: Call, netconf: NetConf, deliver: Deliver) -> None:
    """Raise Unavailable or Degraded unless an ADD can be served now. Takes no lock, changes nothing."""
    config = _configured(plugin, call, netconf)
    folder = folder_of(netconf)
    refuse_unwritable(folder)
    store = Store.reading(folder)
    try:
        missing = [f"this host has no link {name!r}" for name in config.links if not link_exists(name)]
        _, vtep = uplink_of(store, config)
        if vtep and vtep.exposed:
            raise Degraded(vtep.exposed)
        address = vtep.address if vtep else config.address
        if address and not uplink.is_own(address):
            missing.append(f"no link of this host holds {address}")
        if missing:
            serving = bool(store and store.records(netconf["name"], plugin.name))
            raise (Degraded if serving else Unavailable)(missing[0])
        if config.rules is not None:
            from cni.kernel import netfilter  # no other verb pays for these

            netfilter.choose(config.rules)
        if config.sidecar is not None:
            from cni.sidecar import captured

            captured.refuse_impossible(config.sidecar)
        if config.policy is not None:
            from cni.policy import rehearsal

            grows = bool((netconf.get("policy") or {}).get("policyDir"))
            rehearsal.refuse_impossible(config.policy, grows=grows, has_port=config.has_port and not config.chained)
        if config.names is not None:
            from cni.kernel import hostsdir

            hostsdir.refuse_unwritable(netconf["name"])
        config.ipam.refuse_when_exhausted(store, netconf["name"])
    finally:
        if store:
            store.close()


VERBS: dict[str, Callable[[Plugin, Call, NetConf, Deliver], None]] = {
    "ADD": add,
    "CHECK": check,
    "DEL": delete,
    "GC": gc,
    "STATUS": status,
}


def _configured(plugin: Plugin, call: Call, netconf: NetConf) -> PluginConfig:
    validate(netconf, plugin.name)
    return plugin.Config.read(netconf, call)


def _linked(plugin: Plugin, config: PluginConfig, node: Node, record: Record, host: Host) -> tuple[Resource, ...]:
    """Record and make the link, with its final MAC, before another plugin is asked for its addresses: DHCP is spoken on it.

    One that is to be guarded stays down, because its guards stand in the addresses' way.
    """
    config.ipam.refuse_missing()
    guarded = config.policy is not None or config.sidecar is not None
    with node.store.planning():
        planned = plugin.plan(config, node.attachment, Result(), replace(host, unleased=True)).resources
        link = tuple(item for item in planned if not (guarded and item.opens))
        node.write(record, link)
    node.apply(link)
    return link


def _make_way(node: Node, record: Record, call: Call, same: bool) -> None:
    """Refuse a second ADD; take back first what never completed, or what was in another namespace, which is gone."""
    if record.complete and same:
        raise AlreadyAttached(f"{node.attachment} is attached already; DEL comes before a second ADD")
    with nullcontext(node.world) if same else closing(World(None, node.store.lock)) as world:
        _detach(node.seen_from(world), record, _releaser(record.config, call))
    node.record = None


def _repeat(node: Node, plan: Plan) -> None:
    """A chained ADD that comes again makes sure of what it made, or replaces it by what is wanted now.

    Meanwhile the record holds both, so that a DEL finds everything whatever happens.
    """
    assert node.record
    places = {resource.place for resource in plan.resources}
    stale = tuple(resource for resource in node.record.resources if resource.place not in places)
    node.write(node.record, (*stale, *plan.resources))
    node.apply(plan.resources)
    node.keep_only(plan.resources)


def _roll_back(node: Node, source: Source, error: BaseException) -> None:
    """Take back what this call created; what cannot be taken back stays recorded for DEL and GC."""
    try:
        with own_terms, uninterrupted():
            node.world.others = cache(node.shared_by_others)
            recorded = node.store.record(node.attachment, node.plugin) is not None
            _give_up(source if recorded else Nothing(), node.world.undo.close)
            node.forget(node.record)
    except CniError as second:
        error.add_note(f"and undoing it failed: {second.msg}")


def _detach(node: Node, record: Record, source: Source) -> None:
    """Take away what a record holds, and the record. What another release wrote into it is told, because it may be left."""
    _give_up(source, lambda: engine.remove(record.resources, node.world))
    node.forget(record)
    unknown = [item.what for item in record.resources if isinstance(item, Unknown)]
    unknown += [f"its {name}" for name in record.unreadable]
    if unknown:
        told = f"{node.attachment}: what its record says of {', '.join(dict.fromkeys(unknown))} is left as it is"
        log.warning(record.plugin, told, **node.attachment._asdict(), pod=record.pod)


def _give_up(source: Source, take_away: Callable[[], object]) -> None:
    """Release addresses when nothing uses them any more; but what is told over the link itself, while it is there."""
    if not source.speaks_on_link:
        take_away()
        source.release()
        return
    try:
        source.release()
    finally:
        take_away()


def _releaser(netconf: NetConf, call: Call) -> Source:
    """Whom DEL and GC must tell: only a delegate; our own leases go with the record."""
    return Delegate(netconf, call) if is_delegated(netconf) else Nothing()


def _recorded(netconf: NetConf, plugin: str) -> list[Record]:
    store = Store.reading(folder_of(netconf))
    if store is None:
        return []
    with closing(store):
        return store.records(netconf["name"], plugin)


def _swept(plugin: Plugin, record: Record, call: Call) -> Iterator[str]:
    try:
        sweep(plugin, record, call)
    except Busy:
        return  # an ADD or DEL of its own is running; the next GC sees what is left
    except CniError as error:
        yield f"{record.attachment}: {error.msg}"


def _listed(raw: Any) -> set[tuple[str, str]]:
    try:
        return {(item["containerID"], item["ifname"]) for item in raw}
    except (TypeError, KeyError):
        raise InvalidConfig("$['cni.dev/valid-attachments']: not a list of {containerID, ifname}") from None


def _reports(reported: Result, address: str) -> bool:
    return any(ip.address == address for ip in reported.ips)
