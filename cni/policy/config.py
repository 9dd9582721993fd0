"""The `policy` section of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cni import log
from cni.errors import InvalidConfig, TryAgainLater
from cni.naming import CLUSTER
from cni.protocol.call import Call
from cni.protocol.config import NetConf, Section
from cni.state.fed import feed_of
from cni.values import replace

if TYPE_CHECKING:
    from cni.policy.known import KnownBook
    from cni.policy.model import Allowance, Policy

#: Verbs that go by what is recorded.
_HOLDING_NOBODY = ("CHECK", "DEL", "GC")
#: Verbs by which the node knows from now on what a feed says.
_KEEPING = ("ADD", "REFRESH")


def section_of(netconf: NetConf, call: Call) -> Policy | None:
    """The policy a validated configuration asks for, or None.

    With a feed, what its NetworkPolicies allow the call's pod adds to it; calls that hold nobody to anything
    do not read it. Raises InvalidConfig naming the entry that is impossible, the file that cannot be read of a folder that never
    could be, or a feed for a pod without a name, and TryAgainLater where this host was not told yet what its cluster says.
    """
    section = netconf.get("policy")
    if section is None:
        return None
    if section.get("cluster") and section.get("policyDir"):
        raise InvalidConfig("$.policy: has both cluster and policyDir; a pod's documents come from one place")
    policy = read(section, "$.policy")
    feed = feed_of(netconf)
    if not feed or call.command in _HOLDING_NOBODY:
        return policy
    book = _opened(feed, keep=call.command in _KEEPING)
    return policy if call.command == "STATUS" else _with_feed(policy, book, call, netconf)


def faults_in(feed: str, found: Callable[[KnownBook], list[str]] | None = None) -> list[str]:
    """Why a feed cannot be read, or what is wrong in its policies, which `found` may know; nothing without one, and nothing of a cluster
    that this host was not told of yet: that is no fault of its documents.
    """
    try:
        book = _opened(feed, keep=False) if feed else None
        return (found(book) if found else book.faults()) if book else []
    except InvalidConfig as error:
        return [error.msg]
    except TryAgainLater:
        return []


def _opened(feed: str, *, keep: bool) -> KnownBook:
    from cni.policy.feeds import book_of  # only a configuration with a feed pays for it

    return book_of(feed, keep=keep)


def _with_feed(policy: Policy, book: KnownBook, call: Call, netconf: NetConf) -> Policy:
    """Policies add up: a direction anybody speaks of is shut but for what anybody allows."""
    if not call.pod:
        key = "cluster" if book.feed == CLUSTER else "policyDir"
        wanted = "CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME"
        where = book.feed.removeprefix("folder ")
        raise InvalidConfig(f"$.policy.{key}: {wanted}: nothing in {where} could hold this pod")
    if call.command == "ADD" and (faults := book.faults(call.pod.partition("/")[0])):
        log.event(netconf.get("type") or "policy", call.command, pod=call.pod, faults=faults)
    from cni.policy.compiler import allowances, closers, tier

    return replace(
        policy,
        ingress=_sum(policy.ingress, allowances(book, "ingress", call.pod)),
        egress=_sum(policy.egress, allowances(book, "egress", call.pod)),
        admin=tier(book, "admin", call.pod),
        baseline=tier(book, "baseline", call.pod),
        closers={direction: closers(book, direction, call.pod) for direction in ("ingress", "egress")},
    )


def _sum(one: tuple[Allowance, ...] | None, other: tuple[Allowance, ...] | None) -> tuple[Allowance, ...] | None:
    return other if one is None else one + (other or ())


def read(section: Section, where: str) -> Policy:
    """Read a `policy` section."""
    from cni.policy.asking import asking  # a call without a policy loads nothing of it
    from cni.policy.model import Policy

    deny = bool(section.get("defaultDeny"))
    closed = {"ingress": deny, "egress": deny or bool(section.get("egressDrop"))}
    rules = {name: _direction(section.get(name), name, closed[name], f"{where}.{name}") for name in closed}
    return Policy(
        ingress=rules["ingress"],
        egress=rules["egress"],
        established=bool(section.get("allowEstablished", True)),
        dns=section.get("allowDNS") is True,
        anti_spoof=bool(section.get("antiSpoof", True)),
        host_access=bool(section.get("hostAccess", True)),
        log=bool(section.get("log")),
        asking=asking(section, where),
    )


def _direction(raw: list[Any] | None, name: str, closed: bool, where: str) -> tuple[Allowance, ...] | None:
    if raw is None:
        return () if closed else None
    side = "from" if name == "ingress" else "to"
    cidrs = [{"ipBlock": {"cidr": item}} for item in raw if isinstance(item, str)]
    rules = [(item, f"{where}[{at}]") for at, item in enumerate(raw) if not isinstance(item, str)]
    if cidrs:
        rules.insert(0, ({side: cidrs}, where))
    return tuple(_allowance(rule, side, at) for rule, at in rules)


def _allowance(rule: dict[str, Any], side: str, where: str) -> Allowance:
    from cni.policy.model import Allowance
    from cni.policy.peers import ports_of, spans_of

    wrong = "to" if side == "from" else "from"
    if wrong in rule:
        raise InvalidConfig(f"{where}.{wrong}: a rule of this direction has {side!r}")
    peers = rule.get(side) or []
    blocks = [item["ipBlock"] for item in peers if item.get("ipBlock")]
    names = _names(peers, f"{where}.{side}")
    near = spans_of(blocks, where) if blocks or names else None
    return Allowance(near, ports_of(rule.get("ports") or (), where), domains=names)


def _names(peers: list[dict[str, Any]], where: str) -> tuple[str, ...]:
    """The names among peers, each of which has those or a block."""
    from cni.policy.domains import pattern, together

    found: list[str] = []
    for number, peer in enumerate(peers):
        at = f"{where}[{number}]"
        if len([key for key in ("ipBlock", "domainNames") if peer.get(key)]) != 1:
            raise InvalidConfig(f"{at}: a peer has either ipBlock or domainNames")
        names = enumerate(peer.get("domainNames") or ())
        found += [pattern(name, f"{at}.domainNames[{nth}]") for nth, name in names]
    return together(found)
