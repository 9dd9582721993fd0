"""What policies say of this node's pods: which there are, what holds a pod, which one decides, and what others would change."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

from cni.command.held import Held, books_of, by_name, held_of, one_of
from cni.command.output import complain, print_json, print_table, say
from cni.policy.amended import Amended
from cni.policy.book import Book
from cni.policy.folder import items_in
from cni.policy.forecast import Change, End, changes
from cni.policy.objects import ClusterPolicy, NetworkPolicy, document_of
from cni.policy.subjects import about, closing, subjects
from cni.resources import PodPolicy

_DOCUMENTS = ("kind", "namespace", "name", "tier", "feed", "pods", "faults")
_CHANGES = ("from", "to", "ports", "families", "becomes", "by")
_PERHAPS = ": perhaps, its labels are not known"
_WAYS = {"ingress": "into it", "egress": "out of it"}


def policy(options: argparse.Namespace) -> int:
    """Say what policies do: `list`, `show POD`, `why FROM TO:PORT`, `check FILE`, or follow what they drop: `log`."""
    answer: int = options.ask(options)
    return answer


def listed(options: argparse.Namespace) -> int:
    """Print every document of the feeds in use, and how many pods of this node each is about."""
    held, faults = held_of(options)
    books = books_of(held)
    rows = [row for book in books for row in _documents(book, held)]
    faults += [line for book in books for line in book.faults() if line not in faults]
    if options.json:
        print_json({"documents": rows, "faults": faults})
    else:
        print_table("no document is about a pod of this node", _DOCUMENTS, rows)
        complain(*(f"agent-cni: {line}" for line in faults))
    return 1 if faults else 0


def shown(options: argparse.Namespace) -> int:
    """Print which documents are about a POD of this node, and the rules that hold it."""
    held, _ = held_of(options)
    said = [_of_pod(item) for item in one_of(options.pod, held)]
    if options.json:
        print_json(said)
        return 0
    for one in said:
        say(f"{one['pod']} ({', '.join(one['addresses'])}), network {one['network']}")
        for direction, way in _WAYS.items():
            say(f"  {way}:", *(f"    {line}" for line in one[direction] or ["everything: no document closes it"]))
        say("  rules:", *(f"    {line}" for line in one["rules"]))
        if one["names"]:
            say("  by name:", *(f"    {_resolved(item)}" for item in one["names"]))
    return 0


def checked(options: argparse.Namespace) -> int:
    """Print which connections of this node's pods the documents of a FILE, or folder, would let through or cut; with --remove, without them."""
    held, _ = held_of(options)
    objects = [item.read for item in items_in(options.place)]
    named = [item for item in objects if isinstance(item, NetworkPolicy | ClusterPolicy)]
    faults = [f"{item.where}: {item.name}: {line}" for item in named for line in item.faults]
    found = [
        change
        for book in books_of(held)
        for change in changes(
            book, Amended(book, objects, removed=options.remove), [item.pod for item in held if item.book is book]
        )
    ]
    rows = list(_rows(found))
    if options.json:
        print_json({"changes": rows, "faults": faults})
    else:
        complain(*(f"agent-cni: {line}" for line in faults))
        print_table("no connection of this node's pods would change", _CHANGES, rows)
    return 1 if faults else 0


def _documents(book: Book, held: Iterable[Held]) -> Iterator[dict[str, Any]]:
    pods = [item.pod for item in held if item.book.feed == book.feed]
    spaces = sorted({pod.namespace for pod in pods})
    for policy in (item for space in spaces for item in book.policies(space)):
        mine = [
            pod
            for pod in pods
            if pod.namespace == policy.namespace and policy.selector.selects(pod.labels) is not False
        ]
        yield _document("NetworkPolicy", policy, book, len(mine), policy.namespace, "networkpolicy")
    for rule in book.cluster_policies():
        mine = [pod for pod in pods if about(rule.subject, pod, book.labels_of) is not False]
        yield _document("ClusterNetworkPolicy", rule, book, len(mine), "", _tier(rule))


def _document(kind: str, policy: NetworkPolicy | ClusterPolicy, book: Book, pods: int, *place: str) -> dict[str, Any]:
    namespace, tier = place
    return {
        "kind": kind,
        "namespace": namespace,
        "name": policy.name,
        "tier": tier,
        "feed": book.feed,
        "pods": pods,
        "faults": len(policy.faults),
        "where": policy.where,
    }


def _tier(rule: ClusterPolicy) -> str:
    """Its tier and priority; what nobody can read of these is asked before all others."""
    return f"{rule.tier} {rule.priority}" if rule.priority >= 0 else f"{rule.tier}, first: unreadable"


def _of_pod(item: Held) -> dict[str, Any]:
    """The documents about one pod in the order in which they are asked, and its rules."""
    rules = [line for found in item.record.resources if isinstance(found, PodPolicy) for line in found.rules]
    return {
        "pod": item.name,
        "addresses": list(item.pod.addresses),
        "network": item.record.attachment.network,
        **{direction: list(documents_about(item, direction)) for direction in _WAYS},
        "rules": rules,
        "names": [
            {"set": found.name, "names": list(found.names), "addresses": addresses}
            for found, addresses in by_name(item)
        ],
    }


def _resolved(item: dict[str, Any]) -> str:
    return f"@{item['set']}: {', '.join(item['names'])}: {', '.join(item['addresses']) or 'nothing resolved'}"


def documents_about(item: Held, direction: str) -> Iterator[str]:
    """The documents that say something of one `direction` of a pod, in the order in which they are asked."""
    own = {"ingress": item.section and item.section.ingress, "egress": item.section and item.section.egress}[direction]
    book, pod = item.book, item.pod
    for tier in ("admin", "networkpolicy", "baseline"):
        if tier == "networkpolicy":
            if own is not None:
                yield "the configuration"
            for policy, selects in closing(book, direction, pod):
                yield f"{document_of(policy)}{'' if selects else _PERHAPS}"
            continue
        for rule, known in subjects(book, tier, pod):
            if getattr(rule, direction):
                yield f"{document_of(rule)} ({_tier(rule)}){'' if known else _PERHAPS}"


def _rows(found: Iterable[Change]) -> Iterator[dict[str, Any]]:
    """What changes, once for both families where it is the same."""
    families: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for change in found:
        families.setdefault(tuple(_row(change).items()), []).append(6 if ":" in change.source.address else 4)
    for row, among in families.items():
        yield {**dict(row), "families": among}


def _row(change: Change) -> dict[str, str]:
    ports = "all ports" if (change.first, change.last) == (1, 65535) else f"{change.first}-{change.last}"
    return {
        "from": _end(change.source),
        "to": _end(change.target),
        "ports": f"{change.protocol} {change.first if change.first == change.last else ports}",
        "becomes": "allowed" if change.allowed else "denied",
        "by": str(change.why),
    }


def _end(end: End) -> str:
    return ", ".join(end.pods) or end.name or end.address
