"""What an operator's hand did to the rules of a policy: CHECK names it, and `agent-cni refresh` mends it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, Lab
from town import RANGES, serving
from traffic import SHORTLY, TIMED_OUT, Actor

pytestmark = pytest.mark.sweep

HEAD = {"cniVersion": "1.1.0", "name": "net"}
BRIDGE = HEAD | {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipam": {"ranges": RANGES}}
ROUTED = HEAD | {"type": "custom-plugin", "ipam": {"ranges": RANGES}}
SPAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
MACVLAN = HEAD | {"type": "macvlan", "master": "eth0", "ipam": SPAN}
POLICY = {"ingress": ["198.51.100.0/24"], "egress": [], "hostAccess": False}
KINDS: dict[str, dict[str, Any]] = {"bridged": BRIDGE, "routed": ROUTED, "chained": BRIDGE, "macvlan": MACVLAN}
#: Scripts, and whether the policy is open after each.
TAMPERED = {
    "everything flushed": (["flush ruleset"], True),
    "an entry is gone": (["delete element {map} {{ {key} }}"], False),
    "an entry lets everything in": (["delete element {map} {{ {key} }}", "add element {map} {{ {key} : accept }}"], False),
    "an entry leads to another's chain": (
        ["delete element {map} {{ {key} }}", "add chain {table} foreign", "add element {map} {{ {key} : goto foreign }}"], False,
    ),
    "the pod's chain is empty": (["flush chain {table} {into}"], False),
    "a rule before ours": (["insert rule {table} {base} accept"], True),
    "a base chain is empty": (["flush chain {table} {base}"], True),
    "a base chain hangs nowhere": (["delete chain {table} {base}", "add chain {table} {base}"], True),
    "a base chain hangs elsewhere": (
        ["delete chain {table} {base}", "add chain {table} {base} {{ type filter hook prerouting priority 7; }}"], True,
    ),
    "the table sleeps": (["add table {table} {{ flags dormant; }}"], True),
    "the gates sleep": (["add table {gates} {{ flags dormant; }}"], False),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.tried("rules changed by hand, one by one", "named by CHECK, made again by `agent-cni refresh`")
def test_what_a_hand_did_to_the_rules_is_named_and_mended(lab: Lab, kind: str):
    host, friend, web = lab.site().host, lab.pod(), lab.pod()
    conf = KINDS[kind]
    seen = host.add(conf, friend)
    result = host.add(conf if kind == "chained" else conf | {"policy": POLICY}, web)
    if kind == "chained":
        host.add(HEAD | {"type": "custom-plugin", "policy": POLICY, "prevResult": result}, web)
    held = HEAD | {"type": "custom-plugin", "policy": POLICY} if kind == "chained" else conf | {"policy": POLICY}
    where = web if kind == "macvlan" else host
    target, table = address_of(result, 4), "inet agent_cni_policy"
    with Actor(web) as server, Actor(friend) as client:
        serving(server)
        serving(client)
        assert "error" in server.ask(address_of(seen, 4), 80, seconds=SHORTLY)
        for name, (scripts, opens) in TAMPERED.items():
            if kind == "macvlan" and name == "the gates sleep":
                continue
            listed = where.run("nft", "list", "table", *table.split()).stdout
            into = re.search(rf'(?:{re.escape(target)}|"eth0") : jump (in-\S+?)[,\s]', listed)
            assert into, listed
            names = {
                "table": table, "gates": f"netdev agent_cni-{into[1].removeprefix('in-')[0]}", "base": "input" if kind == "macvlan" else "forward", "into": into[1],
                "map": f"{table} {'inif' if kind == 'macvlan' else 'in4'}",
                "key": '"eth0"' if kind == "macvlan" else target,
            }  # fmt: skip
            for script in scripts:
                where.run("nft", script.format(**names))
            if opens and kind != "macvlan":
                assert client.ask(target, 80)["who"] == "it", name
            host.check(held, web, result).failed(104)
            refreshed = host.run(AGENT_CNI, "refresh", check=False)
            assert refreshed.returncode == 0, (name, refreshed.stderr)
            host.check(held, web, result).ok()
            assert client.ask(target, 80, seconds=0.4) == TIMED_OUT, name
            assert "error" in server.ask(address_of(seen, 4), 80, seconds=0.4), name
    assert "changed 0" in host.run(AGENT_CNI, "refresh").stdout
