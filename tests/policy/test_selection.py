"""Which pods a rule means: one spelling for equal selections, and what its sets hold."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

from cni.policy.book import Owners
from cni.policy.labels import EVERYTHING, Labels, Requirement, Selector
from cni.policy.objects import NamedPort, Pod
from cni.policy.selection import Selection

WEB, NEAR = Requirement("app", "In", frozenset(["web", "api"])), Requirement("zone", "Exists")
HTTP = NamedPort("tcp", "http")
FEED = "folder /policies"


class Shelf:
    """A book of some pods, whose namespaces have `team` as a label."""

    feed = FEED

    def __init__(self, *pods: Pod) -> None:
        self._pods = pods

    def pods(self) -> tuple[Pod, ...]:
        return self._pods

    def namespaces(self) -> set[str]:
        return {pod.namespace for pod in self._pods}

    def pods_of(self, namespace: str, like: Selector = EVERYTHING) -> list[Pod]:
        return [pod for pod in self._pods if pod.namespace == namespace]

    def labels_of(self, namespace: str) -> Labels:
        return Labels({"team": namespace})


def pod(place: str, *addresses: str, ports: tuple[tuple[NamedPort, int], ...] = (), **labels: str) -> Pod:
    namespace, name = place.split("/")
    return Pod(namespace, name, Labels(labels), addresses, ports)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(FEED, "shop"),
        Selection(FEED, "shop", None, Selector((WEB, NEAR))),
        Selection(FEED, "", Selector(), Selector((WEB,))),
        Selection(FEED, "", Selector((NEAR,)), Selector(), HTTP),
    ],
    ids=lambda item: item.text,
)
def test_what_a_record_keeps_is_read_back(selection: Selection):
    assert Selection.read(selection.text) == selection


def test_the_order_in_which_somebody_wrote_a_selector_says_nothing():
    one, other = (Selection(FEED, "shop", None, Selector(order)) for order in ((WEB, NEAR), (NEAR, WEB, NEAR)))
    assert one.text == other.text


def test_what_differs_is_spelled_differently():
    every = [
        Selection(FEED, "shop"),
        Selection(f"{FEED}2", "shop"),
        Selection(FEED, "ops"),
        Selection(FEED, "", Selector()),
        Selection(FEED, "shop", None, Selector((NEAR,))),
        Selection(FEED, "shop", None, Selector(), HTTP),
        Selection(FEED, "shop", None, Selector(), NamedPort("udp", "http")),
    ]
    assert len({item.text for item in every}) == len(every)


def test_it_is_spelled_alike_in_every_process():
    said = (
        "from cni.policy.labels import EVERYTHING, Requirement, Selector; from cni.policy.selection import Selection;"
        "print(Selection('f', 'n', pods=Selector((Requirement('a', 'In', frozenset('xyz')),))).text)"
    )
    run = partial(subprocess.run, [sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert len({run(env={"PYTHONHASHSEED": seed}).stdout for seed in "12345"}) == 1


def test_members_are_the_addresses_of_one_family_of_pods_that_are_meant():
    book = Shelf(
        pod("shop/web", "10.1.0.5", "fd00::5", app="web"),
        pod("shop/db", "10.1.0.6", app="db"),
        pod("ops/web", "10.1.0.7", app="web"),
        pod("shop/api", app="api"),
    )
    one = Selection(FEED, "shop", None, Selector((WEB,)))
    assert one.members(book, 4) == {bytes([10, 1, 0, 5])}
    assert one.members(book, 6) == {bytes([0xFD, *[0] * 14, 5])}
    everywhere = Selection(FEED, "", Selector((Requirement("team", "Exists"),)), Selector((WEB,)))
    assert everywhere.members(book, 4) == {bytes([10, 1, 0, 5]), bytes([10, 1, 0, 7])}


def test_a_named_port_is_in_each_pod_what_it_is_there():
    book = Shelf(
        pod("shop/a", "10.1.0.5", ports=((HTTP, 80), (NamedPort("udp", "http"), 81))),
        pod("shop/b", "10.1.0.6", ports=((HTTP, 8080), (HTTP, 8081))),
        pod("shop/c", "10.1.0.7"),
    )
    found = Selection(FEED, "shop", port=HTTP).members(book, 4)
    assert found == {
        bytes([10, 1, 0, 5, 6, 0, 0, 0, 0, 80, 0, 0]),
        bytes([10, 1, 0, 6, 6, 0, 0, 0, 0x1F, 0x90, 0, 0]),
        bytes([10, 1, 0, 6, 6, 0, 0, 0, 0x1F, 0x91, 0, 0]),
    }


def test_an_address_is_whose_attachment_has_it_whatever_an_object_says():
    pods = [
        pod("shop/a", "10.1.0.5"),
        pod("shop/b", "10.1.0.6"),
        pod("shop/c"),
        Pod("shop", "done", Labels({}), (), apart=True),
        pod("shop/far", "10.9.0.1"),
        pod("shop/stale", "10.1.0.9"),
    ]
    owners = {
        "10.1.0.5": "shop/b",
        "10.1.0.6": "shop/b",
        "10.1.0.7": "shop/c",
        "10.1.0.8": "shop/done",
        "10.1.0.9": "",
    }
    found = {item.name: item.addresses for item in Owners(owners, lambda *_: ()).place(pods)}
    assert found == {
        "a": (),
        "b": ("10.1.0.5", "10.1.0.6"),
        "c": ("10.1.0.7",),
        "done": (),
        "far": ("10.9.0.1",),
        "stale": (),
    }
