"""What of the Kubernetes rig (tools/kube) can be held without a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni.command.main import main

RIG = Path(__file__).parent.parent / "tools/kube"
SCRIPT = """
import json, sys
from types import SimpleNamespace as Thing
from checks import EVERY
from networks import NETWORKS, VERSIONS
nodes = []
cluster = Thing(folder=sys.argv[1], nodes=nodes, families=(4, 6))
nodes += [Thing(name=f"n{n}", block=f"10.244.{n}.0/24", address=f"172.30.0.{n}", cluster=cluster) for n in (1, 2, 3)]
lists = {name: VERSIONS | {"name": "pods", "plugins": n.plugins(nodes[1])} for name, n in NETWORKS.items() if n.plugins and n.ours}
print(json.dumps({"checks": [*EVERY], "lacks": {name: [*n.lacks] for name, n in NETWORKS.items()}, "lists": lists}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the rig has; its modules have everyday names, so a Python of its own reads them."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "policies").mkdir()
    argv = [sys.executable, "-c", SCRIPT, str(folder)]
    return json.loads(subprocess.run(argv, cwd=RIG, capture_output=True, text=True, check=True).stdout)


NETWORKS = ["blockpolicies", "blocks", "gateways", "joined", "overlay", "policies", "routed", "stored"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_suite_takes_its_networks(
    told: dict[str, Any], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "10-pods.conflist"
    file.write_text(json.dumps(told["lists"][name]))
    assert main(["validate", str(file)]) == 0, capsys.readouterr().out


def test_every_network_of_ours_is_taken(told: dict[str, Any]):
    assert sorted(told["lists"]) == NETWORKS


def test_what_a_network_lacks_is_a_check(told: dict[str, Any]):
    assert {name for names in told["lacks"].values() for name in names} <= {*told["checks"]}
