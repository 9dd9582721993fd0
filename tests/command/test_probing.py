"""What the answers of other hosts come to."""

from __future__ import annotations

import pytest

from cni.cluster.model import Block
from cni.command.doctor.probing import Far, _row, _shared, faults_of
from cni.diagnosis.finding import Severity

FAR = Far("node-2", "192.0.2.12", "net", 4789, 1500, ("10.1.2.2", "10.1.2.3"))
WELL = {"10.1.2.2": 1450, "10.1.2.3": 0}


def test_a_host_that_is_well_is_a_row_and_no_fault():
    row = _row(FAR, 1500, "", WELL)
    assert row == {
        "host": "node-2", "vtep": "192.0.2.12", "network": "net", "answers": "yes", "port": "4789 open", "largest": 1500,
        "wanted": 1500, "pods": "1 of 2 answer", "slice": "its own",
    }  # fmt: skip
    assert list(faults_of(FAR, row)) == []
    unknown = FAR._replace(pods=())
    assert [_row(unknown, 1500, "", {})[name] for name in ("port", "pods")] == ["4789 not known", "none known"]
    assert list(faults_of(unknown, _row(unknown, 1500, "", {}))) == []


@pytest.mark.parametrize(
    ("far", "fits", "why", "pods", "said"),
    [
        (FAR, 0, "no route leads there", {}, "network net: node-2 at 192.0.2.12 does not answer: no route leads there"),
        (FAR._replace(away=True), 0, "", {}, "network net: node-2 at 192.0.2.12 does not answer, and the cluster has not heard of it"),
        (FAR, 1500, "nobody listens there", {}, "network net: node-2 at 192.0.2.12 is there, and nobody listens on UDP port 4789"),
        (FAR, 1400, "", WELL, "network net: node-2 at 192.0.2.12: packets up to 1400 come through, and the tunnel sends 1500: larger ones are lost"),
        (FAR._replace(shares="10.1.2.0/26, which node-3 has"), 1500, "", WELL, "network net: node-2 at 192.0.2.12 gives from 10.1.2.0/26, which node-3 has"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(far: Far, fits: int, why: str, pods: dict[str, int], said: str):
    (found,) = faults_of(far, _row(far, fits, why, pods))
    assert (found.what, found.severity) == (said, Severity.BROKEN)


def test_a_port_that_says_nothing_is_a_warning():
    (found,) = faults_of(FAR, _row(FAR, 1500, "", {}))
    assert (found.severity, found.cause) == (Severity.WARNING, "tunnel-silent")


def test_blocks_that_overlap_are_named_for_both_hosts():
    spans = (
        ("10.1.0.0/24", "a"),
        ("10.1.0.64/26", "b"),
        ("10.1.0.128/26", "c"),
        ("10.1.1.0/24", "b"),
        ("10.1.1.0/26", "b"),
    )
    blocks = [Block("net", span, node, "m") for span, node in spans]
    assert _shared([*blocks, Block("other", "10.1.0.0/24", "d", "m")]) == {
        ("a", "net"): ["10.1.0.64/26, which b has", "10.1.0.128/26, which c has"],
        ("b", "net"): ["10.1.0.0/24, which a has"],
        ("c", "net"): ["10.1.0.0/24, which a has"],
    }
