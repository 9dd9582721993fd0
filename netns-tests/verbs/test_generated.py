"""Configurations nobody thought of: keys and values by chance, judged by what the CNI specification and the node say alone.

Half of them are of values one meets, from the tables here; half have every key of the schemas, at every depth, with values of its form.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest
from lab import AGENT_CNI, BIN_DIR, ROOT, Host, Lab

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
#: Texts of each form, and numbers that mean something somewhere.
TEXTS = {
    "address": ("10.7.0.1", "10.7.0.9", "fd07::1", "192.0.2.12"),
    "cidr": ("10.7.0.0/24", "fd07::/64", "10.8.0.0/28", "10.7.0.9/32", "0.0.0.0/0", "::/0"),
    "interface": ("10.7.0.9/24", "fd07::9/64", "198.51.100.0/24", "0.0.0.0/0"),
    "ifname": ("br7", "eth0", "lo", "nolink"),
    "mac": ("0a:00:00:00:00:07",),
    "name": ("agent-ipam", "static"),
    "nameserver": ("192.0.2.53", "fd07::53"),
    "server": ("http://127.0.0.1:8500",),
    "": ("a", "default", "/etc/resolv.conf"),
}
NUMBERS = (0, 1, 7, 53, 1400, 15001, 65535)
#: What the node, or another plugin, may say of a configuration that is right, of a cluster's that it was told nothing yet; and what is
#: wrong with one by itself.
OF_THE_NODE, OF_THE_CONFIGURATION = {6, 11, 100, 101, 102, 103, 106}, {2, 7}


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


def of_schema(schema: dict[str, Any], root: dict[str, Any], chance: random.Random) -> Any:
    """A value of a form; of an object's keys those it must have, and each other one now and then."""
    if "$ref" in schema:
        file, _, path = schema["$ref"].partition("#")
        root = schema = json.loads((ROOT / "plugins" / file).read_text()) if file else root
        for step in path.split("/")[1:]:
            schema = schema[step]
        return of_schema(schema, root, chance)
    if "anyOf" in schema or "enum" in schema or "const" in schema:
        choices = schema.get("enum", [schema.get("const")])
        return of_schema(chance.choice(schema["anyOf"]), root, chance) if "anyOf" in schema else chance.choice(choices)
    kind = schema.get("type", "object")
    kind = chance.choice(kind) if isinstance(kind, list) else kind
    if kind == "object":
        must = schema.get("required", ())
        known = {
            key: part for key, part in schema.get("properties", {}).items() if key in must or chance.random() < 0.3
        }
        return {key: of_schema(part, root, chance) for key, part in known.items()}
    if kind == "array":
        least = schema.get("minItems", 0)
        return [
            of_schema(schema.get("items", {"type": "string"}), root, chance)
            for _ in range(chance.randint(least, max(least, 1)))
        ]
    if kind == "integer":
        least, most = schema.get("minimum", 0), schema.get("maximum", 9)
        return chance.choice([number for number in (*NUMBERS, least, most) if least <= number <= most])
    if kind == "boolean":
        return chance.choice(SWITCHES)
    return "/run/agent-cni/other" if "pattern" in schema else chance.choice(TEXTS[schema.get("format", "")])


def of_every_key(kind: str, chance: random.Random) -> dict[str, Any]:
    """A configuration of a plugin's schema, mostly with what ADD needs beside, so that it goes on to the rest."""
    schema = json.loads((ROOT / f"plugins/{kind}.schema.json").read_text())
    conf = of_schema(schema, schema, chance)
    conf |= {"ipam": chance.choice(IPAMS)} if chance.random() < 0.6 else {}
    for key, usual in (("ip", None), ("gateway", None), ("mtu", None), ("bridge", "br7"), ("master", "eth0")):
        if key in conf and chance.random() < 0.7:
            conf |= {key: usual}
    return conf | {"cniVersion": "1.0.0", "name": "net", "type": kind}


def told_sick(host: Host) -> list[str]:
    """What `doctor` says of pods, state and leftovers."""
    path = {"CNI_PATH": f"{BIN_DIR}:/usr/lib/cni"}
    told = host.run(AGENT_CNI, "doctor", "--json", "--bin-dir", BIN_DIR, check=False, env=os.environ | path).stdout
    return [item["what"] for area in ("state", "attachments", "leftovers") for item in json.loads(told)[area]]


def told_wrong(host: Host, conf: dict[str, Any]) -> str:
    """What `validate` says against a configuration."""
    done = host.run(AGENT_CNI, "validate", "-", input=json.dumps(conf), check=False)
    return done.stderr if done.returncode else ""


def held(host: Host, lab: Lab, conf: dict[str, Any]) -> str:
    """What is not as it should be with an ADD of it, a CHECK at once, and two DELs."""
    pod = lab.pod()
    wrong, added = told_wrong(host, conf), host.cni("ADD", conf, pod)
    code = added.json["code"] if added.code else 0
    # the node or the pod has no such link or address, or one of another MTU; the call names no pod of Kubernetes
    own = ("$.master: ", "no link", "the master's", "$.policy.policyDir: CNI_ARGS")
    missing = code == 7 and any(word in added.json["msg"] for word in own)
    if code and not missing and code not in (OF_THE_CONFIGURATION if wrong else OF_THE_NODE):
        return f"ADD: {added.stdout}; validate: {wrong or 'ok'}"
    if not code and wrong:
        return f"ADD takes what validate refuses: {wrong}"
    if not code and (checked := host.check(conf, pod, added.json)).code:
        return f"CHECK at once: {checked.stdout}"
    if not code and (sick := told_sick(host)):
        return f"doctor at once: {sick}"
    left = [answer.stdout for answer in (host.cni("DEL", conf, pod), host.cni("DEL", conf, pod)) if answer.code]
    if left and conf.get("ipam") != {"type": "nowhere"}:
        return f"DEL: {left}"
    return "" if pod.link("eth0") is None else "eth0 is left"


def wrongs(lab: Lab, kind: str, number: int, seed: int) -> list[tuple[dict[str, Any], str]]:
    host, chance = lab.host(), random.Random(f"{kind} {seed}")
    lab.underlay(host)
    confs = [make(kind, chance) for _ in range(number) for make in (generated, of_every_key)]
    found = [(conf, said) for conf in confs if (said := held(host, lab, conf))]
    assert host.state() == {"attachments": [], "leases": []}
    return found


@pytest.mark.parametrize("kind", OWN)
def test_validate_and_add_agree_and_what_is_made_holds_and_goes(lab: Lab, kind: str):
    assert wrongs(lab, kind, 8, 1) == []


@pytest.mark.sweep(most=2)
@pytest.mark.parametrize("seed", range(2, 4))
@pytest.mark.parametrize("kind", OWN)
def test_more_of_them(lab: Lab, kind: str, seed: int):
    assert wrongs(lab, kind, 10, seed) == []
