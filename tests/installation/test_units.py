"""What our units leave their services: no more than was judged, each capability with its reason, and the same in a container."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "tools/systemd/system"
#: By systemd 252; a higher one is somebody's decision.
EXPOSURE = {
    "agent-cni": 4.7, "agent-cni-dnsgate": 3.0, "agent-cni-flows": 2.4, "agent-cni-member": 2.4, "agent-cni-names": 2.5,
}  # fmt: skip
#: What its container is called, in which manifest, and what it has besides: the programs are the node's.
CONTAINERS = {
    "agent-cni-member": ("agent-cni.yaml", "member"), "agent-cni-dnsgate": ("agent-cni.yaml", "dnsgate"), "agent-cni-flows": ("flows.yaml", "recorder"),
}  # fmt: skip
BESIDES = {"CAP_SYS_CHROOT"}
#: A kubelet's pods have their namespaces in /run/netns, and none by /proc.
NOT_THERE = {"agent-cni-dnsgate": {"CAP_SYS_PTRACE"}}


def capabilities(unit: str) -> set[str]:
    (line,) = re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", (UNITS / f"{unit}.service").read_text())
    return set(line.split())


def test_every_service_is_judged():
    assert {file.stem for file in UNITS.glob("*.service")} == EXPOSURE.keys()


@pytest.mark.threat
@pytest.mark.parametrize("unit", EXPOSURE)
def test_a_unit_exposes_no_more_than_was_judged(tmp_path: Path, unit: str):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    file = tmp_path / f"{unit}.service"
    file.write_text((UNITS / file.name).read_text().replace("@PREFIX@", "/opt/agent-cni"))
    words = ("systemd-analyze", "security", "--offline=true", "--no-pager", str(file))
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(exposure) == EXPOSURE[unit], said
    (told,) = re.findall(rf"`{unit}\.service` \| ([\d.]+) \|", (ROOT / "docs/threat-model.md").read_text())
    assert told == exposure


@pytest.mark.threat
@pytest.mark.parametrize("unit", EXPOSURE)
def test_each_capability_of_a_unit_has_its_reason_there(unit: str):
    said = " ".join(re.findall(r"(?m)^#(.*)$", (UNITS / f"{unit}.service").read_text()))
    reasons = {name for words in re.findall(r"\(([A-Z_, ]+)\)", said) for name in words.split(", ")}
    assert {f"CAP_{name}" for name in reasons} == capabilities(unit)


@pytest.mark.threat
@pytest.mark.parametrize("unit", CONTAINERS)
def test_a_container_has_what_its_unit_has(unit: str):
    manifest, name = CONTAINERS[unit]
    pods = [
        item["spec"]["template"]["spec"]
        for item in yaml.safe_load_all((ROOT / "deploy" / manifest).read_text())
        if item["kind"] == "DaemonSet"
    ]
    (held,) = [one["securityContext"] for pod in pods for one in pod["containers"] if one["name"] == name]
    assert held["allowPrivilegeEscalation"] is False
    assert held["capabilities"]["drop"] == ["ALL"]
    given = {f"CAP_{each}" for each in held["capabilities"]["add"]}
    assert given - BESIDES == capabilities(unit) - NOT_THERE.get(unit, set())
