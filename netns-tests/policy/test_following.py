"""Policies that follow their folder by themselves, while a member runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from follower import following
from lab import ROOT, Host, Lab, eventually, sh
from shop import DENY, FRIEND, WEB, Shop, holds, network_policy, opened
from town import KINDS


@pytest.fixture(params=KINDS)
def followed(request: pytest.FixtureRequest, lab: Lab, host: Host, tmp_path: Path) -> Iterator[Shop]:
    with (
        opened(lab, host, KINDS[request.param], tmp_path) as shop,
        following(host.prefix(), ROOT / ".venv/bin/python3"),
    ):
        yield shop


def test_a_change_of_the_folder_is_in_force_at_once(followed: Shop):
    followed.fed("web")
    assert holds(followed)
    from_stranger = {"from": [{"podSelector": {"matchLabels": {"app": "stranger"}}}]}
    followed.put("friend.json", network_policy("friend", podSelector=WEB, ingress=[from_stranger]))
    assert soon(followed, True, "stranger")
    assert not followed.gets_in("friend")
    (followed.folder / "friend.json").unlink()
    assert soon(followed, False, "stranger")
    followed.put("friend.json", network_policy("friend", podSelector=WEB, ingress=[FRIEND]))
    assert soon(followed, True, "friend")
    assert holds(followed)
    assert followed.doctor() == []
    assert "changed 0 of 1" in followed.refresh()[1]


def test_a_pod_that_changes_its_labels_is_another_peer(followed: Shop):
    followed.fed("web")
    assert holds(followed)
    relabel(followed, friend="stranger", stranger="friend")
    assert soon(followed, True, "stranger")
    assert not followed.gets_in("friend")
    followed.known = [item for item in followed.known if item["metadata"]["name"] != "stranger"]
    relabel(followed)
    assert soon(followed, False, "stranger")
    assert "changed 0 of 1" in followed.refresh()[1]
    assert followed.doctor() == []


def test_a_pod_is_opened_when_it_is_known(followed: Shop):
    followed.known = [item for item in followed.known if item["metadata"]["name"] != "web"]
    relabel(followed)
    followed.fed("web")
    assert not followed.gets_in("friend")
    followed.know("web")
    assert soon(followed, True, "friend")
    assert holds(followed)
    (followed.folder / "deny.json").unlink()
    (followed.folder / "friend.json").unlink()
    assert soon(followed, True, "stranger")
    followed.put("deny.json", DENY)
    assert soon(followed, False, "stranger")


def test_what_cannot_be_read_changes_nothing(followed: Shop):
    followed.fed("web")
    followed.put("friend.json", "{")
    followed.put("deny.json", network_policy("deny", podSelector={}, policyTypes=["Ingress", "Egress"]))
    assert soon(followed, False, "web", "friend"), "what can be read is"
    assert holds(followed)


def test_a_folder_in_whose_place_is_an_empty_one_takes_nothing_with_it(followed: Shop, tmp_path: Path):
    feed, away = followed.folder / "feed", tmp_path / "away"
    feed.mkdir()
    followed.folder = feed
    for name in ("friend", "stranger", "web"):
        followed.know(name)
    followed.put("deny.json", DENY)
    followed.put("friend.json", network_policy("friend", podSelector=WEB, ingress=[FRIEND]))
    followed.fed("web")
    assert holds(followed)
    feed.rename(away)
    feed.mkdir()
    assert eventually(lambda: any("has no file" in item["what"] for item in followed.doctor()))
    assert holds(followed)
    feed.rmdir()
    away.rename(feed)
    (feed / "friend.json").unlink()
    assert soon(followed, False, "friend")
    assert followed.doctor() == []


def test_a_volume_that_is_unmounted_takes_nothing_with_it(lab: Lab, host: Host, tmp_path: Path):
    """What it was mounted on is there, and empty, and on the same device."""
    volume, place = tmp_path / "volume", tmp_path / "feed"
    volume.mkdir()
    place.mkdir()
    sh("mount", "--bind", volume, place)
    try:
        with opened(lab, host, KINDS["routed"], place) as shop:
            shop.fed("web")
            assert holds(shop)
            sh("umount", place)
            code, _, said = shop.refresh()
            assert (code, "is another folder" in said) == (1, True)
            assert holds(shop)
            shop.fed("late")
            assert not shop.gets_in("friend", "late"), "who comes is held by what the volume said"
            sh("mount", "--bind", volume, place)
            (volume / "friend.json").unlink()
            assert shop.refresh()[0] == 0
            assert not shop.gets_in("friend")
    finally:
        sh("umount", place, check=False)


KILLED = """
import os
from cni import engine
from cni.member.policies import Policies
from cni.state import DEFAULT_FOLDER
engine.apply = lambda *_: os.kill(os.getpid(), 9)
policies = Policies(DEFAULT_FOLDER, lambda: None)
policies.look()
policies.look(compares=True)
"""


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_a_member_that_was_killed_has_begun_the_next_one_ends(
    lab: Lab, host: Host, tmp_path: Path, kind: dict[str, Any]
):
    with opened(lab, host, kind, tmp_path) as shop:
        shop.fed("web")
        elsewhere = FRIEND | {"ports": [{"port": 81}]}  # the same sets: the record says all that there is to be
        shop.put("friend.json", network_policy("friend", podSelector=WEB, ingress=[elsewhere]))
        killed = host.run(ROOT / ".venv/bin/python3", "-I", "-c", KILLED, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert holds(shop), "what was enforced is"
        with following(host.prefix(), ROOT / ".venv/bin/python3"):
            assert soon(shop, False, "friend")
            assert shop.gets_in("friend", port=81)
            assert shop.doctor() == []


def soon(shop: Shop, gets_in: bool, *who: str) -> bool:
    """Whether a pod gets in soon, or does not any more; in between one family may be ahead of what is asked of the other."""

    def seen() -> bool:
        with suppress(AssertionError):
            return shop.gets_in(*who) is gets_in
        return False

    return bool(eventually(seen))


def relabel(shop: Shop, **labels: str) -> None:
    """Give pods other labels, at once."""
    known: list[dict[str, Any]] = []
    for item in shop.known:
        name = item["metadata"]["name"]
        app = labels.get(name, item["metadata"]["labels"]["app"])
        known.append(item | {"metadata": item["metadata"] | {"labels": {"app": app}}})
    shop.known = known
    shop.put("pods.json", {"kind": "PodList", "apiVersion": "v1", "items": known})
