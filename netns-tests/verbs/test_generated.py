"""Configurations nobody thought of: keys and values by chance, judged by what the CNI specification and the node say alone."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from lab import AGENT_CNI, Host, Lab

NOTHING, WRONG = (None, ""), (5, True, "x y", [], {}, "10.0.0.300", -1)
SUBNETS = ({"subnet": "10.7.0.0/24"}, {"subnet": "fd07::/64"}, {"subnet": "10.8.0.0/28", "gateway": "10.8.0.9"})
ROUTES = ({"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24"}, {"dst": "fd99::/64"}, {"dst": "203.0.113.0/24", "table": 0})
IPAMS = (
    *({"type": "agent-ipam", **subnet} for subnet in SUBNETS),
    {"ranges": [[SUBNETS[0]], [SUBNETS[1]]], "routes": [ROUTES[0]]},
    *({**SUBNETS[0], "routes": [route]} for route in ROUTES),
    {"type": "host-local", "ranges": [[SUBNETS[0]]], "dataDir": "/run/agent-cni/host-local"},
    {"type": "static", "addresses": [{"address": "10.7.0.9/24"}]},
    {"type": "nowhere"},
    {},
)
ANY: dict[str, tuple[Any, ...]] = {
    "mtu": (0, 1400, 68, 70000, 1500.0),
    "ipam": IPAMS,
    "dns": ({"nameservers": ["192.0.2.53"]}, {"nameservers": []}, {"domain": "a"}, {"nameservers": [""]}),
    "policy": ({}, {"ingress": []}, {"egress": ["10.0.0.0/8"], "antiSpoof": False}, {"ingress": None}),
    "sidecar": ({}, {"captureDNS": True}, {"mode": "tproxy"}, {"port": 0}),
    "ip": ("10.9.0.2/24", ["10.9.0.2/24", "fd09::2/64"], "10.9.0.2"),
    "addIf": ("true",),
}
SWITCHES = (True, False)
OWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "bridge-vxlan": {
        "bridge": ("br7", "x" * 16),
        "gateway": ("10.9.0.1",),
        "ipMasqBackend": ("nftables", "iptables"),
        **dict.fromkeys(("isGateway", "isDefaultGateway", "ipMasq", "hairpinMode", "promiscMode"), SWITCHES),
        **dict.fromkeys(("portIsolation", "enabledad", "forceAddress", "disableContainerInterface"), SWITCHES),
        "vxlan": ({"id": 7, "remotes": ["192.0.2.12"]}, {"id": 0}, {"id": 7, "dev": "nolink"}),
        "vlan": (0, 5),
    },
    "macvlan": {
        "master": ("eth0", "nolink"),
        "mode": ("bridge", "private", "vepa", "passthru", "source", "ipvlan"),
        "gateway": ("10.7.0.1",),
        "bcqueuelen": (0, 1000),
        **dict.fromkeys(("isDefaultGateway", "hostAccess", "enabledad", "linkInContainer"), SWITCHES),
    },
    "custom-plugin": {"ipMasq": SWITCHES, "ipMasqBackend": ("nftables", "")},
}
#: What the node, or another plugin, may say of a configuration that is right; and what is wrong with one by itself.
OF_THE_NODE, OF_THE_CONFIGURATION = {100, 101, 102, 103, 106}, {2, 7}


def generated(kind: str, chance: random.Random) -> dict[str, Any]:
    """Up to six keys, now and then with a value that says nothing or is none."""
    known = ANY | OWN[kind]
    conf = {"cniVersion": chance.choice(("0.4.0", "1.0.0")), "name": "net", "type": kind, "ipam": chance.choice(IPAMS)}
    for key in chance.sample(sorted(known), chance.randint(0, 5)):
        values = NOTHING if chance.random() < 0.1 else WRONG if chance.random() < 0.05 else known[key]
        conf[key] = chance.choice(values)
    if conf.get("ip") and chance.random() < 0.8:
        conf.pop("ipam")
    return conf


def told_wrong(host: Host, conf: dict[str, Any]) -> str:
    """What `validate` says against a configuration."""
    done = host.run(AGENT_CNI, "validate", "-", input=json.dumps(conf), check=False)
    return done.stderr if done.returncode else ""


def held(host: Host, lab: Lab, conf: dict[str, Any]) -> str:
    """What is not as it should be with an ADD of it, a CHECK at once, and two DELs."""
    pod = lab.pod()
    wrong, added = told_wrong(host, conf), host.cni("ADD", conf, pod)
    code = added.json["code"] if added.code else 0
    own = ("$.master: ", "nolink", "the master's")  # the node or the pod has no such link, or one of another MTU
    missing = code == 7 and any(word in added.json["msg"] for word in own)
    if code and not missing and code not in (OF_THE_CONFIGURATION if wrong else OF_THE_NODE):
        return f"ADD: {added.stdout}; validate: {wrong or 'ok'}"
    if not code and wrong:
        return f"ADD takes what validate refuses: {wrong}"
    if not code and (checked := host.check(conf, pod, added.json)).code:
        return f"CHECK at once: {checked.stdout}"
    left = [answer.stdout for answer in (host.cni("DEL", conf, pod), host.cni("DEL", conf, pod)) if answer.code]
    if left and conf.get("ipam") != {"type": "nowhere"}:
        return f"DEL: {left}"
    return "" if pod.link("eth0") is None else "eth0 is left"


def wrongs(lab: Lab, kind: str, number: int, seed: int) -> list[tuple[dict[str, Any], str]]:
    host, chance = lab.host(), random.Random(f"{kind} {seed}")
    lab.underlay(host)
    confs = [generated(kind, chance) for _ in range(number)]
    found = [(conf, said) for conf in confs if (said := held(host, lab, conf))]
    assert host.state() == {"attachments": [], "leases": []}
    return found


@pytest.mark.parametrize("kind", OWN)
def test_validate_and_add_agree_and_what_is_made_holds_and_goes(lab: Lab, kind: str):
    assert wrongs(lab, kind, 15, 1) == []


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("kind", OWN)
def test_more_of_them(lab: Lab, kind: str, seed: int):
    assert wrongs(lab, kind, 30, seed) == []
