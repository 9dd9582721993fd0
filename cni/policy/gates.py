"""What passes the host end of a pod's veth, pure: rules without state, in nft's netdev family, below everything else.

The policy's own chains judge addresses; these see to it that nothing else than the pod's addresses gets as far as a closed
direction, whatever EtherType, tag, group or address it names. The first line is the one that most packets end in.

``ether type`` is what the frame says, tags included; ``meta protocol`` is what is left when the kernel has taken a
priority tag (VID 0) away, which a bridge does not do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from cni.naming import IPInterface
from cni.policy.model import Allowance
from cni.policy.rules import passing_blocks

_TAGS = "ether type { 8021q, 8021ad } drop"
_ETHER = {4: "ether type ip ip", 6: "ether type ip6 ip6"}
_GROUPS = {4: ("224.0.0.0/4", "255.255.255.255"), 6: ("ff00::/8",)}
_NEIGHBOURS = "nd-neighbor-solicit, nd-neighbor-advert"
_REPORTS = "mld-listener-report, mld-listener-done, mld2-listener-report"


def leaving(addresses: Iterable[str], mac: str) -> tuple[str, ...]:
    """What comes out of a pod that has these addresses and no others; with `mac`, nothing under another one either,
    and nothing in ARP and neighbour discovery that is not about itself.
    """
    own = _by_family(addresses)
    start = f"ether saddr {mac} " if mac else ""
    lines = [f"{start}{_ETHER[family]} saddr {_set(own[family])} meta l4proto tcp accept" for family in own]
    lines += [_TAGS, *([f"ether saddr != {mac} drop"] if mac else [])]
    lines += ["udp sport { 67, 547 } drop", "udp dport @vteps drop"]  # a pod is no DHCP server, and no VTEP
    if 4 in own:
        lines += ["igmp type membership-query drop", *_arp(own[4], mac), f"ip saddr {_set(own[4])} accept"]
    return (*lines, *(_six(own[6], mac) if 6 in own else ()))


def _arp(own: list[str], mac: str) -> Iterator[str]:
    """Who asks with no address of his own whether one is free (RFC 5227, 2.1.1), asks for his own."""
    if not mac:
        yield "ether type arp accept"
        return
    yield f"arp saddr ether {mac} arp saddr ip {_set(own)} accept"
    yield f"arp saddr ether {mac} arp saddr ip 0.0.0.0 arp daddr ip {_set(own)} accept"


def _six(own: list[str], mac: str) -> Iterator[str]:
    """Neighbour solicitations and advertisements name their target after 8 bytes of ICMPv6 (RFC 4861, 4.3 and 4.4)."""
    targets = _set([f"{int(ipaddress.ip_address(text)):#034x}" for text in own])
    yield "icmpv6 type { nd-router-advert, nd-redirect, mld-listener-query } drop"
    if mac:
        yield f"icmpv6 type nd-neighbor-advert @th,64,128 != {targets} drop"
    yield f"ip6 saddr {_set(own)} accept"
    if mac:
        yield f"ip6 saddr :: icmpv6 type nd-neighbor-solicit ip6 hoplimit 255 @th,64,128 {targets} accept"
    else:
        yield f"icmpv6 type {{ nd-router-solicit, {_NEIGHBOURS} }} ip6 hoplimit 255 accept"
    yield f"ip6 saddr :: ip6 daddr ff00::/8 icmpv6 type {{ {_REPORTS} }} ip6 hoplimit 1 accept"


def entering(
    addresses: Iterable[str], networks: Iterable[IPInterface], ingress: tuple[Allowance, ...]
) -> tuple[str, ...]:
    """What gets into a pod whose ingress is closed: what is for its own addresses, which the policy's chains judge,
    discovery, and of groups and broadcasts of its `networks` what some rule lets in from whoever sends it, for rules that name
    their peers' addresses: the sets of pods are another table's.
    """
    own = _by_family(addresses)
    lines = [f"{_ETHER[family]} daddr {_set(own[family])} accept" for family in own]
    lines += ["ether type arp accept", _TAGS]  # a pod's announcement is asked about at every port of a bridge
    if 6 in own:
        lines.append(f"icmpv6 type {{ {_NEIGHBOURS} }} ip6 hoplimit 255 accept")
        lines.append("icmpv6 type mld-listener-query ip6 hoplimit 1 ip6 saddr fe80::/10 accept")
    broadcast = [
        str(item.network.broadcast_address) for item in networks if item.version == 4 and item.network.prefixlen < 31
    ]
    for family in own:
        groups = _set([*_GROUPS[family], *(broadcast if family == 4 else ())])
        found = [
            f"ip{'6' * (family == 6)} daddr {groups} {line} accept".replace("  ", " ")
            for line in passing_blocks(ingress, "saddr", "dport", family)
        ]
        lines += [*(["igmp type membership-query ip ttl 1 accept"] if found and family == 4 else []), *found]
    return tuple(dict.fromkeys(lines))


def _by_family(addresses: Iterable[str]) -> dict[int, list[str]]:
    known = list(addresses)
    four, six = ([text for text in known if (":" in text) == is_six] for is_six in (False, True))
    return {family: found for family, found in ((4, four), (6, six)) if found}


def _set(items: list[str]) -> str:
    return f"{{ {', '.join(items)} }}"
