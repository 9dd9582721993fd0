"""What a `policy` section says of a pod's questions for names."""

from __future__ import annotations

import ipaddress

from cni.policy.domains import domain, pattern, together
from cni.policy.model import Resolving
from cni.protocol.config import Section
from cni.values import replace


def asking(section: Section, where: str) -> Resolving:
    """What it says, or leaves as it is; `names` are those of ``allowDNS``. Raises InvalidConfig naming the entry that is impossible."""
    allowed, own = section.get("allowDNS"), section.get("resolveOwn")
    found = Resolving(everything=section.get("resolve") == "any")
    names = allowed if isinstance(allowed, list) else []
    return replace(
        found,
        names=together(pattern(item, f"{where}.allowDNS[{at}]") for at, item in enumerate(names)),
        rate=int(section.get("resolveRate") or found.rate),
        keep=int(section.get("resolveKeep") or found.keep),
        into=tuple(str(ipaddress.ip_network(item)) for item in section.get("resolveInto") or ()),
        own=found.own
        if own is None
        else together(domain(item, f"{where}.resolveOwn[{at}]") for at, item in enumerate(own)),
    )
