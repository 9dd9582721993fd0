"""An attachment whose record is lost, or cannot be read: what computed names stand for, so that a DEL finds it."""

from __future__ import annotations

from cni.errors import CniError
from cni.node import Node
from cni.plugin import Plugin
from cni.protocol.call import Call
from cni.protocol.config import NetConf
from cni.protocol.result import Result
from cni.state import Record
from cni.survey import surveyed_without_record


def whole_record(plugin: Plugin, node: Node, call: Call, netconf: NetConf) -> Record:
    """The record, with what computed names stand for where it is not there or cannot be read."""
    if node.record and not node.record.unreadable:
        return node.record
    imagined = _imagined(plugin, node, call, netconf)
    if node.record is None:
        return imagined
    return node.record.having(resources=(*imagined.resources, *node.record.resources))


def _imagined(plugin: Plugin, node: Node, call: Call, netconf: NetConf) -> Record:
    """What an ADD would have made under names that are computed, where no record says more."""
    record = node.new_record(call, netconf)
    try:
        config = plugin.Config.read(_without_folder(netconf), call.having(args=""))
        plan = plugin.plan(
            config, node.attachment, _reported(netconf, call), surveyed_without_record(node, config, call)
        )
    except (CniError, KeyError, TypeError, ValueError, AttributeError):
        return record
    return record.having(resources=plan.resources)


def _reported(netconf: NetConf, call: Call) -> Result:
    """The addresses of the pod's interface as the runtime remembers them, if it does."""
    known = Result.read(netconf.get("prevResult") or {})
    own = [at for at, item in enumerate(known.interfaces) if item.sandbox and item.name == call.ifname]
    return Result(ips=tuple(ip for ip in known.ips if ip.interface in own))


def _without_folder(netconf: NetConf) -> NetConf:
    """A configuration whose policies need not be read: no name depends on them."""
    section = netconf.get("policy")
    return netconf | {"policy": {**section, "policyDir": ""}} if isinstance(section, dict) else netconf
