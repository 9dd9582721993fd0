"""The nft scripts of isolation, as a reviewer reads them; each is one transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from nf_tables import NfTables
from rtnl import FakeRtnl

from cni.errors import Conflict, ToolFailed
from cni.kernel import netfilter, nftables, ruleset
from cni.kernel.locks import LockFile
from cni.kernel.ruleset import Chain, Element
from cni.kernel.view import Vxlan
from cni.policy.gates import entering, leaving
from cni.resources import (
    AntiSpoof,
    Gate,
    GateTable,
    GuardTable,
    PodPolicy,
    PolicyTable,
    PortOpening,
    World,
    decoded,
    gate,
)
from cni.resources.gate import gone_with, guard_vtep, guarded_devices
from cni.resources.policy import _element
from cni.resources.policy_table import TABLE, declared, skeleton
from cni.resources.verdicts import naming, verdicts

ADDRESSES = ("10.1.0.5", "fd00:1::5")
RULES = ("in-TOKEN ip saddr { 10.0.0.0-10.255.255.255 } return", "in-TOKEN drop", "out-TOKEN drop")
MAC = "0a:58:0a:01:00:05"
OLD = {
    "kind": "PodPolicy", "addresses": ["10.1.0.5"], "rules": ["in-10.1.0.5 drop", "out-10.1.0.5 drop"],
    "closed": False, "pod": "shop/web", "netns": "", "link": "",
}  # fmt: skip
INSIDE = PodPolicy(ADDRESSES, RULES, True, "shop/web", "/run/netns/p", "eth0", "TOKEN", "eth0")


@pytest.fixture
def world(tmp_path) -> World:
    world = World(SimpleNamespace(entered=nullcontext), LockFile(tmp_path / "lock"))
    world.__dict__["host"] = host = FakeRtnl()
    for port in (4789, 8472):
        host.add(f"vxlan{port}", "vxlan", vxlan=Vxlan(1, port, "", 0))
    return world


@pytest.mark.parametrize("where", ["host", "pod"])
def test_the_shared_table(golden: Callable[..., None], where: str):
    golden(f"policy-table-{where}.nft", skeleton("/run/netns/p" if where == "pod" else ""))


WHOLE = (*ADDRESSES, "fe80::858:aff:fe01:5")
POD = PodPolicy(ADDRESSES, RULES, True, "shop/web", token="TOKEN")
MADE: dict[str, PodPolicy | Gate | GateTable] = {
    "pod": PodPolicy(ADDRESSES, RULES, False, "shop/web", token="TOKEN"),
    "pod-closed": POD,
    "pod-inside": INSIDE,
    "gate-table": GateTable("T"),
    "gate-out": Gate("veth0", "ingress", "TOKEN", leaving(WHOLE, MAC), "eth0", MAC, "T"),
    "gate-out-before": Gate("veth0", "ingress", "TOKEN", leaving(["10.1.0.5"], MAC), "eth0", MAC),
    "gate-out-ipv4": Gate("veth0", "ingress", "TOKEN", leaving(["10.1.0.5"], MAC), "eth0", MAC, "T"),
    "gate-out-any-mac": Gate("veth0", "ingress", "TOKEN", leaving(WHOLE, ""), "eth0", bucket="T"),
    "gate-in": Gate("veth0", "egress", "TOKEN", entering(WHOLE, [], ()), "eth0", bucket="T"),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_and_taken_away(golden: Callable[..., None], world: World, kernel: NfTables, name: str):
    resource = MADE[name]
    resource.ensure(world)
    resource.remove(world)
    (made,), (gone,) = kernel.made, kernel.gone
    golden(f"policy-{name}.nft", "\n".join([f"# ensure\n{made}# remove", *gone, ""]))
    assert kernel.has.entries == {} or isinstance(resource, Gate)
    assert kernel.has.chains == {}
    assert kernel.sent == []


@pytest.mark.parametrize(
    "resource",
    [
        PodPolicy(ADDRESSES, RULES, True, "", token="TOKEN"),
        PodPolicy((), (), False, "", token="TOKEN"),
        *decoded([OLD]),
        GateTable("TOKEN"),
        Gate("veth0", "egress", "TOKEN", ()),
        AntiSpoof("veth0", MAC, ADDRESSES),
    ],
    ids=lambda item: type(item).__name__,
)
def test_what_is_gone_already_is_removed_and_nothing_is_made(world: World, kernel: NfTables, resource: Any):
    resource.remove(world)
    assert (kernel.made, kernel.sent, kernel.gone) == ([], [], [])


def chained(*names: str) -> str:
    """The table, with these chains."""
    return declared("") + "".join(f"add chain {TABLE} {name}\n" for name in names)


def leading(map_: str, key: str, chain: str) -> str:
    return f"add element {TABLE} {map_} {{ {key} : jump {chain} }}\n"


@pytest.mark.parametrize("addresses", [ADDRESSES, ()], ids=["recorded", "only its identity"])
def test_an_address_that_leads_to_another_pod_by_now_stays_that_pods(
    world: World, kernel: NfTables, addresses: tuple[str, ...]
):
    kernel.given(chained("in-TOKEN", "out-TOKEN", "in-OTHER"))
    kernel.given(leading("in4", "10.1.0.5", "in-OTHER") + leading("out4", "10.1.0.5", "out-TOKEN"))
    PodPolicy(addresses, (), False, "", token="TOKEN").remove(world)
    gone = [
        f"delete element {TABLE} out4 {{ 10.1.0.5 }}",
        *(f"delete chain {TABLE} {way}-TOKEN" for way in ("in", "out")),
    ]
    assert [*kernel.gone, *(script.splitlines() for script in kernel.sent)] == [gone]
    assert kernel.keys(f"{TABLE} in4") == {"10.1.0.5"}


def test_chains_go_with_what_leads_to_them_under_keys_nobody_recorded(world: World, kernel: NfTables):
    kernel.given(chained("in-TOKEN", "out-TOKEN") + leading("in4", "10.1.0.9", "in-TOKEN"))
    POD.remove(world)
    assert kernel.chains(TABLE) == kernel.keys(f"{TABLE} in4") == set()
    assert len(kernel.sent) == 1


def test_a_pods_own_addresses_go_with_chains_that_only_their_identity_is_known_of(world: World, kernel: NfTables):
    INSIDE.ensure(world)
    PodPolicy((), (), False, "", INSIDE.netns, "eth0", "TOKEN", "eth0").remove(world)
    assert kernel.has.chains == {}
    assert kernel.keys(f"{TABLE} guarded") == kernel.keys(f"{TABLE} own4") == set()


def test_what_an_earlier_release_made_is_found_under_its_names(world: World, kernel: NfTables):
    kernel.given(chained("in-10.1.0.5", "out-10.1.0.5"))
    kernel.given(leading("in4", "10.1.0.5", "in-10.1.0.5") + leading("out4", "10.1.0.5", "out-10.1.0.5"))
    decoded([OLD])[0].remove(world)
    assert kernel.gone == [[
        f"delete element {TABLE} out4 {{ 10.1.0.5 }}",
        f"delete element {TABLE} in4 {{ 10.1.0.5 }}",
        f"delete chain {TABLE} in-10.1.0.5",
        f"delete chain {TABLE} out-10.1.0.5",
    ]]  # fmt: skip


@pytest.mark.parametrize("alive", [False, True], ids=["gone", "there"])
@pytest.mark.parametrize(
    ("bucket", "gates"),
    [("D", "chain netdev agent_cni-D from-DEAD"), ("", "table netdev agent_cni-DEAD")],
    ids=["this release's", "the release before's"],
)
def test_entries_of_a_pod_without_a_record_give_way_if_it_is_gone(
    world: World, kernel: NfTables, alive: bool, bucket: str, gates: str
):
    dead = Gate("veth9", "ingress", "DEAD", (), bucket=bucket)
    kernel.given(chained("in-DEAD", "out-DEAD", "in-OTHER") + leading("in4", "10.1.0.5", "in-DEAD"))
    kernel.given(leading("in4", "10.1.0.6", "in-DEAD") + leading("in4", "10.1.0.9", "in-OTHER"))
    kernel.given(dead.declarations + dead.script())
    if alive:
        world.host.add("veth9", "veth")
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
        f"delete {gates}",
    ]


def test_a_key_that_is_taken_is_asked_about_and_freed_in_the_same_transaction(world: World, kernel: NfTables):
    kernel.given(chained("in-DEAD") + leading("in4", "10.1.0.5", "in-DEAD"))
    POD.ensure(world)
    freed = f"delete element {TABLE} in4 {{ 10.1.0.5 }}\ndelete chain {TABLE} in-DEAD\n"
    assert kernel.made == []
    assert kernel.sent == [freed + POD.declarations + POD.script()]


OPEN = ("in-TOKEN ip saddr { 10.0.0.0-10.255.255.255 } return", "in-TOKEN drop", "out-TOKEN return")


def test_no_map_leads_to_a_chain_that_lets_everything_through(world: World, kernel: NfTables):
    policy = PodPolicy(ADDRESSES, OPEN, True, "shop/web", token="TOKEN")
    policy.ensure(world)
    leading = {key.container.split()[-1] for key in kernel.has.entries}
    assert leading == {"in4", "in6", "node4", "node6"}
    assert list(policy.differences(world)) == []
    PodPolicy(ADDRESSES, RULES, True, "shop/web", token="TOKEN").ensure(world)  # its egress is closed
    assert kernel.keys(f"{TABLE} out4") == {"10.1.0.5"}
    policy.ensure(world)
    assert list(policy.differences(world)) == []
    policy.remove(world)
    assert (kernel.has.entries, kernel.has.chains) == ({}, {})


def test_who_had_the_address_is_in_the_way_of_a_pod_that_is_open(world: World, kernel: NfTables):
    kernel.given(chained("out-DEAD") + leading("out4", "10.1.0.5", "out-DEAD"))
    policy = PodPolicy(ADDRESSES, OPEN, True, "shop/web", token="TOKEN")
    assert list(policy.differences(world))[-1] == "policy map out4 leads 10.1.0.5 elsewhere than to its chain"
    policy.ensure(world)
    (sent,) = kernel.sent
    assert sent.startswith(f"delete element {TABLE} out4 {{ 10.1.0.5 }}\ndelete chain {TABLE} out-DEAD\n")
    assert Chain(TABLE, "out-DEAD") not in kernel.has.chains


def test_a_map_is_checked_key_by_key(world: World, kernel: NfTables):
    POD.ensure(world)
    assert list(POD.differences(world)) == []
    astray = [
        f"delete element {TABLE} in4 {{ 10.1.0.5 }}\n",
        chained("in-OTHER"),
        leading("in4", "10.1.0.5", "in-OTHER"),
    ]
    kernel.given("".join([*astray, f"delete element {TABLE} node6 {{ fd00:1::5 }}\n"]))
    assert list(POD.differences(world)) == [
        "policy map in4 does not lead 10.1.0.5 to its chain",
        "policy map node6 does not lead fd00:1::5 to its chain",
    ]


def test_what_an_interface_in_a_pod_may_send_as_is_checked_key_by_key(world: World, kernel: NfTables):
    INSIDE.ensure(world)
    assert list(INSIDE.differences(world)) == []
    kernel.given(f'delete element {TABLE} own4 {{ "eth0" . 10.1.0.5 }}\ndelete element {TABLE} outif {{ "eth0" }}\n')
    assert list(INSIDE.differences(world)) == [
        'policy map outif does not lead "eth0" to its chain',
        'policy set own4 lacks "eth0" . 10.1.0.5',
    ]


@pytest.mark.parametrize(
    ("name", "key", "kept"),
    [
        ("in4", "10.1.0.5", "0a010005"),
        ("out6", "fd00:1::5", "fd000001000000000000000000000005"),
        ("inif", '"eth0"', "65746830" + "00" * 12),
        ("own4", '"eth0" . 10.1.0.5', "65746830" + "00" * 12 + "0a010005"),
        ("own6", '"eth-15-bytes-xx" . fd00:1::5', "6574682d31352d62797465732d787800fd000001000000000000000000000005"),
    ],
)
def test_a_key_is_as_the_kernel_keeps_it(name: str, key: str, kept: str):
    assert _element(name, key) == Element(f"{TABLE} {name}", bytes.fromhex(kept))


def test_gates_know_the_ports_of_every_vxlan_device(world: World, kernel: NfTables):
    GateTable("TOKEN").ensure(world)
    assert kernel.keys("netdev agent_cni-TOKEN vteps") == {"4789", "8472"}
    assert list(GateTable("TOKEN").differences(world)) == []
    kernel.given("delete element netdev agent_cni-TOKEN vteps { 8472 }")
    assert list(GateTable("TOKEN").differences(world)) == ["spoofing guards do not know that UDP port 8472 is a VTEP's"]


def test_gates_that_stand_are_told_once_of_a_vtep(world: World, kernel: NfTables):
    gates = [GateTable("A"), GateTable("B")]
    kernel.given(declared("") + "".join(item.declarations for item in gates))
    for _ in range(2):
        guard_vtep(8472)
    assert [kernel.keys(f"{item.table} vteps") for item in gates] == [{"8472"}] * 2
    assert len(kernel.sent) == 3
    guard_vtep(4789)
    assert len(kernel.sent) == 3


def test_gates_know_what_nobody_is_told_of_again(world: World, kernel: NfTables):
    kernel.given(declared(""))
    guard_vtep(9999)
    GateTable("TOKEN").ensure(world)  # with that device gone, and 8472's there
    guard_vtep(9999)
    assert kernel.keys("netdev agent_cni-TOKEN vteps") == {"4789", "8472", "9999"}


def test_a_port_opens_when_its_gates_know_who_was_told_while_they_were_made(
    world: World, kernel: NfTables, monkeypatch: pytest.MonkeyPatch
):
    kernel.given(declared("") + GateTable("T").declarations)
    kernel.given("add element inet agent_cni_policy vteps { 9999 }")  # by somebody who did not see the table yet
    told: list[set[str]] = []
    monkeypatch.setattr(PortOpening, "_open", lambda *_: told.append(kernel.keys("netdev agent_cni-T vteps")))
    PortOpening("veth0", on_bridge=False, token="TOKEN").ensure(world)
    assert told == [{"8472", "9999"}]


def test_a_gate_that_goes_meanwhile_needs_not_be_told(kernel: NfTables, monkeypatch: pytest.MonkeyPatch):
    kernel.given(declared("") + GateTable("B").declarations)
    monkeypatch.setattr(gate, "tables_of_gates", lambda: ["netdev agent_cni-A", "netdev agent_cni-B"])
    guard_vtep(8472)
    assert kernel.keys("netdev agent_cni-B vteps") == {"8472"}


@pytest.mark.parametrize(("name", "there"), [("veth0", True), ("veth1", True), ("veth9", False)])
def test_devices_are_guarded_by_gates_and_by_the_release_befores_guards(kernel: NfTables, name: str, there: bool):
    foreign = Gate("veth9", "ingress", "X", ())
    kernel.given(AntiSpoof("veth0", MAC, ADDRESSES).script())
    kernel.given(Gate("veth1", "egress", "TOKEN", ()).declarations + Gate("veth1", "egress", "TOKEN", ()).script())
    kernel.given((foreign.declarations + foreign.script()).replace("agent_cni-X", "else"))
    assert (name in guarded_devices()) is there


@pytest.mark.parametrize(("lent", "order"), [(False, ["link", "guard"]), (True, ["guard"])])
def test_a_guard_goes_after_what_it_guards(
    kernel: NfTables, monkeypatch: pytest.MonkeyPatch, world: World, lent: bool, order: list[str]
):
    gone: list[str] = []
    world.host.add("veth0", "veth")
    monkeypatch.setattr(world.host, "delete_link", lambda link: gone.append("link"))
    monkeypatch.setattr(ruleset, "delete_there", lambda chains: gone.append("guard"))
    AntiSpoof("veth0", MAC, ADDRESSES, lent).remove(world)
    for item in (PortOpening("veth0", on_bridge=False, lent=lent), Gate("veth0", "ingress", "TOKEN", ())):
        item.remove(world)
    assert gone == order * 2


@pytest.mark.parametrize("resource", [PolicyTable("/run/netns/p"), PodPolicy((), (), False, "", "/run/netns/p")])
def test_what_was_in_a_pod_that_is_gone_is_gone(world: World, kernel: NfTables, resource: PolicyTable | PodPolicy):
    kernel.given(chained("in-TOKEN"))
    world.netns = None
    resource.remove(world)
    assert (kernel.sent, kernel.gone) == ([], [])


@pytest.mark.parametrize(
    ("resource", "table"),
    [(PolicyTable(), TABLE), (GuardTable(), "netdev agent_cni"), (GateTable("T"), "netdev agent_cni-T")],
    ids=["policy", "guard", "gate"],
)
def test_a_table_goes_only_when_nobody_has_a_chain_in_it(
    world: World, kernel: NfTables, resource: PolicyTable | GuardTable | GateTable, table: str
):
    resource.ensure(world)
    kernel.given(f"add chain {table} in-OTHER")
    resource.remove(world)
    assert kernel.gone == []
    kernel.given(f"delete chain {table} in-OTHER")
    resource.remove(world)
    assert kernel.gone == [[f"delete table {table}"]]


def test_gates_of_several_pods_are_in_one_table_and_each_goes_alone(world: World, kernel: NfTables):
    gates = [Gate("veth0", "ingress", token, (), bucket="A") for token in ("A1", "A2")]
    for item in (GateTable("A"), *gates):
        item.ensure(world)
    gates[0].remove(world)
    GateTable("A").remove(world)
    assert set(kernel.has.chains) == {Chain("netdev agent_cni-A", "from-A2")}
    assert gone_with({"A1", "A2"}) == ["delete chain netdev agent_cni-A from-A2"]


def test_what_the_release_before_recorded_of_gates_is_in_the_pods_own_table(world: World, kernel: NfTables):
    gate = {"link": "veth0", "hook": "ingress", "token": "TOKEN", "lines": ["accept"], "pod": "eth0", "mac": ""}
    table, old = decoded([{"kind": "GateTable", "token": "TOKEN"}, {"kind": "Gate", **gate}])
    kernel.given(table.declarations + old.script())
    new = Gate("veth0", "ingress", "TOKEN", ("accept",), "eth0", bucket="T")
    assert old.place != new.place
    for item in (GateTable("T"), new):
        item.ensure(world)
    old.remove(world)
    table.remove(world)
    assert kernel.has.tables == {"netdev agent_cni-T"}
    assert set(kernel.has.chains) == {Chain("netdev agent_cni-T", "from-TOKEN")}


@pytest.mark.parametrize("resource", [PolicyTable(edition=2), GuardTable(), GateTable("TOKEN")])
def test_a_table_that_somebody_put_to_sleep_is_told(
    world: World, kernel: NfTables, monkeypatch: pytest.MonkeyPatch, resource: PolicyTable | GuardTable | GateTable
):
    resource.ensure(world)
    monkeypatch.setattr(ruleset, "is_dormant", lambda table: True)
    (told,) = resource.differences(world)
    assert told.endswith("is dormant")


def test_a_shared_table_keeps_its_place_whatever_release_made_it():
    (old,) = decoded([{"kind": "PolicyTable", "netns": ""}])
    assert old.place == PolicyTable(edition=2).place


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
