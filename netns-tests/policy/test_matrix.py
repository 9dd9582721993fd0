"""Every pair of nine pods, the node and a machine outside, under policies written by hand and generated: what arrives is what the API
reference says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from cases import Case, cases, pod, policy
from generated import changed, generated
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from lab import Lab, eventually
from matrix import FedByTheStore, Matrix, OneHost, ThreeHosts

CASES = cases()

ALONE = [case for case in CASES if "others" not in case.said and "outside" not in str(case.said)]
#: How many generated sets are tried, and of which seed; the same every time, unless `make policy-matrix` says so.
EXAMPLES, SEED = int(os.environ.get("EXAMPLES") or 25), int(os.environ.get("SEED") or 20)
GENERATING = settings(
    max_examples=EXAMPLES,
    database=None,
    deadline=None,
    phases=[Phase.generate, *([Phase.shrink] if "SEED" in os.environ else [])],
    suppress_health_check=list(HealthCheck),
)

pytestmark = pytest.mark.sweep  # a folder is read by `agent-cni refresh`, with an agent and without


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneHost]:
    lab = Lab(f"matrix {os.environ.get('PYTEST_XDIST_WORKER')}")  # whose namespaces are apart from another worker's
    with OneHost(lab, tmp_path_factory.mktemp("policies")) as made:
        yield made
    lab.close()


@pytest.mark.tried(
    "150 sets of policies, a clause of the API reference each: all pairs of nine pods, the node and a machine outside",
    "whoever may, reaches; nobody else: TCP, UDP, SCTP, both families",
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_written_is_so(matrix: Matrix, case: Case):
    """On a node that held its pods to another case before."""
    matrix.hold(case.documents, case.world, case.far)
    assert matrix.wrong() == []


@pytest.mark.tried(
    "sets of policies that hypothesis makes, one after the other for the same pods; `make policy-matrix` tries more",
    "whoever may, reaches; nobody else",
)
@seed(SEED)
@GENERATING
@given(case=generated())
def test_what_nobody_would_write_is_so(matrix: Matrix, case: Case):
    matrix.hold(case.documents, case.world)
    assert matrix.wrong() == [], f"SEED={SEED}"


@pytest.mark.tried(
    "one document or one pod's labels changed while all pods send to each other",
    "what may be before and after is never lost, what the same end forbids before and after never passes",
)
@seed(SEED)
@settings(GENERATING, max_examples=max(1, EXAMPLES // 4))
@given(case=generated(), data=st.data())
def test_nothing_is_lost_or_let_through_while_one_thing_changes(matrix: OneHost, case: Case, data: st.DataObject):
    matrix.hold(case.documents, case.world)
    for _ in range(3):
        case = data.draw(changed(case))
        assert matrix.change(case.documents, case.world) == []
    assert matrix.wrong() == []


FRIENDS = {"matchLabels": {"friend": "yes"}}
FROM_FRIENDS = [
    policy("x/in", {"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": FRIENDS}]}]}),
    policy(
        "x/out",
        {
            "podSelector": FRIENDS,
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": "new"}]}],
        },
    ),
]


@pytest.mark.parametrize("kind", ["bridged", "routed"])
def test_pods_come_change_and_go(matrix: Matrix, kind: str):
    """A pod that came and is not known yet is shut where some policy of its namespace shuts, and nobody's peer."""
    usual = Case("", {}).world
    matrix.hold(FROM_FRIENDS)
    matrix.attach("x/d", kind)
    mute = [probe for probe in matrix.probes() if "x/d" in {probe.source, probe.to} and probe.source != probe.to]
    heard = matrix.prober.heard(mute, ())
    assert {(probe.source, probe.to) for probe in heard} == {("node", "x/d")}
    try:
        for labels, ports in (({}, []), ({"friend": "yes"}, []), ({"friend": "yes"}, [81]), ({"pod": "a"}, [80, 81])):
            named = [{"name": "new", "containerPort": port} for port in ports]
            matrix.hold(FROM_FRIENDS, [*usual, pod("x/d", labels, named)])
            assert matrix.wrong() == []
    finally:
        matrix.detach("x/d")
    matrix.hold(FROM_FRIENDS)
    assert matrix.wrong() == []


RICH = (
    "together: many policies about one pod",
    "ports: a port's name of egress is each peer's own",
    "peers: both selectors in two items add up",
)


@pytest.mark.tried(
    "pods attached one after the other under policies that are in force, no refresh; all of them go",
    "each is a peer of those before it at once, by its labels and the names of its ports",
)
def test_pods_attached_under_policies_are_peers_at_once(matrix: OneHost):
    for case in (it for it in CASES if it.name in RICH):
        kinds = {name: party.kind for name, party in matrix.parties.items() if party.kind}
        for name in kinds:
            matrix.detach(name)
        matrix.say(case.documents, case.world)
        for name, kind in kinds.items():
            matrix.attach(name, kind)
        matrix.expect(case.documents, case.world)
        assert matrix.wrong() == []


@pytest.mark.tried("`agent-cni policy why` of hundreds of connections", "says what traffic says")
@seed(SEED)
@settings(GENERATING, max_examples=6)
@given(case=generated(clusterwide=True))
def test_why_says_what_traffic_says(matrix: OneHost, case: Case):
    matrix.hold(case.documents, case.world)
    asked = Random(SEED).sample([probe for probe in matrix.probes() if not probe.kept], 60)
    arrived = matrix.prober.heard(asked, [probe for probe in asked if matrix.expected.allows(probe)])
    said = matrix.why(asked)
    assert [said[it] for it in asked if (it in arrived) is not said[it]["allowed"]] == []


def test_the_matrix_sees_what_is_wrong(matrix: OneHost, monkeypatch: pytest.MonkeyPatch):
    deny, flush = [policy("x/deny", {"podSelector": {}})], ("nft", "flush", "table", "inet", "agent_cni_policy")
    matrix.hold(deny)
    matrix.host.run(*flush)
    assert any(line.endswith("let through") for line in matrix.wrong())
    matrix.hold()
    assert matrix.wrong() == []
    matrix.hold(deny)
    with monkeypatch.context() as patched:
        patched.setattr(matrix, "apply", lambda: matrix.host.run(*flush))
        assert any(line.endswith("let through") for line in matrix.change(deny, Case("", {}).world))
    matrix.hold(deny)
    shut = "insert rule inet agent_cni_policy forward drop"
    with monkeypatch.context() as patched:
        patched.setattr(matrix, "apply", lambda: matrix.host.run("nft", shut))
        assert any(line.endswith("lost") for line in matrix.change(deny, Case("", {}).world))
    matrix.hold()


@pytest.mark.tried("the same over three hosts, bridged and routed tunnels", "the same")
@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize("first", [0, 15])
@pytest.mark.long
def test_over_three_hosts_too(lab: Lab, tmp_path: Path, mode: str, first: int):
    """Every fifteenth set that speaks of pods alone, in two halves."""
    with ThreeHosts(lab, tmp_path, mode=mode) as matrix:
        for case in ALONE[first::30]:
            matrix.hold(case.documents, case.world)
            assert matrix.wrong() == [], case.name


@pytest.mark.tried("the folder changed on hosts whose members are there, no refresh", "the same, soon")
@pytest.mark.long
def test_members_follow_the_folder(lab: Lab, tmp_path: Path):
    """Every thirtieth set that speaks of pods alone."""
    with ThreeHosts(lab, tmp_path) as matrix:
        for case in ALONE[::30]:
            matrix.say(case.documents, case.world)
            assert eventually(lambda: not matrix.wrong(), 20), (case.name, matrix.wrong())


@pytest.mark.tried(
    "documents that an operator says in the cluster's store once, no folder and no refresh", "the same, soon"
)
@pytest.mark.long
def test_members_follow_the_store(lab: Lab, tmp_path: Path):
    """Every thirtieth set that speaks of pods alone; a member that comes back goes on with it, and a pod that comes starts by it."""
    with FedByTheStore(lab, tmp_path) as matrix:
        for case in ALONE[5::30]:
            matrix.hold(case.documents, case.world)
            assert matrix.wrong() == [], case.name
        matrix.hold(FROM_FRIENDS)
        matrix.detach("x/b")
        matrix.attach("x/b", matrix.mode)
        matrix.hold(FROM_FRIENDS)
        assert matrix.wrong() == []


@pytest.mark.tried(
    "a pod's label that comes and goes while all pods of three hosts send to each other, no refresh",
    "what may be before and after is never lost, what is forbidden before and after never passes",
)
def test_members_lose_nothing_and_let_nothing_through(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with ThreeHosts(lab, tmp_path) as matrix:
        matrix.hold(FROM_FRIENDS)
        monkeypatch.setattr(matrix, "apply", lambda: time.sleep(1))
        for friend in ("y/b", "x/c", "z/a", ""):
            world = Case("", {"pods": {friend: {"labels": {"friend": "yes"}}} if friend else {}}).world
            assert matrix.change(FROM_FRIENDS, world) == []
            assert eventually(lambda: not matrix.wrong(), 20), matrix.wrong()
