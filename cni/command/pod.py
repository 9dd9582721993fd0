"""One pod of this node: what the kernel has of it now, which rules and documents hold it, and what they dropped."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from typing import Any

from cni.command.held import held_of
from cni.command.output import complain, print_json, say
from cni.command.policy import documents_about
from cni.errors import InvalidConfig
from cni.kernel.counters import counted
from cni.kernel.netlink import Rtnl
from cni.kernel.netns import Netns
from cni.kernel.view import MAIN_TABLE, KernelRoute, Link
from cni.liveness import STATES, Liveness, Witness
from cni.naming import POLICY_TABLE
from cni.resources import PodPolicy, Resource, VethPair
from cni.state import Record

_WAYS = {"ingress": "into it", "egress": "out of it"}
#: Kinds that are rules, as `explain` prints them.
_RULES = {
    "PodPolicy", "PolicyTable", "AntiSpoof", "GuardTable", "Gate", "GateTable", "Masquerade", "MasqueradeRules", "PodRules", "PeerSet",
    "BridgeFilter", "VtepFilter", "WayBack",
}  # fmt: skip


def of_pod(records: Iterable[Record], name: str) -> list[Record]:
    """The attachments of a pod by ``namespace/name``, or of a container by its id's beginning. Raises InvalidConfig where there is none."""
    every = list(records)
    named = [item for item in every if item.pod and item.pod == name]
    found = named or [item for item in every if name and item.attachment.container.startswith(name)]
    if not found:
        there = ", ".join(sorted({item.pod or item.attachment.container[:12] for item in every})) or "none"
        raise InvalidConfig(f"no pod {name!r} is on this node; there are: {there}")
    return found


def show_pod(options: argparse.Namespace, records: Iterable[Record]) -> None:
    """Print all there is to say of one pod's attachments."""
    found = of_pod(records, options.pod)
    policies = _policies(options)
    said = [_of(record, policies.get((record.attachment, record.plugin), {})) for record in found]
    if options.json:
        print_json(said)
        return
    for one in said:
        _tell(one)


def _policies(options: argparse.Namespace) -> dict[Any, dict[str, list[str]]]:
    """The documents about each attachment, by direction."""
    held, faults = held_of(options)
    complain(*(f"agent-cni: {line}" for line in faults))
    return {
        (item.record.attachment, item.record.plugin): {way: list(documents_about(item, way)) for way in _WAYS}
        for item in held
    }


def _of(record: Record, policies: dict[str, list[str]]) -> dict[str, Any]:
    fate = Witness().of(record)
    said: dict[str, Any] = {
        "pod": record.pod,
        **record.attachment._asdict(),
        "plugin": record.plugin,
        "netns": record.netns,
        "state": STATES[fate] if record.complete else "incomplete",
    }
    there = Netns.if_there(record.netns) if fate is Liveness.ALIVE else None
    with closing(there) if there else nullcontext():
        said |= {"links": [*_on_host(record), *(_in_pod(there, record.attachment.ifname) if there else ())]}
        said |= _of_namespace(there, record.attachment.ifname)
        rules = [item for item in record.resources if item.kind in _RULES]
        said["rules"] = [{"says": item.describe(), "details": list(item.details())} for item in rules]
        said["policies"] = policies
        said["drops"] = list(_drops(record.resources, there))
    return said


def _on_host(record: Record) -> Iterator[dict[str, Any]]:
    """The host ends of its veths, and what they are ports of."""
    with closing(Rtnl()) as host:
        for item in record.resources:
            if isinstance(item, VethPair):
                link = host.link_by_name(item.host)
                bridge = host.link_by_index(link.bridge) if link and link.bridge else None
                yield _link("host", link, item.host) | {"bridge": bridge.name if bridge else ""}


def _in_pod(netns: Netns, ifname: str) -> Iterator[dict[str, Any]]:
    with netns.entered(), closing(Rtnl()) as pod:
        yield _link("pod", pod.link_by_name(ifname), ifname) | {"bridge": ""}


def _link(where: str, link: Link | None, name: str) -> dict[str, Any]:
    if link is None:
        return {"where": where, "name": name, "kind": "", "mac": "", "mtu": 0, "state": "missing"}
    state = link.state.lower() if link.up else "set down"
    return {"where": where, "name": name, "kind": link.kind, "mac": link.mac, "mtu": link.mtu, "state": state}


def _of_namespace(netns: Netns | None, ifname: str) -> dict[str, list[Any]]:
    """Addresses, routes and permanent neighbours that the pod's interface has now."""
    found: dict[str, list[Any]] = {"addresses": [], "routes": [], "neighbours": []}
    if netns is None:
        return found
    with netns.entered(), closing(Rtnl()) as pod:
        link = pod.link_by_name(ifname)
        if link:
            found["addresses"] = [str(item.interface) for item in pod.addresses(link)]
            routes = [route for family in (4, 6) for route in pod.routes(link, family) if route.table == MAIN_TABLE]
            found["routes"] = [_route(route, ifname) for route in routes if not route.local]
            found["neighbours"] = [f"{address} at {mac}" for address, mac in pod.neighbours(link).items()]
    return found


def _route(route: KernelRoute, ifname: str) -> str:
    """As ip-route(8) has it."""
    dst = "default" if route.dst in ("0.0.0.0/0", "::/0") else route.dst
    via = f" via {route.gateway}" if route.gateway else ""
    metric = f" metric {route.priority}" if route.priority else ""
    return f"{dst}{via} dev {ifname}{metric}{f' mtu {route.mtu}' if route.mtu else ''}"


def _drops(resources: Iterable[Resource], netns: Netns | None) -> Iterator[dict[str, Any]]:
    """What the pod's own chains dropped since they were made, by the document that decides."""
    for policy in (item for item in resources if isinstance(item, PodPolicy)):
        with netns.entered() if netns and policy.netns else nullcontext():
            for chain in policy.chains:
                for item in counted(POLICY_TABLE, chain):
                    if item.verdict == "drop":
                        way = "ingress" if chain.startswith("in") else "egress"
                        yield {"direction": way, "by": item.comment, "packets": item.packets, "bytes": item.bytes}


def _tell(one: dict[str, Any]) -> None:
    whole = f"{one['network']}/{one['container']}/{one['ifname']}"
    name = f"{one['pod']} ({whole})" if one["pod"] else whole
    say(f"{name}: {one['state']}, by {one['plugin']}, in {one['netns']}", "  links:")
    for link in one["links"]:
        on = f" on {link['bridge']}" if link["bridge"] else ""
        what = (
            "missing"
            if link["state"] == "missing"
            else f"{link['kind']}, {link['mac']}, MTU {link['mtu']}, {link['state']}"
        )
        say(f"    {link['name']}{on} {'on the host' if link['where'] == 'host' else 'in the pod'}: {what}")
    for area in ("addresses", "routes", "neighbours"):
        say(f"  {area}:", *(f"    {line}" for line in one[area] or ["none"]))
    say("  rules:")
    for rule in one["rules"]:
        say(f"    {rule['says']}", *(f"      {line}" for line in rule["details"]))
    say(*["    none"] * (not one["rules"]))
    for way, word in _WAYS.items() if one["policies"] else ():
        say(f"  policies, {word}:", *(f"    {line}" for line in one["policies"][way] or ["everything: none closes it"]))
    for drop in one["drops"]:
        say(f"  dropped {_WAYS[drop['direction']]}: {drop['packets']} packets, {drop['bytes']} bytes, by {drop['by']}")
