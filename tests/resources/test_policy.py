"""The nft scripts of isolation, as a reviewer reads them; each is one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cni.errors import Conflict, ToolFailed
from cni.kernel import netfilter, nfnetlink, nftables
from cni.kernel.files import LockFile
from cni.policy.gates import entering, leaving
from cni.resources import AntiSpoof, Gate, GuardTable, PodPolicy, PolicyTable, PortOpening, World, decoded
from cni.resources.policy_table import TABLE, skeleton
from cni.resources.verdicts import naming, verdicts

ADDRESSES = ("10.1.0.5", "fd00:1::5")
RULES = ("in-TOKEN ip saddr { 10.0.0.0-10.255.255.255 } return", "in-TOKEN drop", "out-TOKEN drop")
MAC = "0a:58:0a:01:00:05"
OLD = {
    "kind": "PodPolicy", "addresses": ["10.1.0.5"], "rules": ["in-10.1.0.5 drop", "out-10.1.0.5 drop"],
    "closed": False, "pod": "shop/web", "netns": "", "link": "",
}  # fmt: skip


class Nft:
    """The kernel's nft as far as these resources ask: maps with entries, and chains."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[str, str]] = {}
        self.chains: set[str] = set()
        self.sent: list[str] = []

    def send(self, script: str) -> None:
        self.sent.append(script)

    def send_if_there(self, script: str) -> bool:
        gone = [line.split()[-1] for line in script.splitlines() if line.startswith("delete chain ")]
        if not set(gone) <= self.chains:
            return False
        self.sent.append(script)
        return True

    def elements(self, places: list[tuple[str, str]]) -> str:
        found = [(place.split()[-1], key, self.maps.get(place.split()[-1], {}).get(key)) for place, key in places]
        if not all(chain for _, _, chain in found):
            return ""
        return "".join(f"map {name} {{\nelements = {{ {key} : jump {chain} }}\n}}\n" for name, key, chain in found)

    def list(self, what: str) -> str:
        kind, *_, name = what.split()
        if kind == "map" and name in self.maps:
            entries = ", ".join(f"{key} : jump {chain}" for key, chain in self.maps[name].items())
            return f"table {TABLE} {{\n\tmap {name} {{\n\t\telements = {{ {entries} }}\n\t}}\n}}\n"
        if kind == "table":
            return "".join(f"\tchain {chain} {{\n\t}}\n" for chain in self.chains)
        return ""


@pytest.fixture
def world(tmp_path) -> World:
    world = World(None, LockFile(tmp_path / "lock"))
    links = {"link": lambda self, name: None, "vxlan_ports": lambda self: {4789, 8472}}
    world.__dict__["host"] = type("NoLinks", (), links)()
    return world


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Nft:
    made = Nft()
    monkeypatch.setattr(netfilter, "nft", made.send)
    monkeypatch.setattr(netfilter, "nft_if_there", made.send_if_there)
    monkeypatch.setattr(netfilter, "nft_elements", made.elements)
    monkeypatch.setattr(netfilter, "nft_list", made.list)
    return made


@pytest.mark.parametrize("where", ["host", "pod"])
def test_the_shared_table(golden: Callable[..., None], where: str):
    golden(f"policy-table-{where}.nft", skeleton("/run/netns/p" if where == "pod" else ""))


WHOLE = (*ADDRESSES, "fe80::858:aff:fe01:5")
MADE: dict[str, tuple[PodPolicy | Gate | AntiSpoof, list[str]]] = {
    "pod": (PodPolicy(ADDRESSES, RULES, False, "shop/web", token="TOKEN"), ["in-TOKEN", "out-TOKEN"]),
    "pod-closed": (PodPolicy(ADDRESSES, RULES, True, "shop/web", token="TOKEN"), ["in-TOKEN", "out-TOKEN"]),
    "gate-out": (Gate("veth0", "ingress", "TOKEN", leaving(WHOLE, MAC), "eth0", MAC), ["from-TOKEN"]),
    "gate-out-ipv4": (Gate("veth0", "ingress", "TOKEN", leaving(["10.1.0.5"], MAC), "eth0", MAC), ["from-TOKEN"]),
    "gate-out-any-mac": (Gate("veth0", "ingress", "TOKEN", leaving(WHOLE, ""), "eth0"), ["from-TOKEN"]),
    "gate-in": (Gate("veth0", "egress", "TOKEN", entering(WHOLE, [], ()), "eth0"), ["into-TOKEN"]),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_and_taken_away(golden: Callable[..., None], world: World, kernel: Nft, name: str):
    resource, chains = MADE[name]
    resource.ensure(world)
    kernel.chains = set(chains)
    for map_, key, chain in resource._verdicts() if isinstance(resource, PodPolicy) else ():
        kernel.maps.setdefault(map_, {})[key] = chain
    resource.remove(world)
    golden(f"policy-{name}.nft", "# ensure\n{}# remove\n{}".format(*kernel.sent))


@pytest.mark.parametrize(
    "resource",
    [
        PodPolicy(ADDRESSES, RULES, True, "", token="TOKEN"),
        PodPolicy((), (), False, "", token="TOKEN"),
        *decoded([OLD]),
        Gate("veth0", "egress", "TOKEN", ()),
        AntiSpoof("veth0", MAC, ADDRESSES),
    ],
    ids=lambda item: type(item).__name__,
)
def test_what_is_gone_already_is_removed_and_nothing_is_made(world: World, kernel: Nft, resource: Any):
    resource.remove(world)
    assert "".join(kernel.sent).strip() == ""


@pytest.mark.parametrize("addresses", [ADDRESSES, ()], ids=["recorded", "only its identity"])
def test_an_address_that_leads_to_another_pod_by_now_stays_that_pods(
    world: World, kernel: Nft, addresses: tuple[str, ...]
):
    kernel.maps = {"in4": {"10.1.0.5": "in-OTHER"}, "out4": {"10.1.0.5": "out-TOKEN"}}
    kernel.chains = {"in-TOKEN", "out-TOKEN", "in-OTHER"}
    PodPolicy(addresses, (), False, "", token="TOKEN").remove(world)
    assert kernel.sent == [
        f"delete element {TABLE} out4 {{ 10.1.0.5 }}\ndelete chain {TABLE} in-TOKEN\ndelete chain {TABLE} out-TOKEN\n"
    ]


def test_what_an_earlier_release_made_is_found_under_its_names(world: World, kernel: Nft):
    kernel.maps = {"in4": {"10.1.0.5": "in-10.1.0.5"}, "out4": {"10.1.0.5": "out-10.1.0.5"}}
    kernel.chains = {"in-10.1.0.5", "out-10.1.0.5"}
    decoded([OLD])[0].remove(world)
    assert kernel.sent[0].splitlines() == [
        f"delete element {TABLE} out4 {{ 10.1.0.5 }}",
        f"delete element {TABLE} in4 {{ 10.1.0.5 }}",
        f"delete chain {TABLE} in-10.1.0.5",
        f"delete chain {TABLE} out-10.1.0.5",
    ]


@pytest.mark.parametrize("alive", [False, True], ids=["gone", "there"])
def test_entries_of_a_pod_without_a_record_give_way_if_it_is_gone(
    world: World, kernel: Nft, monkeypatch: pytest.MonkeyPatch, alive: bool
):
    kernel.maps = {"in4": {"10.1.0.5": "in-DEAD", "10.1.0.6": "in-DEAD", "10.1.0.9": "in-OTHER"}}
    kernel.chains = {"in-DEAD", "out-DEAD", "in-OTHER"}
    listed = kernel.list
    gate = 'chain from-DEAD {\n type filter hook ingress device "veth9" priority -500;'
    monkeypatch.setattr(netfilter, "nft_list", lambda what: gate if what.endswith(" from-DEAD") else listed(what))
    link = type("Link", (), {})() if alive else None
    world.__dict__["host"] = type("Links", (), {"link": lambda self, name: link})()
    policy = PodPolicy(("10.1.0.5",), (), False, "", token="TOKEN")
    if alive:
        with pytest.raises(Conflict, match="pod behind veth9"):
            policy.in_the_way(world)
        return
    assert policy.in_the_way(world).splitlines() == [
        f"delete element {TABLE} in4 {{ 10.1.0.5 }}",
        f"delete element {TABLE} in4 {{ 10.1.0.6 }}",
        f"delete chain {TABLE} in-DEAD",
        f"delete chain {TABLE} out-DEAD",
    ]


def test_a_key_that_is_taken_is_asked_about_and_freed_in_the_same_transaction(
    world: World, kernel: Nft, monkeypatch: pytest.MonkeyPatch
):
    kernel.maps, kernel.chains = {"in4": {"10.1.0.5": "in-DEAD"}}, {"in-DEAD"}
    sent: list[str] = []

    def refuse_once(script: str) -> None:
        sent.append(script)
        if len(sent) == 1:
            raise ToolFailed("nft refused a transaction: Error: Could not process rule: File exists")

    monkeypatch.setattr(netfilter, "nft", refuse_once)
    PodPolicy(("10.1.0.5",), ("in-TOKEN drop",), False, "", token="TOKEN").ensure(world)
    assert sent[1] == f"delete element {TABLE} in4 {{ 10.1.0.5 }}\ndelete chain {TABLE} in-DEAD\n{sent[0]}"


def test_guards_know_the_ports_of_every_vxlan_device(world: World, kernel: Nft):
    GuardTable(edition=2).ensure(world)
    assert [line.split("{ ")[1] for line in kernel.sent[0].splitlines() if "element" in line] == ["4789 }", "8472 }"]


@pytest.mark.parametrize(("lent", "order"), [(False, ["link", "guard"]), (True, ["guard"])])
def test_a_guard_goes_after_what_it_guards(monkeypatch: pytest.MonkeyPatch, world: World, lent: bool, order: list[str]):
    gone: list[str] = []
    link = type("Veth", (), {"kind": "veth", "bridge": 0})
    there = {"link": lambda self, name: link, "delete_link": lambda self, link: gone.append("link")}
    world.__dict__["host"] = type("OneLink", (), there)()
    monkeypatch.setattr(netfilter, "nft_if_there", lambda script: gone.append("guard"))
    AntiSpoof("veth0", MAC, ADDRESSES, lent).remove(world)
    for item in (PortOpening("veth0", on_bridge=False, lent=lent), Gate("veth0", "ingress", "TOKEN", ())):
        item.remove(world)
    assert gone == order * 2


@pytest.mark.parametrize("resource", [PolicyTable("/run/netns/p"), PodPolicy((), (), False, "", "/run/netns/p")])
def test_what_was_in_a_pod_that_is_gone_is_gone(world: World, kernel: Nft, resource: PolicyTable | PodPolicy):
    resource.remove(world)
    assert kernel.sent == []


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


@pytest.mark.parametrize("raw", [{"kind": "PolicyTable", "netns": ""}, {"kind": "GuardTable"}], ids=str)
def test_a_shared_table_keeps_its_place_whatever_release_made_it(raw: dict[str, Any]):
    (old,) = decoded([raw])
    assert old.place == type(old)(edition=2).place  # type: ignore[call-arg]


def test_what_nft_says_of_maps_and_sets_is_read():
    text = 'map in4 {\n elements = { 10.1.0.5 : jump in-a,\n 10.1.0.6 : jump in-b }\n}\nmap inif {\n elements = { "eth0" : jump in-a }'
    assert [tuple(item) for item in verdicts(text)] == [
        ("in4", "10.1.0.5", "in-a"), ("in4", "10.1.0.6", "in-b"), ("inif", '"eth0"', "in-a"),
    ]  # fmt: skip
    assert [item.key for item in verdicts(text, {"in-b"})] == ["10.1.0.6"]
    assert naming('elements = { "eth0" . 10.1.0.5, "eth01" . 10.1.0.6 }', "eth0") == ['"eth0" . 10.1.0.5']


def test_a_rehearsal_that_fails_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nftables, "rehearse", lambda *_: nftables.Answer(False, "", "Error: syntax error\n^^^\n"))
    with pytest.raises(ToolFailed, match=r"^nft refused a rehearsal: Error: syntax error$"):
        netfilter.nft_rehearsed("nonsense", "table inet x")


def test_a_question_that_a_change_interrupts_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    answers = [nftables.Answer(False, "", "Error: Interrupted system call\n"), nftables.Answer(True, "there", "")]
    monkeypatch.setattr(nftables, "run", lambda _: answers.pop(0))
    assert netfilter.nft_list("ruleset") == "there"
