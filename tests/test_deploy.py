"""What is written here and run elsewhere: the installer's container file, the cluster's manifest and the agent's unit."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni import __version__
from cni.command.parser import parser
from cni.conflist.file import judged

ROOT = Path(__file__).parent.parent
LINT = ROOT / ".cache/lint/bin"
MANIFEST = ROOT / "deploy/daemonset.yaml"
UNIT = ROOT / "tools/systemd/system/agent-cni.service"
CONFIG, DAEMON_SET = yaml.safe_load_all(MANIFEST.read_text())


def linted(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(item) for item in argv], capture_output=True, text=True, check=False)


def containers() -> list[dict[str, Any]]:
    spec = DAEMON_SET["spec"]["template"]["spec"]
    return [*spec["initContainers"], *spec["containers"]]


def test_hadolint_finds_nothing():
    done = linted(LINT / "hadolint", ROOT / "deploy/Containerfile")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
def test_the_manifest_is_one_of_each_kubernetes(version: str):
    done = linted(LINT / "kubernetes-validate", "--strict", "-k", version, MANIFEST)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_conflist_is_valid(tmp_path: Path):
    for name, text in CONFIG["data"].items():
        (tmp_path / name).write_text(text)
        assert [(item["ours"], item["faults"]) for item in judged(tmp_path / name)] == [(True, []), (False, [])]
        assert json.loads(text)["cniVersion"] == "1.0.0", "containerd 1.6 knows no newer one"


def test_its_commands_are_understood():
    install, serve = (item.get("args") or item["command"][3:] for item in containers())
    assert parser().parse_args(install).conf == f"/config/{next(iter(CONFIG['data']))}"
    assert parser().parse_args(serve)


def test_its_volumes_and_image_are_there():
    spec = DAEMON_SET["spec"]["template"]["spec"]
    mounted = {mount["name"] for item in containers() for mount in item["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    assert {item["image"] for item in containers()} == {f"agent-cni:{__version__}"}


def allowed(key: str) -> set[str]:
    (line,) = re.findall(rf"(?m)^{key}=(.*)$", UNIT.read_text())
    return set(line.split())


def test_its_unit_lets_the_agent_into_every_kind_of_namespace_that_the_code_enters():
    code = "".join(file.read_text() for file in (ROOT / "cni").rglob("*.py"))
    entered = {kind.lower() for kind in re.findall(r"CLONE_NEW([A-Z]+)", code)}
    by_programs = {
        kind for rest in re.findall(r'"(?:nsenter|unshare)"([^]]*)\]', code) for kind in re.findall(r"--(\w+)", rest)
    }
    kinds = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}
    assert allowed("RestrictNamespaces") == (entered | by_programs) & kinds >= {"net", "user"}
    families = {f"AF_{name}" for name in re.findall(r"\bsocket\.AF_(\w+)", code)}
    assert families <= allowed("RestrictAddressFamilies")
