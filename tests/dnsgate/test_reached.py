from __future__ import annotations

from cni.dnsgate.guest import Guest, labels_of
from cni.dnsgate.reached import Reached
from cni.kernel.gatedir import Entry
from cni.kernel.ruleset import Change
from cni.naming import POLICY_TABLE, domain_set

TOKEN = "0123456789a"
ONE, TWO, SIX = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]), bytes(15) + b"\7"
COM, ORG = labels_of("api.example.com"), labels_of("a.example.org")


def guest(*rules: str, keep: int = 60) -> Guest:
    return Guest(Entry(TOKEN, "default/agent", ("10.1.0.2", "fd00:1::2"), "veth0", rules, keep=keep))


def of(name: str, family: int = 4) -> str:
    return domain_set(TOKEN, name.split(), family)


def told(pod: Reached, address: bytes, name: tuple[bytes, ...], ttl: int, now: float) -> dict[str, set[bytes]]:
    pod.admit(address, name, ttl, now)
    lacking = pod.additions([address])
    pod.added(lacking)
    return lacking


def test_an_answer_is_in_the_sets_of_the_rules_that_mean_its_name_once():
    pod = Reached(guest("api.example.com", "api.example.com *.example.org"))
    assert told(pod, ONE, COM, 5, 0) == {of("api.example.com"): {ONE}, of("api.example.com *.example.org"): {ONE}}
    assert told(pod, ONE, COM, 5, 1) == {}
    assert told(pod, ONE, ORG, 5, 1) == {}
    assert told(pod, SIX, ORG, 5, 1) == {of("api.example.com *.example.org", 6): {SIX}}
    assert [*pod.changes()] == []


def test_it_is_kept_for_its_time_or_the_least_time_whichever_is_more():
    pod = Reached(guest("api.example.com"))
    told(pod, ONE, COM, 5, 0)
    told(pod, TWO, COM, 300, 0)
    assert [pod.due(now) for now in (59, 60, 299, 300)] == [set(), {ONE}, {ONE}, {ONE, TWO}]
    pod.forget(60)
    assert [*pod.changes()] == [Change(f"{POLICY_TABLE} {of('api.example.com')}", frozenset(), frozenset({ONE}))]
    pod.changed()
    assert pod.addresses == {TWO}


def test_a_later_answer_and_a_living_connection_keep_it():
    pod = Reached(guest("api.example.com"))
    told(pod, ONE, COM, 5, 0)
    told(pod, ONE, COM, 5, 50)
    assert not pod.due(60)
    pod.extend({ONE}, 110)
    assert not pod.due(169)
    assert pod.due(170) == {ONE}


def test_a_shorter_time_does_not_shorten_what_was_said():
    pod = Reached(guest("api.example.com"))
    told(pod, ONE, COM, 600, 0)
    told(pod, ONE, COM, 1, 1)
    assert not pod.due(599)


def test_of_an_address_with_two_names_each_goes_by_itself():
    pod = Reached(guest("api.example.com", "*.example.org"))
    told(pod, ONE, COM, 60, 0)
    told(pod, ONE, ORG, 600, 0)
    pod.forget(60)
    assert [*pod.changes()] == [Change(f"{POLICY_TABLE} {of('api.example.com')}", frozenset(), frozenset({ONE}))]


def test_with_other_names_what_still_holds_is_in_the_new_sets_at_once():
    pod = Reached(guest("api.example.com"))
    told(pod, ONE, COM, 60, 0)
    now = guest("api.example.com b.example.net", "*.example.org")
    pod.renew(now, {name: set() for name in now.every_set}, 10)
    assert [*pod.changes()] == [
        Change(f"{POLICY_TABLE} {of('api.example.com b.example.net')}", frozenset({ONE}), frozenset())
    ]


def test_what_a_set_had_before_stays_for_the_least_time_but_not_in_others():
    now = guest("api.example.com", keep=30)
    pod = Reached(now)
    pod.renew(now, {name: {ONE} if name == of("api.example.com") else set() for name in now.every_set}, 100)
    assert [*pod.changes()] == []
    assert not pod.due(129)
    pod.forget(130)
    assert [change.gone for change in pod.changes()] == [{ONE}]


def test_elements_that_somebody_took_away_are_put_back():
    pod = Reached(guest("api.example.com"))
    told(pod, ONE, COM, 60, 0)
    pod.renew(pod.guest, {name: set() for name in pod.guest.every_set}, 1)
    assert [change.added for change in pod.changes()] == [{ONE}]


def test_there_is_an_end_to_how_many_a_pod_has():
    pod = Reached(guest("*.example.org"))
    for number in range(4096):
        assert not pod.is_full(number.to_bytes(4, "big"))
        pod.admit(number.to_bytes(4, "big"), ORG, 60, 0)
    assert pod.is_full(bytes([255] * 4))
    assert not pod.is_full(bytes(4))


def test_an_address_is_known_by_so_many_names_and_kept_as_long_as_any():
    pod = Reached(guest("*.example.com", "api.example.org"))
    told(pod, ONE, labels_of("api.example.org"), 60, 0)
    for number in range(2000):
        told(pod, ONE, labels_of(f"n{number}.example.com"), 1000 if number == 7 else 60 + number % 9, 0)
    assert len(pod._until[ONE]) <= 17
    pod.forget(70)
    assert [*pod.changes()] == [Change(f"{POLICY_TABLE} {of('api.example.org')}", frozenset(), frozenset({ONE}))]
    pod.changed()
    pod.forget(1000)
    assert not pod.addresses
