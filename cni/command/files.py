"""What can be said of a configuration file without a node."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from cni.agent import settings
from cni.cluster import config as cluster
from cni.command.output import complain, print_json, say
from cni.conflist.file import UPLINK_MTU, is_bare, judged, made_by, planned, plugins_of, text_of
from cni.decoding import decoded
from cni.errors import CniError
from cni.ipam.source import SAMPLE, is_delegated
from cni.naming import OWN_IPAM
from cni.protocol import config
from cni.protocol.config import POD_ANNOTATIONS, NetConf
from cni.protocol.result import Result
from cni.resources import Plan

_LIKE_OURS = (OWN_IPAM, "host-local")
_Read = Callable[[bytes], tuple[dict[str, Any], list[str]]]
_CLUSTER = ("cluster", cluster.read, "by it a host is in a cluster")
#: By a key that only such a file has: whose it is, what reads it, and what one that is right means.
_OTHERS: dict[str, tuple[str, _Read, str]] = {
    "etcd": _CLUSTER, "kubernetes": _CLUSTER, "otlp": ("agent", settings.read, "by it the node agent runs"),
}  # fmt: skip


def validate(options: argparse.Namespace) -> int:
    """Judge a configuration or list, or a host's cluster.json or agent.json; every error with its JSON path."""
    text = text_of(options.file)
    if whose := _other_than_plugins(text):
        return _validated_other(options, text, *_OTHERS[whose])
    found = list(judged(options.file, text))
    if options.json:
        print_json({"file": str(options.file), "plugins": found})
    for item in () if options.json else found:
        for fault in item["faults"]:
            complain(f"{options.file}: {item['where']}: {fault}")
        for hint in item.get("hints", ()):
            complain(f"{options.file}: {item['where']}: {hint}")
        if not item["faults"]:
            say(f"{options.file}: {item['where']}: {item['type']}: {_verdict(item)}")
    return 1 if any(item["faults"] for item in found) else 0


def _other_than_plugins(text: bytes) -> str:
    """Whose file it is that is no plugin's, by a key of theirs; empty where it may be a plugin's."""
    with suppress(ValueError):
        said = decoded(text)
        if isinstance(said, dict) and not said.keys() & {"type", "plugins"}:
            return next((key for key in _OTHERS if key in said), "")
    return ""


def _validated_other(options: argparse.Namespace, text: bytes, whose: str, read: _Read, means: str) -> int:
    _, faults = read(text)
    if options.json:
        print_json({"file": str(options.file), whose: {"faults": faults}})
        return 1 if faults else 0
    complain(*(f"{options.file}: {fault}" for fault in faults))
    say(*[] if faults else [f"{options.file}: ok, {means}"])
    return 1 if faults else 0


def _verdict(item: dict[str, Any]) -> str:
    """What was judged, and what was not."""
    delegate = item["ipam"]
    if item["ours"]:
        return "ok" + (f"; its ipam, {delegate}, is not judged" if delegate not in ("", OWN_IPAM) else "")
    return "not a plugin of this suite; " + (
        "its ipam is ok, the rest not judged" if delegate == OWN_IPAM else "not judged"
    )


def explain(options: argparse.Namespace) -> int:
    """Print the plan of an ADD on an empty node. The kernel is neither changed nor asked."""
    explained = list(_explained(options.file))
    if options.json:
        print_json({"file": str(options.file), "plugins": explained})
    say(*[f"{options.file}:"] if len(options.files) > 1 and not options.json else [])
    for item in () if options.json else explained:
        _print_plan(item)
    return 0


def _explained(file: Path) -> Iterator[dict[str, Any]]:
    """Each plugin of a file in turn, given what those before it made."""
    before: dict[str, Any] = {}
    for where, netconf in plugins_of(file):
        annotations = _annotations(netconf)
        with _at(where):
            plan = planned(_annotated(netconf, annotations) | before)
        said = {"where": where, "type": netconf["type"], "ours": plan is not None}
        if plan is None:
            assumed = _assumed(netconf) if is_bare(before) else {}
            before = {"prevResult": assumed} if assumed else before
            yield said | {"assumed": assumed}
            continue
        result = plan.result.render(config.version_of(netconf))
        resources = [
            {"says": item.describe(), "shared": item.shared, "details": list(item.details())} for item in plan.resources
        ]
        delegate = netconf["ipam"]["type"] if is_delegated(netconf) and "ip" not in netconf else ""
        guessed = UPLINK_MTU if _has_uplinks_mtu(netconf, plan) else None
        given = {"assumed": annotations, "delegate": delegate, "uplinkMTU": guessed}
        yield said | {"resources": resources, "result": result} | given
        before = {"prevResult": plan.result.render()} if plan.result != Result() else before


def _has_uplinks_mtu(netconf: NetConf, plan: Plan) -> bool:
    """Whether what is made has the MTU of an uplink that nobody asked here, because no key says one."""
    said = netconf.get("mtu") or (netconf.get("vxlan") or {}).get("mtu")
    return not said and any(getattr(item, "mtu", 0) for item in plan.resources)


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say in which plugin of a list something is wrong."""
    try:
        yield
    except CniError as error:
        error.msg = f"{where}: {error.msg}" if where != "$" else error.msg
        raise


def _assumed(netconf: NetConf) -> dict[str, Any]:
    """What somebody else's plugin may make: a veth with the first address of its ranges, or with any."""
    ips = _first_addresses(netconf)
    return made_by(netconf) | ({"ips": [ip | {"interface": 1} for ip in ips]} if ips else {})


def _first_addresses(netconf: NetConf) -> list[dict[str, Any]]:
    """What our IPAM or host-local, which has the same keys, would give; nothing where that cannot be known."""
    ipam = netconf.get("ipam")
    if not isinstance(ipam, dict) or ipam.get("type") not in _LIKE_OURS:
        return []
    with suppress(CniError) if ipam["type"] != OWN_IPAM else nullcontext():  # host-local may take what ours does not
        lease = planned(netconf | {"type": OWN_IPAM, "ipam": ipam | {"type": OWN_IPAM}})
        return list(lease.result.render()["ips"]) if lease else []
    return []


def _annotations(netconf: NetConf) -> dict[str, str]:
    """What makes a pod one that interception is for."""
    conditions = (
        section["when"]
        for section in (netconf, netconf.get("sidecar"))
        if isinstance(section, dict) and "when" in section
    )
    names = (item.get("annotation") for item in conditions if isinstance(item, dict))
    return {name: "true" for name in names if isinstance(name, str)}


def _annotated(netconf: NetConf, annotations: dict[str, str]) -> NetConf:
    runtime = netconf.get("runtimeConfig") or {}
    if not annotations or not isinstance(runtime, dict):
        return netconf
    return netconf | {"runtimeConfig": runtime | {POD_ANNOTATIONS: annotations}}


def _print_plan(item: dict[str, Any]) -> None:
    say(f"{item['type']} ({item['where']})" + ("" if item["ours"] else ": not a plugin of this suite"))
    if not item["ours"] and item["assumed"]:
        addresses = ", ".join(ip["address"] for ip in item["assumed"]["ips"])
        *host_end, own = item["assumed"]["interfaces"]
        say(f"  assumed: it makes {own['name']} in the pod with {addresses}{', and a host end' if host_end else ''}")
    if not item["ours"]:
        return
    for name, value in item["assumed"].items():
        say(f"  assumed: the pod is annotated {name}: {value}")
    if item["uplinkMTU"]:
        say(f"  assumed: the uplink has an MTU of {item['uplinkMTU']}")
    if item["delegate"]:
        say(f"  assumed: its ipam, {item['delegate']}, gives {SAMPLE}")
    for resource in item["resources"]:
        say(f"  {'shared ' if resource['shared'] else '       '}{resource['says']}")
        for line in resource["details"]:
            say(f"           {line}")
    say(*f"  result {_result(item)}".replace("\n", "\n  ").split("\n"))


def _result(item: dict[str, Any]) -> str:
    own = any(item["result"].get(key) for key in ("interfaces", "ips", "ip4", "ip6"))
    return json.dumps(item["result"], indent=2) if own else "of the plugin before it, as it is"
