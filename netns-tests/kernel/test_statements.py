"""What is packed here of nft's language is what libnftables makes of it: the kernel holds the same, to the byte."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address

import pytest
from lab import sh

from cni.errors import KernelRefused
from cni.kernel import kept, netns, nfnetlink, statements
from cni.kernel.netlink.channel import NETFILTER, Channel
from cni.kernel.netlink.wire import DUMP, attribute
from cni.kernel.nfnetlink import (
    CHAIN,
    ELEMENT_LIST,
    ELEMENTS,
    GET,
    RULE,
    SET,
    SET_NAME,
    TABLE,
    TABLE_NAME,
    attributes_of,
)
from cni.naming import POLICY_TABLE
from cni.policy.model import Allowance, Peers, Policy, Port, Ruling, Tier, merged
from cni.policy.objects import NamedPort
from cni.policy.rules import chain_rules
from cni.policy.selection import Selection
from cni.resources.asking import Asking, skeleton
from cni.resources.policy import PodPolicy

_HANDLES = {TABLE: 4, CHAIN: 3, RULE: 3, SET: 16}
#: Of tables and chains how many use them, and a name of our own that is counted.
_COUNTED = {TABLE: 3, CHAIN: 6}


class Writer:
    """Policies at random, each of one pod."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def policy(self) -> Policy:
        tiers = Tier(self.rulings(), self.rulings()), Tier(self.rulings(), self.rulings())
        ways = (self.dice.choice((None, self.allowances(), self.allowances())) for _ in range(2))
        ingress, egress = ways
        closers = {"ingress": "NetworkPolicy shop/a, shop/b"}
        return Policy(
            ingress=ingress, egress=egress, dns=self.dice.random() < 0.5, log=self.dice.random() < 0.5,
            admin=tiers[0], baseline=tiers[1], closers=closers,
        )  # fmt: skip

    def rulings(self) -> tuple[Ruling, ...]:
        chosen = range(self.dice.choice((0, 0, 1, 3)))
        return tuple(Ruling(self.dice.choice(("accept", "deny", "pass")), self.allowance()) for _ in chosen)

    def allowances(self) -> tuple[Allowance, ...]:
        return tuple(self.allowance() for _ in range(self.dice.randint(0, 4)))

    def allowance(self) -> Allowance:
        peers = self.dice.choice((None, (), tuple(self.peers(family) for family in self.dice.sample((4, 6), 2))))
        named = self.dice.choice((None, NamedPort(self.dice.choice(("tcp", "udp", "sctp")), "web")))
        selections = (Selection("folder /f", f"ns{self.dice.randrange(9)}", port=named),) * (peers is not None)
        ports = None if named else self.dice.choice((None, tuple(self.port() for _ in range(self.dice.randint(1, 3)))))
        return Allowance(peers, ports, selections, document=self.dice.choice(("", "NetworkPolicy shop/web", "x" * 150)))

    def port(self) -> Port:
        first = self.dice.randint(1, 60000)
        last = self.dice.choice((first, first + self.dice.randint(1, 5000), 65535))
        protocol = self.dice.choice(("tcp", "udp", "sctp"))
        return self.dice.choice((Port(protocol, first, last), Port(protocol), Port("icmp")))

    def peers(self, family: int) -> Peers:
        bits = 32 if family == 4 else 128
        lows = [self.dice.choice((0, self.dice.getrandbits(bits))) for _ in range(self.dice.choice((1, 1, 2, 700)))]
        spans = [(low, min(low + self.dice.choice((0, 0, 1, 255, 1 << 20)), (1 << bits) - 1)) for low in lows]
        spans += self.dice.choice(([], [((1 << bits) - 9, (1 << bits) - 1)], [((1 << bits) - 1, (1 << bits) - 1)]))
        return Peers(family, merged(spans))


def scripts(seed: int) -> list[str]:
    """Of some pods."""
    writer, found = Writer(seed), []
    for number in range(3):
        addresses = str(IPv4Address(writer.dice.getrandbits(32))), str(IPv6Address(writer.dice.getrandbits(128)))
        token = f"0123456789abcd{number:02}"
        rules = chain_rules(writer.policy(), token, (4, 6), ("10.96.0.10", "10.96.0.11"), f"shop/p{number}")
        pod = PodPolicy(addresses, rules, writer.dice.random() < 0.5, f"shop/p{number}", token=token)
        found.append(pod.declarations + pod.script())
    return found


def there() -> list[object]:
    """All that the kernel holds in this namespace, but for what it counts by itself."""
    with closing(Channel(NETFILTER)) as channel:
        found: list[object] = []
        for kind in (TABLE, CHAIN, SET, RULE):
            for message in channel.ask(nfnetlink.raw_request(kind + GET, DUMP, 0)):
                said = attributes_of(message)
                found.append(
                    {at: value for at, value in said.items() if at not in (_HANDLES[kind], _COUNTED.get(kind))}
                )
                if kind == SET:
                    place = attribute(TABLE_NAME, said[TABLE_NAME]) + attribute(SET_NAME, said[SET_NAME])
                    answers = channel.ask(nfnetlink.raw_request(ELEMENTS + GET, DUMP, 1, place))
                    items = [attributes_of(item).get(ELEMENT_LIST, b"") for item in answers]
                    ordered = said.get(3, b"\0" * 4)[3] & 4  # a tree is; elements of a hash come in any order
                    found.append(items if ordered else sorted(b"".join(items)))
    return found


def ruleset() -> str:
    """As nft lists it, sorted: elements of a hash come in any order."""
    listed = sh("nft", "-s", "list", "ruleset").stdout
    return "\n".join(sorted(" ".join(sorted(line.replace(",", " ").split())) for line in listed.splitlines()))


@pytest.fixture(autouse=True)
def let_go():
    yield
    kept.let_go()


def packed(texts: Iterable[str]) -> None:
    nfnetlink.change(nfnetlink.opened(), [request for text in texts for request in statements.requests(text)])


def test_what_has_questions_judged_is_packed_as_libnftables_makes_it():
    pod = Asking(("10.1.0.2", "fd00::2"), "0123456789a", 200)
    for where in ("", "/run/netns/p"):
        texts = [skeleton(where), pod.declarations + pod.script()]
        with netns.fresh():
            sh("nft", "-f", "-", input="".join(texts))
            wanted = there()
        with netns.fresh():
            packed(texts)
            assert there() == wanted


@pytest.mark.parametrize("seed", range(40))
def test_policies_of_pods_are_packed_as_libnftables_makes_them(seed: int):
    texts = scripts(seed)
    with netns.fresh():
        sh("nft", "-f", "-", input="".join(texts))
        wanted = there()
    with netns.fresh():
        packed(texts)
        assert there() == wanted
        listed = ruleset()
        packed(texts)
        assert ruleset() == listed, "applied again it changes nothing"


@pytest.mark.parametrize(
    "line",
    [
        "add rule inet t c ip saddr { 10.0.0.0-10.0.0.255 } tcp dport 80 counter return",
        "add rule inet t c ip6 daddr { fd00::1 } meta l4proto udp drop",
        "add rule inet t c ip saddr { 0.0.0.0-255.255.255.255 } return",
        'add rule inet t c log prefix "agent: " group 4743',
        "add rule inet t c tcp sport 0-9 accept",
        "add rule inet t c meta l4proto ipv6-icmp goto d",
        "add set inet t s { type ifname; }",
    ],
)
def test_each_form_by_itself(line: str):
    head = "add table inet t\nadd chain inet t c\nadd chain inet t d\n"
    with netns.fresh():
        sh("nft", "-f", "-", input=f"{head}{line}\n")
        wanted = there()
    with netns.fresh():
        packed([f"{head}{line}\n"])
        assert there() == wanted


def test_a_chain_that_rules_go_on_to_no_more_goes_with_the_same_transaction():
    one = f"add table {POLICY_TABLE}\nadd chain {POLICY_TABLE} a\nadd chain {POLICY_TABLE} b\nadd rule {POLICY_TABLE} a goto b\n"
    other = "".join(
        f"{verb} chain {POLICY_TABLE} {name}\n" for verb, name in (("flush", "a"), ("flush", "b"), ("delete", "b"))
    )
    with netns.fresh():
        packed([one])
        packed([other])
        assert "chain b" not in sh("nft", "list", "ruleset").stdout


@pytest.mark.parametrize(
    "line",
    [
        "add rule inet t c ip saddr 10.0.0.1 drop",
        "add rule inet t c ip saddr { 10.0.0.0/8 } drop",
        "add rule inet t c ip saddr { 10.0.0.1, 10.0.0.2-10.0.0.9 } drop",
        "add rule inet t c ip saddr { fd00::1 } drop",
        "add rule inet t c ip saddr { 10.0.0.9-10.0.0.1 } drop",
        "add rule inet t c meta l4proto tcp tcp dport 80 drop",
        "add rule inet t c ip saddr @s ip daddr @s drop",
        "add rule inet t c counter packets 1 bytes 2 drop",
        "add rule inet t c dropping",
        "add rule netdev t c counter drop",
        "add rule inet t c tcp dport 70000 drop",
        "add rule inet t c tcp dport 9-1 drop",
        "add chain inet t c { type filter hook input priority 0; }",
        "add set inet t s { type ipv4_addr; flags interval; }",
        "add map inet t m { type ipv4_addr; }",
        "add element inet t s { 10.0.0.1-10.0.0.9 }",
        "delete table inet t",
        "",
        "nonsense",
    ],
)
def test_what_is_not_known_here_is_left_to_libnftables(line: str):
    if line:
        with pytest.raises(statements.Unspoken):
            statements.requests(f"{line}\n")
    else:
        assert statements.requests("\n") == []


def test_what_the_kernel_refuses_is_refused():
    with netns.fresh(), pytest.raises(KernelRefused):
        packed(["add rule inet nowhere c drop\n"])
