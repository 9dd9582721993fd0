"""Masquerading as text: what nft and iptables are given, with the process door faked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from cni.errors import ToolFailed
from cni.kernel import nfnetlink, nftables
from cni.kernel.files import LockFile
from cni.resources import Masquerade, MasqueradeRules, World
from cni.resources.masquerade import iptables_rules, nft_chain, nft_rules

OWNER = "pods/c1/eth0"
POD = Masquerade("nftables", 4, "10.1.0.5", "10.1.0.0/24", OWNER)
POD6 = Masquerade("nftables", 6, "fd00::5", "fd00::/64", OWNER)
RULES = MasqueradeRules("nftables", 4)
LISTED = """table ip agent_cni {
    set pods {
        type ipv4_addr
        elements = { 10.1.0.4 comment "pods/c0/eth0",
                     10.1.0.5 comment "pods/c1/eth0" }
    }
}
"""

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


@pytest.fixture
def nft(monkeypatch: pytest.MonkeyPatch, given: list[str]) -> Callable[..., None]:
    """Answers of nft, in the order of the questions; without one it does what it is told."""
    answers: list[nftables.Answer] = []

    def run(commands: str) -> nftables.Answer:
        given.append(commands)
        return answers.pop(0) if answers else nftables.Answer(True, "", "")

    monkeypatch.setattr(nftables, "run", run)
    return lambda output="", complaint="": answers.append(nftables.Answer(not complaint, output, complaint))


def test_the_shared_nft_table_reads_as_it_should(golden: Callable[[str, str], None]):
    golden("masquerade.nft", nft_rules(4) + nft_rules(6))


def test_every_rule_of_the_chain_is_checked():
    for family in (4, 6):
        chain = [line.partition("postrouting ")[2] for line in nft_rules(family).splitlines() if "add rule" in line]
        assert chain == nft_chain(family)


def test_the_shared_rules_are_one_nft_transaction(nft: Callable[..., None], given: list[str], world: World):
    RULES.ensure(world)
    assert given == [nft_rules(4)]


def test_the_table_goes_only_when_no_pod_is_in_its_sets(
    nft: Callable[..., None], given: list[str], world: World, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(nfnetlink, "delete_idle", lambda *said: asked.append(said))
    RULES.remove(world)
    assert asked == [("ip", "agent_cni", ("postrouting",), ("pods", "near"))]
    assert given == []


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
def test_a_pod_is_two_set_elements(
    nft: Callable[..., None], given: list[str], world: World, pod: Masquerade, lines: list[str]
):
    pod.ensure(world)
    assert given[0].splitlines() == lines


def test_a_pod_is_taken_back_in_one_transaction_that_cannot_miss(
    nft: Callable[..., None], given: list[str], world: World
):
    POD.ensure(world)
    POD.remove(world)
    assert given[1].splitlines() == [
        *given[0].splitlines()[2:],
        "delete element ip agent_cni near { 10.1.0.5 . 10.1.0.0/24 }",
        "delete element ip agent_cni pods { 10.1.0.5 }",
    ]


@pytest.mark.parametrize(
    "owner", ['pods/c1/x"}', "pods/c1/" + "é" * 7, "n" * 200 + "/c1/eth0"], ids=["quote", "bytes", "long"]
)
def test_any_interface_name_makes_a_comment_nft_takes(
    nft: Callable[..., None], given: list[str], world: World, owner: str
):
    Masquerade("nftables", 4, "10.1.0.5", "10.1.0.0/24", owner).ensure(world)
    comment = given[0].partition('comment "')[2].rpartition('"')[0]
    assert '"' not in comment
    assert 0 < len(comment.encode()) <= 128


def test_a_refused_transaction_says_why(nft: Callable[..., None], world: World):
    nft(complaint="\nError: Operation not permitted\nmore\n")
    with pytest.raises(ToolFailed, match=r"^nft refused a transaction: Error: Operation not permitted$"):
        POD.ensure(world)


def test_removing_from_a_table_that_is_gone_is_removed(nft: Callable[..., None], world: World):
    nft(complaint="Error: No such file or directory")
    nft(complaint="Error: No such file or directory")
    POD.remove(world)


def test_removing_that_fails_otherwise_is_a_failure(nft: Callable[..., None], world: World):
    nft(complaint="Error: busy")
    nft(LISTED)
    with pytest.raises(ToolFailed, match="busy"):
        POD.remove(world)


@pytest.mark.parametrize(
    ("address", "missing"),
    [("10.1.0.5", False), ("10.1.0.4", False), ("10.1.0.55", True), ("10.1.0", True)],
)
def test_check_finds_a_pod_by_its_whole_address(nft: Callable[..., None], world: World, address: str, missing: bool):
    nft(LISTED)
    found = list(Masquerade("nftables", 4, address, "10.1.0.0/24", OWNER).differences(world))
    assert found == ([f"masquerading of {address} is missing (nftables)"] if missing else [])


def test_check_names_each_missing_nft_rule(nft: Callable[..., None], world: World):
    listed = "\n".join(nft_chain(4)[:2])
    nft(listed)
    assert list(RULES.differences(world)) == ["masquerade rule is missing (nftables): ip saddr @pods masquerade"]


LEGACY = Masquerade("iptables-legacy", 4, "10.1.0.5", "10.1.0.0/24", OWNER)
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
    MasqueradeRules("iptables-legacy", 4).ensure(world)
    assert given == [saved("*nat", *iptables_rules())]


def test_the_shared_iptables_rules_are_left_where_they_are(
    program: Callable[..., None], given: list[str], world: World
):
    for _ in iptables_rules():
        program(*SAVE, stdout=saved(*HEAD))
    MasqueradeRules("iptables-legacy", 4).ensure(world)
    assert given == []


def test_retiring_unhooks_the_chain_before_it_deletes_it(program: Callable[..., None], given: list[str], world: World):
    for _ in range(2):
        program(*SAVE, stdout=saved(*HEAD))
    program(*RESTORE)
    MasqueradeRules("iptables-legacy", 4).remove(world)
    assert given == [saved("*nat", "-D POSTROUTING -j ACNI-MASQUERADE", "-X ACNI-MASQUERADE")]


def test_the_chain_stays_while_anybodys_pod_is_in_it(program: Callable[..., None], given: list[str], world: World):
    for _ in range(2):
        program(*SAVE, stdout=saved(*HEAD, *LINES))
    MasqueradeRules("iptables-legacy", 4).remove(world)
    assert given == []


def test_a_chain_that_is_filled_at_the_last_moment_stays(program: Callable[..., None], given: list[str], world: World):
    for _ in range(2):
        program(*SAVE, stdout=saved(*HEAD))
    program(*RESTORE, stderr="iptables: Too many links.", code=1)
    program(*SAVE, stdout=saved(*HEAD, *LINES))
    MasqueradeRules("iptables-legacy", 4).remove(world)
    assert len(given) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_a_pod_of_which_only_the_owner_is_known_is_found_by_its_comment(
    nft: Callable[..., None], given: list[str], world: World, family: int
):
    own, subnet = ("10.1.0.5", "10.1.0.0/24") if family == 4 else ("fd00::5", "fd00::/64")
    nft(LISTED if family == 4 else LISTED.replace("10.1.0.", "fd00::"))
    nft(f"elements = {{ {own[:-1]}4 . {subnet},\n{own} . {subnet} }}")
    Masquerade("nftables", family, "", "", OWNER).remove(world)
    table = "ip" if family == 4 else "ip6"
    assert f"delete element {table} agent_cni near {{ {own} . {subnet} }}" in given[2]
    assert f"delete element {table} agent_cni pods {{ {own} }}" in given[2]
    assert len(given) == 3


def test_of_an_owner_who_has_nothing_nothing_is_removed(nft: Callable[..., None], given: list[str], world: World):
    nft(LISTED)
    Masquerade("nftables", 4, "", "", "pods/c9/eth0").remove(world)
    assert given == ["list set ip agent_cni pods"]


def test_in_iptables_an_owner_is_found_by_the_comment_too(program: Callable[..., None], given: list[str], world: World):
    program(*SAVE, stdout=saved(*HEAD, *LINES))
    program(*RESTORE)
    Masquerade("iptables-legacy", 4, "", "", OWNER).remove(world)
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


@pytest.mark.parametrize("present", [LINES, LINES[:1], []], ids=["both", "one", "none"])
def test_check_compares_iptables_rules_as_they_are_saved(
    program: Callable[..., None], world: World, present: list[str]
):
    program(*SAVE, stdout=saved(*HEAD, *present))
    missing = [] if present == LINES else ["masquerading of 10.1.0.5 is missing (iptables-legacy)"]
    assert list(LEGACY.differences(world)) == missing


def test_iptables_for_ipv6_is_another_program(program: Callable[..., None], world: World):
    program("/usr/sbin/ip6tables-nft-save", "-t", "nat", stdout=saved(*HEAD))
    pod = Masquerade("iptables-nft", 6, "fd00::5", "fd00::/64", OWNER)
    assert list(pod.differences(world)) == ["masquerading of fd00::5 is missing (iptables-nft)"]
