"""What the release before hung on the host ends of pods' veths: guards, in a table all of them share.

A guard hangs out of the pod's reach and below everything else (nft's netdev family, hook ingress).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from cni.kernel import netfilter, ruleset
from cni.kernel.ruleset import Chain
from cni.resources.chains import line_differences, listed_chains
from cni.resources.nft import NftRules
from cni.resources.world import World
from cni.values import dataclass

TABLE = "netdev agent_cni"


@dataclass(frozen=True)
class GuardTable(NftRules):
    """The table of all guards; it goes with the last of them."""

    shared = True
    retires = True
    identity = ()

    def script(self) -> str:
        return f"add table {TABLE}\n"

    def differences(self, world: World) -> Iterator[str]:
        if ruleset.is_dormant(TABLE):
            yield f"spoofing guards' table {TABLE} is dormant"

    @property
    def place(self) -> object:
        return GuardTable

    def remove(self, world: World) -> None:
        ruleset.delete_idle(TABLE)

    def describe(self) -> str:
        return f"spoofing guards' table {TABLE}"


@dataclass(frozen=True)
class AntiSpoof(NftRules):
    """Only the pod's own MAC and addresses come out of its veth, in ARP and neighbour discovery too.

    Attachments of an earlier release have it; those of this one have `Gate`s. It goes after the veth: in between, a pod that still runs could send as anybody. A `lent` veth is another
    plugin's and stays.
    """

    link: str
    mac: str
    addresses: tuple[str, ...]
    lent: bool = False

    def script(self) -> str:
        hook = f'type filter hook ingress device "{self.link}" priority -500; policy drop;'
        chain = f"chain {TABLE} {self.link}"
        return "\n".join([f"add table {TABLE}", f"add {chain} {{ {hook} }}", f"flush {chain}", *self._rules(), ""])

    def differences(self, world: World) -> Iterator[str]:
        there = netfilter.nft_list(f"chain {TABLE} {self.link}")
        if there and f'hook ingress device "{self.link}"' not in there:
            yield f"spoofing guard of {self.link} is not on its device"
        if there and "policy drop" not in there:
            yield f"spoofing guard of {self.link} does not drop"
        plain = "\n".join([f"add table {TABLE}", f"add chain {TABLE} {self.link}", *self._rules(), ""])
        wanted = listed_chains(netfilter.nft_rehearsed(plain, f"table {TABLE}"))
        yield from line_differences(
            f"spoofing guard {self.link}", listed_chains(there).get(self.link), wanted[self.link]
        )

    def remove(self, world: World) -> None:
        link = None if self.lent else world.host.link_by_name(self.link)
        if link and link.kind == "veth":
            world.host.delete_link(link)
        ruleset.delete_there([Chain(TABLE, self.link)])

    def describe(self) -> str:
        return f"only {self.mac} with {', '.join(self.addresses)} comes out of {self.link}"

    @property
    def place(self) -> object:
        return AntiSpoof, self.link

    @property
    def chain(self) -> str:
        """What its chain is called."""
        return self.link

    def _rules(self) -> list[str]:
        four = [text for text in self.addresses if ":" not in text]
        six = [text for text in self.addresses if ":" in text]
        lines = [f"ether saddr != {self.mac} drop", "udp sport 67 drop", "udp dport 4789 drop"]
        if four:
            mine = ", ".join(four)
            lines.append(f"arp saddr ether {self.mac} arp saddr ip {{ 0.0.0.0, {mine} }} accept")
            lines.append(f"ip saddr {{ {mine} }} accept")
        lines += _six(six) if six else []
        return [f"add rule {TABLE} {self.link} {line}" for line in lines]


def _six(own: list[str]) -> list[str]:
    """Neighbour advertisements name their target after 8 bytes of ICMPv6 (RFC 4861, 4.4)."""
    targets = ", ".join(f"{int(ipaddress.ip_address(text)):#034x}" for text in own)
    return [
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        f"icmpv6 type nd-neighbor-advert @th,64,128 != {{ {targets} }} drop",
        f"ip6 saddr {{ {', '.join(own)} }} accept",
        "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, mld2-listener-report } accept",
    ]
