"""Namespaces as the kernel shows them: what a `Place` is asked, asked there, and only once it matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property

from cni.errors import CniError
from cni.kernel import listening, netfilter, sysctl
from cni.kernel.netlink.lookups import Asked, Lookups, Way
from cni.kernel.netlink.neighbours import Row
from cni.kernel.netns import Netns
from cni.kernel.view import Link
from cni.reach import nft, saved
from cni.reach.rules import Chain, Rules


class Seen:
    """A namespace by rtnetlink and its rules; the node's is the one this process lives in. Use it with `closing`."""

    def __init__(self, name: str, netns: Netns | None = None) -> None:
        self.name, self._netns, self.is_node = name, netns, netns is None
        self._doors = ExitStack()
        self._settings: dict[str, str] = {}
        if netns:
            self._doors.callback(netns.close)

    def close(self) -> None:
        """Close its doors."""
        self._doors.close()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be in it."""
        with self._netns.entered() if self._netns else nullcontext():
            yield

    @cached_property
    def _rtnl(self) -> Lookups:
        with self.inside():
            made = Lookups()
        self._doors.callback(made.close)
        return made

    @cached_property
    def links(self) -> Mapping[int, Link]:
        """Every link, by index."""
        return {link.index: link for link in self._rtnl.links()}

    @cached_property
    def addresses(self) -> Mapping[int, Sequence[str]]:
        """Those of each link that are in use."""
        found: dict[int, list[str]] = {}
        for index, link in self.links.items():
            held = (item for item in self._rtnl.addresses(link) if not (item.tentative or item.duplicate))
            found[index] = [str(item.interface.ip) for item in held]
        return found

    @cached_property
    def rows(self) -> Sequence[Row]:
        """The rows of all FDBs."""
        return self._rtnl.every_row()

    @cached_property
    def rules(self) -> Rules:
        """All rules that the kernel asks, whoever made them."""
        with self.inside():
            return Rules([*nft.chains(netfilter.nft_json()), *_iptables()])

    def way(self, asked: Asked) -> Way:
        """Where the kernel sends a packet."""
        return self._rtnl.way(asked)

    def neighbour(self, link: Link, address: str) -> Row | None:
        """What is known of a neighbour."""
        return self._rtnl.neighbour(link, address)

    def setting(self, key: str) -> str:
        """A sysctl's value, empty where there is none."""
        if key not in self._settings:
            with self.inside():
                self._settings[key] = sysctl.read(key) or ""
        return self._settings[key]

    def listens(self, protocol: str, port: int, address: str) -> bool:
        """Whether a socket takes what arrives there."""
        with self.inside():
            return listening.listens(protocol, port, address)

    def tried(self, protocol: str, target: str, port: int, seconds: float) -> str:
        """What becomes of a packet that is really sent from here."""
        with self.inside():
            return listening.tried(protocol, target, port, seconds)


def _iptables() -> Iterator[Chain]:
    """Those of both backends, as far as their programs are there."""
    for family in (4, 6):
        for backend in netfilter.in_use(family):
            try:
                lines = netfilter.saved(backend, family)
            except CniError:
                continue
            yield from saved.chains(lines, family, backend)
