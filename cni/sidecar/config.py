"""The `sidecar` section of a configuration, with what the pod's annotations change of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cni.errors import InvalidConfig
from cni.protocol.call import Call
from cni.protocol.config import POD_ANNOTATIONS, NetConf, Section, folded

if TYPE_CHECKING:
    from cni.sidecar.model import Interception

#: What a profile presets; Istio's proxy serves the open ports itself.
_PROFILES: dict[str, Section] = {
    "plain": {},
    "istio": {"inboundPort": 15006, "tunnelPort": 15008, "openPorts": [15020, 15021, 15090]},
}
_EVERYTHING = (None, "*", ["*"])


def section_of(netconf: NetConf, call: Call) -> Interception | None:
    """The interception a main plugin's `sidecar` asks for, or None."""
    section = netconf.get("sidecar")
    return None if section is None else read(section, netconf, call, "$.sidecar")


def read(section: Section, netconf: NetConf, call: Call, where: str = "$") -> Interception:
    """Read a validated section; `conf` is the plugin's whole configuration, with its runtimeConfig.

    Raises InvalidConfig for what the schema cannot see, and for a malformed annotation by its name.
    """
    from cni.sidecar.annotations import overrides  # a call without interception loads nothing of it

    runtime = netconf.get("runtimeConfig")
    told = folded(runtime, POD_ANNOTATIONS) or {}
    given = _PROFILES[section.get("profile") or "plain"] | section | overrides(told)
    _refuse_contradictions(given, where)
    resolvers = folded(folded(runtime, "dns"), "servers") or folded(netconf.get("dns"), "nameservers")
    return _interception(given, _is_for(given, call, told), resolvers or ())


def _interception(given: Section, wanted: bool, resolvers: Sequence[str]) -> Interception:
    from cni.sidecar.model import Interception

    port: int = given.get("port", 15001)
    groups = given.get("ownerGroups") or {}
    return Interception(
        port=port,
        inbound_port=int(given.get("inboundPort", port)),
        tunnel_port=given.get("tunnelPort", 0),
        dns_port=given.get("dnsPort", 15053),
        proxy_uids=tuple(given.get("proxyUIDs", (1337,))),
        proxy_gids=tuple(given.get("proxyGIDs", (1337,))),
        include_inbound_ports=_list_or_all(given.get("includeInboundPorts")),
        exclude_inbound_ports=(*given.get("openPorts", ()), *given.get("excludeInboundPorts", ())),
        include_outbound_cidrs=_list_or_all(given.get("includeOutboundCIDRs")),
        exclude_outbound_cidrs=tuple(given.get("excludeOutboundCIDRs", ())),
        include_outbound_ports=tuple(given.get("includeOutboundPorts", ())),
        exclude_outbound_ports=tuple(given.get("excludeOutboundPorts", ())),
        exclude_interfaces=tuple(given.get("excludeInterfaces", ())),
        virt_interfaces=tuple(given.get("virtInterfaces", ())),
        include_groups=_list_or_all(groups.get("include")),
        exclude_groups=tuple(groups.get("exclude", ())),
        capture_dns=bool(given.get("captureDNS")),
        transparent=given.get("mode") == "tproxy",
        drop_invalid=bool(given.get("dropInvalid")),
        deny_uncaptured=bool(given.get("denyUncaptured")),
        resolvers=tuple(resolvers),
        backend=given.get("backend") or "",
        wanted=wanted,
    )


def _list_or_all(value: Any) -> tuple[Any, ...] | None:
    return None if value in _EVERYTHING else tuple(value)


def _is_for(given: Section, call: Call, told: Mapping[str, str]) -> bool:
    """Whether this pod has interception: its annotations and its namespace say."""
    when = given.get("when", "always")
    annotated = when == "always" or told.get(when["annotation"], "").lower() == "true"
    namespace = call.pod.partition("/")[0]
    return annotated and namespace not in given.get("excludeNamespaces", ()) and given.get("mode") != "none"


def _refuse_contradictions(given: Section, where: str) -> None:
    for cidr in given.get("excludeOutboundCIDRs", ()):
        if ipaddress.ip_network(cidr).prefixlen == 0:
            raise InvalidConfig(
                f"{where}.excludeOutboundCIDRs: {cidr} excludes everything; includeOutboundCIDRs [] does"
            )
    if not (given.get("proxyUIDs", True) or given.get("proxyGIDs", True)):
        raise InvalidConfig(f"{where}.proxyUIDs: without an id of the proxy its own traffic would be captured again")
    if given.get("captureDNS") and 53 in given.get("excludeOutboundPorts", ()):
        raise InvalidConfig(f"{where}.excludeOutboundPorts: 53 is what captureDNS captures")
