"""What cuts this host's pods off when the cluster has not heard of it for three quarters of freeAfter: nft sets that time out.

The kernel counts, so that it happens whoever is stopped, killed or hangs. Source: nft(8), "SETS", `timeout`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from cni.kernel import netfilter, ruleset
from cni.kernel.clock import boottime
from cni.member.fence import Fence
from cni.naming import FENCE_TABLES
from cni.state import Store

#: The kernel is told again of so much of freeAfter, and anyway after so many seconds, whoever took the tables away.
_WORTHWHILE, _ANYWAY = 1 / 100, 60.0
_ROUTED, _BRIDGED = FENCE_TABLES
_KINDS = ("ip", "ip6", "arp")
_PODS = ("ip saddr @pods4", "ip daddr @pods4", "ip6 saddr @pods6", "ip6 daddr @pods6")


class Barrier:
    """It, for the hand."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self._subnets: tuple[str, ...] = ()
        self._until = self._anyway = 0.0
        self._is_gone = False

    def keep(self, state: Store) -> None:
        """Let pass what is to pass, until the state's time has come. Raises ToolFailed, KernelRefused, Unavailable."""
        member = state.member()
        if not (seconds := self._fence.seconds(member)):
            if not self._is_gone:
                clear()  # of before
            self._is_gone = True
            return
        subnets = tuple(sorted({pool.subnet for network, _ in state.shared() for pool in network.pools}))
        until, now = self._fence.passes_until(member), boottime()
        moved = abs(until - self._until) > seconds * _WORTHWHILE
        if moved or subnets != self._subnets or now > self._anyway:
            netfilter.nft(script(subnets, max(0, math.floor(until - now))))
            self._subnets, self._until, self._anyway = subnets, until, now + _ANYWAY


def clear() -> None:
    """Have none. Raises KernelRefused."""
    for table in FENCE_TABLES:
        ruleset.delete_table(table)


def script(subnets: Iterable[str], seconds: int) -> str:
    """The tables anew, in one transaction: for so many seconds from now what is forwarded to and from subnets passes, and after
    that nothing; 0: not now either.
    """
    known = list(subnets)
    heard = _set("heard", "ether_type; flags timeout", [f"{kind} timeout {seconds}s" for kind in _KINDS if seconds])
    pods = (
        _set(
            f"pods{family}", f"ipv{family}_addr; flags interval; auto-merge", [it for it in known if (":" in it) == six]
        )
        for family, six in ((4, False), (6, True))
    )
    sets = heard + "".join(pods)
    tables = _table(_ROUTED, sets, _PODS) + _table(_BRIDGED, sets, (*_PODS, "arp saddr ip @pods4"))
    return "".join(f"add table {table}\ndelete table {table}\n" for table in FENCE_TABLES) + tables


def _set(name: str, kind: str, elements: list[str]) -> str:
    there = f" elements = {{ {', '.join(elements)} }}" if elements else ""
    return f"set {name} {{ type {kind};{there} }}\n"


def _table(name: str, sets: str, dropped: Iterable[str]) -> str:
    rules = "".join(f"{match} drop\n" for match in dropped)
    hook = "type filter hook forward priority -300; policy accept;"
    return f"table {name} {{\n{sets}chain forward {{ {hook}\nmeta protocol @heard accept\n{rules}}}\n}}\n"
