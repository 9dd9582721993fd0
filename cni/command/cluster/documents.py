"""Documents that all hosts of a cluster go by: said once, from any host that reaches the store."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

from cni.cluster.config import ClusterConfig
from cni.cluster.document import Document
from cni.cluster.engines import store_of
from cni.command.output import print_json, say
from cni.errors import InvalidConfig
from cni.policy.folder import items_in
from cni.policy.manifest import Item
from cni.policy.objects import ClusterPolicy, NetworkPolicy


def apply(options: argparse.Namespace) -> int:
    """Have the cluster's store hold the documents of a FILE or folder, for networks with `"policy": {"cluster": true}` on all hosts.

    What is wrong with one is told, and none is written.
    """
    items = _named(options)
    faults = [
        f"{item.where}: {item.kind} {item.name}: {line}"
        for item in items
        if isinstance(item.read, NetworkPolicy | ClusterPolicy)
        for line in item.read.faults
    ]
    if faults:
        raise InvalidConfig("; ".join(faults))
    documents = [Document(item.kind, item.namespace, item.name, json.dumps(item.raw)) for item in items]
    changed = store_of(ClusterConfig.load(options.config)).apply(documents)
    return _told(options, len(documents), changed, "applied {many}, {changed} of them new or changed")


def delete(options: argparse.Namespace) -> int:
    """Take the documents of the names in a FILE or folder out of the cluster's store."""
    keys = [(Document.room, item.kind, item.namespace, item.name) for item in _named(options)]
    changed = store_of(ClusterConfig.load(options.config)).delete(keys)
    return _told(options, len(keys), changed, "deleted {changed} of {many}")


def _named(options: argparse.Namespace) -> list[Item]:
    items = items_in(options.place)
    if not items:
        raise InvalidConfig(f"{options.place}: has no object of a kind that policies are made of")
    nameless: Iterable[Item] = (item for item in items if not item.name)
    for item in nameless:
        raise InvalidConfig(f"{item.where}: a {item.kind} without a name")
    return items


def _told(options: argparse.Namespace, many: int, changed: int, sentence: str) -> int:
    if options.json:
        print_json({"documents": many, "changed": changed})
    else:
        say(sentence.format(many=f"{many} document{'s' * (many != 1)}", changed=changed))
    return 0
