"""The bill of materials: what an installation needs, in every wheel, and valid."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import sbom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from cni import __version__

ROOT = Path(__file__).parent.parent.parent


def faults(text: str) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def needs(materials: dict) -> dict[str, set[str]]:
    """By component: what it needs, by their names."""
    parts = [materials["metadata"]["component"], *materials["components"]]
    names = {part["bom-ref"]: part["name"] for part in parts}
    assert {item["ref"] for item in materials["dependencies"]} == set(names)
    return {names[item["ref"]]: {names[ref] for ref in item.get("dependsOn", ())} for item in materials["dependencies"]}


def test_the_kept_one_is_what_this_checkout_has():
    assert sbom.KEPT.read_text() == sbom.document(), "tools/audit/sbom.py writes it anew"


def test_it_is_valid():
    kept = sbom.KEPT.read_text()
    assert faults(kept) is None
    assert faults(kept.replace('"library"', '"book"')) is not None


def test_it_has_all_that_is_installed_and_nothing_else():
    installed = (ROOT / ".venv/lib").glob("python3*/site-packages/*.dist-info")
    there = {canonicalize_name(place.name.split("-")[0]) for place in installed}
    assert set(needs(json.loads(sbom.KEPT.read_text()))) == there


def built(folder: Path, **environ: str) -> Path:
    """The wheel of this checkout."""
    python = ROOT / ".cache/build/bin/python3"
    command = [python, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(command, cwd=ROOT, env=os.environ | environ, stdout=subprocess.DEVNULL, check=True)
    return next(folder.glob("*.whl"))


def within(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"agent_cni-{__version__}.dist-info/sboms/agent-cni.cdx.json").decode()


@pytest.mark.parametrize(("compiler", "libc"), [("", "musl"), ("cc", "glibc")])
def test_a_wheel_has_it_with_the_launcher_that_is_in_it(tmp_path: Path, compiler: str, libc: str):
    wheel = built(tmp_path, CC=compiler)
    text = within(wheel)
    assert faults(text) is None
    materials = json.loads(text)
    assert needs(materials)["agent-cni"] >= {"agent-cni-launcher", "pyroute2"}
    assert needs(materials)["agent-cni-launcher"] == {libc}
    launcher = next(part for part in materials["components"] if part["name"] == "agent-cni-launcher")
    with zipfile.ZipFile(wheel) as archive:
        program = archive.read(f"agent_cni-{__version__}.data/scripts/agent-cni-launcher")
    assert launcher["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(program).hexdigest()}]


def test_a_wheel_without_a_launcher_has_the_kept_one(tmp_path: Path):
    materials = json.loads(within(built(tmp_path, CC="false")))
    assert materials.pop("serialNumber").startswith("urn:uuid:")
    assert materials == json.loads(sbom.KEPT.read_text())


def test_the_same_source_is_the_same_wheel(tmp_path: Path):
    wheels = [built(tmp_path / name) for name in ("one", "two")]
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
