"""Earlier releases of this suite, as executables beside this one's: their own code, and this one's packages.

`releases/layout-N.tar.xz` holds one that wrote that layout: `git archive COMMIT cni plugins | xz`, of 4651ba9, 6c88ed4, 2530ef2 and, for 5, 1818004.
`installed` has any commit's installer put all of it down, launcher, agent and daemons, with the packages that one asked for.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import OFFLINE, REFERENCE_DIR, ROOT, Answer, Host, Pod, sh

KEPT = ROOT / "netns-tests/scenes/releases"
INSTALLED = ROOT / ".cache/releases"
_EXECUTABLE = """#!{python} -I
import sys
sys.path.insert(0, "{folder}")
from cni.{module} import main
raise SystemExit(main({script}))
"""


@dataclass(frozen=True)
class Release:
    """A release in a folder: its sources, and `bin` with its plugins and `agent-cni`."""

    name: str
    folder: Path

    @classmethod
    def kept(cls, name: str, folder: Path) -> Release:
        """One of those that are kept, unpacked in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        sh("tar", "-xJf", KEPT / f"{name}.tar.xz", "-C", folder)
        return cls.of(name, folder)

    @classmethod
    def of(cls, name: str, folder: Path) -> Release:
        """That of a checkout's folder."""
        shutil.rmtree(folder / "bin", ignore_errors=True)
        (folder / "bin").mkdir()
        for schema in (folder / "plugins").glob("*.schema.json"):
            plugin = schema.with_name(schema.name.removesuffix(".schema.json"))
            _write(folder, plugin.name, "main", f'"{plugin}"')
        _write(folder, "agent-cni", "command.main", "")
        return cls(name, folder)

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def command(self) -> Path:
        """Its `agent-cni`."""
        return self.bin / "agent-cni"

    def cni(self, host: Host, verb: str, conf: dict[str, Any], pod: Pod | None = None, **options: Any) -> Answer:
        """A call of its executables, which call its own delegates."""
        return host.cni(verb, conf, pod, bin_dir=self.bin, **({"CNI_PATH": f"{self.bin}:{REFERENCE_DIR}"} | options))

    def attach(self, host: Host, chain: list[dict[str, Any]], pod: Pod) -> dict[str, Any]:
        """An ADD of each plugin of a chain, as libcni makes them: the last one's result."""
        result: dict[str, Any] = {}
        for conf in chain:
            given = {"prevResult": result} if result else {}
            folder = self.bin if (self.bin / conf["type"]).exists() else REFERENCE_DIR
            result = host.cni("ADD", conf | given, pod, bin_dir=folder, CNI_PATH=f"{self.bin}:{REFERENCE_DIR}").ok()
        return result


def installed(commit: str) -> Path:
    """A folder with `opt` and `bin`, into which the release of a commit installed itself, once."""
    place = INSTALLED / commit
    if not (place / "bin").exists():
        shutil.rmtree(place, ignore_errors=True)
        source = place / "source"
        source.mkdir(parents=True)
        sh("sh", "-c", f"git archive {commit} | tar -x -C {source}", cwd=ROOT)
        folders = ("--prefix", place / "opt", "--bin-dir", place / "bin.new", "--conf-dir", place / "etc")
        sh(source / "tools/install", *folders, env=OFFLINE)
        (place / "bin.new").rename(place / "bin")
    return place


def _write(folder: Path, name: str, module: str, script: str) -> None:
    file = folder / "bin" / name
    file.write_text(_EXECUTABLE.format(python=ROOT / ".venv/bin/python3", folder=folder, module=module, script=script))
    file.chmod(0o755)
