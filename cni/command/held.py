"""The pods of this node as policies know them: their objects, what their networks' configurations say, and the rules that hold them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import ExitStack, closing
from typing import NamedTuple

from cni.command.node import records_of
from cni.errors import InvalidConfig, TryAgainLater
from cni.kernel.netns import Netns
from cni.naming import interface_of
from cni.policy.book import Book
from cni.policy.config import read
from cni.policy.domains import means
from cni.policy.feeds import book_of, reading_once
from cni.policy.known import KnownBook
from cni.policy.labels import Labels
from cni.policy.model import Policy
from cni.policy.objects import Pod
from cni.protocol.result import Result
from cni.resources import DomainSet
from cni.state import Record
from cni.state.fed import feed_of
from cni.values import replace

#: The book of no feed.
NOTHING = KnownBook("", dict)


class Held(NamedTuple):
    """A pod of this node, as its feed knows it and with the addresses it has; `section` is what its network's configuration says,
    None where it says nothing, `book` its feed's, empty without one.
    """

    record: Record
    pod: Pod
    section: Policy | None
    book: Book

    @property
    def name(self) -> str:
        """What it is called: ``namespace/name``, or its attachment."""
        return self.record.pod or str(self.record.attachment)


def resolved(held: Held, address: str) -> frozenset[tuple[str, ...]]:
    """The names, each time those of one rule, of which a pod resolved one to an address: whose sets have it."""
    return frozenset(item.names for item, addresses in by_name(held) if address in addresses)


def meant(held: Held, names: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """The names, each time those of one rule, of which one means any of these."""
    sets = (item.names for item in held.record.resources if isinstance(item, DomainSet))
    return frozenset(spelled for spelled in sets if any(means(one, name) for one in spelled for name in names))


def by_name(held: Held) -> list[tuple[DomainSet, list[str]]]:
    """The sets of a pod that its questions fill, each with what is in it now."""
    sets = [item for item in held.record.resources if isinstance(item, DomainSet)]
    with ExitStack() as there:
        if any(item.netns for item in sets):
            netns = Netns.if_there(held.record.netns)
            if netns is None:
                return [(item, []) for item in sets]
            there.enter_context(closing(netns))
            there.enter_context(netns.entered())
        return [(item, item.addresses()) for item in sets]


def held_of(options: argparse.Namespace) -> tuple[list[Held], list[str]]:
    """Every attachment that has a policy, and a line for each folder and feed that cannot be read."""
    records, faults = records_of(options.data_dir, options.conf_dir)
    found = []
    with reading_once():
        for record in records:
            if record.complete and record.config.get("policy") is not None:
                try:
                    found.append(_held(record))
                except (InvalidConfig, TryAgainLater) as error:
                    faults.append(f"{record.attachment}: {error.msg}")
    return found, list(dict.fromkeys(faults))


def books_of(held: Iterable[Held]) -> list[Book]:
    """The book of each feed in use, once."""
    return list({item.book.feed: item.book for item in held if item.book.feed}.values())


def one_of(name: str, held: Iterable[Held]) -> list[Held]:
    """A pod by its name, its container's id or the beginning of that, or an address of it. Raises InvalidConfig where there is none."""
    items = list(held)
    found = [item for item in items if name in (item.name, *item.pod.addresses) or _is_container(item, name)]
    if not found:
        there = ", ".join(sorted({item.name for item in items})) or "none"
        raise InvalidConfig(f"no pod {name!r} with a policy is on this node; there are: {there}")
    return found


def _is_container(item: Held, name: str) -> bool:
    return bool(name) and item.record.attachment.container.startswith(name)


def _held(record: Record) -> Held:
    namespace, _, name = record.pod.partition("/")
    addresses = tuple(str(interface_of(ip.address).ip) for ip in _attached(record).ips)
    feed = feed_of(record.config)
    book = book_of(feed, keep=False) if feed else NOTHING
    known = book.pod(namespace, name)
    pod = replace(known, addresses=addresses) if known else Pod(namespace, name, Labels({}, complete=False), addresses)
    return Held(record, pod, read(record.config["policy"], "$.policy"), book)


def _attached(record: Record) -> Result:
    """What the pod's interface got, of whichever plugin."""
    own = Result.read(record.result or {})
    return own if own.ips else Result.read(record.config.get("prevResult") or {})
