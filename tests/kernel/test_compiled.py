"""What is made again of what the kernel holds of a script, with the namespace apart played."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from cni.errors import ToolFailed, TryAgainLater
from cni.kernel import compiled, nfnetlink, nftables
from cni.kernel.netlink.channel import DumpInterrupted
from cni.kernel.netlink.wire import ACK, APPEND, CREATE, attribute, attributes, listed, nested, string
from cni.kernel.nfnetlink import (
    CHAIN,
    DELETE_ELEMENTS,
    DELETE_RULE,
    ELEMENTS,
    RULE,
    SET,
    TABLE,
    attributes_of,
    family_of,
    kind_of,
    raw_request,
)

IN_TABLE = attribute(1, string("t"))
NETDEV, INET = 5, 1


class Apart:
    """Holds what it is told to, whatever the script says."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.holds: dict[int, list[bytes]] = {TABLE: [raw_request(TABLE, 0, INET, IN_TABLE)]}

    def run(self, script: str) -> None:
        self.ran.append(script)

    def there(self, kind: int, body: bytes = b"", family: int = 0) -> list[bytes]:
        return self.holds.get(kind, [])


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[Apart]:
    made = Apart()
    monkeypatch.setattr(compiled._apart, "get", lambda: made)
    compiled._compiled.cache_clear()
    yield made
    compiled._compiled.cache_clear()


def kinds(requests: tuple[bytes, ...]) -> list[int]:
    return [kind_of(request) for request in requests]


def test_scripts_become_one_transaction(apart: Apart, monkeypatch: pytest.MonkeyPatch):
    told: list[list[bytes]] = []
    monkeypatch.setattr(nfnetlink, "opened", lambda: "here")
    monkeypatch.setattr(nfnetlink, "change", lambda channel, requests: told.append(list(requests)))
    compiled.apply(["one\n", "other\n", "one\n"])
    assert [len(requests) for requests in told] == [3]
    assert apart.ran == ["one\n", "other\n"]


def test_what_is_made_again_may_be_there(apart: Apart):
    (table,) = compiled._compiled("x")
    assert table[6:8] == (1 | ACK | CREATE).to_bytes(2, "little")
    assert attributes_of(table) == {1: string("t")}


def test_a_device_is_lo_apart_and_itself_where_the_rules_belong(apart: Apart):
    hook = nested(4, attribute(1, b"\0\0\0\0"), attribute(2, b"\xff\xff\xfe\x0c"), attribute(3, string("lo")))
    there = IN_TABLE + attribute(2, bytes(8)) + attribute(3, string("from-a")) + hook
    plain = IN_TABLE + attribute(3, string("pod"))
    apart.holds = {CHAIN: [raw_request(CHAIN, 0, NETDEV, there), raw_request(CHAIN, 0, INET, plain)]}
    line = 'add chain netdev t from-a { type filter hook ingress device "%s" priority -500; policy drop; }\n'
    rule = 'add rule netdev t from-a meta iifname "veth0" accept\n'
    made = compiled._compiled(line % "veth0" + rule)
    assert apart.ran == [line % "lo" + rule]
    assert kinds(made) == [CHAIN, DELETE_RULE] * 2
    said = attributes_of(made[0])
    assert list(said) == [1, 3, 4]
    assert list(attributes(said[4]).items()) == [(1, b"\0\0\0\0"), (2, b"\xff\xff\xfe\x0c"), (3, string("veth0"))]
    assert attributes_of(made[2]) == {1: string("t"), 3: string("pod")}
    assert attributes_of(made[1]) == {1: string("t"), 2: string("from-a")}
    assert [family_of(request) for request in made] == [NETDEV, NETDEV, INET, INET]


@pytest.mark.parametrize(
    ("userdata", "told"),
    [
        (b"", [ELEMENTS]),
        (b"\0\2a\0", [ELEMENTS, DELETE_ELEMENTS, ELEMENTS]),
        (b"\1\4\0\0\0\0", [ELEMENTS]),
    ],
    ids=["plain", "comment", "flags"],
)
def test_an_element_with_a_comment_loses_its_earlier_one(apart: Apart, userdata: bytes, told: list[int]):
    item = nested(1, nested(1, attribute(1, b"\1\2\3\4")), attribute(6, userdata) if userdata else b"")
    apart.holds = {
        SET: [raw_request(SET, 0, INET, IN_TABLE + attribute(2, string("pods")))],
        ELEMENTS: [raw_request(ELEMENTS, 0, INET, IN_TABLE + attribute(2, string("pods")) + nested(3, item))],
    }
    assert [kind_of(request) for request in compiled._compiled("x")] == [SET], "it is not asked what is in it"
    made, *elements = compiled._compiled("add element inet t pods { 1.2.3.4 }")
    assert kind_of(made) == SET
    assert [kind_of(request) for request in elements] == told
    assert {attributes_of(request)[3] for request in elements} == {item}


def anonymous(name: str, flags: int = 1) -> bytes:
    return raw_request(SET, 0, INET, IN_TABLE + attribute(2, string(name)) + attribute(3, flags.to_bytes(4, "big")))


def looking_up(name: str) -> bytes:
    """A rule that looks something up in a set."""
    lookup = nested(1, attribute(1, string("lookup")), nested(2, attribute(1, string(name)), attribute(2, b"\0\0\0\1")))
    other = nested(1, attribute(1, string("meta")), nested(2, attribute(1, string(name))))
    body = IN_TABLE + attribute(2, string("in")) + attribute(3, bytes(8)) + nested(4, other, lookup)
    return raw_request(RULE, 0, INET, body)


def expressions(rule: bytes) -> list[dict[int, bytes]]:
    return [attributes(attributes(item)[2]) for item in listed(attributes_of(rule)[4])]


def test_an_anonymous_set_is_found_by_its_number(apart: Apart):
    apart.holds = {
        SET: [anonymous("__set0"), anonymous("__map0", 9)],
        RULE: [looking_up("__set0"), looking_up("__map0")],
    }
    first, second, *rules = compiled._compiled("x")
    numbers = [attributes_of(made)[10] for made in (first, second)]
    assert [attributes_of(made)[2] for made in (first, second)] == [string("__set%d"), string("__map%d")]
    assert [rule[6:8] for rule in rules] == [(1 | ACK | CREATE | APPEND).to_bytes(2, "little")] * 2
    assert [expressions(rule)[1] for rule in rules] == [
        {1: string("__set%d"), 2: b"\0\0\0\1", 4: number} for number in numbers
    ]
    assert expressions(rules[0])[0] == {1: string("__set0")}
    assert len({*numbers, bytes(4)}) == 3


def test_numbers_of_scripts_in_one_transaction_are_not_the_same(apart: Apart):
    apart.holds = {SET: [anonymous("__set0")]}
    one, other = (attributes_of(compiled._compiled(script)[0])[10] for script in ("one", "other"))
    assert one != other


def test_a_set_that_has_a_name_is_found_by_that(apart: Apart):
    rule = looking_up("vteps")
    apart.holds = {SET: [raw_request(SET, 0, INET, IN_TABLE + attribute(2, string("vteps")))], RULE: [rule]}
    made, again = compiled._compiled("x")
    assert attributes_of(made) == {1: string("t"), 2: string("vteps"), 10: bytes(4)}
    assert expressions(again) == expressions(rule)
    assert 3 not in attributes_of(again)  # the handle it has apart


def test_nft_says_why_it_refuses_a_script():
    apart = object.__new__(compiled._Apart)
    apart._nft = type(
        "Nft", (), {"run": lambda self, script: nftables.Answer(False, "", f"Error: {script[:13]}\n^\n")}
    )()
    with pytest.raises(ToolFailed, match=r"^nft refused a transaction: Error: flush ruleset$"):
        apart.run("nonsense")


@pytest.mark.parametrize("torn", [1, compiled._QUESTION_TRIES])
def test_what_changes_while_it_is_read_is_read_again(torn: int):
    answers = iter([DumpInterrupted()] * torn + [[b"there"]])

    def ask(_: bytes) -> list[bytes]:
        if isinstance(said := next(answers), DumpInterrupted):
            raise said
        return said

    apart = object.__new__(compiled._Apart)
    apart._channel = SimpleNamespace(ask=ask)
    if torn < compiled._QUESTION_TRIES:
        assert apart.there(SET) == [b"there"]
    else:
        with pytest.raises(TryAgainLater, match="changed while it was read"):
            apart.there(SET)
