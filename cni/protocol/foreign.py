"""What other people's configurations call things, each with what to write instead: words of Docker, compose, nerdctl and podman, and
keys that go from CNI configuration to CNI configuration though no reference plugin reads them.

Sources: moby's api/types/network and docs of `docker network create`, the compose specification's networks, containers/common's
libnetwork/types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PAGE = "docs/coming-from-docker.md"
_SAID = "docker says it of a network that is there: leave it out"
_DRIVER = "the word here is type: "
_START = "its first and last address are rangeStart and rangeEnd"
_RESERVED = "these addresses are ipam.reserved, a list"

#: What Docker's and podman's drivers are here.
_DRIVERS = {
    "bridge": '"type": "bridge-vxlan"',
    "overlay": '"type": "bridge-vxlan" with a vxlan section, or with agent-cni join over any number of hosts',
    "macvlan": '"type": "macvlan"',
    "ipvlan": 'there is none; "type": "macvlan" comes nearest',
    "host": "a pod in the host's network has no configuration: its runtime calls no plugin",
    "none": "a pod with nothing but loopback has no configuration: its runtime calls no plugin",
    "null": "a pod with nothing but loopback has no configuration: its runtime calls no plugin",
}
#: The plugin whose keys a driver's configuration is judged by.
_PLUGINS = {"bridge": "bridge-vxlan", "overlay": "bridge-vxlan", "macvlan": "macvlan", "ipvlan": "macvlan"}
#: Drivers that are called as a plugin is.
_EXECUTABLES = ("bridge", "macvlan", "ipvlan")

#: Options of Docker's drivers, after "com.docker.network.".
_OPTIONS = {
    "bridge.name": "bridge",
    "bridge.enable_ip_masquerade": "ipMasq",
    "bridge.enable_icc": '"portIsolation": true is what false is there',
    "bridge.host_binding_ipv4": "the runtime says hostIP of a port (capability portMappings of portmap)",
    "bridge.inhibit_ipv4": "leave isGateway and isDefaultGateway out",
    "bridge.gateway_mode_ipv4": "nat is ipMasq; routed is without it; isolated is without isGateway",
    "bridge.gateway_mode_ipv6": "nat is ipMasq; routed is without it; isolated is without isGateway",
    "bridge.default_bridge": "leave it out: no network is the default but the first file's",
    "bridge.mtu": "mtu",
    "driver.mtu": "mtu",
    "driver.overlay.vxlanid_list": "vxlan.id, one number",
    "container_iface_prefix": "the runtime names the interface (CNI_IFNAME)",
    "host_ipv4": "nonMasqueradeCIDRs and a rule of yours: which address masquerading takes is the kernel's choice",
}

_ADDRESSES = {
    "ip_range": _START, "iprange": _START, "lease_range": _START, "start_ip": "rangeStart", "end_ip": "rangeEnd",
    "aux_addresses": _RESERVED, "aux_address": _RESERVED, "auxiliaryaddresses": _RESERVED, "auxaddress": _RESERVED,
}  # fmt: skip
#: By the section a key stands in, "" where that is a plugin's own configuration; keys in lower case.
_WORDS: Mapping[str, Mapping[str, str]] = {
    "": _ADDRESSES | {
        "driver": _DRIVER + ", ".join(f"{name} is {said}" for name, said in list(_DRIVERS.items())[:3]),
        "subnet": 'Docker\'s place: "ipam": {"subnet": …}',
        "gateway": 'Docker\'s place: "ipam": {"gateway": …}',
        "subnets": 'podman\'s: "ipam": {"ranges": [[{"subnet": …, "gateway": …}]]}, a set for each family',
        "parent": 'docker\'s -o parent: master, with "type": "macvlan"',
        "macvlan_mode": 'docker\'s -o macvlan_mode: mode, with "type": "macvlan"',
        "ipvlan_mode": 'there is no ipvlan here; "type": "macvlan" comes nearest',
        "attachable": "leave it out: every network is, for whoever its runtime attaches",
        "internal": f"leave isDefaultGateway and ipMasq out, and let policy hold it, as {_PAGE} shows",
        "isolate": f"policy holds networks apart, as {_PAGE} shows",
        "driver_opts": f"each option is a key of its own here, as {_PAGE} shows",
        "options": f"Docker's and podman's are each a key of its own here, as {_PAGE} shows; a resolver's stand in dns",
        "ipam_options": "podman's: the word here is ipam",
        "enable_ipv6": "give ipam.ranges a second set, of IPv6",
        "enableipv6": "give ipam.ranges a second set, of IPv6",
        "ipv6_enabled": "give ipam.ranges a second set, of IPv6",
        "enable_ipv4": "leave ipam.ranges without a set of IPv4 where there is to be none",
        "enableipv4": "leave ipam.ranges without a set of IPv4 where there is to be none",
        "network_interface": "podman's: bridge, or master of a macvlan",
        "dns_enabled": 'podman\'s: "names": {} has pods find each other by name',
        "network_dns_servers": "podman's: names.upstream",
        "no_default_route": "podman's: leave isDefaultGateway out",
        "external": "compose's: leave it out; a network is there when its file is",
        "labels": "leave it out: nothing here reads a network's labels",
        "scope": _SAID, "created": _SAID, "containers": _SAID, "configonly": _SAID, "configfrom": _SAID,
        "ports": "compose's: chain portmap, and let the runtime say the ports (capability portMappings)",
        "ipv4_address": 'compose\'s: the runtime says it (capability ips), or "ip" with its prefix does',
        "ipv6_address": 'compose\'s: the runtime says it (capability ips), or "ip" with its prefix does',
        "mac_address": "compose's: the runtime says it (capability mac)",
        "aliases": 'compose\'s: the runtime says them (capability aliases), beside "names": {}',
        "addif": "kubenet's and minikube's; the reference bridge never read it: leave it out",
        "interface": "no reference plugin of this kind reads it: leave it out, or name a macvlan's master",
        "master": "no bridge has one, and the reference's never read it: leave it out, or take macvlan",
        "log_file": "whereabouts reads it in its ipam section; the log here is /var/log/agent-cni",
        "log_level": "whereabouts reads it in its ipam section; the log here is /var/log/agent-cni",
        "delegate": "flannel's and Multus' plugins read it: what stands in it belongs in this place",
        "kubeconfig": "Multus and whereabouts read it: leave it out, or put it into the ipam section",
        "capability": "no runtime reads it: capabilities",
    },
    "ipam": _ADDRESSES | {
        "driver": 'the word here is type, and "default" is agent-ipam: leave it out',
        "config": 'what stands in it is a range here: "subnet" and "gateway" in ipam, or "ranges": [[…], […]] for both families',
        "options": "no IPAM of this suite has options: leave it out",
    },
    "ranges": _ADDRESSES,
}  # fmt: skip
#: How a text begins that is no CNI configuration, and whose it is.
_TEXTS = (
    (re.compile(rb"\s*(?:---\s*|#[^\n]*\n\s*)*(?:services|networks|version|name|x-[\w-]+):"), "a compose file"),
    (re.compile(rb'\s*\[\s*\{\s*"(?i:name|id)"'), "what `docker network inspect` or podman's prints"),
)


def words(section: str) -> Mapping[str, str]:
    """The foreign words of a section (`ipam`, `ranges`, "" for a plugin's own keys), in lower case, and what to do with each."""
    return _WORDS.get(section, {})


def advice(key: str, value: object, section: str) -> str:
    """What to write instead of a key that others write so; empty where nobody is known to."""
    _, docker, option = key.lower().rpartition("com.docker.network.")
    if docker:
        said = _OPTIONS.get(option, "")
        said = f"the key here is {said}" if said.isalpha() else said
        return (
            words("").get(option, said)
            or f"an option of one of Docker's drivers; {_PAGE} has those that mean something here"
        )
    if key.lower() == "driver" and not section and (mend := _DRIVERS.get(str(value).lower())):
        return (_DRIVER if mend.startswith('"') else "") + mend
    return words(section).get(key.lower(), "")


def no_type(name: str) -> str:
    """What to write instead of a driver that stands where a plugin's name is to be; empty for any that a plugin may be called."""
    mend = _DRIVERS.get(name, "")
    return f"{name!r} is one of Docker's drivers and no plugin ({mend})" if mend and name not in _EXECUTABLES else ""


def plugin_of(netconf: Mapping[str, object]) -> str:
    """The plugin of a configuration that says a driver where a type is to be; empty where it does not, or nothing here is like that."""
    said = (value for key, value in netconf.items() if key.lower() == "driver")
    return next((_PLUGINS[name] for name in map(str, said) if name in _PLUGINS), "")


def whose(text: bytes) -> str:
    """What a text is that is no configuration, in brackets; empty where that is not known."""
    return next((f" (this is {name}: {_PAGE} says what to write)" for begin, name in _TEXTS if begin.match(text)), "")
