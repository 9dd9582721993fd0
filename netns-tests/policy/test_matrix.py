"""Every pair of nine pods, the node and a machine outside, under policies written by hand and generated: what arrives is what the API
reference says.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cases import Case, cases
from lab import Lab
from matrix import Matrix

#: What the reference is asked about and the node is not held to yet: ClusterNetworkPolicies.
TIERS = "tier-"

pytestmark = pytest.mark.sweep  # a folder is read by `agent-cni refresh`, with an agent and without


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    lab = Lab("matrix")
    with Matrix(lab, tmp_path_factory.mktemp("policies")) as made:
        yield made
    lab.close()


@pytest.mark.tried(
    "150 sets of policies, a clause of the API reference each: all pairs of nine pods, the node and a machine outside",
    "whoever may, reaches; nobody else: TCP, UDP, SCTP, both families",
)
@pytest.mark.parametrize("case", [it for it in cases() if not it.name.startswith(TIERS)], ids=lambda case: case.name)
def test_what_is_written_is_so(matrix: Matrix, case: Case):
    """On a node that held its pods to another case before."""
    matrix.hold(case.documents, case.world, case.far)
    assert matrix.wrong() == []


def test_the_matrix_sees_what_is_wrong(matrix: Matrix):
    matrix.hold(cases("types")[10].documents)
    matrix.host.run("nft", "flush", "table", "inet", "agent_cni_policy")
    assert any(line.endswith("let through") for line in matrix.wrong())
    matrix.hold()
    assert matrix.wrong() == []
