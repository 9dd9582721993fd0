"""What this node's state says: who is attached, on what, and by which rules."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cni.cluster.config import ClusterConfig
from cni.command.doctor import named
from cni.command.node import answers_of
from cni.command.output import complain, print_json, print_table, print_text
from cni.command.picture import part
from cni.command.picture.graph import drawn
from cni.command.picture.health import health_of, uplinks_of
from cni.command.picture.pictured import networks
from cni.command.pod import show_pod
from cni.errors import CniError
from cni.kernel.writing import put_asked
from cni.liveness import STATES, Witness
from cni.resources import (
    AntiSpoof,
    Bridge,
    FloodList,
    Gate,
    GatewayAddress,
    Masquerade,
    PodPolicy,
    PodRules,
    Resource,
    VethPair,
    VxlanLink,
)
from cni.state import Record

R = TypeVar("R", bound=Resource)
Rows = list[dict[str, Any]]

_KIND = {Masquerade: "masquerade", PodPolicy: "policy", AntiSpoof: "guard", Gate: "guard", PodRules: "interception"}
_CUT = {"pod": 253, "container": 12}
_NOTHING = {"bridges": "no bridges in use", "vteps": "no VTEPs in use", "names": "no names"}
_COLUMNS = {
    "attachments": ("pod", "container", "ifname", "network", "addresses", "state", "plugin"),
    "leases": ("network", "address", "container", "ifname"),
    "bridges": ("bridge", "mtu", "gateways", "pods"),
    "vteps": ("device", "bridge", "vni", "port", "local", "remotes"),
    "rules": ("container", "ifname", "kind", "rule"),
    "names": named.COLUMNS,
}


def show(options: argparse.Namespace) -> int:
    """Print attachments, leases, bridges, VTEPs, rules and names, or draw them, or all there is to say of one POD; of the folders that
    can be read, if one cannot.
    """
    there = options.data_dir, options.conf_dir
    records, unread = answers_of(*there, lambda store: list(map(store.as_said, store.records())))
    for line in unread:
        complain(f"agent-cni: {line}")
    _shown(options, records)
    return 1 if unread else 0


def _shown(options: argparse.Namespace, records: list[Record]) -> None:
    if options.pod:
        show_pod(options, records)
        return
    if options.graph:
        there = _elsewhere(options)
        names, _ = answers_of(options.data_dir, options.conf_dir, lambda store: store.guest_of())
        guests = {name: there.vnis[name] for name in names if name in there.vnis}
        found = networks(records, there.hosts, guests, health_of(options, records))
        svg = drawn(found, os.uname().nodename, uplinks_of(records))
        if str(options.graph) != "-":
            put_asked(options.graph, svg, 0o644)
        elif options.json:
            print_json({"svg": svg})
        else:
            print_text(svg)
        return
    shown = {area: table(records) for area, table in _TABLES.items()}
    leases, _ = answers_of(options.data_dir, options.conf_dir, lambda store: store.all_leases())
    shown["leases"] = [
        {"address": str(address), **attachment._asdict(), "plugin": holder} for address, attachment, holder in leases
    ]
    shown["names"] = named.rows()
    parts, _ = answers_of(options.data_dir, options.conf_dir, lambda store: [part.rows(store)])
    own = {area: [row for rows in parts for row in rows.get(area, ())] for area in part.COLUMNS}
    if options.json:
        print_json(shown | own)
        return
    for area, columns in (part.COLUMNS if own["cluster"] else {}).items():
        print_table(f"no {area}", columns, own[area])
    for area, columns in _COLUMNS.items():
        print_table(_NOTHING.get(area, f"no {area}"), columns, list(map(_brief, shown[area])))


def _elsewhere(options: argparse.Namespace) -> part.Elsewhere:
    """The cluster's other hosts, none where there is no cluster or it cannot be asked."""
    found = part.Elsewhere({}, {})
    if options.config.exists():
        try:
            found = part.elsewhere(ClusterConfig.load(options.config))
        except CniError as error:
            found = found._replace(why=error.msg)
    complain(*([f"agent-cni: {found.why}; the other hosts are not drawn"] if found.why else []))
    return found


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """A row that fits a terminal: `trace` takes an id's beginning, and --json has all of it."""
    return row | {name: row[name][:length] or "-" for name, length in _CUT.items() if name in row}


def _attachments(records: list[Record]) -> Rows:
    witness = Witness()
    return [
        {
            **record.attachment._asdict(),
            "plugin": record.plugin,
            "state": STATES[witness.of(record)] if record.complete else "incomplete",
            "addresses": [ip["address"] for ip in (record.result or {}).get("ips", [])],
            "pod": record.pod,
            "netns": record.netns,
        }
        for record in records
    ]


def _bridges(records: list[Record]) -> Rows:
    resources = _held(records)
    return [
        {
            "bridge": bridge.name,
            "mtu": bridge.mtu,
            "gateways": [item.address for item in _of(GatewayAddress, resources) if item.link == bridge.name],
            "pods": len([veth for veth in _of(VethPair, resources) if veth.bridge == bridge.name]),
        }
        for bridge in _of(Bridge, resources)
    ]


def _vteps(records: list[Record]) -> Rows:
    resources = _held(records)
    return [
        {
            "device": link.name,
            "bridge": link.bridge,
            "vni": link.vni,
            "port": link.port,
            "local": link.local,
            "remotes": [vtep for flood in _of(FloodList, resources) if flood.link == link.name for vtep in flood.vteps],
        }
        for link in _of(VxlanLink, resources)
    ]


def _rules(records: list[Record]) -> Rows:
    return [
        {**record.attachment._asdict(), "kind": word, "rule": resource.describe()}
        for record in records
        for resource in record.resources
        for kind, word in _KIND.items()
        if isinstance(resource, kind)
    ]


def _held(records: list[Record]) -> list[Resource]:
    """What the records hold, what several hold once."""
    return list(dict.fromkeys(resource for record in records for resource in record.resources))


def _of(kind: type[R], resources: list[Resource]) -> Iterator[R]:
    return (resource for resource in resources if isinstance(resource, kind))


_TABLES: dict[str, Callable[[list[Record]], Rows]] = {
    "attachments": _attachments,
    "bridges": _bridges,
    "vteps": _vteps,
    "rules": _rules,
}
