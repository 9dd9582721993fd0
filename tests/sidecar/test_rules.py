"""The rules of each kind of configuration, as a reviewer reads them, and what must hold for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.sidecar.model import Interception
from cni.sidecar.rule import Rule, Table, spelled
from cni.sidecar.rules import tables

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "istio": {"inbound_port": 15006, "tunnel_port": 15008, "exclude_inbound_ports": (15020, 15021, 15090)},
    "tproxy": {"inbound_port": 15006, "transparent": True},
    "dns": {"capture_dns": True, "resolvers": ("10.96.0.10", "fd00:96::10")},
    "dns-anywhere": {"capture_dns": True},
    "groups": {"include_groups": (2000, 2001), "exclude_groups": (2001,)},
    "guard": {"deny_uncaptured": True, "exclude_outbound_cidrs": ("10.0.0.0/8",), "exclude_inbound_ports": (22,)},
    "guard-tproxy": {"deny_uncaptured": True, "transparent": True, "capture_dns": True},
    "virtual": {"virt_interfaces": ("vm0",), "deny_uncaptured": True},
    "documents-single-rule": {"include_outbound_cidrs": ()},
    "include-exclude": {
        "include_outbound_cidrs": ("10.0.0.0/8", "fd00::/8"),
        "exclude_outbound_cidrs": ("10.1.0.0/16",),
        "include_outbound_ports": (443,),
        "exclude_outbound_ports": (22,),
        "include_inbound_ports": (8080,),
        "exclude_interfaces": ("net1",),
    },
    "several-proxies": {"proxy_uids": (1337, 1338), "proxy_gids": (1339,), "drop_invalid": True},
}

ports = st.lists(st.integers(1, 65535), max_size=3, unique=True).map(tuple)
ids = st.lists(st.integers(0, 9999), max_size=3, unique=True).map(tuple)
anything = st.builds(
    Interception,
    inbound_port=st.sampled_from((15001, 15006)),
    tunnel_port=st.sampled_from((0, 15008)),
    proxy_uids=ids,
    proxy_gids=ids,
    include_inbound_ports=st.none() | ports,
    exclude_inbound_ports=ports,
    include_outbound_cidrs=st.sampled_from((None, (), ("10.0.0.0/8",), ("fd00::/8",), ("10.0.0.0/8", "fd00::/8"))),
    exclude_outbound_cidrs=st.sampled_from(((), ("10.1.0.0/16", "fd00:1::/32"))),
    include_outbound_ports=ports,
    exclude_outbound_ports=ports,
    exclude_interfaces=st.sampled_from(((), ("net1",))),
    virt_interfaces=st.sampled_from(((), ("vm0",))),
    include_groups=st.none() | ids,
    exclude_groups=ids,
    capture_dns=st.booleans(),
    transparent=st.booleans(),
    drop_invalid=st.booleans(),
    deny_uncaptured=st.booleans(),
    resolvers=st.sampled_from(((), ("10.96.0.10",), ("fd00:96::10",), ("10.96.0.10", "10.96.0.11", "fd00:96::10"))),
)
families = st.sampled_from((4, 6))


def rules_of(made: tuple[Table, ...], chain: str, table: str = "nat") -> list[Rule]:
    return [rule for item in made if item.name == table for rule in item.rules if rule.chain == chain]


def has(rule: Rule, field: str) -> bool:
    return any(match.field == field for match in rule.matches)


@pytest.mark.parametrize("name", CASES)
def test_the_rules_as_iptables_save_prints_them(name: str, golden: Callable[..., None]):
    wanted = Interception(**CASES[name])
    golden(f"sidecar-{name}.txt", "".join(f"IPv{f}\n{spelled(tables(wanted, f), f)}" for f in (4, 6)))


@pytest.mark.parametrize("name", [name for name in CASES if name != "default"])
def test_every_setting_changes_the_rules(name: str):
    assert tables(Interception(**CASES[name]), 4) != tables(Interception(), 4)


@given(anything, families)
def test_every_chain_that_is_jumped_to_exists_and_every_chain_is_reached(wanted: Interception, family: int):
    for table in tables(wanted, family):
        ours = {rule.chain for rule in table.rules if rule.chain.startswith("ACNI_")}
        targets = {rule.action.name for rule in table.rules if rule.action.name.startswith("ACNI_")}
        assert targets == ours


@given(anything, families)
def test_every_jump_in_the_text_has_its_chain_and_every_chain_is_jumped_to(wanted: Interception, family: int):
    for table in spelled(tables(wanted, family), family).split("COMMIT\n"):
        made = set(re.findall(r"^:(ACNI_\w+) ", table, re.MULTILINE))
        filled = set(re.findall(r"^-A (ACNI_\w+) ", table, re.MULTILINE))
        assert made == filled == set(re.findall(r" -j (ACNI_\w+)", table))


@given(anything, families)
def test_all_hairpins_come_before_any_owner_returns(wanted: Interception, family: int):
    output = rules_of(tables(wanted, family), "ACNI_OUTPUT")
    hairpins = [at for at, rule in enumerate(output) if rule.action.name == "ACNI_IN_REDIRECT"]
    returns = [
        at for at, rule in enumerate(output) if rule.action.name == "RETURN" and (has(rule, "uid") or has(rule, "gid"))
    ]
    assert not hairpins or not returns or max(hairpins) < min(returns)


@given(anything, families)
def test_no_id_of_the_proxy_is_captured_outbound(wanted: Interception, family: int):
    output = rules_of(tables(wanted, family), "ACNI_OUTPUT")
    capturing = [at for at, rule in enumerate(output) if rule.action.name == "ACNI_CAPTURE"]
    for owner in wanted.proxies:
        passed = [at for at, rule in enumerate(output) if rule.action.name == "RETURN" and rule.matches == (owner,)]
        assert not capturing or min(passed) < min(capturing)


@given(anything, families)
def test_excludes_come_before_includes(wanted: Interception, family: int):
    for chain, target in (("ACNI_CAPTURE", "ACNI_REDIRECT"), ("ACNI_INBOUND", "ACNI_IN_REDIRECT")):
        rules = rules_of(tables(wanted, family), chain)
        including = [at for at, rule in enumerate(rules) if rule.action.name == target]
        excluding = [at for at, rule in enumerate(rules) if rule.action.name == "RETURN"]
        assert not including or all(at < min(including) for at in excluding)


def spared_in_the_midst(wanted: Interception, family: int) -> list[tuple[str, tuple[str, ...]]]:
    made = [rule for table in tables(wanted, family) for rule in table.rules if has(rule, "flags")]
    assert all(rule.action.name == "RETURN" or has(rule, "socket") for rule in made)
    return [(rule.chain, tuple(sorted(match.field for match in rule.matches))) for rule in made]


@given(anything, families)
def test_a_forgotten_connection_is_captured_again_unless_it_is_seen_to_be_another(wanted: Interception, family: int):
    """Nothing outbound is spared but what a port sends that is excluded inbound."""
    ways = spared_in_the_midst(wanted, family)
    assert set(ways) <= {
        ("ACNI_INBOUND", ("flags", "protocol", "socket")),
        ("ACNI_TPROXY", ("flags", "protocol")),
        ("ACNI_TPROXY", ("flags", "protocol", "socket")),
        ("ACNI_OUTPUT", ("flags", "protocol", "source-port")),
    }
    outbound = [way for way in ways if way[0] == "ACNI_OUTPUT"]
    assert len(outbound) == len(wanted.exclude_inbound_ports) * wanted.captures_outbound


@given(anything, families)
def test_owners_are_never_asked_for_where_packets_have_none(wanted: Interception, family: int):
    for table in tables(wanted, family):
        reached, growing = {"PREROUTING", "INPUT", "FORWARD"}, True
        while growing:
            jumps = {rule.action.name for rule in table.rules if rule.chain in reached} & {
                rule.chain for rule in table.rules
            }
            growing = not jumps <= reached
            reached |= jumps
        assert not any(rule.chain in reached and (has(rule, "uid") or has(rule, "gid")) for rule in table.rules)


@given(anything, families)
def test_the_guard_ends_in_a_drop(wanted: Interception, family: int):
    made = tables(wanted, family)
    for chain in ("ACNI_GUARD_OUT", "ACNI_GUARD_IN"):
        rules = rules_of(made, chain, "filter")
        assert bool(rules) == wanted.deny_uncaptured
        assert not rules or (rules[-1].action.name, rules[-1].matches) == ("DROP", ())


@given(anything, families)
def test_a_table_that_redirects_comes_into_force_last(wanted: Interception, family: int):
    names = [table.name for table in tables(wanted, family)]
    assert names == [name for name in ("raw", "mangle", "filter", "nat") if name in names]


@given(anything)
def test_no_address_of_one_family_is_in_the_rules_of_the_other(wanted: Interception):
    assert "::" not in "".join(
        line for line in spelled(tables(wanted, 4), 4).splitlines() if " -s " in line or " -d " in line
    )
    assert not any("10." in line for line in spelled(tables(wanted, 6), 6).splitlines())
