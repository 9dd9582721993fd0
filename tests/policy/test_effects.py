"""What a change of documents touches, by a second opinion that looks at everything before and after it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cni.policy.compiler import allowances, tier
from cni.policy.effects import Effects, said
from cni.policy.known import KnownBook
from cni.policy.manifest import items_of
from cni.policy.model import Policy
from cni.policy.selection import Selection
from cni.state.documents import Document

FEED = "folder /feed"
SPACES, NAMES, VALUES = ["red", "blue"], ["a", "b", "c"], ["x", "y"]
#: Whose addresses attachments of this node have.
OWNERS = {"10.0.0.1": "red/a", "10.0.0.2": "blue/b", "10.0.0.9": ""}

labels = st.fixed_dictionaries({}, optional={"app": st.sampled_from(VALUES), "tier": st.sampled_from(VALUES)})
selectors = st.one_of(
    labels.map(lambda found: {"matchLabels": found}),
    st.sampled_from(VALUES).map(
        lambda value: {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [value]}]}
    ),
)
peers = st.one_of(
    selectors.map(lambda pods: {"podSelector": pods}),
    selectors.map(lambda spaces: {"namespaceSelector": spaces}),
    st.tuples(selectors, selectors).map(lambda both: {"podSelector": both[0], "namespaceSelector": both[1]}),
)
rules = st.fixed_dictionaries({}, optional={"from": st.lists(peers, max_size=2), "ports": st.just([{"port": "web"}])})
places = st.tuples(st.sampled_from(SPACES), st.sampled_from(NAMES))


def pod(
    place: tuple[str, str], labels: dict[str, str], address: int, port: int
) -> tuple[tuple[str, ...], dict[str, Any]]:
    ports = [{"name": "web", "containerPort": port}]
    metadata = {"namespace": place[0], "name": place[1], "labels": labels}
    return ("Pod", *place), {
        "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"ports": ports}]}, "status": {"podIP": f"10.0.0.{address}"},
    }  # fmt: skip


def policy(place: tuple[str, str], selector: Any, ingress: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    spec = {"podSelector": selector, "ingress": ingress}
    metadata = {"namespace": place[0], "name": place[1]}
    return ("NetworkPolicy", *place), {"kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def space(name: str, labels: dict[str, str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    return ("Namespace", "default", name), {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def cluster(name: str, tier: str, subject: Any, rule: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    spec = {"tier": tier, "priority": 5, "subject": subject, "egress": [rule]}
    return ("ClusterNetworkPolicy", "default", name), {
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def node(name: str, labels: dict[str, str], address: int) -> tuple[tuple[str, ...], dict[str, Any]]:
    status = {"addresses": [{"type": "InternalIP", "address": f"192.0.2.{address}"}]}
    return ("Node", "default", name), {"kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


pods_of = st.fixed_dictionaries({"podSelector": selectors}, optional={"namespaceSelector": selectors})
subjects = st.one_of(selectors.map(lambda spaces: {"namespaces": spaces}), pods_of.map(lambda pods: {"pods": pods}))
far = st.one_of(subjects, selectors.map(lambda nodes: {"nodes": nodes}))
clusterwide = st.fixed_dictionaries(
    {"action": st.sampled_from(["Accept", "Deny", "Pass"]), "to": st.lists(far, min_size=1, max_size=2)}
)

objects = st.one_of(
    st.builds(cluster, st.sampled_from(NAMES), st.sampled_from(["Admin", "Baseline"]), subjects, clusterwide),
    st.builds(node, st.sampled_from(NAMES), labels, st.integers(1, 3)),
    st.builds(pod, places, labels, st.integers(1, 6), st.sampled_from([80, 81])),
    st.builds(policy, places, selectors, st.lists(rules, max_size=2)),
    st.builds(space, st.sampled_from(SPACES), labels),
)
worlds = st.lists(objects, max_size=8).map(dict)


def document(key: tuple[str, ...], raw: dict[str, Any] | None, revision: int) -> Document:
    if raw is None:
        return Document(*key, "all", "", "", revision, None)
    (item,) = items_of("it", raw)
    return Document(*key, "all", "", "it", revision, json.dumps(item.value))


def policy_of(book: KnownBook, pod: str) -> Policy:
    ingress = allowances(book, "ingress", pod)
    return Policy(ingress=ingress, admin=tier(book, "admin", pod), baseline=tier(book, "baseline", pod))


def meant_of_all(book: KnownBook, selection: Selection) -> set[bytes]:
    """The members of a selection's set, by a look at every pod."""
    pods = [pod for pod in (*book.pods(), *book.unknown_pods()) if selection.selects(pod, book.labels_of)]
    return {element for pod in pods for element in selection.elements(pod, pod.addresses, 4)}


def everything(book: KnownBook) -> tuple[dict[str, Any], dict[Selection, Any]]:
    """What each pod is allowed, and what each selection means."""
    allowed = {pod: policy_of(book, pod) for pod in (f"{space}/{name}" for space in SPACES for name in NAMES)}
    meant = [selection for found in allowed.values() for rule in found.matches for selection in rule.selections]
    return allowed, {selection: selection.members(book, 4) for selection in dict.fromkeys(meant)}


@settings(max_examples=300, deadline=None)
@given(worlds, worlds)
def test_whatever_becomes_another_is_touched(was: dict[Any, Any], now: dict[Any, Any]):
    book = KnownBook(FEED, lambda: OWNERS).heard(1, [document(key, raw, 1) for key, raw in was.items()], ())
    allowed, meant = everything(book)
    changed = [document(key, now.get(key), 2) for key in {**was, **now} if was.get(key) != now.get(key)]
    before = said(book, changed)
    addresses = {selection: selection.members(book, 4) for selection in meant}
    book.heard(2, changed, ())
    effects = Effects(book, before, said(book, changed))
    later, _ = everything(book)
    for name, found in later.items():
        if found != allowed[name]:
            assert effects.concerns_rules(*name.split("/"))
            assert effects.namespaces is None or name.split("/")[0] in effects.namespaces
    everybody = [f"10.0.0.{number}" for number in range(1, 10)]
    for address in everybody:
        assert sorted(book.pods_at([address]), key=str) == sorted(
            (pod for pod in book.pods() if address in pod.addresses), key=str
        )
    for selection, members in addresses.items():
        assert selection.members(book, 4) == meant_of_all(book, selection)
        other = selection.members(book, 4) ^ members
        assert not other or effects.concerns(selection)
        assert {f"10.0.0.{element[3]}" for element in other} <= effects.addresses


def test_a_change_touches_nothing_else():
    world = dict([
        pod(("red", "a"), {"app": "x"}, 1, 80), pod(("red", "b"), {"app": "y"}, 3, 80), pod(("blue", "a"), {"app": "x"}, 4, 80),
        policy(("red", "one"), {"matchLabels": {"app": "x"}}, []), policy(("red", "two"), {"matchLabels": {"app": "y"}}, []),
    ])  # fmt: skip
    book = KnownBook(FEED, dict).heard(1, [document(key, raw, 1) for key, raw in world.items()], ())
    changed = [document(*policy(("red", "one"), {"matchLabels": {"app": "x"}}, [{}]), 2)]
    before = said(book, changed)
    book.heard(2, changed, ())
    effects = Effects(book, before, said(book, changed))
    touched = [place for place in (("red", "a"), ("red", "b"), ("blue", "a")) if effects.concerns_rules(*place)]
    assert (touched, effects.addresses) == ([("red", "a")], set())
