"""The wheel's build hook: its scripts are the plugins, and the launcher where it can be compiled."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Scripts(BuildHookInterface):
    """With a launcher the wheel is of this platform; without, of any."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them to the wheel."""
        for schema in (Path(self.root) / "plugins").glob("*.schema.json"):
            name = schema.name.removesuffix(".schema.json")
            build_data["shared_scripts"][f"plugins/{name}"] = name
        if not (program := self._compiled()):
            self.app.display_warning("without a launcher: the plugins start Python for every call")
            return
        build_data["shared_scripts"][str(program)] = program.name
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _compiled(self) -> Path | None:
        program = Path(self.directory) / "agent-cni-launcher"
        program.parent.mkdir(parents=True, exist_ok=True)
        command = [str(Path(self.root) / "launcher/compile"), str(program), self.metadata.version]
        return None if subprocess.run(command, check=False).returncode else program
