"""The wheel's build hook: compile the launcher, and do without where that is impossible."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LauncherHook(BuildHookInterface):
    """With a launcher the wheel is of this platform; without, of any."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the program to the wheel's scripts."""
        program = Path(self.directory) / "agent-cni-launcher"
        program.parent.mkdir(parents=True, exist_ok=True)
        command = [str(Path(self.root) / "launcher/compile"), str(program), self.metadata.version]
        if subprocess.run(command, check=False).returncode:
            self.app.display_warning("without a launcher: the plugins start Python for every call")
            return
        build_data["shared_scripts"][str(program)] = program.name
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
