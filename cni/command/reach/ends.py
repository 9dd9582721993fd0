"""The two ends that `reach` is asked about: who is meant by a name, a container's id or an address, and where that is."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from cni.command.held import Held, books_of, held_of
from cni.command.node import records_of
from cni.errors import InvalidConfig
from cni.kernel import hostsdir
from cni.kernel.netlink import Rtnl
from cni.kernel.resolver import Name
from cni.naming import interface_of
from cni.policy.objects import Pod
from cni.protocol.result import Result
from cni.state import Record
from cni.state.documents import Documents

#: What the node itself is called.
NODE = "node"
#: How long the node's name servers may take, in seconds.
_LOOKUP = 3.0


class End(NamedTuple):
    """One end: what it is called, its addresses, its namespace's path if it is a pod of this node, by what its policies hold it, as far
    as it has any, `found` how a name became addresses, and `domain` what name that was if the node's resolver said so. An end without a pod is an address of anybody's.
    """

    name: str
    addresses: tuple[str, ...] = ()
    netns: str = ""
    pod: Pod | None = None
    held: Held | None = None
    found: str = ""
    domain: str = ""

    @property
    def is_node(self) -> bool:
        """Whether it is the node itself."""
        return self.name == NODE

    def of_family(self, family: int) -> list[str]:
        """Its addresses of a family."""
        return [address for address in self.addresses if (":" in address) is (family == 6)]


class Known:
    """Everybody this node can name."""

    def __init__(self, options: argparse.Namespace) -> None:
        records, self.faults = records_of(options.data_dir, options.conf_dir)
        self._records = [record for record in records if record.complete]
        self._held, faults = held_of(options)
        self.faults = list(dict.fromkeys([*self.faults, *faults]))

    def one(self, text: str) -> End:
        """Who is meant. Raises InvalidConfig where nobody is."""
        if text == NODE:
            return End(NODE, _of_node())
        if here := self._here(text):
            return here
        if far := self._far(text):
            return far
        address = _address(text)
        if address:
            return End(text, (address,))
        named = _named(text)
        if named is None:
            raise InvalidConfig(f"{text!r} is no pod of this node or of a feed, no address, and nobody's name")
        known = self._here(named.addresses[0]) or self._far(named.addresses[0])
        return known._replace(addresses=named.addresses, found=named.found, domain=named.domain) if known else named

    def source(self, text: str) -> End:
        """Who sends: somebody of this node. Raises InvalidConfig."""
        found = self._here(text) if text != NODE else End(NODE)
        if found is None:
            there = ", ".join(sorted({_name(record) for record in self._records})) or "none"
            raise InvalidConfig(f"no pod {text!r} is on this node; there are: {there}")
        return found

    def pods(self) -> Iterator[End]:
        """Each pod of this node, once."""
        seen = set()
        for record in self._records:
            if record.netns not in seen:
                seen.add(record.netns)
                yield self._end(record)

    def _here(self, text: str) -> End | None:
        by_name = [record for record in self._records if text in (record.pod, str(record.attachment))]
        by_address = [record for record in self._records if _address(text) in addresses_of([record])]
        by_id = [record for record in self._records if text and record.attachment.container.startswith(text)]
        found = by_name or by_address or by_id
        if not by_name and not by_address and len({record.attachment.container for record in by_id}) > 1:
            raise InvalidConfig(f"{text!r} is the beginning of several containers' ids")
        if not found:
            return None
        end = self._end(found[0])
        return end._replace(addresses=(_address(text),)) if by_address and not by_name else end

    def _end(self, record: Record) -> End:
        records = [item for item in self._records if item.netns == record.netns]
        held = next((item for item in self._held if item.record.netns == record.netns), None)
        return End(_name(record), addresses_of(records), record.netns, held.pod if held else None, held)

    def _far(self, text: str) -> End | None:
        """A pod of another node: that a feed knows, or the cluster's endpoints."""
        address = _address(text)
        for book in books_of(self._held):
            for pod in (*book.pods(), *book.unknown_pods()):
                name = f"{pod.namespace}/{pod.name}"
                if pod.addresses and (text == name or address in pod.addresses):
                    return End(name, (address,) if address else pod.addresses, pod=pod)
        with closing(Documents.reading()) as documents:
            far = [(at, f"{who.namespace}/{who.name}") for (at, _), who in documents.far().items()]
        names = {name for at, name in far if address == at or text == name}
        said = tuple(at for at, name in far if name in names)
        return End(min(names), (address,) if address else said) if names else None


def addresses_of(records: Iterable[Record]) -> tuple[str, ...]:
    """Those that attachments answered, or were answered before them in their chain."""
    found: dict[str, None] = {}
    for record in records:
        own = Result.read(record.result or {})
        said = own if own.ips else Result.read(record.config.get("prevResult") or {})
        found |= dict.fromkeys(str(interface_of(ip.address).ip) for ip in said.ips)
    return tuple(found)


def _name(record: Record) -> str:
    return record.pod or record.attachment.container[:12]


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def _of_node() -> tuple[str, ...]:
    """The addresses of its uplink."""
    with closing(Rtnl()) as rtnl:
        links = [link for link in map(rtnl.link_by_index, rtnl.default_route()[:1]) if link]
        return tuple(str(item.interface.ip) for link in links for item in rtnl.addresses(link) if not item.scope)


def _named(text: str) -> End | None:
    """By our own names of pods, those of other hosts too, else as the node's resolver says."""
    for network in hostsdir.networks():
        served = hostsdir.served(network)
        short = text.removesuffix(f".{served.domain}") if served else text
        for words in _lines(network):
            if {text, short} & set(words[1:]):
                same = tuple(line[0] for line in _lines(network) if {text, short} & set(line[1:]))
                return End(text, same, found=f"{text} is {', '.join(same)} by the names of network {network}")
    try:
        answers = Name(text, 0).addresses(_LOOKUP)
    except OSError:
        return None
    found = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
    return (
        End(text, found, found=f"{text} is {', '.join(found)} by the node's resolver", domain=text) if found else None
    )


def _lines(network: str) -> Iterator[list[str]]:
    """An address and its names each, of those that are answered."""
    for entry in hostsdir.entries(network):
        yield from ([] if entry.unhealthy else map(str.split, entry.lines))
    for host in hostsdir.hosts(network):
        text = hostsdir.read(hostsdir.FOLDER / network / hostsdir.THERE / host)
        yield from (line.split() for line in text.splitlines() if line and not line.startswith("#"))
