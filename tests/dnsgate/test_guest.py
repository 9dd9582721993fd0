from __future__ import annotations

import itertools
import json

import pytest

from cni.dnsgate.guest import Guest, Ruling, labels_of
from cni.kernel.gatedir import Entry


def guest(*rules: str, **keys: object) -> Guest:
    return Guest(Entry("0123456789a", "default/agent", ("10.1.0.2", "fd00:1::2"), "veth0", rules, **keys))


PATTERNS = ["example.com", "*.example.com", "api.example.com", "*.api.example.com", "example.org", "*.b.example.org"]
NAMES = ["com", "example.com", "api.example.com", "a.api.example.com", "a.b.example.com", "xexample.com", "example.com.x", "b.example.org", "a.b.example.org", "example.org"]  # fmt: skip


def meant(pattern: str, name: str) -> bool:
    """What a pattern says, told by texts alone."""
    return name.endswith(pattern[1:]) and name != pattern[2:] if pattern[0] == "*" else name == pattern


@pytest.mark.parametrize("some", list(itertools.combinations(PATTERNS, 3)), ids=" ".join)
def test_a_name_is_of_the_rules_that_mean_it(some: tuple[str, ...]):
    known = guest(*some)
    for name in NAMES:
        wanted = {number for number, pattern in enumerate(some) if meant(pattern, name)}
        assert known.rules_of(labels_of(name)) == wanted, name
        assert (known.ruling(labels_of(name)) is Ruling.ASKED) is bool(wanted)


def test_several_names_are_of_one_rule():
    known = guest("example.com *.example.org", "example.com")
    assert known.rules_of(labels_of("example.com")) == {0, 1}
    assert known.rules_of(labels_of("a.example.org")) == {0}
    assert [*known.sets({1}, 4)] == ["d4-0123456789a-a379a6f6eeafb9a5"]
    assert len(known.every_set) == 4


@pytest.mark.parametrize(
    ("name", "ruling"),
    [
        ("api.example.com.shop.svc.cluster.local", Ruling.ASKED),
        ("cluster.local", Ruling.ASKED),
        ("xcluster.local", Ruling.REFUSED),
        ("api.example.com.corp.example", Ruling.NOWHERE),
        ("db.example.net", Ruling.ASKED),
        ("db.example.net.corp.example", Ruling.NOWHERE),
        ("data.evil.example", Ruling.REFUSED),
        ("com", Ruling.REFUSED),
        ("x.api.example.com", Ruling.REFUSED),
    ],
)
def test_what_becomes_of_a_question(name: str, ruling: Ruling):
    known = guest("api.example.com", names=("db.example.net",), own=("cluster.local",))
    assert known.ruling(labels_of(name)) is ruling
    assert guest("api.example.com", everything=True).ruling(labels_of(name)) is Ruling.ASKED


def test_what_may_be_resolved_besides_lets_nothing_through():
    known = guest("api.example.com", names=("*.example.net",), own=("cluster.local",))
    for name in ("db.example.net", "web.shop.svc.cluster.local"):
        assert known.rules_of(labels_of(name)) == frozenset()


def test_a_pod_of_one_family_has_no_sets_of_the_other():
    guest = Guest(Entry("0123456789a", "default/agent", ("fd00::2", "fe80::2"), "veth0", ("api.example.com",)))
    assert [*guest.sets([0], 4)] == []
    assert [*guest.every_set.values()] == [6]


@pytest.mark.parametrize(
    "odd",
    [{"addresses": ["x"]}, {"addresses": "10.0.0.1"}, {"into": ["10.0.0.0/99"]}, {"rules": [1]}, {"rules": ["\ud800"]}, {"own": "x"}, {"keep": "1"}, {"pod": 5}, {"netns": "\0"}],
    ids=str,
)  # fmt: skip
def test_a_file_that_is_wrong_is_no_pods(odd: dict[str, object]):
    """One of another sort ended the gate, for every pod of the node."""
    entry = guest("a.example").entry
    assert Entry.read(entry.text) == entry
    assert Entry.read(json.dumps({**json.loads(entry.text), **odd})) is None
