"""What this node's state says, and what brings it into order."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from cni import plugin
from cni.command.graph import drawn, networks
from cni.command.output import print_json, print_table
from cni.errors import CniError
from cni.naming import Attachment
from cni.protocol.call import Call
from cni.refresh import is_fed
from cni.refresh import refresh as refreshed
from cni.state import Record, Store
from cni.verbs import sweep

_ATTACHMENT = ("network", "container", "ifname", "plugin", "state", "addresses", "pod")


def show(options: argparse.Namespace) -> int:
    """Print attachments and leases, or draw them."""
    store = Store.reading(options.data_dir)
    if options.graph:
        options.graph.write_text(drawn(networks(store.records() if store else []), os.uname().nodename))
        return 0
    attachments = [_shown(record) for record in store.records()] if store else []
    leases = [_lease_shown(*row) for row in store.all_leases()] if store else []
    if options.json:
        print_json({"attachments": attachments, "leases": leases})
        return 0
    print_table("no attachments", _ATTACHMENT, attachments)
    print_table("no leases", ("network", "address", "container", "ifname"), leases)
    return 0


def gc(options: argparse.Namespace) -> int:
    """Remove every attachment whose network namespace is gone."""
    store = Store.reading(options.data_dir)
    stale = [record for record in store.records() if not is_alive(record)] if store else []
    call = Call("DEL", path=tuple(options.cni_path.split(":")))
    failed = list(filter(None, (_collected(record, call) for record in stale)))
    removed = len(stale) - len(failed)
    _told(options, {"removed": removed, "failed": failed}, f"removed {removed} of {len(stale)} stale attachments")
    return 1 if failed else 0


def refresh(options: argparse.Namespace) -> int:
    """Hold every attachment with a policyDir to what the folder says now."""
    store = Store.reading(options.data_dir)
    fed = [record for record in store.records() if is_fed(record) and is_alive(record)] if store else []
    changed, failed = 0, []
    for record in fed:
        try:
            changed += refreshed(plugin.load(record.plugin), record, Call("ADD"))
        except CniError as error:
            failed.append(f"{record.attachment}: {error.msg}")
    said = f"changed {changed} of {len(fed)} attachments with a policyDir"
    _told(options, {"changed": changed, "attachments": len(fed), "failed": failed}, said)
    return 1 if failed else 0


def is_alive(record: Record) -> bool:
    """Whether the pod's namespace is there."""
    return Path(record.netns).exists()


def _told(options: argparse.Namespace, data: dict[str, Any], said: str) -> None:
    if options.json:
        print_json(data)
        return
    for line in data["failed"]:
        print(f"agent-cni: {line}", file=sys.stderr)
    print(said)


def _collected(record: Record, call: Call) -> str:
    """Remove one attachment; the line of what failed, or nothing."""
    if record.plugin not in plugin.names():
        return f"{record.attachment}: this release has no plugin {record.plugin}"
    try:
        sweep(plugin.load(record.plugin), record, call)
    except CniError as error:
        return f"{record.attachment}: {error.msg}"
    return ""


def _shown(record: Record) -> dict[str, Any]:
    return {
        **record.attachment._asdict(),
        "plugin": record.plugin,
        "state": ("attached" if is_alive(record) else "stale") if record.complete else "incomplete",
        "addresses": [ip["address"] for ip in (record.result or {}).get("ips", [])],
        "pod": record.pod,
        "netns": record.netns,
    }


def _lease_shown(address: object, attachment: Attachment, holder: str) -> dict[str, Any]:
    return {"address": str(address), **attachment._asdict(), "plugin": holder}
