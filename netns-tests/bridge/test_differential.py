"""The same configurations through Debian's bridge + host-local and through ours.

Result and kernel state must be equal, but for the differences listed in INTENDED with their reasons.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from lab import BIN_DIR, REFERENCE_DIR, Host, Lab, Pod, eventually

V4 = {"ranges": [[{"subnet": "10.1.0.0/24"}]]}
DUAL = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"ipam": V4},
    "gateway": {"isGateway": True, "ipam": V4},
    "default gateway": {"isDefaultGateway": True, "ipam": V4},
    "dual stack": {"isDefaultGateway": True, "ipam": DUAL},
    "layer 2": {"ipam": {}},
    "masquerade": {"isDefaultGateway": True, "ipMasq": True, "ipam": V4},
    "mtu": {"mtu": 1400, "ipam": V4},
    "hairpin": {"hairpinMode": True, "ipam": V4},
    "promiscuous": {"promiscMode": True, "ipam": V4},
    "routes": {
        "isGateway": True,
        "ipam": V4 | {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "gw": "10.1.0.9"}]},
    },
    "IPv6 routes": {
        "isGateway": True,
        "ipam": DUAL | {"routes": [{"dst": "::/0"}, {"dst": "fd00:9::/64", "gw": "fd00:1::9"}]},
    },
    "range ends": {
        "ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.50", "rangeEnd": "10.1.0.60"}]]}
    },
    "another gateway": {
        "isDefaultGateway": True,
        "ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "gateway": "10.1.0.254"}]]},
    },
    "old style subnet": {"isGateway": True, "ipam": {"subnet": "10.1.0.0/24"}},
    "two ranges": {"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}},
    "mac": {"ipam": V4, "runtimeConfig": {"mac": "0a:00:00:00:00:07"}},
    "requested address": {"ipam": V4, "runtimeConfig": {"ips": ["10.1.0.77"]}},
    "dns": {"ipam": V4, "dns": {"nameservers": ["192.0.2.53"], "search": ["example"]}},
    "what says nothing": {
        **dict.fromkeys(("isGateway", "hairpinMode", "mtu", "vlan", "vlanTrunk", "prevResult", "args", "capabilities")),
        "ipMasqBackend": "",
        "isDefaultGateway": True,
        "dns": {"domain": None, "search": None},
        "runtimeConfig": {
            "mac": "",
            "ips": None,
            "IPRanges": [[{"Subnet": "10.1.0.0/24", "RangeStart": "", "Gateway": ""}]],
        },
        "ipam": {"type": "agent-ipam", "ranges": None, "routes": None, "resolvConf": "", "rangeStart": ""},
    },
    "no dns": {"ipam": V4 | {"resolvConf": "/etc/resolv.conf"}, "dns": {"nameservers": []}},
    "version 0.2.0": {"cniVersion": "0.2.0", "isDefaultGateway": True, "ipam": DUAL},
    "version 0.4.0": {"cniVersion": "0.4.0", "isDefaultGateway": True, "ipam": DUAL},
}

#: What differs on purpose, by field: an adjustment that makes both equal, and why.
INTENDED = {
    "result.dns": (lambda value: value or None, "1.x results leave an empty dns out, as newer references do"),
}


def configuration(ours: bool, keys: dict[str, Any]) -> dict[str, Any]:
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "bridge-vxlan" if ours else "bridge", "bridge": "br0"}
    conf |= copy.deepcopy(keys)
    if conf["ipam"] and not ours:
        conf["ipam"] |= {"type": "host-local", "dataDir": "/run/agent-cni/host-local"}
    return conf


def normal(result: dict[str, Any]) -> dict[str, Any]:
    """A result by field, without what names the side: interface names, MACs, sandbox."""
    fields: dict[str, Any] = {"result.dns": None} | {f"result.{key}": value for key, value in result.items()}
    fields["result.interfaces"] = [sorted(set(item) - {"mac"}) for item in result.get("interfaces", [])]
    for key in ("ips", "routes"):
        fields[f"result.{key}"] = [sorted(item.items(), key=str) for item in result.get(key, [])]
    return fields


def routes(pod: Pod) -> set[tuple[Any, ...]]:
    keys = ("dst", "gateway", "dev", "protocol", "scope", "metric", "prefsrc")
    return {
        tuple(route.get(key) for key in keys)
        for family in (4, 6)
        for route in pod.routes(family, "all")
        if "fe80" not in route["dst"]
    }


def state(host: Host, pod: Pod) -> dict[str, Any]:
    """What the kernel has: links and their flags, addresses, routes, settings.

    It says that a link is up some time after it is (linkwatch), which is not what is compared.
    """
    eventually(lambda: {host.link("br0")["operstate"], pod.link("eth0")["operstate"]} == {"UP"})
    bridge, pod_link = host.link("br0"), pod.link("eth0")
    port = next(link for link in host.ip("link", "show") if link["ifname"].startswith("veth"))
    slave = port["linkinfo"]["info_slave_data"]
    return {
        "bridge": (bridge["mtu"], bridge["operstate"], "PROMISC" in bridge["flags"], host.addresses("br0")),
        "port": (
            port["mtu"],
            port["operstate"],
            port["master"],
            slave["hairpin"],
            slave["isolated"],
            slave["learning"],
        ),
        "pod link": (pod_link["mtu"], pod_link["operstate"], pod.addresses("eth0")),
        "pod routes": routes(pod),
        "forwarding": host.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding").stdout,
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_both_give_the_same(lab: Lab, name: str):
    ours, theirs = (attached_and_gone(lab, side, CONFIGS[name]) for side in (True, False))
    for field, (adjusted, _) in INTENDED.items():
        ours[field], theirs[field] = adjusted(ours[field]), adjusted(theirs[field])
    differing = {
        key: (ours.get(key), theirs.get(key)) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
    }
    assert differing == {}


def attached_and_gone(lab: Lab, ours: bool, keys: dict[str, Any]) -> dict[str, Any]:
    """Result, kernel state while attached, and what is left after DEL."""
    host, pod = lab.host(), lab.pod()
    conf, bin_dir = configuration(ours, keys), BIN_DIR if ours else REFERENCE_DIR
    result = host.add(conf, pod, bin_dir=bin_dir)
    fields = normal(result) | state(host, pod)
    host.delete_pod(conf, pod, bin_dir=bin_dir)
    return fields | {"left": (pod.link("eth0"), [link["ifname"] for link in host.ip("link", "show")])}


REFUSED = {
    "hairpin and promiscuous": {"hairpinMode": True, "promiscMode": True, "ipam": V4},
    "a subnet with host bits": {"ipam": {"ranges": [[{"subnet": "10.1.0.1/24"}]]}},
    "a subnet without room": {"ipam": {"ranges": [[{"subnet": "10.1.0.0/31"}]]}},
    "a start outside": {"ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}]]}},
    "overlapping sets": {"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]]}},
    "no ranges": {"ipam": {"ranges": []}},
    "a request outside": {"ipam": V4, "runtimeConfig": {"ips": ["10.9.0.1"]}},
    "a wrong name": {"name": "a/b", "ipam": V4},
    "two addresses in version 0.2.0": {"cniVersion": "0.2.0", "ipam": CONFIGS["two ranges"]["ipam"]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse_the_same(lab: Lab, name: str):
    for ours in (True, False):
        answer = lab.host().cni(
            "ADD", configuration(ours, REFUSED[name]), lab.pod(), bin_dir=BIN_DIR if ours else REFERENCE_DIR
        )
        assert answer.code != 0, f"{'ours' if ours else 'the reference'} accepts it"
