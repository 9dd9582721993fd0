"""Who may send VXLAN to a network of the cluster: its hosts. Anybody else on the underlay could put frames before pods (RFC 7348, 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from cni.kernel import netfilter, ruleset
from cni.naming import VTEP_TABLE
from cni.resources.base import Resource
from cni.resources.world import World
from cni.values import dataclass

#: What is read of a packet that is long enough to have a VNI, and what is left then: an IPv6 packet whose first fragment ends before
#: it, which nobody sends but who hides it.
_READABLE, _HIDDEN = "@th,96,24 >= 0", "exthdr frag exists"
#: A link that is made of nothing but software; the rule does not match one that is of no kind.
_VIRTUAL = 'meta iifkind != { "bond", "team", "vlan" }'
#: Another name for the table, and what keeps its chains from packets.
_TRIED, _DORMANT = f"{VTEP_TABLE}_tried", "flags dormant\n"
_FAMILY = {4: "ip", 6: "ip6"}
#: The bit of a packet's mark that says it went into a tunnel: VXLAN's packet has the socket, and so the user, of what is in it.
_INSIDE, _MASK = 0x1000, 0xFFFFFFFF


@dataclass(frozen=True)
class VtepFilter(Resource):
    """VXLAN for these overlays (``PORT VNI``) is accepted from these VTEPs and dropped from others; networks that are not of the
    cluster are none of its business, on the same port too, but for what comes from inside: a packet may be several datagrams, of
    which only the first has its VNI read (udp(7), UDP_SEGMENT), and comes so by no wire. With a tunnel's link it comes and goes by
    that alone, and by that goes nothing that is not the host's own. By any of several uplinks it comes from any host: of those that
    send by different ones the way back is another. No pod sends any by way of its host, and nobody but root in the host's name.

    It is looked at where a host's own packets are: fragments of IPv4 are one again by then.
    """

    vteps: tuple[str, ...]
    overlays: tuple[str, ...]
    tunnel: str = ""
    uplinks: tuple[str, ...] = ()
    #: The links by which hosts reach this one; any that is of hardware, or a bond or a VLAN of such, brings networks of others too.
    entrances: tuple[str, ...] = ()

    def ensure(self, world: World) -> None:
        """One transaction: what is known is another set at once, and the table is never without its rules."""
        netfilter.nft(f"add table {VTEP_TABLE}\ndelete table {VTEP_TABLE}\n{self.script()}")

    def differences(self, world: World) -> Iterator[str]:
        now = netfilter.nft_list(f"table {VTEP_TABLE}")
        wanted = _spelled(self.script()) if self.overlays else ""
        if now != wanted:
            yield f"nft table {VTEP_TABLE} is {'not as it was made' if now else 'missing'}: who may send VXLAN here"

    def remove(self, world: World) -> None:
        for table in (VTEP_TABLE, _TRIED):
            ruleset.delete_table(table)

    def describe(self) -> str:
        by = f", by {self.tunnel} alone" * bool(self.tunnel)
        return f"VXLAN for {', '.join(self.overlays)} (port, VNI) from {len(self.vteps)} VTEPs only{by}"

    def script(self) -> str:
        """The table, in nft's language."""
        sets = [self._known(family) for family in _FAMILY]
        chains = [_chain("input", self._input()), _chain("forward", self._forward())]
        chains += [_chain("postrouting", self._postrouting(), "srcnat + 10")]
        chains += [_chain("output", self._output())] if self.tunnel else []
        return f"table {VTEP_TABLE} {{\n{''.join([*sets, *chains])}}}\n"

    def _known(self, family: int) -> str:
        known = [vtep for vtep in self.vteps if (":" in vtep) == (family == 6)]
        elements = f" elements = {{ {', '.join(known)} }}" if known else ""
        return f"set known{family} {{ type ipv{family}_addr;{elements} }}\n"

    def _input(self) -> Iterator[str]:
        # not from where the sender is not: a pod can claim another host's address
        besides = _besides(self.uplinks)
        astray = f'iifname != "{self.tunnel}"' if self.tunnel else f"{besides}fib saddr . iif oif missing"
        unknown = [f"{ip} saddr != @known{family}" for family, ip in _FAMILY.items()]
        for udp, vnis in self._by_port():
            yield from (f"{udp} {vnis} {who} drop" for who in (astray, *unknown))
            other = f"{udp} {vnis.replace('{', '!= {')}"
            yield from (f"{other} {inside} drop" for inside in ('iif "lo"', f"{_besides(self.entrances)}{_VIRTUAL}"))
            yield f"{udp} {_READABLE} accept"
            yield from (f"{udp} {_HIDDEN} {who} drop" for who in (astray, unknown[-1]))

    def _forward(self) -> Iterator[str]:
        """Behind this host's address, which masquerading would give it, a pod would be one of the hosts."""
        if self.tunnel:
            yield f'oifname "{self.tunnel}" drop'
        for udp, vnis in self._by_port():
            yield from (f"{udp} {ip} daddr @known{family} drop" for family, ip in _FAMILY.items())
            yield from (f"{udp} {vnis} drop", f"{udp} {_READABLE} accept", f"{udp} {_HIDDEN} drop")

    def _postrouting(self) -> Iterator[str]:
        """From the VXLAN port nothing of this host's leaves but VXLAN itself, of a flow whose hash it is: what else does is a pod's,
        masqueraded, whose answers would be frames to us. To it nothing leaves that is of a user's socket and was not in a tunnel;
        of several datagrams in one packet only the first would have its VNI read.
        """
        for udp, _ in self._by_port():
            yield f"{_sport(udp)} {udp.replace('dport', 'dport !=')} fib saddr type local drop"
            for family, ip in _FAMILY.items():
                to = f"{udp} {ip} daddr @known{family}"
                yield f"{to} meta skuid != 0 meta mark and {_INSIDE} == 0 drop"
                yield f"{to} meta mark and {_INSIDE} != 0 meta mark set meta mark and {_MASK ^ _INSIDE}"
        for kind in ("bridge", "vxlan"):
            yield f'meta skuid != 0 meta oifkind "{kind}" meta mark set meta mark or {_INSIDE}'

    def _output(self) -> Iterator[str]:
        yield from (f'oifname != "{self.tunnel}" {udp} {vnis} drop' for udp, vnis in self._by_port())

    def _by_port(self) -> Iterator[tuple[str, str]]:
        """For each port what matches it, and the VNIs on it: the 24 bits behind UDP's header and VXLAN's first 32."""
        vnis: dict[str, list[str]] = {}
        for port, vni in (item.split() for item in self.overlays):
            vnis.setdefault(port, []).append(vni)
        yield from ((f"udp dport {port}", f"@th,96,24 {{ {', '.join(found)} }}") for port, found in vnis.items())


def _besides(links: Iterable[str]) -> str:
    names = ", ".join(f'"{name}"' for name in links)
    return f"iifname != {{ {names} }} " * bool(names)


def _sport(udp: str) -> str:
    return udp.replace("dport", "sport")


@lru_cache(maxsize=4)
def _spelled(script: str) -> str:
    """What nft lists of a table as it is to be. It is tried here, where no packet meets it: a member may make no namespace for that."""
    dormant = script.replace(f"table {VTEP_TABLE} {{\n", f"table {_TRIED} {{\n{_DORMANT}", 1)
    try:
        netfilter.nft(f"add table {_TRIED}\ndelete table {_TRIED}\n{dormant}")
        listed = netfilter.nft_list(f"table {_TRIED}")
    finally:
        ruleset.delete_table(_TRIED)
    return listed.replace(f"table {_TRIED} {{", f"table {VTEP_TABLE} {{", 1).replace(f"\t{_DORMANT}\n", "", 1)


def _chain(hook: str, rules: Iterator[str], priority: str = "raw") -> str:
    lines = "".join(f"{rule}\n" for rule in rules)
    return f"chain {hook} {{ type filter hook {hook} priority {priority}; policy accept;\n{lines}}}\n"
