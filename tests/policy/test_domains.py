"""What is let through by the names of domains: how they are read, which names they mean, and the rules that follow."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.dnsgate.guest import Guest, labels_of
from cni.errors import CniError, InvalidConfig
from cni.kernel.gatedir import Entry
from cni.naming import Attachment, domain_set
from cni.policy.config import read
from cni.policy.domains import means, pattern
from cni.policy.held import as_of_today
from cni.policy.model import Allowance, Policy, Port, Resolving, Ruling, Tier
from cni.policy.pod import isolating
from cni.policy.rules import chain_rules
from cni.protocol.config import validate
from cni.protocol.result import Interface, IPConfig, Result
from cni.resources import DomainSet, Host, HostPort, NftRules, PodPolicy, PolicyTable

TOKEN = "0123456789a"
POD = Attachment("net", "box", "eth0")
DUAL = Result(
    interfaces=(Interface("eth0", "0a:58:0a:01:00:05", 1450, "/run/netns/p"),),
    ips=(IPConfig("10.1.0.5/24", interface=0), IPConfig("fd00:1::5/64", interface=0)),
)
NAMES = ["api.example.com", "*.example.org"]
ALL = {"cidr": "0.0.0.0/0"}
CASES: dict[str, dict[str, Any]] = {
    "names": {"egress": [{"to": [{"domainNames": NAMES}], "ports": [{"port": 443}]}]},
    "names-and-blocks": {
        "egress": [{"to": [{"domainNames": NAMES}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]}],
        "ingress": [],
        "allowDNS": ["*.telemetry.example"],
        "resolveRate": 20,
    },
    "names-and-ports": {
        "egress": [
            {
                "to": [{"domainNames": ["dns.example.net"]}],
                "ports": [
                    {"port": 1, "endPort": 1000},
                    {"protocol": "UDP"},
                    {"protocol": "SCTP"},
                    {"protocol": "ICMP"},
                    {"port": 853},
                ],
            }
        ],
        "log": True,
    },
}
labels = st.text("ab-_9", min_size=1, max_size=3).filter(lambda it: it[0] not in "-_" and it[-1] not in "-_")
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
cased = st.lists(st.booleans(), min_size=16, max_size=16)


def section(**other: Any) -> dict[str, Any]:
    """One that is valid by the plugin's schema."""
    validate({"cniVersion": "1.0.0", "name": "n", "type": "custom-plugin", "policy": other}, "custom-plugin")
    return other


def policy(**other: Any) -> Policy:
    return read(section(**other), "$.policy")


def to(*names: str, **other: Any) -> list[dict[str, Any]]:
    return [{"to": [{"domainNames": list(names)}], **other}]


def is_meant(spelled: list[str], asked: list[str]) -> bool:
    """The oracle: labels from the right, one by one."""
    while spelled and asked and spelled[-1] == asked[-1] != "*":
        spelled, asked = spelled[:-1], asked[:-1]
    return (not spelled and not asked) or (spelled == ["*"] and bool(asked))


@given(names, names, st.booleans(), cased, st.booleans())
def test_a_pattern_means_what_its_labels_say(own: str, asked: str, wild: bool, upper: list[bool], dot: bool):
    spelled = f"*.{own}" if wild else own
    shouted = "".join(char.upper() if up else char for char, up in zip(asked, upper, strict=False)) + asked[16:]
    expected = is_meant(spelled.split("."), asked.split("."))
    assert means(spelled, shouted + "." * dot) is expected


@given(names, names, st.booleans())
def test_what_is_below_a_name_is_meant_by_its_wildcard_alone(parent: str, below: str, dot: bool):
    assert means(f"*.{parent}", f"{below}.{parent}{'.' * dot}")
    assert not means(f"*.{parent}", parent)
    assert not means(f"*.{parent}", f"{below}{parent}") or f"{below}{parent}".endswith(f".{parent}")


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("API.Example.COM.", "api.example.com"),
        ("*.example.org", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.Bücher.example.", "*.xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),  # IDNA 2003 has fass
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("a_b.example.com", "a_b.example.com"),
        ("3com.1st", "3com.1st"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        (f"{'a' * 63}.com", f"{'a' * 63}.com"),
    ],
)
def test_a_pattern_is_read(value: str, normal: str):
    assert pattern(value, "here") == normal
    assert pattern(normal, "here") == normal


@pytest.mark.parametrize(
    "value",
    [
        "*", "*.com", "com", "", ".", "*.", "a..b", ".a.b", "a.b..", "*.*.a.b", "a.*.b", "*a.b.c", "**.a.b", "-a.b", "a-.b", "_a.b.c",
        "a.b\n", "a b.c", "a.b:443", "https://a.b", f"{'a' * 64}.com", ".".join(["a" * 49] * 6), "\u2060.example", "a\u0000.b",
        "10.0.0.1", "fd00::1", 7, None, ["a.b"], "xn--.ü",
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_by_its_place(value: Any):
    with pytest.raises(InvalidConfig) as refused:
        pattern(value, "$.policy.egress[0]")
    assert refused.value.msg.startswith("$.policy.egress[0]: ")
    assert refused.value.code == 7


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"egress": to("*")}, '$.policy.egress[0].to[0].domainNames[0]: "*" is no name of a domain'),
        ({"egress": to("a.b", "c")}, '$.policy.egress[0].to[0].domainNames[1]: "c" is no name of a domain'),
        ({"egress": [*to("a.b"), *to("10.0.0.1")]}, '$.policy.egress[1].to[0].domainNames[0]: "10.0.0.1" is an address'),
        ({"egress": to()}, "$.policy.egress[0].to[0].domainNames"),
        ({"egress": [{"to": [{}]}]}, "$.policy.egress[0].to[0]: a peer has either ipBlock or domainNames"),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "domainNames": ["a.b"]}]}]},
            "$.policy.egress[0].to[0]: a peer has either ipBlock or domainNames",
        ),
        ({"ingress": [{"from": [{"domainNames": ["a.b"]}]}]}, "$.policy.ingress[0].from[0].domainNames: unknown key"),
        ({"ingress": to("a.b")}, "$.policy.ingress[0].to"),
        ({"allowDNS": ["-"]}, '$.policy.allowDNS[0]: "-" is no name of a domain'),
        ({"allowDNS": []}, "$.policy.allowDNS"),
        ({"resolve": "all"}, "$.policy.resolve"),
        ({"resolveRate": 0}, "$.policy.resolveRate"),
        ({"resolveRate": 10001}, "$.policy.resolveRate"),
        ({"resolveKeep": 86401}, "$.policy.resolveKeep"),
        ({"resolveInto": ["10.0.0.1/8"]}, "$.policy.resolveInto[0]"),
        ({"resolveOwn": ["a..b"]}, '$.policy.resolveOwn[0]: "a..b" is no domain'),
    ],
)  # fmt: skip
def test_what_is_impossible_is_refused_by_its_path(said: dict[str, Any], why: str):
    with pytest.raises(CniError) as refused:
        policy(**said)
    assert why in refused.value.msg
    assert refused.value.code == 7


@pytest.mark.parametrize("name", CASES)
def test_the_rules_as_nft_takes_them(name: str, golden: Callable[..., None]):
    lines = chain_rules(policy(**CASES[name]), TOKEN, (4, 6), ("10.96.0.10",), "shop/web-0")
    golden(f"policy-{name}.txt", "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("name", CASES)
def test_the_sets_that_rules_name_are_there_before_the_chains(name: str):
    first = isolating(policy(**CASES[name]), POD, DUAL, Host(), HostPort("veth0")).first
    sets = [item for item in first if isinstance(item, DomainSet)]
    (chains,) = (item for item in first if isinstance(item, PodPolicy))
    named = {word[1:] for line in chains.rules for word in line.split() if word.startswith("@d")}
    assert named == {item.name for item in sets}
    assert first.index(chains) > max(map(first.index, sets)) > first.index(PolicyTable(edition=2))
    assert all(f"add set inet agent_cni_policy {item} {{" in chains.script() for item in named)


def test_a_set_is_of_a_pod_a_family_and_the_names_of_a_rule():
    found = {domain_set(token, it, family) for token in "ab" for it in (["a.b"], ["a.b", "c.d"]) for family in (4, 6)}
    assert len(found) == 8
    assert domain_set("a", ["c.d", "a.b"], 4) == domain_set("a", ("a.b", "c.d"), 4)
    assert domain_set("a", (), 6).startswith("d6-a-")


def test_without_a_record_all_sets_of_its_token_are_looked_for():
    traces = isolating(Policy(), POD, DUAL, Host(lost=True), HostPort("veth0")).first
    (sets,) = (item for item in traces if isinstance(item, DomainSet))
    assert sets.token == next(item.token for item in traces if isinstance(item, PodPolicy))
    assert not sets.names


def test_a_set_of_equal_names_stays_where_other_names_change():
    before, after = (policy(egress=[*to(*NAMES), *to(other)]) for other in ("a.b", "c.d"))
    port = HostPort("veth0")
    there = isolating(before, POD, DUAL, Host(), port)
    today = as_of_today((*there.first, *there.then), after, POD, DUAL, Host(port=port))
    sets = {item.names for item in today if isinstance(item, DomainSet)}
    assert sets == {tuple(sorted(NAMES)), ("c.d",)}
    assert [item for item in there.first if isinstance(item, DomainSet) and item.names == tuple(sorted(NAMES))] == [
        item for item in today if isinstance(item, DomainSet) and item.names == tuple(sorted(NAMES))
    ]
    assert all(isinstance(item, NftRules) for item in today if isinstance(item, DomainSet))


@pytest.mark.parametrize(
    ("ports", "asked", "admitted"),
    [
        (None, ("tcp", 443), True),
        (None, ("icmp", 0), True),
        (None, ("tcp", 53), False),
        (None, ("udp", 853), False),
        ((Port("tcp", 443, 443),), ("tcp", 443), True),
        ((Port("tcp", 443, 443),), ("udp", 443), False),
        ((Port("tcp"),), ("tcp", 853), False),
        ((Port("tcp", 1, 1000),), ("tcp", 53), False),
        ((Port("tcp", 1, 1000), Port("tcp", 853, 853)), ("tcp", 853), True),
        ((Port("sctp"),), ("sctp", 53), True),
    ],
)
def test_names_are_asked_for_only_on_a_port_that_is_named_by_itself(
    ports: tuple[Port, ...] | None, asked: tuple[str, int], admitted: bool
):
    allowance = Allowance((), ports, domains=("api.example.com",))
    assert allowance.admits("api.example.com", *asked) is admitted
    assert not allowance.admits("example.com", *asked)
    assert not Policy(egress=(allowance,)).allows("egress", "192.0.2.1", *asked)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"egress": to(*NAMES)}, Resolving(("*.example.org", "api.example.com"))),
        ({"egress": [], "allowDNS": ["A.b."]}, Resolving(("a.b",))),
        ({"egress": to("a.b"), "allowDNS": ["c.d", "a.b"]}, Resolving(("a.b", "c.d"))),
        ({"egress": to("a.b"), "allowDNS": True}, Resolving(("a.b",))),
        ({"egress": to("a.b"), "resolve": "any"}, Resolving(("a.b",), everything=True)),
        (
            {"egress": to("a.b"), "resolveRate": 7, "resolveKeep": 9, "resolveInto": ["10.0.0.0/8"], "resolveOwn": ["Lan."]},
            Resolving(("a.b",), rate=7, keep=9, into=("10.0.0.0/8",), own=("lan",)),
        ),
        ({"egress": to("a.b"), "resolveOwn": []}, Resolving(("a.b",), own=())),
        ({"egress": [*to("a.b"), "0.0.0.0/0"]}, Resolving(("a.b",), everything=True)),
        ({"egress": [*to("a.b"), {}]}, None),
        ({"allowDNS": ["a.b"]}, None),
        ({"egress": [], "allowDNS": True, "resolve": "any"}, None),
        ({"egress": ["10.0.0.0/8"], "resolveRate": 3}, None),
    ],
)  # fmt: skip
def test_what_may_be_asked_for(said: dict[str, Any], expected: Resolving | None):
    assert policy(**said).resolving == expected


NAMED = Ruling("accept", Allowance((), None, domains=("a.b",)))
DENY_ALL = Ruling("deny", Allowance())


@pytest.mark.parametrize(
    ("tiers", "everything"),
    [
        ({"admin": Tier(egress=(NAMED, DENY_ALL))}, False),
        ({"admin": Tier(egress=(NAMED,)), "baseline": Tier(egress=(DENY_ALL,))}, False),
        ({"admin": Tier(egress=(NAMED, Ruling("deny", read({"egress": ["10.0.0.0/8"]}, "").egress[0])))}, True),  # type: ignore[index]
        ({"admin": Tier(egress=(NAMED, Ruling("deny", read({"egress": ["0.0.0.0/0"]}, "").egress[0])))}, False),  # type: ignore[index]
        ({"admin": Tier(egress=(NAMED,)), "egress": ()}, False),
        ({"admin": Tier(egress=(NAMED,)), "egress": (Allowance(),), "baseline": Tier(egress=(DENY_ALL,))}, True),
    ],
)  # fmt: skip
def test_where_the_rest_is_let_through_every_name_may_be_asked_for(tiers: dict[str, Any], everything: bool):
    found = Policy(**tiers).resolving
    assert found is not None
    assert found.everything is everything


def test_an_administrator_who_names_domains_has_the_pod_ask_before_later_denials():
    first = Ruling("deny", Allowance(ports=(Port("udp", 123, 123),)))
    found = chain_rules(
        Policy(ingress=(), admin=Tier(egress=(first, NAMED, DENY_ALL))), TOKEN, (4,), ("10.96.0.10",), "pod"
    )
    out = [line.removeprefix(f"out-{TOKEN} ") for line in found if line.startswith(f"out-{TOKEN} ")]
    name = domain_set(TOKEN, ("a.b",), 4)
    assert out == [
        "udp dport 123 drop",
        "meta l4proto udp ct original ip daddr 10.96.0.10 ct original proto-dst 53 return",
        "meta l4proto tcp ct original ip daddr 10.96.0.10 ct original proto-dst 53 return",
        "ct state untracked ip daddr { 10.96.0.10 } udp dport 53 return",
        "ct state untracked ip daddr { 10.96.0.10 } tcp dport 53 return",
        f"ip daddr @{name} tcp dport != {{ 53, 853 }} return",
        f"ip daddr @{name} udp dport != {{ 53, 853 }} return",
        f"ip daddr @{name} meta l4proto != {{ tcp, udp }} return",
        "drop",
        "return",
    ]
    answers = [line for line in found if line.startswith(f"in-{TOKEN} ct direction reply")]
    assert f"in-{TOKEN} ct direction reply {out[1]}" in answers


@given(st.lists(names, min_size=1, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3), names)
def test_the_gate_takes_names_for_the_same(spelled: list[str], wild: list[bool], asked: str):
    patterns = tuple(f"*.{it}" if any_below else it for it, any_below in zip(spelled, wild, strict=False))
    guest = Guest(Entry("t", "pod", (), "veth0", patterns))
    expected = {at for at, it in enumerate(patterns) if means(it, asked)}
    assert guest.rules_of(labels_of(asked)) == expected


# --- what the rules do, by a reader of theirs that shares no code with who writes them

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
ADDRESSES = ("192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::1")
MATCHES = re.compile(
    r"ct original proto-dst (?P<meant>\d+) ?|(?:ct original )?(?P<ip>ip6?) daddr (?P<near>@\S+|\{[^}]*\}|[0-9a-f.:]+) ?|(?P<of>tcp|udp) dport (?P<but>!= )?(?P<ports>\{[^}]*\}|[\d-]+) ?"
    r"|meta l4proto (?P<no>!= )?(?P<kinds>\{[^}]*\}|\S+) ?|(?P<verdict>return|drop)$"
)
_port = st.one_of(
    st.builds(lambda it: {"port": it}, st.sampled_from([53, 80, 443, 853])),
    st.sampled_from([{"port": 1, "endPort": 100}, {"protocol": "UDP", "port": 50, "endPort": 60000}, {"port": 800, "endPort": 853}]),
    st.builds(lambda it: {"protocol": it}, st.sampled_from(["TCP", "UDP", "SCTP", "ICMP"])),
)  # fmt: skip
_peer = st.one_of(
    st.builds(lambda it: {"domainNames": it}, st.lists(st.sampled_from(["a.b", "*.c.d", "e.f"]), min_size=1, max_size=2)),
    st.just({"ipBlock": {"cidr": "198.51.100.0/24"}}),
)  # fmt: skip
_rules = st.lists(
    st.fixed_dictionaries(
        {"to": st.lists(_peer, min_size=1, max_size=2)}, optional={"ports": st.lists(_port, min_size=1, max_size=2)}
    ),
    max_size=3,
)
Packet = tuple[str, str, int]


def members(text: str) -> list[tuple[str, str]]:
    """What stands in braces, or alone, as spans."""
    spans = (item.strip().split("-") for item in text.strip("{} ").split(","))
    return [(item[0], item[-1]) for item in spans]


def is_in(address: str, near: str, sets: dict[str, set[str]]) -> bool:
    if near.startswith("@"):
        return address in sets[near[1:]]
    asked = ipaddress.ip_address(address)
    spans = ((ipaddress.ip_address(low), ipaddress.ip_address(high)) for low, high in members(near))
    return any(int(low) <= int(asked) <= int(high) for low, high in spans)


def verdict(lines: list[str], packet: Packet, sets: dict[str, set[str]]) -> str:  # noqa: C901  # a reader of its own
    """What becomes of the first packet of a connection."""
    address, protocol, port = packet
    for line in lines:
        parts = [found.groupdict() for found in MATCHES.finditer(line)]
        assert "".join(found[0] for found in MATCHES.finditer(line)) == line, line
        for part in parts:
            if part["verdict"]:
                return part["verdict"]
            if part["ip"] and (":" in address) is not (part["ip"] == "ip6"):
                break
            if part["near"] and not is_in(address, part["near"], sets):
                break
            if part["meant"] and port != int(part["meant"]):
                break  # here nobody leads a connection elsewhere
            if part["of"]:
                among = any(int(low) <= port <= int(high) for low, high in members(part["ports"]))
                if part["of"] != protocol or among is bool(part["but"]):
                    break
            if part["kinds"]:
                kinds = {low.removeprefix("ipv6-") for low, _ in members(part["kinds"].replace("ipv6-icmp", "icmp"))}
                if (protocol in kinds) is bool(part["no"]):
                    break
    raise AssertionError("no rule is the last")


def may_pass(rules: list[dict[str, Any]], packet: Packet, resolved: dict[str, set[str]]) -> bool:
    """The oracle, by what a user was told: `resolved` are the names of rules, and what each of their sets has."""
    address, protocol, port = packet
    for rule in rules:
        names = " ".join(sorted({name for peer in rule["to"] for name in peer.get("domainNames", ())}))
        blocks = any("ipBlock" in peer for peer in rule["to"]) and address.startswith("198.51.100.")
        ports = rule.get("ports")
        fits = ports is None or any(
            (it.get("protocol") or "TCP").lower() == protocol
            and ("port" not in it or it["port"] <= port <= it.get("endPort", it["port"]))
            for it in ports
        )
        alone = any(
            (it.get("protocol") or "TCP").lower() == protocol and it.get("port") == it.get("endPort", port) == port
            for it in ports or ()
        )
        asks = protocol in ("tcp", "udp") and port in (53, 853)
        if (blocks and fits) or (names and address in resolved[names] and fits and (alone or not asks)):
            return True
    return False


@given(_rules, st.data())
def test_rules_let_through_what_was_resolved_and_no_port_for_questions(
    rules: list[dict[str, Any]], data: st.DataObject
):
    spelled = [" ".join(sorted({it for peer in rule["to"] for it in peer.get("domainNames", ())})) for rule in rules]
    resolved = {names: data.draw(st.sets(st.sampled_from(ADDRESSES), max_size=3)) for names in dict.fromkeys(spelled)}
    sets = {domain_set(TOKEN, names.split(), family): them for names, them in resolved.items() for family in (4, 6)}
    found = chain_rules(policy(egress=rules), TOKEN, (4, 6), ("192.0.2.53",), "pod")
    out = [line.removeprefix(f"out-{TOKEN} ") for line in found if line.startswith(f"out-{TOKEN} ")]
    lines = [line for line in out if not line.startswith(("ct direction reply", "ct state untracked", "limit rate"))]
    for address in ADDRESSES:
        for protocol in PROTOCOLS:
            for port in (53, 80, 443, 853, 900) if protocol != "icmp" else (0,):
                packet = address, protocol, port
                assert (verdict(lines, packet, sets) == "return") is may_pass(rules, packet, resolved), (packet, lines)
