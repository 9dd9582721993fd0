"""Scripts compiled apart come to the rules that nft itself makes of them, whatever else is there."""

from __future__ import annotations

import errno
import random
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from lab import ROOT, Lab, sh

from cni.errors import KernelRefused, ToolFailed
from cni.kernel import compiled, kept, netns

HEAD = """add table {table}
add set {table} ports {{ type inet_service; }}
add set {table} near {{ type ipv4_addr . ipv4_addr; flags interval; }}
add map {table} leads {{ type ipv4_addr : verdict; }}
add chain {table} {chain} {{ type filter hook {hook} priority {priority}; policy {policy}; }}
flush chain {table} {chain}
add chain {table} pod
flush chain {table} pod
"""
HOOKS = {
    "inet": ("input", "forward", "output"), "ip": ("input", "output"), "ip6": ("forward",), "netdev": ("ingress", "egress"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    compiled._compiled.cache_clear()
    yield
    kept.let_go()


def ruleset() -> str:
    """Sorted, because elements of a hash and tables come as they were made."""
    listed = sh("nft", "-s", "list", "ruleset").stdout
    return "\n".join(sorted(" ".join(sorted(line.replace(",", " ").split())) for line in listed.splitlines()))


class Writer:
    """Scripts such as ours: some of everything our resources say, at random."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def script(self, name: str) -> str:
        family = self.dice.choice(list(HOOKS))
        table = f"{family} {name}"
        device = ' device "lo"' * (family == "netdev")
        head = HEAD.format(
            table=table, chain="base", hook=self.dice.choice(HOOKS[family]) + device,
            priority=self.dice.choice((-500, -5, 7)), policy=self.dice.choice(("drop", "accept")),
        )  # fmt: skip
        rules = [self.rule(family) for _ in range(12)]
        rules = [
            f"add rule {table} {'base' if 'vmap' in rule else self.dice.choice(('base', 'pod'))} {rule}"
            for rule in rules
        ]
        return "\n".join([head.rstrip(), *rules, *self.elements(table), ""])

    def rule(self, family: str) -> str:
        texts = {
            "inet": self.both, "netdev": self.both, "ip": self.four, "ip6": self.six,
        }  # fmt: skip
        verdict = self.dice.choice(("accept", "drop", "return"))
        body = texts[family]()
        return f"{body} {verdict}" if "vmap" not in body else body

    def both(self) -> str:
        return self.dice.choice((self.four, self.six, self.either))()

    def either(self) -> str:
        return self.dice.choice((
            f"meta l4proto {{ tcp, udp }} th dport {{ {self.ports()} }}", "udp dport @ports", f"tcp dport {self.port()}",
            "meta l4proto { icmp, ipv6-icmp }", 'iifname "lo"', f'oifname {{ "eth0", "veth{self.port()}" }}',
            "ether saddr != 0a:58:0a:01:00:02", "ether type { 8021q, 8021ad }",
        )) if self.dice.random() < 0.5 else f"udp sport {{ {self.ports()} }}"  # fmt: skip

    def four(self) -> str:
        return self.dice.choice((
            f"ip saddr {{ {self.blocks()} }}", f"ip daddr != {{ {self.blocks()} }}", "ip saddr . ip daddr @near",
            "ip saddr vmap @leads", f"ip daddr {self.address()}", f"ip saddr {{ {self.address()}, {self.address()} }} tcp dport {{ {self.ports()} }}",
            f"ip daddr . tcp dport {{ {self.address()} . {self.port()}, {self.address()} . {self.port()} }}",
        ))  # fmt: skip

    def six(self) -> str:
        own = IPv6Address(self.dice.getrandbits(128))
        return self.dice.choice((
            f"ip6 saddr {{ ::, fe80::/10, {own} }}", f"ip6 daddr {own}", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255",
            f"icmpv6 type nd-neighbor-advert @th,64,128 != {{ {int(own):#034x}, {1 << 127:#034x} }}",
        ))  # fmt: skip

    def elements(self, table: str) -> Iterator[str]:
        for _ in range(self.dice.randint(0, 4)):
            yield f"add element {table} ports {{ {self.port()} }}"
            yield f"add element {table} leads {{ {self.address()} : jump pod }}"
            network = f"10.{self.dice.randrange(256)}.0.0/{self.dice.choice((16, 24, 32))}"
            yield f"add element {table} near {{ {self.address()} . {network} }}"

    def address(self) -> str:
        return str(IPv4Address(self.dice.getrandbits(32)))

    def port(self) -> int:
        return self.dice.randint(1, 65535)

    def ports(self) -> str:
        first = self.dice.randint(1, 30000)
        return f"{first}-{first + 7}, {first + 100}, {first + 200}-{self.dice.randint(60000, 65535)}"

    def blocks(self) -> str:
        """Disjoint, in any order, single ones and the ends of everything among them."""
        chosen = self.dice.sample(range(1, 255), self.dice.randint(1, 6))
        texts = [self.dice.choice((f"{one}.0.0.0/8", f"{one}.1.2.3", f"{one}.0.0.0-{one}.3.0.7")) for one in chosen]
        return ", ".join([*texts, *self.dice.sample(("0.0.0.0/8", "255.255.255.255"), self.dice.randint(0, 2))])


@pytest.mark.parametrize("seed", range(40))
def test_what_is_compiled_is_what_nft_makes(seed: int):
    writer = Writer(seed)
    scripts = [writer.script(f"made{number}") for number in range(3)]
    with netns.fresh():
        sh("nft", "-f", "-", input="".join(scripts))
        wanted = ruleset()
    with netns.fresh():
        compiled.apply(scripts)
        assert ruleset() == wanted
        compiled.apply(scripts[:2])
        compiled.apply(scripts[1:])
        assert ruleset() == wanted, "applied again it changes nothing"


def test_tables_that_are_there_are_asked_for_nothing_and_left_alone():
    script = Writer(1).script("made")
    with netns.fresh():
        sh(
            "nft",
            "-f",
            "-",
            input=f"add table inet theirs\nadd chain inet theirs c\nadd rule inet theirs c ip saddr {{ 1.1.1.1, 2.2.2.2 }} drop\n{script}",
        )
        wanted = ruleset()
        sh("nft", "flush", "chain", script.split()[2], "made", "base")
        compiled.apply([script])
        assert ruleset() == wanted


def test_what_make_bench_applies_can_be_applied(lab: Lab):
    sys.path.append(str(ROOT / "tools"))
    from bench_modes import APPLY

    assert float(lab.host().run(ROOT / ".venv/bin/python3", "-c", APPLY, 3, 10).stdout) > 0


def test_an_element_takes_its_new_owners_comment():
    table = "add table ip t\nadd set ip t pods { type ipv4_addr; }\n"
    with netns.fresh():
        for owner in ("first", "second"):
            compiled.apply([f'{table}add element ip t pods {{ 10.1.0.2 comment "{owner}" }}\n'])
        listed = sh("nft", "list", "set", "ip", "t", "pods").stdout
    assert '10.1.0.2 comment "second"' in listed
    assert "first" not in listed


def test_a_key_that_leads_to_somebody_else_keeps_everything_as_it_was():
    table = "add table ip t\nadd map ip t leads { type ipv4_addr : verdict; }\n"
    with netns.fresh():
        compiled.apply([f"{table}add chain ip t first\nadd element ip t leads {{ 10.1.0.2 : jump first }}\n"])
        before = ruleset()
        with pytest.raises(KernelRefused) as refused:
            compiled.apply([f"{table}add chain ip t second\nadd element ip t leads {{ 10.1.0.2 : jump second }}\n"])
        assert refused.value.errno == errno.EEXIST
        assert ruleset() == before


def test_a_chain_hangs_on_its_own_device():
    script = 'add table netdev t\nadd chain netdev t c { type filter hook ingress device "veth7" priority 0; policy drop; }\n'
    with netns.fresh():
        sh("ip", "link", "add", "veth7", "type", "veth", "peer", "name", "veth8")
        compiled.apply([script])
        assert 'device "veth7"' in sh("nft", "list", "chain", "netdev", "t", "c").stdout


def test_a_script_that_is_none_is_refused_with_its_words():
    with netns.fresh(), pytest.raises(ToolFailed, match="nft refused a transaction: Error: syntax error"):
        compiled.apply(["add nonsense\n"])
    with netns.fresh():
        compiled.apply(["add table ip t\n"])
        assert "table ip t" in sh("nft", "list", "tables").stdout
