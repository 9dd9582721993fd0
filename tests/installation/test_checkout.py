"""tools/install with a BUILD folder, as `make .venv/ready` calls it: an edit costs seconds, and nothing half-made is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from cni import plugin

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("cni", "plugins", "conf.d", "launcher", "tools")
FILES = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "Makefile")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(ROOT / ".cache/wheels")}


class Checkout:
    """A copy of this checkout, the folder it is built in and its prefix."""

    def __init__(self, folder: Path) -> None:
        self.source, self.build, self.prefix = folder / "source", folder / "build", folder / "opt"
        self.source.mkdir()
        for name in SOURCES:
            shutil.copytree(ROOT / name, self.source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, self.source)
        shutil.copytree(ROOT / ".cache/build", self.build, symlinks=True)

    def install(self) -> str:
        """What it complains of; nothing where it is installed."""
        command = [self.source / "tools/install", "--prefix", self.prefix, "--bin-dir", self.prefix / "cni-bin"]
        env = os.environ | OFFLINE | {"BUILD": str(self.build)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # a build leaves bytecode beside its hook, where nobody forbids it
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert bool(done.returncode) == bool(done.stderr), done.stderr
        return done.stderr

    def run(self, *argv: object, stdin: str = "") -> str:
        """What a program says in the checkout."""
        command = [str(item) for item in argv]
        done = subprocess.run(command, cwd=self.source, input=stdin, capture_output=True, text=True, check=True)
        return done.stdout

    def edit(self, name: str, line: str) -> None:
        with (self.source / name).open("a") as file:
            file.write(f"{line}\n")

    def installed(self, name: str) -> str:
        return next(self.prefix.glob(f"lib/python3*/site-packages/{name}")).read_text()


def test_an_edit_is_installed_alone_and_what_it_needs_only_when_that_changed(tmp_path: Path):
    checkout = Checkout(tmp_path)
    assert checkout.install() == ""
    kept = checkout.build / "kept"
    kept.touch()

    checkout.edit("cni/nat.py", "EDITED = True")
    assert checkout.install() == ""
    assert checkout.installed("cni/nat.py").endswith("\nEDITED = True\n")
    assert kept.exists()

    before = (checkout.source / "constraints.txt").read_text()
    checkout.edit("constraints.txt", "jsonschema==0.1")
    assert "Cannot install jsonschema" in checkout.install()

    (checkout.source / "constraints.txt").write_text(before)
    assert checkout.install() == ""
    assert not kept.exists()
    assert checkout.installed("cni/nat.py").endswith("\nEDITED = True\n")


def test_a_new_plugin_is_its_files_and_nothing_else(tmp_path: Path):
    """In the wheel, the installation, style and types: everything goes by the schemas."""
    checkout = Checkout(tmp_path)
    for suffix in ("", ".schema.json"):
        shutil.copy(ROOT / f"plugins/macvlan{suffix}", checkout.source / f"plugins/second{suffix}")
    assert checkout.install() == ""
    assert (checkout.build / "bin/second").exists()
    assert (checkout.prefix / "cni-bin/second").exists()

    conf = {"cniVersion": "1.1.0", "name": "net", "type": "second", "master": "eth0"}
    said = checkout.run(checkout.prefix / "bin/agent-cni", "validate", "-", stdin=json.dumps(conf))
    assert said == "-: $: second: ok\n"

    styled = checkout.run(ROOT / ".cache/dev/bin/ruff", "check", "--show-files", "plugins").split()
    assert {Path(name).name for name in styled} == {*plugin.names(), "second"}
    assert " plugins/second " in checkout.run("make", "--dry-run", "--assume-old", ".venv/ready", "check")
