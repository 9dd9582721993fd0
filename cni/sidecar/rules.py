"""Interception as rules of one family, pure: what is captured, by whom, in which order.

Outbound (table nat), in this order, because each line is an exception of what follows it: the proxy's way
to the application through the passthrough address; what the proxy sends to the pod's own address, which
is inbound (for every uid and gid before any of them returns); the proxy's own traffic; groups; DNS;
loopback; excludes; includes. Inbound (table nat, or mangle with TPROXY): excludes, then includes.

Table nat sees a connection's first packet, and a later one where conntrack has forgotten it (half closed for a minute,
idle for days). Then a captured connection must be redirected again, and any other must not: what comes in is another's
where a socket has just its addresses and ports, because a captured one's has the proxy's port; what goes out is another's
if it comes from a port that is not captured inbound.

Sources: istio-iptables' chains and their reported gaps; the kernel's tproxy.rst for the policy route.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni.sidecar.guard import guard
from cni.sidecar.model import Interception
from cni.sidecar.rule import HAIRPIN_MARK, MARK, RETURN, TABLES, Match, Rule, Table, to

#: The proxy connects to the application from here, and is not captured again.
PASSTHROUGH = {4: "127.0.0.6/32", 6: "::6/128"}
LOCAL = {4: "127.0.0.1/32", 6: "::1/128"}

_TCP, _UDP = Match("protocol", "tcp"), Match("protocol", "udp")
#: A connection conntrack has forgotten, or never knew.
_MIDST = Match("flags", "FIN,SYN,RST,ACK SYN", but=True)
#: A socket with these addresses and ports; one that listens on any address does not count.
_HAS_SOCKET, _HAS_PROXYS_SOCKET = Match("socket", ""), Match("socket", "--transparent")
_FROM_LO, _TO_LO = Match("in", "lo"), Match("out", "lo")
_UNTOUCHED_ZONE, _CAPTURED_ZONE = 1, 2


def tables(wanted: Interception, family: int) -> tuple[Table, ...]:
    """Every rule of one family (4 or 6); a table without rules is left out."""
    rules = {
        "raw": _joined(_raw(wanted, family)),
        "mangle": _joined(_mangle(wanted, family)),
        "filter": _joined(guard(wanted, family)),
        "nat": _joined(_nat(wanted, family)),
    }
    return tuple(Table(name, rules[name]) for name in TABLES if rules[name])


def _joined(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules without chains nobody jumps to, and without jumps to chains that have no rules."""
    every = tuple(rules)
    ours = {rule.chain for rule in every}
    targets = {rule.action.name for rule in every}
    kept = tuple(rule for rule in every if _joins(rule.chain, targets) and _joins(rule.action.name, ours))
    return kept if kept == every else _joined(kept)


def _joins(name: str, others: set[str]) -> bool:
    return name in others or not name.startswith("ACNI_")


def _nat(wanted: Interception, family: int) -> Iterator[Rule]:
    inbound = [] if wanted.transparent else list(_inbound(wanted, "ACNI_IN_REDIRECT"))
    virtual = list(_virtual(wanted)) if wanted.captures_outbound else []
    if virtual or inbound:
        yield to("ACNI_INBOUND", "PREROUTING")
        yield to(RETURN, "ACNI_INBOUND", _TCP, _MIDST, _HAS_SOCKET)
        yield from (*virtual, *inbound)
    if wanted.captures_outbound:
        yield to("ACNI_OUTPUT", "OUTPUT")
        yield from _who(wanted, family)
        yield from _what(wanted, family)
        yield to("redirect", "ACNI_REDIRECT", _TCP, value=wanted.port)
    if inbound or (wanted.captures_outbound and not wanted.transparent):
        yield to("redirect", "ACNI_IN_REDIRECT", _TCP, value=wanted.inbound_port)


def _inbound(wanted: Interception, chain: str) -> Iterator[Rule]:
    """What arrives from outside; nothing where nothing is included."""
    if not wanted.captures_inbound:
        return
    for name in wanted.exclude_interfaces:
        yield to(RETURN, "ACNI_INBOUND", Match("in", name))
    for port in wanted.open_inbound_ports:
        yield to(RETURN, "ACNI_INBOUND", _TCP, Match("port", port))
    if wanted.include_inbound_ports is None:
        yield to(chain, "ACNI_INBOUND", _TCP)
    for port in wanted.include_inbound_ports or ():
        yield to(chain, "ACNI_INBOUND", _TCP, Match("port", port))


def _virtual(wanted: Interception) -> Iterator[Rule]:
    """What arrives from machines behind the pod is outbound traffic."""
    for name in wanted.virt_interfaces:
        yield to("ACNI_CAPTURE", "ACNI_INBOUND", Match("in", name))
        yield to(RETURN, "ACNI_INBOUND", Match("in", name))


def _who(wanted: Interception, family: int) -> Iterator[Rule]:
    """Whose traffic is captured."""
    for port in wanted.exclude_inbound_ports:
        yield to(RETURN, "ACNI_OUTPUT", _TCP, Match("source-port", port), _MIDST)
    for name in wanted.exclude_interfaces:
        yield to(RETURN, "ACNI_OUTPUT", Match("out", name))
    yield to(RETURN, "ACNI_OUTPUT", Match("source", PASSTHROUGH[family]), _TO_LO)
    if not wanted.transparent:
        yield from _hairpins(wanted, family, "ACNI_OUTPUT", "ACNI_IN_REDIRECT")
    for owner in (*wanted.proxies, *wanted.excluded_groups):
        yield to(RETURN, "ACNI_OUTPUT", owner)
    if wanted.included_groups is None:
        yield to("ACNI_CAPTURE", "ACNI_OUTPUT")
    for owner in wanted.included_groups or ():
        yield to("ACNI_CAPTURE", "ACNI_OUTPUT", owner)


def _hairpins(wanted: Interception, family: int, chain: str, action: str, value: object = None) -> Iterator[Rule]:
    """The proxy calls the pod's own address: that is inbound, but for ports that bypass the proxy there."""
    spared = ",".join(map(str, wanted.hairpin_exceptions))
    but = (Match("ports", spared, but=True),) if spared else ()
    for owner in wanted.proxies:
        own = Match("destination", LOCAL[family], but=True)
        yield to(action, chain, own, _TO_LO, _TCP, *but, owner, value=value)


def _what(wanted: Interception, family: int) -> Iterator[Rule]:
    """Which traffic is captured."""
    if wanted.capture_dns:
        for resolver in wanted.resolvers_of(family):
            for protocol in (_UDP, _TCP):
                yield to("redirect", "ACNI_CAPTURE", *resolver, protocol, Match("port", 53), value=wanted.dns_port)
    yield to(RETURN, "ACNI_CAPTURE", _TO_LO)
    for port in wanted.exclude_outbound_ports:
        yield to(RETURN, "ACNI_CAPTURE", _TCP, Match("port", port))
    for cidr in wanted.excluded_cidrs(family):
        yield to(RETURN, "ACNI_CAPTURE", Match("destination", cidr))
    for port in wanted.include_outbound_ports:
        yield to("ACNI_REDIRECT", "ACNI_CAPTURE", _TCP, Match("port", port))
    for destination in wanted.included_destinations(family):
        yield to("ACNI_REDIRECT", "ACNI_CAPTURE", *destination, _TCP)


def _mangle(wanted: Interception, family: int) -> Iterator[Rule]:
    if wanted.drop_invalid:
        yield to("ACNI_INVALID", "PREROUTING")
        yield to("DROP", "ACNI_INVALID", Match("state", "INVALID"))
    inbound = list(_inbound(wanted, "ACNI_TPROXY")) if wanted.transparent else []
    if inbound:
        yield to("ACNI_INBOUND", "PREROUTING")
        yield from _transparent(wanted, family)
        yield from inbound
        yield to(RETURN, "ACNI_TPROXY", Match("state", "RELATED,ESTABLISHED"))
        if wanted.deny_uncaptured:  # which knows by the mark what the proxy has
            yield to("mark", "ACNI_TPROXY", _TCP, _MIDST, _HAS_PROXYS_SOCKET, value=MARK)
        yield to(RETURN, "ACNI_TPROXY", _TCP, _MIDST)
        onto = (wanted.inbound_port, MARK)
        yield to("tproxy", "ACNI_TPROXY", Match("destination", LOCAL[family], but=True), _TCP, value=onto)
        yield to("ACNI_MARK", "OUTPUT")
        yield to(RETURN, "ACNI_MARK", Match("mark", MARK))
        yield to("restore-mark", "ACNI_MARK", _TCP, Match("connmark", MARK))
        yield from _hairpins(wanted, family, "ACNI_MARK", "mark", HAIRPIN_MARK)


def _transparent(wanted: Interception, family: int) -> Iterator[Rule]:
    """What the proxy sends with a client's address: answers to it find their way back by the mark."""
    yield to("save-mark", "ACNI_INBOUND", _TCP, Match("mark", MARK))
    yield to(RETURN, "ACNI_INBOUND", Match("mark", MARK))
    yield to(RETURN, "ACNI_INBOUND", Match("source", PASSTHROUGH[family]), _FROM_LO)
    yield to(RETURN, "ACNI_INBOUND", _FROM_LO, Match("mark", HAIRPIN_MARK, but=True))
    for name in wanted.virt_interfaces:
        yield to(RETURN, "ACNI_INBOUND", Match("in", name))


def _raw(wanted: Interception, family: int) -> Iterator[Rule]:
    """Two conntrack zones: the application's queries to the proxy, and the proxy's to the resolvers.

    In one zone a query of the proxy from a port the application used shortly before would be taken
    for the application's, and be sent to the proxy again. Other servers are in neither: nothing to them is captured.
    """
    if not (wanted.capture_dns and wanted.captures_outbound):
        return
    query, answer = (_UDP, Match("port", 53)), (_UDP, Match("source-port", 53))
    yield to("ACNI_DNS_OUT", "OUTPUT")
    for owner in wanted.proxies:
        for resolver in wanted.resolvers_of(family):
            yield to("zone", "ACNI_DNS_OUT", *resolver, *query, owner, value=_UNTOUCHED_ZONE)
        own_answer = Match("source-port", wanted.dns_port)
        yield to("zone", "ACNI_DNS_OUT", _UDP, own_answer, owner, value=_CAPTURED_ZONE)
    for resolver in wanted.resolvers_of(family):
        for owner in wanted.excluded_groups:
            yield to("zone", "ACNI_DNS_OUT", *resolver, *query, owner, value=_UNTOUCHED_ZONE)
        for owner in wanted.included_groups or ():
            yield to("zone", "ACNI_DNS_OUT", *resolver, *query, owner, value=_CAPTURED_ZONE)
        rest = _CAPTURED_ZONE if wanted.included_groups is None else _UNTOUCHED_ZONE
        yield to("zone", "ACNI_DNS_OUT", *resolver, *query, value=rest)
    yield to("ACNI_DNS_IN", "PREROUTING")
    for resolver in wanted.resolvers_of(family):
        source = tuple(Match("source", match.value) for match in resolver)
        yield to("zone", "ACNI_DNS_IN", *source, *answer, value=_UNTOUCHED_ZONE)
