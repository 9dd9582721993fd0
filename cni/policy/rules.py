"""A policy as nft rules, pure: one chain per pod and direction, found by verdict maps.

A chain returns what it lets through and drops the rest, so that both ends of a connection within the node
are asked. Every packet is asked, also of connections that are old: a packet of the reply direction is held
to the rules of the direction its connection began in, mirrored. So a changed policy cuts at once what it no
longer allows, both ways, and nothing has to be deleted from conntrack.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from cni.naming import DROPS, digest_of, domain_set, interface_of, is_mac, link_local, peer_set
from cni.policy.model import ASKING, Allowance, Policy, Port, Ruling, hosts, without
from cni.protocol.result import Result
from cni.values import dataclass, replace

_SIDE = {"in": "saddr", "out": "daddr"}
_DIRECTIONS = {"in": "ingress", "out": "egress"}
_OTHER = {"in": "out", "out": "in"}
_REPLY = "ct direction reply"
_AT_MOST = "limit rate 10/second burst 20 packets"
_LONGEST = 120
_IP = {4: "ip", 6: "ip6"}
_ICMP = {4: "icmp", 6: "ipv6-icmp"}
_RESOLVING = (Port("udp", 53, 53), Port("tcp", 53, 53))
_BUT_ASKING = f"!= {{ {', '.join(map(str, ASKING))} }}"


def addresses_of(attached: Result, mac: str) -> tuple[str, ...]:
    """Every address a pod may use: its own, and in IPv6 the link-local one of its MAC, as far as a result says that."""
    own = [str(interface_of(ip.address).ip) for ip in attached.ips]
    six = any(ip.family == 6 for ip in attached.ips) and is_mac(mac)
    return tuple(dict.fromkeys([*own, *([str(link_local(mac))] if six else [])]))


def chain_rules(
    policy: Policy, token: str, families: Iterable[int], resolvers: Iterable[str], pod: str
) -> tuple[str, ...]:
    """The rules of a pod, each behind its chain's name, ``in-TOKEN`` or ``out-TOKEN``, as ``nft add rule inet TABLE``
    takes them; `families` are the IP versions (4, 6) that may be let through. What an administrator passes on goes to ``in.pass-TOKEN``,
    answers of it to ``in.back-TOKEN``.
    """
    chains = _Chains(policy, token, tuple(families), tuple(resolvers), pod)
    return tuple(dict.fromkeys(line for way in ("in", "out") for line in chains.of(way)))


@dataclass(frozen=True)
class _Chains:
    policy: Policy
    token: str
    families: tuple[int, ...]
    resolvers: tuple[str, ...]
    pod: str

    def of(self, way: str) -> Iterator[str]:
        """The rules of one way, ``in`` or ``out``. Packets of the reply direction are asked what is asked of the other way."""
        own, other = _DIRECTIONS[way], _DIRECTIONS[_OTHER[way]]
        tiers = self.policy.admin, self.policy.baseline
        if self._allowed(own) is None and not any(getattr(tier, own) for tier in tiers):
            yield f"{way}-{self.token} return"
            return
        if self.policy.established:
            if any(getattr(tier, other) for tier in tiers):
                yield from self._decided(way, other, "sport", _REPLY)
            else:
                yield from (f"{way}-{self.token} {line}" for line in self._let_through(way, other, "sport", _REPLY))
        yield from self._decided(way, own, "dport")

    def _decided(self, way: str, direction: str, port_of: str, only: str = "") -> Iterator[str]:
        """What all tiers say of a direction, in order, of packets that match `only`. What an administrator passes on, and in the end
        all the rest, goes to a chain of the next tiers; where nothing is passed on these stand here.
        """
        chain, later = f"{way}-{self.token}", f"{way}.{'back' if only else 'pass'}-{self.token}"
        rulings = self._administrators(direction)
        yield from (f"{chain} {line}" for line in self._ruled(rulings, f"goto {later}", way, port_of, only))
        if any(item.action == "pass" for item in rulings):
            yield _line(chain, only, f"goto {later}")
            chain, only = later, ""
        rulings = getattr(self.policy.baseline, direction)
        if self._allowed(direction) is None:
            rest = [*self._ruled(rulings, "return", way, port_of, only), _line(only, "return")]
        else:
            rest = [
                *self._let_through(way, direction, port_of, only),
                *(self._logged(way, only) if only or self.policy.log else self._told(way)),
                _line(only, _counted("drop", self.policy.closers.get(direction, ""), only)),
            ]
        yield from (f"{chain} {line}" for line in rest)

    def _ruled(self, rulings: Iterable[Ruling], passing_on: str, way: str, port_of: str, only: str) -> Iterator[str]:
        """An administrator's rulings in their order."""
        verdicts = {"accept": "return", "deny": "drop", "pass": passing_on}
        for ruling in rulings:
            for line in dict.fromkeys(
                line for family in self.families for line in self._passing(ruling.match, way, port_of, family)
            ):
                matching = _line(only, line)
                yield from self._logged(way, matching) if ruling.action == "deny" else ()
                yield _line(matching, _counted(verdicts[ruling.action], ruling.match.document, only))

    def _let_through(self, way: str, direction: str, port_of: str, only: str) -> Iterator[str]:
        """What policies, which add up, let through; without any, everything."""
        allowed = self._allowed(direction)
        for family in self.families:
            for allowance in (Allowance(),) if allowed is None else allowed:
                for line in self._passing(allowance, way, port_of, family):
                    yield _line(only, line, _counted("return", allowance.document, only))

    def _passing(self, match: Allowance, way: str, port_of: str, family: int) -> Iterator[str]:
        if match == _asking(self.resolvers):
            yield from _asked(self.resolvers, family)
            past = passing((match,), _SIDE[way], port_of, family) if port_of == "dport" else ()
            yield from (f"ct state untracked {line}" for line in past)
            return
        yield from passing((match,), _SIDE[way], port_of, family)
        if match.domains:
            near = f"{_IP[family]} {_SIDE[way]} @{domain_set(self.token, match.domains, family)}"
            yield from (f"{near} {port}" for port in _ports_by_name(match.ports, port_of, family))

    def _logged(self, way: str, matching: str) -> Iterator[str]:
        if self.policy.log:
            label = _label(self.pod, way)
            yield _line(matching, _AT_MOST, f'log prefix "{label}" log prefix "{label}" group {DROPS}')

    def _told(self, way: str) -> Iterator[str]:
        """What is dropped in the end is told to who listens, whatever is logged: a rule more for each closed direction, and none for each denial."""
        yield f'{_AT_MOST} log prefix "{_label(self.pod, way)}" group {DROPS}'

    def _allowed(self, direction: str) -> tuple[Allowance, ...] | None:
        policy = self.policy
        return policy.ingress if direction == "ingress" else _with_dns(policy, self.resolvers)

    def _administrators(self, direction: str) -> tuple[Ruling, ...]:
        """An administrator's rulings, and that names may be asked for before the first that lets through by a name."""
        rulings: tuple[Ruling, ...] = getattr(self.policy.admin, direction)
        at = next((number for number, item in enumerate(rulings) if item.match.domains), None)
        if at is None or not self.policy.resolving:
            return rulings
        return (*rulings[:at], Ruling("accept", _asking(self.resolvers)), *rulings[at:])


def _line(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _counted(verdict: str, document: str, only: str) -> str:
    """A verdict that a document gives, counted for that; of answers not again."""
    return f'counter {verdict} comment "{commented(document)}"' if document and not only else verdict


def commented(document: str) -> str:
    """A document as a rule's comment, which has at most 128 bytes (nft(8))."""
    plain = _plain(document, " -_./,")
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 9]} {digest_of(plain)[:8]}"


def _with_dns(policy: Policy, resolvers: tuple[str, ...]) -> tuple[Allowance, ...] | None:
    """Egress with port 53 of the pod's resolvers; of any, where none is known."""
    if policy.egress is None or not (policy.dns or policy.resolving):
        return policy.egress
    return (*policy.egress, _asking(resolvers))


def _asking(resolvers: tuple[str, ...]) -> Allowance:
    return Allowance(hosts(resolvers) if resolvers else None, _RESOLVING)


def _asked(resolvers: tuple[str, ...], family: int) -> Iterator[str]:
    """What matches questions to resolvers, and their answers, as the pod asks: a Service may lead them elsewhere, and to another port."""
    own = [f"ct original {_IP[family]} daddr {text} " for text in resolvers if (":" in text) == (family == 6)]
    for near in own if resolvers else [""]:
        yield from (f"meta l4proto {protocol} {near}ct original proto-dst 53" for protocol in ("udp", "tcp"))


def passing(allowed: tuple[Allowance, ...] | None, side: str, port_of: str, family: int) -> Iterator[str]:
    """What matches all that passes towards or from the peers; a direction without rules is open. Pods among them are looked up
    in the sets of their selections.
    """
    for allowance in (Allowance(),) if allowed is None else allowed:
        ports = [_port(port, port_of, family) for port in allowance.ports or ()]
        for near in _near(allowance, side, port_of, family):
            yield from (f"{near} {port}".lstrip() for port in ports) if ports else (near,)


def passing_blocks(allowed: Iterable[Allowance], side: str, port_of: str, family: int) -> Iterator[str]:
    """The same of blocks of addresses only, where there are no sets to ask."""
    return passing(tuple(replace(item, selections=()) for item in allowed), side, port_of, family)


def _ports_by_name(ports: tuple[Port, ...] | None, port_of: str, family: int) -> Iterator[str]:
    """What matches ports to which a name lets through: names are asked for only on one that is named by itself."""
    if ports is None:
        yield from (f"{protocol} {port_of} {_BUT_ASKING}" for protocol in ("tcp", "udp"))
        yield "meta l4proto != { tcp, udp }"
    for port in ports or ():
        if port.protocol not in ("tcp", "udp") or (port.first and port.first == port.last):
            yield _port(port, port_of, family)
        elif not port.first:
            yield f"{port.protocol} {port_of} {_BUT_ASKING}"
        else:
            spans = without((port.first, port.last), [(number, number) for number in ASKING])
            spelled = (str(low) if low == high else f"{low}-{high}" for low, high in spans)
            yield f"{port.protocol} {port_of} {{ {', '.join(spelled)} }}"


def _near(allowance: Allowance, side: str, port_of: str, family: int) -> Iterator[str]:
    ip, ranges = _IP[family], allowance.ranges(family)
    if allowance.peers is None:
        yield ""
    if ranges:
        yield f"{ip} {side} {{ {', '.join(_spelled(span, family) for span in ranges)} }}"
    for selection in allowance.selections:
        key = f"{ip} {side} . meta l4proto . th {port_of}" if selection.port else f"{ip} {side}"
        yield f"{key} @{peer_set(selection.text, family, ports=selection.port is not None)}"


def _port(port: Port, port_of: str, family: int) -> str:
    if port.protocol == "icmp":
        return f"meta l4proto {_ICMP[family]}"
    if not port.first:
        return f"meta l4proto {port.protocol}"
    return f"{port.protocol} {port_of} {port.first if port.first == port.last else f'{port.first}-{port.last}'}"


def _spelled(span: tuple[int, int], family: int) -> str:
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    low, high = span
    return str(kind(low)) if low == high else f"{kind(low)}-{kind(high)}"


def _label(pod: str, direction: str) -> str:
    """What a drop's log line begins with; nft takes 127 bytes."""
    return f"agent-cni drop {direction} {_plain(pod, '-_./')[:96]}: "


def _plain(text: str, besides: str) -> str:
    """A text of which each letter is one byte, and none is nft's."""
    return "".join(char if (char.isascii() and char.isalnum()) or char in besides else "_" for char in text)
