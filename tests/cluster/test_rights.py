"""What the manifest lets a member ask of the Kubernetes API: all that it asks, and nothing else; and what is said where one right is lacking."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from kube_api import KubeApi, node, pod, policy

from cni.cluster.config import KubernetesConfig
from cni.cluster.kubernetes import KubernetesStore
from cni.cluster.model import LAYER_2, Network, Node
from cni.cluster.pools import Pool
from cni.errors import CniError

MANIFEST = Path(__file__).parent.parent.parent / "deploy/agent-cni.yaml"
(ROLE,) = [item for item in yaml.safe_load_all(MANIFEST.read_text()) if item["kind"] == "ClusterRole"]
#: Verb, group and resource.
Right = tuple[str, str, str]
RIGHTS: set[Right] = {
    (verb, group, resource)
    for rule in ROLE["rules"]
    for group in rule["apiGroups"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
}
ME = Node("node-a", "machine-a", "192.0.2.1", "0a:00:00:00:00:01")
#: Hosts of a stretched network go by pods, as policies do.
FLAT = Network("pods", (Pool("10.10.0.0/16", "10.10.0.1", "10.10.255.254", ""),), 64, LAYER_2, 100)
SOON = 5.0


@pytest.fixture
def api() -> Iterator[KubeApi]:
    """A cluster whose administrators have every kind, on a cloud that waits for a network."""
    with KubeApi() as made:
        made.absent.clear()
        raw = node("node-a", "10.10.0.0/26")
        raw["status"]["conditions"].append({"type": "NetworkUnavailable", "status": "True"})
        made.put(raw)
        made.put(pod("web", "node-a", "10.10.0.2"))
        made.put(policy("shut"))
        yield made
        made.forbidden.clear()
        ENDS.set()
        for thread in LISTENING:
            while thread.is_alive():
                made.mark()
                thread.join(0.1)
        LISTENING.clear()
        ENDS.clear()


#: Who listens in a test, and that they are to end with it.
LISTENING, ENDS = list[threading.Thread](), threading.Event()


def live(api: KubeApi) -> list[str]:
    """All that a member does, as far as it may; what was said of what it may not."""
    said = list[str]()
    store = KubernetesStore(KubernetesConfig(api.url), "node-a", 15)
    try:
        session = store.join(ME, "boot:1")
        store.declare(session, FLAT)
        store.serves(session)
    except CniError as error:
        said.append(error.msg)

    def listen() -> None:
        changes = store.changes()
        try:
            for news in changes:
                said.extend(news.refused)
                if ENDS.is_set():
                    break
        except CniError as error:
            said.append(error.msg)
        changes.close()

    LISTENING.append(threading.Thread(target=listen, daemon=True))
    LISTENING[-1].start()
    return said


def asked(api: KubeApi) -> set[Right]:
    found = set[Right]()
    for verb, path in api.requests:
        _, root, *rest = urlsplit(path).path.split("/")
        group, rest = (rest[0], rest[2:]) if root == "apis" else ("", rest[1:])
        found.add((verb, group, "/".join((rest[0], *rest[2:]))))
    return found


def until(true: Callable[[], bool]) -> bool:
    """Whether something becomes true soon."""
    deadline = time.monotonic() + SOON
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_member_may_what_it_does_and_nothing_else(api: KubeApi):
    live(api)
    until(lambda: asked(api) >= RIGHTS)
    assert asked(api) == RIGHTS


@pytest.mark.parametrize("right", sorted(RIGHTS), ids=" ".join)
def test_a_right_that_is_lacking_is_named(api: KubeApi, right: Right):
    verb, group, resource = right
    api.forbidden = {(verb, resource)}
    said = live(api)
    named = f"does not let this host {verb} {resource}" + (f".{group}" if group else "")
    assert until(lambda: any(named in line for line in said)), said
