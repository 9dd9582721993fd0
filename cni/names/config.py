"""The `names` section of a configuration, and what the runtime and a pod's annotations say of its names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cni.errors import CniError, InvalidConfig, InvalidEnvironment
from cni.kernel.hostsdir import MOST_BYTES
from cni.names.spelling import is_name, known_as
from cni.naming import DEFAULT_BRIDGE
from cni.protocol.call import Call
from cni.protocol.config import POD_ANNOTATIONS, NetConf, folded
from cni.values import dataclass

#: Annotations: a host name, further names with commas between, and how it is probed, as JSON.
HOSTNAME, ALIASES, HEALTH = (f"names.agent-cni.dev/{key}" for key in ("hostname", "aliases", "health"))
#: A pod has so many words for itself at most: each is three names for its server and for all hosts', and a service of Consul.
_MOST = 64
_NERDCTL = "NERDCTL_CNI_DHCP_HOSTNAME"


@dataclass(frozen=True)
class Names:
    """What a pod is known as in the network of a bridge, whose names end in `domain`. What is not of it is asked of `upstream`, or of the node's
    own resolvers where that is empty. `search` is what a pod looks through, `health` how it is probed (JSON), empty where nobody does;
    `consul` is where it is registered, too.
    """

    bridge: str
    domain: str
    known_as: tuple[str, ...]
    search: tuple[str, ...]
    upstream: tuple[str, ...] = ()
    consul: str = ""
    health: str = ""


def read(netconf: NetConf, call: Call) -> Names:
    """Read a validated configuration that has `names`. Raises InvalidConfig and InvalidEnvironment naming what is no name."""
    section = netconf["names"]
    _refuse_contradictions(netconf)
    domain = _domain(netconf)
    told: Mapping[str, str] = folded(netconf.get("runtimeConfig"), POD_ANNOTATIONS) or {}
    namespace, words = _started_as(call, told)
    words = [*words, *_hostnames(netconf, call, told), *_aliases(netconf, told)]
    if len(words) > _MOST:
        raise InvalidConfig(f"$.names: {len(words)} names for one pod; {_MOST} are the most")
    search = (f"{namespace}.{domain}", domain) if namespace else (domain,)
    return Names(
        netconf.get("bridge") or DEFAULT_BRIDGE, domain, known_as(words, namespace, domain), search, tuple(section.get("upstream") or ()),
        (section.get("consul") or "").rstrip("/"), _health(netconf, told),
    )  # fmt: skip


def _domain(netconf: NetConf) -> str:
    said = netconf["names"].get("domain") or ""
    domain = (said or netconf["name"]).lower().strip(".")
    if not is_name(domain):
        why = "is no domain" if said else "is said nowhere, and the network's name is none"
        raise InvalidConfig(f"$.names.domain: {said or netconf['name']!r} {why}")
    return domain


def _started_as(call: Call, told: Mapping[str, str]) -> tuple[str, list[str]]:
    """A pod's namespace, where it has one, and its name. A podman before its fourth release said the name for both; what has
    annotations or a UID is Kubernetes', where who starts a pod could call it like its namespace to be trusted as nobody's.
    """
    arguments = call.arguments()
    namespace, name = arguments.get("K8S_POD_NAMESPACE", "").lower(), arguments.get("K8S_POD_NAME", "")
    by_podman = namespace == name.lower() and not (told or arguments.get("K8S_POD_UID"))
    if not is_name(namespace) or "." in namespace or by_podman:
        namespace = ""
    names = [name] if name else []
    if _NERDCTL in arguments and not name:
        from cni.names.nerdctl import name_of  # which tells the plugin everything but that

        names = [found] if (found := name_of(call.container)) else []
    return namespace, names


def _hostnames(netconf: NetConf, call: Call, told: Mapping[str, str]) -> list[str]:
    arguments = call.arguments()
    asked: tuple[tuple[Any, str, type[CniError]], ...] = (
        (_of_args(netconf).get("hostname"), "$.args.cni.hostname", InvalidConfig),
        (arguments.get("HOSTNAME"), "CNI_ARGS: HOSTNAME", InvalidEnvironment),
        (told.get(HOSTNAME), f"annotation {HOSTNAME}", InvalidConfig),
    )
    for value, where, error in asked:
        _refuse_others([value] if value else [], where, error)
    found = [value for value, _, _ in asked if value]
    return [*found, *filter(None, [arguments.get(_NERDCTL)])]


def _aliases(netconf: NetConf, told: Mapping[str, str]) -> list[str]:
    """By podman for each network that it starts a container in."""
    given = folded(netconf.get("runtimeConfig"), "aliases") or []
    given = given.get(netconf["name"]) or [] if isinstance(given, dict) else given
    if not isinstance(given, list):
        raise InvalidConfig(f"$.runtimeConfig.aliases: {given!r} is no list of names")
    asked = (
        (given, "$.runtimeConfig.aliases"),
        (_of_args(netconf).get("aliases") or [], "$.args.cni.aliases"),
        ([word.strip() for word in told.get(ALIASES, "").split(",") if word.strip()], f"annotation {ALIASES}"),
    )
    for values, where in asked:
        _refuse_others(values, where, InvalidConfig)
    return [value for values, _ in asked for value in values]


def _refuse_others(values: Iterable[Any], where: str, error: type[CniError]) -> None:
    for value in values:
        if not (isinstance(value, str) and is_name(value.lower())):
            raise error(f"{where}: {value!r} is no name: letters, digits, '-' and '_', points between")


def _of_args(netconf: NetConf) -> Mapping[str, Any]:
    return (netconf.get("args") or {}).get("cni") or {}


def _health(netconf: NetConf, told: Mapping[str, str]) -> str:
    if not (netconf.get("health") or HEALTH in told):
        return ""
    from cni.names.health import read as probe  # hardly any network has it

    return probe(netconf.get("health"), told.get(HEALTH, ""))


def _refuse_contradictions(netconf: NetConf) -> None:
    if not (netconf.get("isGateway") or netconf.get("isDefaultGateway", netconf.get("gateway"))):
        raise InvalidConfig("$.names: needs isGateway: names are asked for at the bridge's own address")
    if not (netconf.get("ipam") or netconf.get("ip")):
        raise InvalidConfig("$.names: needs ipam: a name leads to an address")
    if netconf.get("disableContainerInterface"):
        raise InvalidConfig("$.names: excludes disableContainerInterface")
    if len(netconf["name"].encode()) > MOST_BYTES:
        raise InvalidConfig(
            f"$.name: {len(netconf['name'])} characters; the network's folder of names can have {MOST_BYTES}"
        )
    if (netconf.get("dns") or {}).get("nameservers"):
        raise InvalidConfig("$.dns.nameservers: excludes names, whose server pods ask; what it asks is names.upstream")
