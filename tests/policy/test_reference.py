"""What judges the policies' tests, judged by hand: every case of the matrix says of some connections whether they may be.

What `agent-cni policy why` goes by is judged by it, on the same cases and generated ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from cases import NODE, OUTSIDE, PODS, PORTS, PROTOCOLS, Case, Expected, Probe, cases, placed
from generated import generated
from hypothesis import given, settings
from reference import End

from cni.policy.compiler import allowances, tier
from cni.policy.forecast import changes
from cni.policy.judgement import Other, judged
from cni.policy.model import Policy
from tests.fakes.book import ListedBook

#: Whether one end, a pod by name, lets a connection through in a direction, and why it thinks so.
Opinion = Callable[[str, str, End, Probe], tuple[bool, object]]

ADDRESSES = {
    key: {4: f"10.{3 if key.endswith('c') else 1}.0.{at}", 6: f"fd00:{3 if key.endswith('c') else 1}::{at}"}
    for at, key in enumerate(PODS, 2)
} | {
    NODE: {4: "192.0.2.11", 6: "fd00:2::11"},
    OUTSIDE: {4: "192.0.2.12", 6: "fd00:2::12"},
}


def test_the_cases_are_many():
    assert len(cases()) >= 100
    assert len({case.name for case in cases()}) == len(cases())


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_reference_says_what_its_writer_says(case: Case):
    said = Expected(placed([*case.world, *case.documents], ADDRESSES), ADDRESSES, case.far)
    facts = list(case.facts(ADDRESSES))
    assert facts
    assert [f"{probe}: {yes}" for probe, yes in facts if said.allows(probe) is not yes] == []


#: Enough of them that each is near to some, and far from others.
ASKED = ("x/a", "x/b", "x/c", "y/a", "y/b", "z/c", OUTSIDE)


WORLD = ("pods", "namespaces", "others")


def probes() -> Iterator[Probe]:
    for source, to in itertools.permutations(ASKED, 2):
        for address, protocol, port in itertools.product(ADDRESSES[to].values(), PROTOCOLS, PORTS):
            yield Probe(source, to, address, protocol, port)


def otherwise(case: Case, opinion: Callable[[ListedBook], Opinion]) -> list[str]:
    """Where an opinion on the documents is another than the reference's, of either end of any connection."""
    said = Expected(placed([*case.world, *case.documents], ADDRESSES), ADDRESSES, case.far)
    owners = {address: name for name, ends in ADDRESSES.items() if name in PODS for address in ends.values()}
    thinks, found = opinion(ListedBook(*said.objects, owners=owners)), []
    for probe in probes():
        source, to = said.ends(probe)
        for direction, me, peer in (("egress", source, to), ("ingress", to, source)):
            if me.pod and me.held:
                allowed, why = thinks(me.pod, direction, peer, probe)
                if allowed is not said.reference.passes(direction, me, peer, probe.protocol, probe.port):
                    found.append(f"{probe}, {direction}: {why}")
    return found


def judging(book: ListedBook) -> Opinion:
    """What `agent-cni policy why` goes by."""
    pods = {f"{pod.namespace}/{pod.name}": pod for pod in book.pods()}

    def thinks(me: str, direction: str, peer: End, probe: Probe) -> tuple[bool, object]:
        other = Other(peer.address, pods.get(peer.pod), probe.protocol.lower(), probe.port)
        judgement = judged(book, pods[me], direction, other)
        return judgement.allowed, judgement

    return thinks


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_judging_the_documents_says_the_same(case: Case):
    assert otherwise(case, judging) == []


@settings(max_examples=60, deadline=None)
@given(generated(clusterwide=True))
def test_judging_generated_documents_says_the_same(case: Case):
    assert otherwise(case, judging) == []


def differing(before: Case, after: Case) -> tuple[set[Probe], set[Probe]]:
    """The connections between pods that a change of documents changes: by the reference, and as they are forecast."""
    worlds = [placed([*before.world, *case.documents], ADDRESSES) for case in (before, after)]
    said = [Expected(world, ADDRESSES) for world in worlds]
    books = [ListedBook(*world) for world in worlds]
    asked = [
        Probe(source, to, address, protocol, port)
        for source, to in itertools.permutations(PODS, 2)
        for address, protocol, port in itertools.product(ADDRESSES[to].values(), PROTOCOLS, PORTS)
    ]
    forecast = {
        Probe(source, to, ADDRESSES[to][6 if ":" in change.target.address else 4], change.protocol.upper(), port)
        for change in changes(*books, books[0].pods())
        for source, to in itertools.product(change.source.pods, change.target.pods)
        for port in PORTS
        if source != to and change.first <= port <= change.last
    }
    return {it for it in asked if said[0].allows(it) is not said[1].allows(it)}, forecast


@settings(max_examples=8, deadline=None)
@given(generated(clusterwide=True), generated(clusterwide=True))
def test_a_forecast_is_what_changes(before: Case, after: Case):
    real, forecast = differing(before, Case("after", {**after.said, **{it: before.said[it] for it in WORLD}}))
    assert [str(it) for it in sorted(real ^ forecast)] == []


def test_a_forecast_of_what_is_written_is_what_changes():
    alone = [it for it in cases() if not set(WORLD) & set(it.said)]
    for before, after in itertools.pairwise(alone[::7]):
        real, forecast = differing(before, after)
        assert [str(it) for it in sorted(real ^ forecast)] == [], (before.name, after.name)


def compiled(book: ListedBook, pod: str) -> Policy:
    """What the documents become for one pod."""
    admin, baseline = (tier(book, name, pod) for name in ("admin", "baseline"))
    ingress, egress = (allowances(book, direction, pod) for direction in ("ingress", "egress"))
    return Policy(ingress=ingress, egress=egress, admin=admin, baseline=baseline)


def becoming(book: ListedBook) -> Opinion:
    """What a pod is held to."""
    policies = {name: compiled(book, name) for name in (f"{pod.namespace}/{pod.name}" for pod in book.pods())}

    def thinks(me: str, direction: str, peer: End, probe: Probe) -> tuple[bool, object]:
        allowed = policies[me].allows(direction, peer.address, probe.protocol.lower(), probe.port, book)
        return allowed, allowed

    return thinks


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_the_documents_become_says_the_same(case: Case):
    assert otherwise(case, becoming) == []


@settings(max_examples=60, deadline=None)
@given(generated(clusterwide=True))
def test_what_generated_documents_become_says_the_same(case: Case):
    assert otherwise(case, becoming) == []
