"""Masquerading as text: what nft and iptables are given, with the doors to the kernel and to programs faked."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nf_tables import NfTables
from pytest_subprocess import FakeProcess

from cni.errors import KernelRefused
from cni.kernel.locks import LockFile
from cni.resources import (
    IptablesMasquerade,
    IptablesMasqueradeRules,
    NftMasquerade,
    NftMasqueradeRules,
    World,
)
from cni.resources.masquerade import nft_chain, nft_rules
from cni.resources.masquerade_iptables import iptables_rules
from cni.values import replace

OWNER = "pods/c1/eth0"
POD = NftMasquerade("nftables", 4, "10.1.0.5", "10.1.0.0/24", OWNER)
POD6 = NftMasquerade("nftables", 6, "fd00::5", "fd00::/64", OWNER)
RULES = NftMasqueradeRules("nftables", 4)

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    lock = LockFile(tmp_path / "lock")
    yield World(None, lock)
    lock.close()


@pytest.fixture
def given(fp: FakeProcess) -> list[str]:
    """What programs were given on their standard input."""
    return []


@pytest.fixture
def program(fp: FakeProcess, given: list[str]) -> Callable[..., None]:
    def register(*argv: str, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        fp.register(list(argv), stdout=stdout, stderr=stderr, returncode=code, stdin_callable=given.append)

    return register


def test_the_shared_nft_table_reads_as_it_should(golden: Callable[[str, str], None]):
    golden("masquerade.nft", nft_rules(4) + nft_rules(6))


def test_every_rule_of_the_chain_is_checked():
    for family in (4, 6):
        chain = [line.partition("postrouting ")[2] for line in nft_rules(family).splitlines() if "add rule" in line]
        assert chain == nft_chain(family)


def test_the_shared_rules_are_one_nft_transaction(kernel: NfTables, world: World):
    RULES.ensure(world)
    RULES.ensure(world)
    assert kernel.made == [nft_rules(4)] * 2
    assert kernel.has.listed("table ip agent_cni").count("masquerade") == 1


@pytest.mark.parametrize(
    "kept",
    [
        "add element ip agent_cni pods { 10.1.0.9 }",
        "add element ip agent_cni near { 10.1.0.9 . 10.1.0.0/24 }",
        "add chain ip agent_cni others",
    ],
)
def test_the_table_goes_only_when_no_pod_is_in_its_sets(kernel: NfTables, world: World, kept: str):
    RULES.ensure(world)
    POD.ensure(world)
    kernel.given(kept)
    POD.remove(world)
    kernel.gone.clear()
    RULES.remove(world)
    assert kernel.gone == []
    kernel.given(kept.replace("add", "delete"))
    RULES.remove(world)
    assert kernel.gone == [["delete table ip agent_cni"]]


@pytest.mark.parametrize(
    ("pod", "lines"),
    [
        (
            POD,
            [
                "add element ip agent_cni pods { 10.1.0.5 }",
                "delete element ip agent_cni pods { 10.1.0.5 }",
                "add element ip agent_cni near { 10.1.0.5 . 10.1.0.0/24 }",
                'add element ip agent_cni pods { 10.1.0.5 comment "pods/c1/eth0" }',
            ],
        ),
        (
            POD6,
            [
                "add element ip6 agent_cni pods { fd00::5 }",
                "delete element ip6 agent_cni pods { fd00::5 }",
                "add element ip6 agent_cni near { fd00::5 . fd00::/64 }",
                'add element ip6 agent_cni pods { fd00::5 comment "pods/c1/eth0" }',
            ],
        ),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_pod_is_two_set_elements(kernel: NfTables, world: World, pod: NftMasquerade, lines: list[str]):
    pod.ensure(world)
    assert kernel.made[0].removeprefix(pod.declarations).splitlines() == lines
    assert nft_rules(pod.family).startswith(pod.declarations)


@pytest.mark.parametrize("pod", [POD, POD6], ids=["IPv4", "IPv6"])
def test_a_pod_is_taken_back_in_one_transaction_that_cannot_miss(kernel: NfTables, world: World, pod: NftMasquerade):
    pod.ensure(world)
    pod.remove(world)
    pod.remove(world)
    table = "ip agent_cni" if pod is POD else "ip6 agent_cni"
    assert kernel.gone == [[
        f"delete element {table} pods {{ {pod.address} }}",
        f"delete element {table} near {{ {pod.address} . {pod.subnet} }}",
    ]]  # fmt: skip


def test_networks_it_is_spared_in_do_not_overlap(kernel: NfTables, world: World):
    """The kernel refuses intervals of a set that do."""
    spared = replace(POD, spared=("10.0.0.0/8", "172.30.1.0/24", "172.30.0.0/24", "172.30.0.0/16"))
    assert spared.near == ["10.0.0.0/8", "172.30.0.0/16"]
    spared.ensure(world)
    near = [line for line in kernel.made[0].splitlines() if " near {" in line and "element" in line]
    assert near == [f"add element ip agent_cni near {{ 10.1.0.5 . {network} }}" for network in spared.near]
    assert list(spared.differences(world)) == []
    assert list(replace(spared, spared=("192.0.2.0/24",)).differences(world)) != []
    spared.remove(world)
    assert kernel.gone[0][1:] == [line.replace("add", "delete") for line in near]


def test_an_address_that_has_a_new_owner_has_its_comment(kernel: NfTables, world: World):
    POD.ensure(world)
    replace(POD, owner="pods/c2/eth0").ensure(world)
    assert '10.1.0.5 comment "pods/c2/eth0"' in kernel.has.listed("set ip agent_cni pods")


@pytest.mark.parametrize(
    "owner", ['pods/c1/x"}', "pods/c1/" + "é" * 7, "n" * 200 + "/c1/eth0"], ids=["quote", "bytes", "long"]
)
def test_any_interface_name_makes_a_comment_nft_takes(kernel: NfTables, world: World, owner: str):
    NftMasquerade("nftables", 4, "10.1.0.5", "10.1.0.0/24", owner).ensure(world)
    comment = kernel.made[0].partition('comment "')[2].rpartition('"')[0]
    assert '"' not in comment
    assert 0 < len(comment.encode()) <= 128


def test_a_refused_transaction_says_why(kernel: NfTables, world: World):
    kernel.refused = errno.EPERM
    with pytest.raises(KernelRefused, match=r"^Operation not permitted$"):
        POD.ensure(world)
    assert kernel.sent == []


def test_removing_from_a_table_that_is_gone_is_removed(kernel: NfTables, world: World):
    POD.remove(world)
    RULES.remove(world)
    assert kernel.gone == []


def test_removing_that_fails_otherwise_is_a_failure(kernel: NfTables, world: World):
    POD.ensure(world)
    kernel.refused = errno.EPERM
    with pytest.raises(KernelRefused, match="Operation not permitted"):
        POD.remove(world)


@pytest.mark.parametrize(
    ("address", "missing"),
    [("10.1.0.5", False), ("10.1.0.4", False), ("10.1.0.55", True), ("10.1.0.0", True), ("10.1.0.6", True)],
)
def test_check_finds_a_pod_by_its_whole_address(kernel: NfTables, world: World, address: str, missing: bool):
    for there in ("10.1.0.4", "10.1.0.5"):
        replace(POD, address=there).ensure(world)
    kernel.given("add element ip agent_cni pods { 10.1.0.6 }")
    found = list(replace(POD, address=address).differences(world))
    assert found == ([f"masquerading of {address} is missing (nftables)"] if missing else [])


def test_check_finds_a_pod_by_its_whole_subnet(kernel: NfTables, world: World):
    replace(POD, subnet="10.1.0.0/16").ensure(world)
    assert list(POD.differences(world)) == ["masquerading of 10.1.0.5 is missing (nftables)"]


def test_check_names_each_missing_nft_rule(kernel: NfTables, world: World):
    kernel.given("".join(nft_rules(4).splitlines(keepends=True)[:-1]))
    assert list(RULES.differences(world)) == ["masquerade rule is missing (nftables): ip saddr @pods masquerade"]


LEGACY = IptablesMasquerade("iptables-legacy", 4, "10.1.0.5", "10.1.0.0/24", OWNER)
LINES = [
    '-A ACNI-MASQUERADE -s 10.1.0.5/32 -d 10.1.0.0/24 -m comment --comment "pods/c1/eth0" -j RETURN',
    '-A ACNI-MASQUERADE -s 10.1.0.5/32 ! -d 224.0.0.0/4 -m comment --comment "pods/c1/eth0" -j MASQUERADE',
]
HEAD = ["*nat", ":POSTROUTING ACCEPT [12:345]", ":ACNI-MASQUERADE - [0:0]", "-A POSTROUTING -j ACNI-MASQUERADE"]
SAVE = ["/usr/sbin/iptables-legacy-save", "-t", "nat"]
RESTORE = ["/usr/sbin/iptables-legacy-restore", "--noflush", "-w", "5"]


def saved(*lines: str) -> str:
    return "\n".join([*lines, "COMMIT", ""])


def test_the_shared_iptables_rules_are_added_where_they_are_missing(
    program: Callable[..., None], given: list[str], world: World
):
    program(*SAVE, stdout=saved("*nat", ":POSTROUTING ACCEPT [12:345]"))
    program(*SAVE, stdout=saved("*nat", ":POSTROUTING ACCEPT [12:345]"))
    program(*RESTORE)
    IptablesMasqueradeRules("iptables-legacy", 4).ensure(world)
    assert given == [saved("*nat", *iptables_rules())]


def test_the_shared_iptables_rules_are_left_where_they_are(
    program: Callable[..., None], given: list[str], world: World
):
    for _ in iptables_rules():
        program(*SAVE, stdout=saved(*HEAD))
    IptablesMasqueradeRules("iptables-legacy", 4).ensure(world)
    assert given == []


def test_retiring_unhooks_the_chain_before_it_deletes_it(program: Callable[..., None], given: list[str], world: World):
    for _ in range(2):
        program(*SAVE, stdout=saved(*HEAD))
    program(*RESTORE)
    IptablesMasqueradeRules("iptables-legacy", 4).remove(world)
    assert given == [saved("*nat", "-D POSTROUTING -j ACNI-MASQUERADE", "-X ACNI-MASQUERADE")]


def test_the_chain_stays_while_anybodys_pod_is_in_it(program: Callable[..., None], given: list[str], world: World):
    for _ in range(2):
        program(*SAVE, stdout=saved(*HEAD, *LINES))
    IptablesMasqueradeRules("iptables-legacy", 4).remove(world)
    assert given == []


def test_a_chain_that_is_filled_at_the_last_moment_stays(program: Callable[..., None], given: list[str], world: World):
    for _ in range(2):
        program(*SAVE, stdout=saved(*HEAD))
    program(*RESTORE, stderr="iptables: Too many links.", code=1)
    program(*SAVE, stdout=saved(*HEAD, *LINES))
    IptablesMasqueradeRules("iptables-legacy", 4).remove(world)
    assert len(given) == 1


@pytest.mark.parametrize("pod", [POD, POD6], ids=["IPv4", "IPv6"])
def test_a_pod_of_which_only_the_owner_is_known_is_found_by_its_comment(
    kernel: NfTables, world: World, pod: NftMasquerade
):
    other = replace(pod, address=f"{pod.address[:-1]}4", owner="pods/c0/eth0")
    for item in (other, pod):
        item.ensure(world)
    NftMasquerade("nftables", pod.family, "", "", OWNER).remove(world)
    assert kernel.keys(f"{'ip' if pod is POD else 'ip6'} agent_cni pods") == {other.address}
    assert kernel.keys(f"{'ip' if pod is POD else 'ip6'} agent_cni near") == {f"{other.address} . {pod.subnet}"}
    assert len(kernel.gone) == 1


def test_of_an_owner_who_has_nothing_nothing_is_removed(kernel: NfTables, world: World):
    POD.ensure(world)
    NftMasquerade("nftables", 4, "", "", "pods/c9/eth0").remove(world)
    assert (kernel.gone, kernel.sent) == ([], [])


def test_in_iptables_an_owner_is_found_by_the_comment_too(program: Callable[..., None], given: list[str], world: World):
    program(*SAVE, stdout=saved(*HEAD, *LINES))
    program(*RESTORE)
    IptablesMasquerade("iptables-legacy", 4, "", "", OWNER).remove(world)
    assert given == [saved("*nat", *(line.replace('"', "").replace("-A ", "-D ", 1) for line in LINES))]


def test_a_pod_is_two_iptables_rules_in_one_transaction(program: Callable[..., None], given: list[str], world: World):
    for _ in LINES:
        program(*SAVE, stdout=saved(*HEAD))
    program(*RESTORE)
    LEGACY.ensure(world)
    assert given == [saved("*nat", *(line.replace('"', "") for line in LINES))]


def test_a_pods_iptables_rules_are_deleted_as_they_were_added(
    program: Callable[..., None], given: list[str], world: World
):
    for _ in LINES:
        program(*SAVE, stdout=saved(*HEAD, *LINES))
    program(*RESTORE)
    LEGACY.remove(world)
    assert given == [saved("*nat", *(line.replace('"', "").replace("-A", "-D", 1) for line in LINES))]


LOST = {
    "both": (LINES, ""),
    "one": (LINES[:1], "missing"),
    "none": ([], "missing"),
    "the other way round": (LINES[::-1], "out of order"),
}


@pytest.mark.parametrize(("present", "lost"), LOST.values(), ids=LOST)
def test_check_compares_iptables_rules_as_they_are_saved(
    program: Callable[..., None], world: World, present: list[str], lost: str
):
    program(*SAVE, stdout=saved(*HEAD, *present))
    expected = [f"masquerading of 10.1.0.5 is {lost} (iptables-legacy)"] if lost else []
    assert list(LEGACY.differences(world)) == expected


@pytest.mark.parametrize("present", [LINES[1:], LINES[::-1]], ids=["the first is lost", "the other way round"])
def test_what_returns_stands_before_what_is_hidden(
    program: Callable[..., None], given: list[str], world: World, present: list[str]
):
    program(*SAVE, stdout=saved(*HEAD, *present))
    program(*RESTORE)
    LEGACY.ensure(world)
    plain = [line.replace('"', "") for line in LINES]
    held = [line.replace('"', "").replace("-A ", "-D ", 1) for line in present]
    assert given == [saved("*nat", *held, *plain)]


def test_iptables_for_ipv6_is_another_program(program: Callable[..., None], world: World):
    program("/usr/sbin/ip6tables-nft-save", "-t", "nat", stdout=saved(*HEAD))
    pod = IptablesMasquerade("iptables-nft", 6, "fd00::5", "fd00::/64", OWNER)
    assert list(pod.differences(world)) == ["masquerading of fd00::5 is missing (iptables-nft)"]
