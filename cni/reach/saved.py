"""Rules of iptables, out of what iptables-save prints (iptables-extensions(8)): the matches that can be judged from here."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile

from cni.reach.rules import Act, Chain, Decide, Meeting, Rule, Test

#: Where nf_tables has the base chains of iptables' tables.
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT = {"PREROUTING": -100, "OUTPUT": -100, "INPUT": 100, "POSTROUTING": 100}
_ICMP = {
    "echo-request": ("8", "128", "echo-request"),
    "echo-reply": ("0", "129", "echo-reply"),
    "destination-unreachable": ("3", "1", "destination-unreachable"),
}
_ENDS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "MASQUERADE": "masquerade"}
#: Targets that decide nothing, and matches that only say what follows.
_ASIDE = ("LOG", "NFLOG", "CT", "CONNMARK", "NOTRACK", "TRACE", "CHECKSUM", "TCPMSS")
_LABELS = (
    "--comment",
    "--mode",
    "--probability",
    "--every",
    "--packet",
    "--limit",
    "--limit-burst",
    "--log-prefix",
    "--reject-with",
    "--random-fully",
    "--random",
)


def chains(lines: Iterable[str], family: int, backend: str) -> Iterator[Chain]:
    """Every chain of what a family's iptables-save printed; `backend` tells two of them apart."""
    table, rules, policies = "", dict[str, list[Rule]](), dict[str, str]()
    for line in lines:
        words = _words(line)
        if line.startswith("*"):
            table, rules, policies = line[1:].strip(), {}, {}
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            rules[name], policies[name] = [], policy
        elif words[:1] == ["-A"]:
            rules.setdefault(words[1], []).append(_rule(words[2:]))
        elif line.startswith("COMMIT"):
            for name, said in rules.items():
                yield _chain(f"{backend} {table}", name, tuple(said), policies.get(name, "-"), family)


def _chain(table: str, name: str, rules: tuple[Rule, ...], policy: str, family: int) -> Chain:
    kind = table.rpartition(" ")[2]
    built_in = policy != "-"
    priority = _NAT.get(name, 0) if kind == "nat" else _PRIORITIES.get(kind, 0)
    hook = name.lower() if built_in else ""
    return Chain(table, name, rules, hook, priority, kind == "nat", (), policy == "DROP", (family,))


def _words(line: str) -> list[str]:
    """The words of a line; what stands in quotes is one."""
    found: list[str] = []
    for number, part in enumerate(line.split('"')):
        found += [part] if number % 2 else part.split()
    return found


def _rule(words: list[str]) -> Rule:
    tests: list[Test] = []
    options: dict[str, list[str]] = {}
    target, goes, at = "", False, 0
    while at < len(words):
        but = words[at] == "!"
        at += but
        option = words[at]
        values = list(takewhile(lambda word: not word.startswith("-") and word != "!", words[at + 1 :]))
        at += 1 + len(values)
        if option in ("-j", "-g"):
            target, goes = values[0], option == "-g"
        elif target or option in ("-m", *_LABELS):
            options[option] = values
            if option == "-m" and values[0] == "statistic":
                tests.append(lambda met: met.dice.falls())
            elif option == "-m" and values[0] in ("socket", "physdev", "set", "recent"):
                tests.append(lambda _: None)
        else:
            tests.append(_test(option, values, but=but))
    return Rule(tuple(tests), (_decided(target, options, goes=goes),) if target else (), " ".join(words))


def _decided(target: str, options: dict[str, list[str]], *, goes: bool) -> Decide:
    def first(*names: str) -> str:
        return next((options[name][0] for name in names if options.get(name)), "")

    if target == "MARK":
        value, _, mask = first("--set-xmark", "--set-mark", "--or-mark").partition("/")
        return partial(_marked, int(value or "0", 0), int(mask or "0xffffffff", 0))
    if target in _ASIDE:
        return lambda _: None
    translated = {
        "DNAT": _place(first("--to-destination")),
        "SNAT": _place(first("--to-source")),
        "REDIRECT": f" {first('--to-ports')}",
        "TPROXY": f" {first('--on-port')}",
    }
    if target in translated:
        act = Act(target.lower(), translated[target])
    else:
        act = Act(_ENDS[target]) if target in _ENDS else Act("goto" if goes else "jump", target)
    return lambda _: act


def _place(said: str) -> str:
    """An address, and a port if one is said, apart."""
    if said.startswith("["):
        address, _, port = said[1:].partition("]")
        return f"{address} {port.lstrip(':')}"
    address, _, port = (said, "", "") if said.count(":") > 1 else said.partition(":")
    return f"{address} {port}"


def _marked(value: int, mask: int, meeting: Meeting) -> Act:
    return Act("mark", str((meeting.packet.mark & ~mask) ^ value))


def _test(option: str, values: list[str], *, but: bool) -> Test:
    ask = _TESTS.get(option)
    if ask is None:
        return lambda _: None

    def answer(meeting: Meeting) -> bool | None:
        return ask(values, meeting) is not but

    return answer


def _port_is(text: str, port: int) -> bool:
    low, _, high = text.partition(":")
    return int(low or 0) <= port <= int(high or low or 65535)


def _ports(wanted: str) -> Callable[[list[str], Meeting], bool]:
    def ask(values: list[str], met: Meeting) -> bool:
        if met.packet.protocol == "icmp" or met.packet.error:
            return False
        port = met.packet.port if wanted == "target" else met.packet.source_port
        return any(_port_is(item, port) for item in values[0].split(","))

    return ask


def _in(address: str, network: str) -> bool:
    return bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


def _link(wanted: str, name: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted


def _mark(values: list[str], met: Meeting) -> bool:
    value, _, mask = values[0].partition("/")
    return met.packet.mark & int(mask or "0xffffffff", 0) == int(value, 0)


def _flags(values: list[str], met: Meeting) -> bool:
    looked, wanted = (set(item.split(",")) - {"NONE"} for item in values[:2])
    has = {"SYN", "ACK"} if met.packet.reply else {"SYN"}
    return met.packet.protocol == "tcp" and has & looked == wanted


def _type(values: list[str], met: Meeting) -> bool:
    what = "destination-unreachable" if met.packet.error else "echo-reply" if met.packet.reply else "echo-request"
    return met.packet.protocol == "icmp" and values[0].partition("/")[0] in (*_ICMP[what], "any")


def _local(source: bool) -> Callable[[list[str], Meeting], bool]:
    def ask(values: list[str], met: Meeting) -> bool:
        return met.is_local(met.packet.source if source else met.packet.target) is (values[0] == "LOCAL")

    return ask


_TESTS: dict[str, Callable[[list[str], Meeting], bool]] = {
    "-s": lambda values, met: _in(met.packet.source, values[0]),
    "-d": lambda values, met: _in(met.packet.target, values[0]),
    "-i": lambda values, met: _link(values[0], met.into),
    "-o": lambda values, met: _link(values[0], met.out),
    "-p": lambda values, met: values[0] in (met.packet.carried, met.packet.carried.replace("ipv6-icmp", "icmpv6"), "all"),
    "--dport": _ports("target"),
    "--sport": _ports("source"),
    "--dports": _ports("target"),
    "--sports": _ports("source"),
    "--ctstate": lambda values, met: bool({met.packet.state.upper(), "DNAT" * met.packet.translated} & set(values[0].split(","))),
    "--state": lambda values, met: met.packet.state.upper() in values[0].split(","),
    "--mark": _mark,
    "--tcp-flags": _flags,
    "--syn": lambda _, met: met.packet.protocol == "tcp" and not met.packet.reply,
    "--icmp-type": _type,
    "--icmpv6-type": _type,
    "--uid-owner": lambda values, _: values[0] == "0",
    "--gid-owner": lambda values, _: values[0] == "0",
    "--dst-type": _local(source=False),
    "--src-type": _local(source=True),
}  # fmt: skip
