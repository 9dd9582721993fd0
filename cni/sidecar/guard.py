"""`denyUncaptured`: what the rules do not capture is dropped, in the filter table.

It holds when the redirecting rules are gone, too: captured packets are known by what conntrack did to
them, not by where they should have gone. A raw packet socket passes below every iptables table.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni.sidecar.model import Interception
from cni.sidecar.rule import DROP, MARK, RETURN, Match, Rule, to

_LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}
_TCP, _UDP = Match("protocol", "tcp"), Match("protocol", "udp")
_GOING_ON, _REDIRECTED = Match("state", "RELATED,ESTABLISHED"), Match("state", "DNAT")

#: Router solicitation and advertisement, neighbour solicitation and advertisement (RFC 4861), MLDv2 reports.
_DISCOVERY = (133, 134, 135, 136, 143)


def guard(wanted: Interception, family: int) -> Iterator[Rule]:
    """The guard's chains, or nothing where it is not asked for."""
    if not wanted.deny_uncaptured:
        return
    yield to("ACNI_GUARD_OUT", "OUTPUT")
    yield from _out(wanted, family)
    yield to("ACNI_GUARD_IN", "INPUT")
    yield from _in(wanted, family)
    if wanted.virt_interfaces:
        yield to("ACNI_GUARD_FORWARD", "FORWARD")
        yield from _forward(wanted, family)


def _out(wanted: Interception, family: int) -> Iterator[Rule]:
    chain = "ACNI_GUARD_OUT"
    yield to(RETURN, chain, Match("out", "lo"))
    yield to(RETURN, chain, Match("destination", _LOOPBACK[family]), _REDIRECTED)
    for owner in (*wanted.proxies, *wanted.excluded_groups):
        yield to(RETURN, chain, owner)
    yield to(RETURN, chain, _GOING_ON)
    yield from _discovery(chain, family)
    for name in wanted.exclude_interfaces:
        yield to(RETURN, chain, Match("out", name))
    yield from _excluded(wanted, chain, family)
    if not wanted.capture_dns:
        for resolver in wanted.resolvers_of(family):
            for protocol in (_UDP, _TCP):
                yield to(RETURN, chain, *resolver, protocol, Match("port", 53))
    yield to(DROP, chain)


def _in(wanted: Interception, family: int) -> Iterator[Rule]:
    chain = "ACNI_GUARD_IN"
    yield to(RETURN, chain, Match("in", "lo"))
    yield to(RETURN, chain, _TCP, Match("mark", MARK) if wanted.transparent else _REDIRECTED)
    yield to(RETURN, chain, _GOING_ON)
    yield from _discovery(chain, family)
    for name in wanted.exclude_interfaces:
        yield to(RETURN, chain, Match("in", name))
    if wanted.captures_outbound:
        for name in wanted.virt_interfaces:
            yield to(RETURN, chain, Match("in", name), _REDIRECTED)
    for port in wanted.open_inbound_ports:
        yield to(RETURN, chain, _TCP, Match("port", port))
    for port in wanted.exclude_inbound_ports:
        yield to(RETURN, chain, _UDP, Match("port", port))
    yield to(DROP, chain)


def _forward(wanted: Interception, family: int) -> Iterator[Rule]:
    chain = "ACNI_GUARD_FORWARD"
    yield to(RETURN, chain, _GOING_ON)
    yield from _excluded(wanted, chain, family)
    for name in wanted.virt_interfaces:
        yield to(DROP, chain, Match("in", name))


def _excluded(wanted: Interception, chain: str, family: int) -> Iterator[Rule]:
    for port in wanted.exclude_outbound_ports:
        for protocol in (_TCP, _UDP):
            yield to(RETURN, chain, protocol, Match("port", port))
    for cidr in wanted.excluded_cidrs(family):
        yield to(RETURN, chain, Match("destination", cidr))


def _discovery(chain: str, family: int) -> Iterator[Rule]:
    if family == 6:
        for kind in _DISCOVERY:
            yield to(RETURN, chain, Match("protocol", "ipv6-icmp"), Match("icmp6", kind))
