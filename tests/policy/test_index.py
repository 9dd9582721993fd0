"""Pods found by what they are, while they come, change and go: all that a selector may mean, and nobody who is not there."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from cni.policy.index import PodIndex
from cni.policy.labels import Labels, Requirement, Selector
from cni.policy.objects import Pod

SPACES, NAMES, VALUES = ["red", "blue"], ["a", "b", "c"], ["x", "y"]

labels = st.builds(
    Labels, st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(VALUES), max_size=2), st.booleans()
)
addresses = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), max_size=3).map(tuple)
pods = st.builds(Pod, st.sampled_from(SPACES), st.sampled_from(NAMES), labels, addresses)
gone = st.tuples(st.sampled_from(SPACES), st.sampled_from(NAMES))
requirements = st.builds(
    Requirement,
    st.sampled_from(["app", "tier"]),
    st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    st.frozensets(st.sampled_from(VALUES), min_size=1),
)
selectors = st.builds(Selector, st.lists(requirements, max_size=3).map(tuple))


@given(st.lists(pods, max_size=4), st.lists(st.one_of(pods, gone), max_size=8), selectors)
def test_what_is_found_is_what_is_there(first: list[Pod], then: list[Pod | tuple[str, str]], selector: Selector):
    there = {(pod.namespace, pod.name): pod for pod in first}
    index = PodIndex(there.values())
    for item in then:
        if isinstance(item, Pod):
            there[item.namespace, item.name] = item
            index.put(item)
        else:
            there.pop(item, None)
            index.drop(*item)
    assert set(index.namespaces()) == {space for space, _ in there}
    for space in SPACES:
        own = [pod for pod in there.values() if pod.namespace == space]
        found = index.like(space, selector)
        assert all(pod in own for pod in found)
        assert len(found) == len({pod.name for pod in found})
        assert all(pod in found for pod in own if selector.selects(pod.labels) is not False)
    for address in ("10.0.0.1", "10.0.0.2", "fd00::1"):
        assert set(index.saying(address)) == {place for place, pod in there.items() if address in pod.addresses}


def test_few_others_are_looked_at():
    many = [Pod("red", f"p{number}", Labels({"app": f"a{number}"})) for number in range(50)]
    wanted = Requirement("app", "In", frozenset(["a7", "a8"]))
    exists = Requirement("app", "Exists")
    assert {pod.name for pod in PodIndex(many).like("red", Selector((exists, wanted)))} == {"p7", "p8"}


def test_of_who_went_nothing_is_kept():
    """Pods of jobs have labels, and namespaces of tests have names, that nobody has again."""
    index = PodIndex([])

    def come_and_go(first: int) -> None:
        for number in range(first, first + 2000):
            index.put(Pod(f"run{number}", "p", Labels({"controller-uid": f"{number:036}"}), (f"10.0.{number >> 8}.1",)))
            index.drop(f"run{number}", "p")

    come_and_go(0)
    tracemalloc.start()
    come_and_go(2000)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 50_000
