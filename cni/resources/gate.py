"""The two gates at the host end of a pod's veth, out of the pod's reach, and the port that opens when they stand.

They hang below everything else: nft's netdev family, hook ingress for what comes out of the pod, hook egress (Linux 5.16)
for what goes in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cni.kernel import netfilter
from cni.resources.antispoof import TABLE, GuardTable
from cni.resources.base import Resource
from cni.resources.chains import line_differences, listed_chains
from cni.resources.links import required
from cni.resources.nft import NftRules
from cni.resources.verdicts import chains_of
from cni.resources.world import World

#: The device a chain hangs on, in what ``nft list`` says.
DEVICE = re.compile(r'device "([^"]+)"')
_WAY = {"ingress": "from", "egress": "into"}


@dataclass(frozen=True)
class Gate(NftRules):
    """What passes the host end `link` of a pod, line by line; the rest is dropped. `hook` is the device's: ingress sees
    what comes out of the pod, egress what goes in.

    `token` names its chain. With `mac` only that leaves, and `pod` is the interface that must have it.
    """

    link: str
    hook: str
    token: str
    lines: tuple[str, ...]
    pod: str = ""
    mac: str = ""

    def script(self) -> str:
        hook = f'type filter hook {self.hook} device "{self.link}" priority -500; policy drop;'
        chain = f"chain {TABLE} {self.chain}"
        return "\n".join([f"add {chain} {{ {hook} }}", f"flush {chain}", *self._rules(), ""])

    def differences(self, world: World) -> Iterator[str]:
        there = netfilter.nft_list(f"chain {TABLE} {self.chain}")
        if there and f'hook {self.hook} device "{self.link}"' not in there:
            yield f"spoofing guard {self.chain} is not on its device {self.link}"
        if there and "policy drop" not in there:
            yield f"spoofing guard {self.chain} does not drop"
        plain = "\n".join([GuardTable(edition=2).script(), f"add chain {TABLE} {self.chain}", *self._rules(), ""])
        wanted = listed_chains(netfilter.nft_rehearsed(plain, f"chain {TABLE} {self.chain}"))
        have = listed_chains(there).get(self.chain)
        yield from line_differences(f"spoofing guard {self.chain} of {self.link}", have, wanted[self.chain])
        yield from self._mac_differences(world)

    def remove(self, world: World) -> None:
        netfilter.nft_if_there(f"delete chain {TABLE} {self.chain}\n")

    def describe(self) -> str:
        way = "comes out of" if self.hook == "ingress" else "gets into"
        return f"gate {self.chain}: what {way} {self.link}, {len(self.lines)} rules"

    def details(self) -> Iterator[str]:
        yield from self.lines

    @property
    def place(self) -> object:
        return Gate, self.hook, self.token

    @property
    def chain(self) -> str:
        """What its chain is called."""
        return f"{_WAY[self.hook]}-{self.token}"

    def _rules(self) -> list[str]:
        return [f"add rule {TABLE} {self.chain} {line}" for line in self.lines]

    def _mac_differences(self, world: World) -> Iterator[str]:
        """A plugin after us may have changed it, and reported that: the pod is mute all the same."""
        link = world.pod.link(self.pod) if self.mac and self.pod and world.netns else None
        if link and link.mac != self.mac:
            yield f"{self.pod} has MAC {link.mac}, but only {self.mac} gets past {self.link}"


def port_of(token: str) -> str:
    """The device a pod's gates hang on, or nothing where they or it are gone."""
    found = (DEVICE.search(netfilter.nft_list(f"chain {TABLE} {way}-{token}")) for way in _WAY.values())
    return next((match[1] for match in found if match), "")


def gone_with(tokens: set[str]) -> list[str]:
    """What takes away the gates of pods that are gone, as lines of a script."""
    names = {f"{way}-{token}" for token in tokens for way in _WAY.values()}
    return [f"delete chain {TABLE} {name}" for name in sorted(names & chains_of(TABLE))]


@dataclass(frozen=True)
class PortOpening(Resource):
    """The host end of an isolated pod goes up when everything that holds the pod stands; on a bridge it is no port that
    becomes a multicast router's by what the pod sends.

    It goes before its gates: in between, a pod that still runs could send as anybody. A `lent` veth is another plugin's:
    it is up already, and stays.
    """

    link: str
    on_bridge: bool
    lent: bool = False

    def ensure(self, world: World) -> None:
        link = required(world.host.known(self.link) if self.lent else world.host.named(self.link), self.link)
        if self.on_bridge:
            world.host.set_port(link, up=not self.lent, multicast_router=0)
        elif not self.lent:
            world.host.set_link(link, up=True)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link(self.link)
        if link and self.on_bridge and link.multicast_router:
            yield f"bridge port {self.link} may become a multicast router's (mcast_router {link.multicast_router})"

    def remove(self, world: World) -> None:
        link = world.host.link(self.link)
        if link and self.lent and link.bridge and self.on_bridge:
            world.host.set_port(link, multicast_router=1)
        elif link and not self.lent and link.kind == "veth":
            world.host.delete_link(link)

    def describe(self) -> str:
        quiet = ", no multicast router's port" * self.on_bridge
        return f"{self.link} {'stays' if self.lent else 'goes'} up{quiet}"
