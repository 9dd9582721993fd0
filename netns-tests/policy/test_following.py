"""Policies that follow their folder by themselves, while a member runs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from follower import following
from lab import ROOT, Host, Lab, eventually, sh
from shop import DENY, FRIEND, WEB, Shop, holds, network_policy, opened, relabel, soon
from town import KINDS
from transactions import Transactions


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


def test_a_volume_that_is_unmounted_takes_nothing_with_it(lab: Lab, node: Host, tmp_path: Path):
    """What it was mounted on is there, and empty, and on the same device. An agent of the test run's has mounts of its own."""
    volume, place = tmp_path / "volume", tmp_path / "feed"
    volume.mkdir()
    place.mkdir()
    sh("mount", "--bind", volume, place)
    try:
        with opened(lab, node, KINDS["routed"], place) as shop:
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


def test_a_document_about_several_pods_is_one_transaction(lab: Lab, host: Host, tmp_path: Path):
    with opened(lab, host, KINDS["routed"], tmp_path) as shop:
        names = ["web", "two", "three", "four"]
        for name in names:
            shop.fed(name)
            shop.know(name)
        following_it = following(host.prefix(), ROOT / ".venv/bin/python3")
        with following_it, closing(Transactions(host)) as transactions:
            shop.put("two.json", network_policy("two", podSelector={"matchLabels": {"app": "two"}}, ingress=[FRIEND]))
            assert soon(shop, True, "friend", "two"), "what was said before is followed, too"
            transactions.times(1)
            shop.put("all.json", network_policy("all", podSelector={}, ingress=[FRIEND]))
            assert soon(shop, True, "friend", "four")
            assert len(transactions.times(1)) == 1
            assert all(shop.gets_in("friend", name) for name in names)
            assert not any(shop.gets_in("stranger", name) for name in names)
            (shop.folder / "all.json").unlink()
            assert soon(shop, False, "friend", "four")
            assert len(transactions.times(1)) == 1
            assert holds(shop)


def test_labels_and_what_the_rules_make_of_them_change_at_one_moment(lab: Lab, host: Host, tmp_path: Path):
    """A namespace goes from one team to another, and each lets nobody of its own in: between the two nobody gets in."""

    def team(name: str) -> dict[str, Any]:
        return {"namespaces": {"matchLabels": {"team": name}}}

    def tell(name: str, subject: dict[str, Any], priority: int, *teams: str) -> None:
        rule = {"action": "Deny", "from": [team(it) for it in teams]}
        spec = {"tier": "Admin", "priority": priority, "subject": subject, "ingress": [rule]}
        version = "policy.networking.k8s.io/v1beta1"
        said = {"apiVersion": version, "kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec}
        shop.put(f"{name}.json", said)

    def join(name: str) -> None:
        metadata = {"name": "shop", "labels": {"team": name}}
        shop.put("shop.json", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    with opened(lab, host, KINDS["bridged"], tmp_path) as shop:
        tell("red", team("red"), 1, "red")
        tell("blue", team("blue"), 2, "blue")
        # so that both sets stay in use
        tell("two", {"pods": {"podSelector": {"matchLabels": {"app": "two"}}}}, 0, "red", "blue")
        join("red")
        for name in ("web", "two"):
            shop.fed(name)
            shop.know(name)
        following_it = following(host.prefix(), ROOT / ".venv/bin/python3")
        with following_it, closing(Transactions(host)) as transactions:
            shop.put("deny.json", network_policy("deny", podSelector=WEB))
            shop.put("friend.json", network_policy("friend", podSelector=WEB, ingress=[{}]))
            transactions.times(2)
            for name in ("blue", "red"):
                join(name)
                assert len(transactions.times(1)) == 1
                assert not shop.gets_in("friend")
            shop.put("shop.json", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
            assert soon(shop, True, "friend")


#: The kernel refuses what has more than two rules of a chain: a transaction that is to be, and not one that shuts.
REFUSED = """
import errno, sys
from cni.errors import KernelRefused
from cni.kernel import nfnetlink
from cni.member.policies import Policies
from cni.state import DEFAULT_FOLDER
change, token = nfnetlink.change, sys.argv[1].encode()
def refusing(channel, requests, *more):
    of_it = [item for item in requests if nfnetlink.kind_of(item) == nfnetlink.RULE and token in item]
    if len(of_it) > 2:
        raise KernelRefused("no room", errno.ENOMEM)
    change(channel, requests, *more)
nfnetlink.change = refusing
policies = Policies(DEFAULT_FOLDER, lambda: None)
policies.look(compares=True)
"""


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_pod_that_cannot_be_held_is_shut_and_holds_nobody_up(
    lab: Lab, host: Host, tmp_path: Path, kind: dict[str, Any]
):
    with opened(lab, host, kind, tmp_path) as shop:
        for name in ("web", "two"):
            shop.fed(name)
            shop.know(name)
        assert holds(shop)
        shop.put("all.json", network_policy("all", podSelector={}, ingress=[FRIEND | {"ports": [{"port": 80}]}]))
        token = next(
            it for it in tokens(host) if any(f"{own} : jump in-{it}" in listed(host) for own in own_of(shop, "web"))
        )
        done = host.run(ROOT / ".venv/bin/python3", "-I", "-c", REFUSED, token, check=False)
        assert re.search(r"shop/web \(.*\) is shut: .*no room", done.stderr), done.stderr
        assert shop.gets_in("friend", "two"), "the other has what is said now"
        assert not shop.gets_in("friend"), "nobody knows any more who may"
        assert any("differs" in item["what"] or "policy" in item["what"] for item in shop.doctor())
        with following(host.prefix(), ROOT / ".venv/bin/python3"):
            assert soon(shop, True, "friend")
            assert holds(shop)
            assert shop.doctor() == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_pod_that_was_open_and_cannot_be_held_is_shut(lab: Lab, host: Host, tmp_path: Path, kind: dict[str, Any]):
    with opened(lab, host, kind, tmp_path) as shop:
        (shop.folder / "deny.json").unlink()
        (shop.folder / "friend.json").unlink()
        before = tokens(host)
        shop.fed("web")
        shop.know("web")
        shop.refresh()
        assert shop.gets_in("stranger")
        shop.put("all.json", network_policy("all", podSelector={}, ingress=[FRIEND | {"ports": [{"port": 80}]}]))
        (token,) = tokens(host) - before
        done = host.run(ROOT / ".venv/bin/python3", "-I", "-c", REFUSED, token, check=False)
        assert re.search(r"shop/web \(.*\) is shut: .*no room", done.stderr), done.stderr
        assert not shop.gets_in("stranger"), "nobody knows any more who may"
        assert not shop.gets_in("friend")


#: Somebody else's DEL retires what the policy is to use, for longer than anybody waits who comes again.
RETIRING = """
from contextlib import closing
from cni import retirement, together
from cni.member.policies import Policies
from cni.resources import key_of
from cni.state import DEFAULT_FOLDER, Store
real = retirement.wait_for_retirements
def waiting(store, record, resources):
    key = next(key_of(item, record.lasting) for item in resources if item.retires)
    with closing(Store.open(DEFAULT_FOLDER)) as other, other.lock.exclusive(*retirement._byte(key)):
        real(store, record, resources)
together.wait_for_retirements = waiting
policies = Policies(DEFAULT_FOLDER, lambda: None)
policies.look(compares=True)
together.wait_for_retirements = real
assert policies.owed < 1, policies.owed
print("again")
"""


def test_a_pod_whose_rules_somebody_is_at_comes_again_and_is_not_cut_off(lab: Lab, host: Host, tmp_path: Path):
    with opened(lab, host, KINDS["routed"], tmp_path) as shop:
        shop.fed("web")
        shop.know("web")
        shop.refresh()
        from_others = [FRIEND, {"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}]
        shop.put("friend.json", network_policy("friend", podSelector=WEB, ingress=from_others))
        done = host.run(ROOT / ".venv/bin/python3", "-I", "-c", RETIRING, check=False)
        assert done.stdout == "again\n", done.stderr
        assert holds(shop), done.stderr
        with following(host.prefix(), ROOT / ".venv/bin/python3"):
            assert eventually(lambda: shop.doctor() == [])
            assert holds(shop)


def tokens(host: Host) -> set[str]:
    """Those that chains are called after."""
    return set(re.findall(r"chain in-(\S+)", host.run("nft", "list", "chains").stdout))


def listed(host: Host) -> str:
    return str(host.run("nft", "list", "ruleset").stdout)


def own_of(shop: Shop, name: str) -> list[str]:
    return [item["address"].split("/")[0] for item in shop.results[name]["ips"]]
