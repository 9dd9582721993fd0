"""The nft scripts of isolation, as a reviewer reads them; each is one transaction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cni.errors import ToolFailed
from cni.kernel import netfilter, nfnetlink, nftables
from cni.kernel.files import LockFile
from cni.resources import AntiSpoof, GuardTable, PodPolicy, PolicyTable, World
from cni.resources.policy import skeleton

ADDRESSES = ("10.1.0.5", "fd00:1::5")
RULES = ("in-10.1.0.5 ip saddr { 10.0.0.0-10.255.255.255 } return", "in-10.1.0.5 drop", "out-10.1.0.5 drop")
MAC = "0a:58:0a:01:00:05"


@pytest.fixture
def world(tmp_path) -> World:
    world = World(None, LockFile(tmp_path / "lock"))
    world.__dict__["host"] = type("NoLinks", (), {"link": lambda self, name: None})()
    return world


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr(netfilter, "nft", sent.append)
    return sent


@pytest.mark.parametrize("where", ["host", "pod"])
def test_the_shared_table(golden: Callable[..., None], where: str):
    golden(f"policy-table-{where}.nft", skeleton("/run/netns/p" if where == "pod" else ""))


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("pod", PodPolicy(ADDRESSES, RULES, closed=False, pod="shop/web")),
        ("pod-closed", PodPolicy(ADDRESSES, RULES, closed=True, pod="shop/web")),
        ("guard", AntiSpoof("veth0", MAC, (*ADDRESSES, "fe80::858:aff:fe01:5"))),
        ("guard-ipv4", AntiSpoof("veth0", MAC, ("10.1.0.5",))),
    ],
)
def test_what_is_made_and_taken_away(
    golden: Callable[..., None], world: World, scripts: list[str], name: str, resource: PodPolicy | AntiSpoof
):
    resource.ensure(world)
    resource.remove(world)
    golden(f"policy-{name}.nft", "# ensure\n{}# remove\n{}".format(*scripts))


@pytest.mark.parametrize(("lent", "order"), [(False, ["link", "guard"]), (True, ["guard"])])
def test_a_guard_goes_after_what_it_guards(monkeypatch: pytest.MonkeyPatch, world: World, lent: bool, order: list[str]):
    gone: list[str] = []
    link = type("Veth", (), {"kind": "veth"})
    there = {"link": lambda self, name: link, "delete_link": lambda self, link: gone.append("link")}
    world.__dict__["host"] = type("OneLink", (), there)()
    monkeypatch.setattr(netfilter, "nft", lambda script: gone.append("guard"))
    AntiSpoof("veth0", MAC, ADDRESSES, lent).remove(world)
    assert gone == order


@pytest.mark.parametrize("resource", [PolicyTable("/run/netns/p"), PodPolicy((), (), False, "", "/run/netns/p")])
def test_what_was_in_a_pod_that_is_gone_is_gone(world: World, scripts: list[str], resource: PolicyTable | PodPolicy):
    resource.remove(world)
    assert scripts == []


@pytest.mark.parametrize(
    ("resource", "own"),
    [(PolicyTable(), {"forward", "input", "output"}), (GuardTable(), set())],
    ids=["policy", "guard"],
)
def test_a_table_goes_only_when_nobody_has_a_chain_in_it(
    world: World, monkeypatch: pytest.MonkeyPatch, resource: PolicyTable | GuardTable, own: set[str]
):
    asked: list[tuple[str, str, set[str], set[str]]] = []
    monkeypatch.setattr(
        nfnetlink, "delete_idle", lambda *said: asked.append((said[0], said[1], set(said[2]), set(said[3])))
    )
    resource.remove(world)
    table = "agent_cni_policy" if own else "agent_cni"
    assert asked == [("inet" if own else "netdev", table, own, set())]


def test_a_rehearsal_that_fails_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nftables, "rehearse", lambda *_: nftables.Answer(False, "", "Error: syntax error\n^^^\n"))
    with pytest.raises(ToolFailed, match=r"^nft refused a rehearsal: Error: syntax error$"):
        netfilter.nft_rehearsed("nonsense", "table inet x")
