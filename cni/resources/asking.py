"""What has a pod's questions to DNS servers, and the answers to them, judged by the DNS gate: rules that have them wait, and a file that
says who the pod is and which names it may have.

Questions wait as they come from the pod, before anybody translates their addresses, and answers as they get there: so the gate sees what the
pod sees. Rules of policies are asked besides.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from cni.errors import KernelRefused
from cni.kernel import gatedir, inventory, netfilter, ruleset
from cni.kernel.gatedir import Entry
from cni.kernel.netns import fresh
from cni.kernel.ruleset import Chain, Element
from cni.naming import DNS_QUEUE, DNS_TABLE, POLICY_TABLE
from cni.resources.chains import line_differences, listed_chains
from cni.resources.nft import NftRules
from cni.resources.verdicts import verdicts
from cni.resources.world import World
from cni.values import dataclass

_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
#: What a question is and an answer, of which family: whose address it has follows.
_ASKING, _ANSWERING = (
    [(family, f"{of} {way} {ip} {whose}") for family, ip in ((4, "ip"), (6, "ip6")) for of in ("udp", "tcp")]
    for way, whose in (("dport 53", "s"), ("sport 53", "d"))
)
#: Where packets come from a pod, before addresses are translated, and where they come to it, after that: on the host, and in the pod.
_BEFORE, _AFTER = -150, 110
_COMING, _GOING, _SHUT = "coming", "going", "shut"
_HOOKS = {
    "": ((_COMING, "prerouting", _BEFORE), (_GOING, "postrouting", _AFTER), (_SHUT, "forward", -4), (f"{_SHUT}.in", "input", -4)),
    "pod": ((_COMING, "output", _BEFORE), (_GOING, "input", _AFTER), (_SHUT, "output", -4)),
}  # fmt: skip
#: Packets that a question, its answer and a connection for both come to; kilobytes of them (RFC 6891, 6.2.5); and of the largest.
_PACKETS, _SIZE, _LARGEST = 20, 4, 64
#: How nft spells that a packet waits, and how it is said to a kernel that has only iptables' target for it.
_WAIT, _WAIT_BY_XTABLES = f"queue num {DNS_QUEUE}", f'xt target "NFQUEUE" {DNS_QUEUE}'


@dataclass(frozen=True)
class AskingTable(NftRules):
    """The table all pods of the node whose questions are judged share, or that of one pod's namespace; it goes with the last of them."""

    netns: str = ""
    shared = True
    retires = True
    identity = ("netns",)

    batch = None  # a step of its own: a kernel's words for a queue are known when they were tried

    def ensure(self, world: World) -> None:
        with self.place_of_rules(world):
            _make(self.netns)

    def script(self) -> str:
        return skeleton(self.netns) + _waiting(self.netns)

    def differences(self, world: World) -> Iterator[str]:
        wanted = rehearsed(bool(self.netns))
        with self.place_of_rules(world):
            dormant, there = ruleset.is_dormant(DNS_TABLE), inventory.rules(DNS_TABLE, wanted)
        yield from [f"DNS table {DNS_TABLE} is dormant"] * dormant
        for name, said in there.items():
            if said != wanted[name]:
                yield f"DNS chain {name} is {'another' if said else 'missing'}"

    @property
    def goes_by(self) -> tuple[str, ...]:
        chains = (f"chain {DNS_TABLE} {name}" for name, *_ in _hooks(self.netns))
        return () if self.netns else (f"table {DNS_TABLE}", *chains)

    def remove(self, world: World) -> None:
        if self.netns and world.netns is None:
            return
        with self.place_of_rules(world):
            ruleset.delete_idle(DNS_TABLE, chains=[name for name, *_ in _hooks(self.netns)], sets=("asked4", "asked6"))

    def describe(self) -> str:
        return f"DNS table {DNS_TABLE}{' in the pod' * bool(self.netns)}: queue {DNS_QUEUE} to the DNS gate"

    @property
    def place(self) -> object:
        return AskingTable, self.netns


@dataclass(frozen=True)
class Asking(NftRules):
    """A pod in that table, by its addresses: at most `rate` questions a second of it are judged. `token` names its chain."""

    addresses: tuple[str, ...]
    token: str
    rate: int
    netns: str = ""

    def script(self) -> str:
        lines = [f"{verb} chain {DNS_TABLE} {self._chain}" for verb in ("add", "flush")]
        lines += [f"add rule {DNS_TABLE} {self._chain} {line}" for line in self._rules]
        for name, key in self._led():
            lines.append(f"add element {DNS_TABLE} {name} {{ {key} : jump {self._chain} }}")
        lines += [f"add element {DNS_TABLE} asked{_family(key)} {{ {key} }}" for key in self.addresses]
        return "\n".join([*lines, ""])

    @property
    def declarations(self) -> str:
        return _declared()

    def differences(self, world: World) -> Iterator[str]:
        wanted = listed_chains(netfilter.nft_rehearsed(_declared() + self.script(), f"chain {DNS_TABLE} {self._chain}"))
        with self.place_of_rules(world):
            there = listed_chains(netfilter.nft_list(f"chain {DNS_TABLE} {self._chain}")).get(self._chain)
            yield from line_differences(f"DNS chain {self._chain}", there, wanted[self._chain])
            for item in self._elements(self.addresses):
                if not ruleset.has_element(item):
                    name = item.container.rpartition(" ")[2]
                    yield f"DNS {'map' if item.chain else 'set'} {name} lacks {ipaddress.ip_address(item.key)}"

    @property
    def goes_by(self) -> tuple[str, ...]:
        if self.netns:
            return ()
        elements = (f"element {item.container} {item.key.hex()}" for item in self._elements(self.addresses))
        return (f"chain {DNS_TABLE} {self._chain}", *elements)

    def in_the_way(self, world: World) -> str:
        """Where the addresses led while somebody else had them."""
        with self.place_of_rules(world):
            there = [(name, key) for name, key in self._led() if ruleset.has_element(_element(name, key))]
        return "".join(f"delete element {DNS_TABLE} {name} {{ {key} }}\n" for name, key in there)

    def remove(self, world: World) -> None:
        """What leads to its chain; of addresses that nobody recorded only a listing tells."""
        if self.netns and world.netns is None:
            return
        with self.place_of_rules(world):
            addresses = self.addresses
            if not addresses:
                listed = "".join(netfilter.nft_list(f"map {DNS_TABLE} asks{family}") for family in (4, 6))
                addresses = tuple(item.key for item in verdicts(listed, {self._chain}))
            ruleset.delete_there([Chain(DNS_TABLE, self._chain)], self._elements(addresses))

    def describe(self) -> str:
        return f"questions of {', '.join(self.addresses)} judged by the DNS gate, at most {self.rate} a second"

    @property
    def place(self) -> object:
        return Asking, self.netns, self.token

    @property
    def _chain(self) -> str:
        return f"ask-{self.token}"

    @property
    def _rules(self) -> tuple[str, ...]:
        """Of questions, and of all packets and bytes of questions and answers: one pod's are not to have the gate busy for all."""
        rate, packets, size = self.rate, _PACKETS * self.rate, _SIZE * self.rate
        over = f"limit rate over {rate}/second burst {rate} packets"
        return (
            f"udp dport 53 {over} counter drop",
            f"tcp dport 53 ct state new {over} counter drop",
            f"limit rate over {packets}/second burst {packets} packets counter drop",
            f"limit rate over {size} kbytes/second burst {size + _LARGEST} kbytes counter drop",
        )

    def _led(self) -> Iterator[tuple[str, str]]:
        return ((f"asks{_family(address)}", address) for address in self.addresses)

    def _elements(self, addresses: Iterable[str]) -> list[Element]:
        """What the maps and sets have of these."""
        keys = [(_family(address), address) for address in addresses]
        led = [_element(f"asks{family}", key, self._chain) for family, key in keys]
        return [*led, *(_element(f"asked{family}", key) for family, key in keys)]


@dataclass(frozen=True)
class AskingPod(Entry, NftRules):
    """What the gate is told of a pod, for the rules it is held to: see `gatedir.Entry`, whose fields these are."""

    batch = None  # no rules, but a file

    @property
    def declarations(self) -> str:
        """Where the pod's sets are, which the gate fills again when it is told."""
        return f"add table {POLICY_TABLE}\n"

    def script(self) -> str:
        return ""

    def ensure(self, world: World) -> None:
        """Write it also where it is there: the gate then looks at the pod's sets, which may have been made anew, and empty."""
        before = gatedir.read(self.path)
        gatedir.put(self.path, self.text)
        if not before:
            world.created(self)
        elif before != self.text:
            world.changed(self, lambda: gatedir.put(self.path, before))

    def differences(self, world: World) -> Iterator[str]:
        there = gatedir.read(self.path)
        if there != self.text:
            yield f"{self.path}, by which the DNS gate knows the pod, is {'another' if there else 'missing'}"

    def remove(self, world: World) -> None:
        gatedir.drop(self.path)

    def describe(self) -> str:
        rules = ", ".join(name for names in self.allowed for name in names) or "none"
        more = "anything" if self.everything else ", ".join((*self.names, *self.own))
        return f"names it may reach: {rules}; resolve besides: {more or 'nothing'}"

    @property
    def place(self) -> object:
        return AskingPod, self.token


def _make(netns: str) -> None:
    """Make the table as it is to be, its chains refilled."""
    made, rules = skeleton(netns), _waiting(netns)
    try:
        netfilter.nft_made([made, rules.replace(_WAIT_BY_XTABLES, _WAIT)])
    except KernelRefused as error:
        if error.errno != errno.ENOENT:
            raise
        netfilter.nft_made([made, rules])


@lru_cache(maxsize=2)
def rehearsed(in_pod: bool) -> Mapping[str, bytes | None]:
    """What the kernel says of each chain as it is to be, made where nobody sees it."""
    with fresh():
        _make("pod" if in_pod else "")
        return inventory.rules(DNS_TABLE, [name for name, *_ in _hooks("pod" if in_pod else "")])


def _declared() -> str:
    """The table with what leads to pods' chains, and who has one."""
    lines = [f"add table {DNS_TABLE}"]
    for family in (4, 6):
        lines.append(f"add map {DNS_TABLE} asks{family} {{ type {_TYPE[family]} : verdict; }}")
        lines.append(f"add set {DNS_TABLE} asked{family} {{ type {_TYPE[family]}; }}")
    return "\n".join([*lines, ""])


def skeleton(netns: str) -> str:
    """The table and its base chains, and that port 53 of whoever somebody else leads a pod to does not pass unjudged."""
    lines = []
    for name, hook, priority in _hooks(netns):
        hung = f"type filter hook {hook} priority {'filter - 4' if priority == -4 else priority}; policy accept;"
        lines += [f"add chain {DNS_TABLE} {name} {{ {hung} }}", f"flush chain {DNS_TABLE} {name}"]
        if name.startswith(_SHUT):
            lines += [
                f"add rule {DNS_TABLE} {name} {asks}addr @asked{family} ct original proto-dst != 53 drop"
                for family, asks in _ASKING
            ]
        for of, said in ((_COMING, _ASKING), (_GOING, _ANSWERING)):
            lines += [f"add rule {DNS_TABLE} {of} {it}addr vmap @asks{family}" for family, it in said if name == of]
    return _declared() + "\n".join([*lines, ""])


def _waiting(netns: str) -> str:
    """What waits: a pod's questions, those that are not too many, and all that says to be an answer. In a pod the gate's own come by lo."""
    lines, here = [], 'iif != "lo" ' * bool(netns)
    for (family, asks), (_, answers) in zip(_ASKING, _ANSWERING, strict=True):
        lines.append(f"add rule {DNS_TABLE} {_COMING} {asks}addr @asked{family} {_WAIT_BY_XTABLES}")
        lines.append(f"add rule {DNS_TABLE} {_GOING} {here}{answers}addr @asked{family} {_WAIT_BY_XTABLES}")
    return "\n".join([*lines, ""])


def _hooks(netns: str) -> tuple[tuple[str, str, int], ...]:
    return _HOOKS["pod" if netns else ""]


def _element(name: str, key: str, chain: str = "") -> Element:
    return Element(f"{DNS_TABLE} {name}", ipaddress.ip_address(key).packed, chain=chain)


def _family(address: str) -> int:
    return ipaddress.ip_address(address).version
