"""Write agent-cni.cdx.json, the bill of materials of an installation: the suite, what it needs, and under which licences.

Every wheel has it in .dist-info/sboms (PEP 770); launcher/build.py adds the launcher, which is compiled there. It is CycloneDX 1.6 without
what would be another at each writing, a serial number and a time, because a wheel of the same source is the same bytes.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from licences import licence
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pins import ROOT, pins

from cni import __version__

KEPT = Path(__file__).parent / "agent-cni.cdx.json"
#: What an installation may run on: a package that one of these needs is in the list.
PYTHONS = tuple(f"3.{minor}" for minor in range(11, 16))


def document() -> str:
    """The bill of materials of this checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    suite = _component("agent-cni", __version__, project["license"], ComponentType.APPLICATION)
    bom = Bom(metadata=BomMetaData(component=suite))
    _add(bom, suite, project["dependencies"], {}, pins())
    made = json.loads(JsonV1Dot6(bom).output_as_string())
    del made["serialNumber"], made["metadata"]["timestamp"]
    return json.dumps(made, indent=1) + "\n"


def _add(bom: Bom, of: Component, required: list[str], known: dict[str, Component], pinned: Mapping[str, str]) -> None:
    """What a component requires, and what that requires in turn."""
    needed = []
    for name in sorted(set(_needed(required))):
        package = distribution(name)
        if name not in known:
            known[name] = _component(name, pinned[name], licence(package), ComponentType.LIBRARY)
            bom.components.add(known[name])
            _add(bom, known[name], package.requires or [], known, pinned)
        needed.append(known[name])
    bom.register_dependency(of, needed)


def _needed(required: list[str]) -> Iterator[str]:
    for requirement in map(Requirement, required):
        at = [{"extra": "", "python_version": python, "python_full_version": f"{python}.0"} for python in PYTHONS]
        if requirement.marker is None or any(requirement.marker.evaluate(python) for python in at):
            yield canonicalize_name(requirement.name)


def _component(name: str, version: str, under: str, kind: ComponentType) -> Component:
    purl = PackageURL("pypi", name=name, version=version)
    licences = [LicenseFactory().make_from_string(under)]
    return Component(name=name, version=version, type=kind, purl=purl, bom_ref=str(purl), licenses=licences)


if __name__ == "__main__":
    KEPT.write_text(document())
