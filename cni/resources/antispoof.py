"""The table of what hangs on the host ends of pods' veths, and the guards an earlier release hung there.

A guard hangs out of the pod's reach and below everything else (nft's netdev family, hook ingress).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from cni.kernel import netfilter
from cni.resources.chains import line_differences, listed_chains
from cni.resources.nft import NftRules
from cni.resources.world import World

TABLE = "netdev agent_cni"


#: UDP ports of VXLAN devices of this node, as a set.
_VTEPS, _IANA_VXLAN = "vteps", 4789


@dataclass(frozen=True)
class GuardTable(NftRules):
    """The table of all guards, and which UDP ports are VTEPs'; it goes with the last of them.

    `edition` 1 is the release's that had no such set.
    """

    edition: int = 1
    shared = True
    retires = True
    identity = ()

    def script(self) -> str:
        made = f"add table {TABLE}\nadd set {TABLE} {_VTEPS} {{ type inet_service; }}\n"
        return made + _known_vtep(_IANA_VXLAN)

    def script_for(self, world: World) -> str:
        """With the ports of the VXLAN devices that are there, whoever made them."""
        return self.script() + "".join(map(_known_vtep, sorted(world.host.vxlan_ports() - {_IANA_VXLAN})))

    def differences(self, world: World) -> Iterator[str]:
        if netfilter.is_dormant(TABLE):
            yield f"spoofing guards' table {TABLE} is dormant"
        for port in sorted(world.host.vxlan_ports()) if self.edition > 1 else ():
            if not netfilter.nft_element(f"{TABLE} {_VTEPS}", str(port)):
                yield f"spoofing guards do not know that UDP port {port} is a VTEP's"

    @property
    def place(self) -> object:
        return GuardTable

    def remove(self, world: World) -> None:
        netfilter.delete_idle(TABLE)

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
        link = None if self.lent else world.host.link(self.link)
        if link and link.kind == "veth":
            world.host.delete_link(link)
        netfilter.nft_if_there(f"delete chain {TABLE} {self.link}\n")

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


def guard_vtep(port: int) -> None:
    """Tell the guards that stand that a UDP port is a VTEP's."""
    if port != _IANA_VXLAN:
        netfilter.nft_if_there(_known_vtep(port))


def _known_vtep(port: int) -> str:
    return f"add element {TABLE} {_VTEPS} {{ {port} }}\n"


def _six(own: list[str]) -> list[str]:
    """Neighbour advertisements name their target after 8 bytes of ICMPv6 (RFC 4861, 4.4)."""
    targets = ", ".join(f"{int(ipaddress.ip_address(text)):#034x}" for text in own)
    return [
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        f"icmpv6 type nd-neighbor-advert @th,64,128 != {{ {targets} }} drop",
        f"ip6 saddr {{ {', '.join(own)} }} accept",
        "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, mld2-listener-report } accept",
    ]
