"""The wheel's build hook: its scripts are the plugins, and the launcher where it can be compiled; what all is made of, its bill of materials."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sysconfig
import uuid
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Under which licence what is linked into the launcher is (SPDX).
LIBCS = {"musl": "MIT", "glibc": "LGPL-2.1-or-later"}


class Scripts(BuildHookInterface):
    """With a launcher the wheel is of this platform; without, of any."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them to the wheel."""
        for schema in (Path(self.root) / "plugins").glob("*.schema.json"):
            name = schema.name.removesuffix(".schema.json")
            build_data["shared_scripts"][f"plugins/{name}"] = name
        materials = json.loads((Path(self.root) / "tools/audit/agent-cni.cdx.json").read_text())
        program = Path(self.directory) / "agent-cni-launcher"
        if libc := self._compiled(program):
            build_data["shared_scripts"][str(program)] = program.name
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            self._add_launcher(materials, program, libc)
        else:
            self.app.display_warning("without a launcher: the plugins start Python for every call")
        build_data["sbom_files"].append(self._written(materials))

    def _compiled(self, program: Path) -> list[str]:
        """The name and the version of the libc that is in it; nothing where it cannot be compiled."""
        program.parent.mkdir(parents=True, exist_ok=True)
        command = [str(Path(self.root) / "launcher/compile"), str(program), self.metadata.version]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.split()

    def _add_launcher(self, materials: dict[str, Any], program: Path, libc: list[str]) -> None:
        """It and the libc that is linked into it."""
        version, (name, *release) = self.metadata.version, libc
        linked = {"type": "library", "bom-ref": name, "name": name, "licenses": [{"license": {"id": LIBCS[name]}}]}
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        launcher = {"type": "application", "bom-ref": program.name, "name": program.name, "version": version}
        launcher["hashes"] = [{"alg": "SHA-256", "content": digest}]
        materials["components"] += [launcher, linked | {"version": release[0]} if release else linked]
        suite = materials["metadata"]["component"]["bom-ref"]
        next(item for item in materials["dependencies"] if item["ref"] == suite)["dependsOn"].append(program.name)
        materials["dependencies"] += [{"ref": program.name, "dependsOn": [name]}, {"ref": name}]

    def _written(self, materials: dict[str, Any]) -> str:
        """The file of it, with a serial number that another content would not have."""
        materials["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(materials, sort_keys=True)).urn
        file = Path(self.directory) / "agent-cni.cdx.json"
        file.write_text(json.dumps(materials, indent=1) + "\n")
        return str(file)
