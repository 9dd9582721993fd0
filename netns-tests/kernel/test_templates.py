"""Rules copied from what iptables made are those iptables makes, or none at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab import sh

from cni.errors import KernelRefused, ToolFailed
from cni.kernel import kept, netfilter, netns, nfnetlink, replica, templates
from cni.sidecar.model import Interception
from cni.sidecar.rule import spelled
from cni.sidecar.rules import tables

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "istio": {"inbound_port": 15006, "tunnel_port": 15008, "exclude_inbound_ports": (15020, 15021, 15090)},
    "lists": {
        "include_outbound_cidrs": ("10.0.0.0/8", "fd00::/8"),
        "exclude_outbound_cidrs": ("10.1.0.0/16",),
        "include_outbound_ports": (443,),
        "exclude_outbound_ports": (22, 80),
        "include_inbound_ports": (8080, 8081),
        "exclude_interfaces": ("net1",),
        "include_groups": (2000, 2001),
    },
    "several proxies": {"proxy_uids": (1337, 1338), "proxy_gids": (1339,), "drop_invalid": True},
    "dns and virtual": {"capture_dns": True, "resolvers": ("10.96.0.10", "fd00::1"), "virt_interfaces": ("vm0",)},
    "guard": {"deny_uncaptured": True, "capture_dns": True, "exclude_inbound_ports": (22,)},
    "tproxy": {"transparent": True, "inbound_port": 15006, "deny_uncaptured": True, "capture_dns": True},
}


@pytest.fixture(autouse=True)
def worthwhile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(templates, "worthwhile", True)
    templates._template.cache_clear()
    yield
    kept.let_go()
    templates._template.cache_clear()


NFT = netfilter.IPTABLES_NFT
FOREIGN = "-A OUTPUT -d 192.0.2.1/32 -j DROP"


def texts(**wanted: Any) -> dict[int, str]:
    return {family: spelled(tables(Interception(**wanted), family), family) for family in (4, 6)}


def rules() -> list[str]:
    """What is in this namespace, without counters and the hour."""
    saved = sh("iptables-nft-save").stdout + sh("ip6tables-nft-save").stdout
    return [line for line in saved.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("case", CASES)
def test_a_copy_is_what_iptables_makes(case: str):
    wanted = texts(**CASES[case])
    with netns.fresh():
        for family, text in wanted.items():
            netfilter.restore(netfilter.IPTABLES_NFT, family, text)
        expected, listed = rules(), sh("nft", "list", "ruleset").stdout
    for _ in range(2):
        with netns.fresh():
            assert templates.instantiate(NFT, wanted)
            assert rules() == expected
            assert sh("nft", "list", "ruleset").stdout == listed


def test_where_a_table_is_there_already_nothing_is_made():
    with netns.fresh():
        sh("ip6tables-nft", "-t", "nat", "-A", "OUTPUT", "-j", "RETURN")
        before = rules()
        assert not templates.instantiate(NFT, texts())
        assert rules() == before


def test_rules_that_iptables_refuses_are_told_in_its_words():
    with netns.fresh(), pytest.raises(ToolFailed, match="iptables-nft-restore"):
        templates.instantiate(NFT, {4: "*nat\n-A OUTPUT -j NOBODY\nCOMMIT\n"})


@pytest.mark.parametrize("protocol", ["sctp", "! tcp"])
def test_a_protocol_without_a_number_is_left_to_iptables(protocol: str):
    with netns.fresh():
        but, _, name = protocol.rpartition(" ")
        assert not templates.instantiate(NFT, {4: f"*filter\n-A OUTPUT {but} -p {name} -j RETURN\nCOMMIT\n"})
        assert rules() == []


def test_a_process_for_one_call_makes_no_templates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(templates, "worthwhile", False)
    with netns.fresh():
        assert not templates.instantiate(NFT, texts())
        assert rules() == []


@pytest.mark.parametrize("protocols", [[], [(("nat", "OUTPUT"), 0)] * 2])
def test_other_rules_than_thought_are_not_copied(protocols: list[tuple[replica.Place, int]]):
    with netns.fresh():
        sh("iptables-nft", "-t", "nat", "-A", "OUTPUT", "-j", "RETURN")
        with pytest.raises(ValueError, match="rules than thought"):
            replica.template_of(4, protocols)


def test_a_refused_transaction_makes_nothing():
    with netns.fresh():
        sh("iptables-nft", "-t", "nat", "-A", "OUTPUT", "-j", "RETURN")
        there = replica.template_of(4, [(("nat", "OUTPUT"), 0)])
    with netns.fresh():
        with pytest.raises(KernelRefused, match="File exists"):
            replica.instantiate({4: [*there, *there]})
        assert rules() == []


@pytest.mark.parametrize("count", [150, 1000])
def test_rules_of_any_number_are_one_transaction(count: int):
    ports = tuple(range(1000, 1000 + count))
    wanted = texts(exclude_outbound_ports=ports, exclude_inbound_ports=ports)
    with netns.fresh():
        assert templates.instantiate(NFT, wanted)
        assert sum("--dport" in line for line in rules()) == 4 * count
        for family, text in wanted.items():
            assert templates.remove(NFT, family, text)
        assert sh("nft", "list", "ruleset").stdout == ""


def test_rules_of_an_earlier_wish_in_another_table_are_left_to_iptables():
    nat, mangle = "*nat\n:ACNI_X - [0:0]\nCOMMIT\n", "*mangle\n:ACNI_X - [0:0]\nCOMMIT\n"
    with netns.fresh():
        assert templates.instantiate(NFT, {4: nat})
        assert not templates.instantiate(NFT, {4: mangle})
        assert "*mangle" not in rules()


def test_rules_that_iptables_refuses_now_can_be_taken_away():
    with netns.fresh():
        assert not templates.remove(NFT, 4, "*nat\n-A OUTPUT -m nosuch -j RETURN\nCOMMIT\n")


@pytest.mark.parametrize(
    "foreign",
    ["set ip nat mine { type ipv4_addr; }", "counter ip nat mine", "map ip nat mine { type ipv4_addr : verdict; }"],
)
def test_a_table_somebody_put_a_set_or_object_into_is_left(foreign: str):
    with netns.fresh():
        assert templates.instantiate(NFT, texts())
        sh("nft", "add", *foreign.split(" ", 1))
        assert not templates.remove(NFT, 4, texts()[4])
        assert "mine" in sh("nft", "list", "ruleset").stdout


@pytest.mark.parametrize("case", CASES)
def test_what_was_copied_and_used_is_taken_away_without_a_trace(case: str):
    wanted = texts(**CASES[case])
    with netns.fresh():
        assert templates.instantiate(NFT, wanted)
        sh("ip", "link", "set", "lo", "up")
        sh("ping", "-c", "1", "127.0.0.1")
        for family, text in wanted.items():
            assert templates.remove(NFT, family, text)
        assert sh("nft", "list", "ruleset").stdout == ""


def test_what_iptables_made_is_taken_away_too():
    with netns.fresh():
        netfilter.restore(NFT, 4, texts()[4])
        assert templates.remove(NFT, 4, texts()[4])
        assert sh("nft", "list", "ruleset").stdout == ""


@pytest.mark.parametrize("change", [FOREIGN, "-t nat -D OUTPUT 1", "-t nat -N OTHER", "-t raw -P OUTPUT DROP"])
def test_what_anybody_changed_is_left_to_iptables(change: str):
    with netns.fresh():
        assert templates.instantiate(NFT, texts())
        sh("iptables-nft", *change.split())
        before = rules()
        assert not templates.remove(NFT, 4, texts()[4])
        assert rules() == before
        assert templates.remove(NFT, 6, texts()[6])


def test_a_change_at_the_same_moment_wins(monkeypatch: pytest.MonkeyPatch):
    with netns.fresh():
        assert templates.instantiate(NFT, texts())
        bracket = nfnetlink._bracket

        def late(kind: int, body: bytes = b"") -> bytearray:
            if body:
                sh("iptables-nft", *FOREIGN.split())
            return bracket(kind, body)

        monkeypatch.setattr(nfnetlink, "_bracket", late)
        assert not templates.remove(NFT, 4, texts()[4])
        assert FOREIGN in rules()
        assert "-A OUTPUT -j ACNI_OUTPUT" in rules()
