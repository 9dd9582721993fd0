"""tools/install and tools/uninstall: what a node gets, and gets back."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from lab import ROOT, eventually, sh

PLUGINS = {"bridge-vxlan", "macvlan", "custom-plugin", "sidecar-redirect", "agent-ipam"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with its own PREFIX, BIN_DIR and CONF_DIR, activated."""
    place = tmp_path_factory.mktemp("node")
    install(place, "CONF=10-bridge-vxlan.conflist")
    return place


OFFLINE = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(ROOT / ".cache/wheels")}


def install(place: Path, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    folders = (f"PREFIX={place}/opt", f"BIN_DIR={place}/bin", f"CONF_DIR={place}/etc/net.d")
    return sh(ROOT / "tools/install", *folders, *more, check=check, env=OFFLINE)


def files(folder: Path) -> set[str]:
    return {str(item.relative_to(folder)) for item in folder.rglob("*")}


def test_executables_have_an_absolute_interpreter_and_run_without_an_environment(place: Path):
    assert files(place / "bin") == PLUGINS
    for name in PLUGINS:
        first = (place / "bin" / name).read_text().splitlines()[0]
        assert first == f"#!{place}/opt/bin/agent-cni-launcher"
        done = sh("/usr/bin/env", "-i", "CNI_COMMAND=VERSION", place / "bin" / name)
        assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


def test_without_a_compiler_the_plugins_start_python_themselves(tmp_path: Path):
    done = sh(
        ROOT / "tools/install", f"PREFIX={tmp_path}/opt", f"BIN_DIR={tmp_path}/bin", env=OFFLINE | {"CC": "false"}
    )
    assert "without a launcher" in done.stderr
    assert not (tmp_path / "opt/bin/agent-cni-launcher").exists()
    assert (tmp_path / "bin/macvlan").read_text().splitlines()[0] == f"#!{tmp_path}/opt/bin/python3 -I"
    assert (
        json.loads(sh("/usr/bin/env", "CNI_COMMAND=VERSION", tmp_path / "bin/macvlan").stdout)["cniVersion"] == "1.1.0"
    )


def test_an_agent_of_an_earlier_installation_serves_nobody_and_becomes_the_new_ones(place: Path):
    socket = place / "agent.sock"
    agent = subprocess.Popen([place / "opt/bin/agent-cni", "serve", "--socket", socket])
    version = ["unshare", "--mount", "sh", "-c", 'mount --bind /bin/false "$0" && exec "$1"']
    warm = [*version, place / "opt/bin/python3", place / "bin/macvlan"]
    env = {"CNI_COMMAND": "NONE", "AGENT_CNI_SOCKET": str(socket)}
    served = lambda: "NONE" in sh(*warm, env=env, check=False).stdout  # noqa: E731
    assert eventually(served)
    before = set(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split())
    (next((place / "opt/lib").glob("python3*/site-packages")) / "cni/__init__.py").touch()
    assert not served()
    assert eventually(served)
    assert not before & set(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split())
    agent.terminate()
    assert agent.wait(10) == 0


def test_the_conflist_is_there_and_nothing_else_was_left_beside_it(place: Path):
    assert files(place / "etc") == {"net.d", "net.d/10-bridge-vxlan.conflist"}
    done = sh(place / "opt/bin/agent-cni", "validate", place / "etc/net.d/10-bridge-vxlan.conflist")
    assert "bridge-vxlan: ok" in done.stdout


def test_nothing_is_writable_by_others_and_there_is_bytecode_but_no_pip(place: Path):
    loose = [item for item in place.rglob("*") if not item.is_symlink() and item.stat().st_mode & 0o022]
    assert loose == []
    packages = next((place / "opt/lib").glob("python3*/site-packages"))
    assert (packages / "cni/__pycache__").is_dir()
    assert not (packages / "pip").exists()


def test_installing_again_is_fine(place: Path):
    before = files(place / "bin") | files(place / "etc")
    install(place, "CONF=10-bridge-vxlan.conflist")
    assert files(place / "bin") | files(place / "etc") == before


def test_a_foreign_executable_is_not_overwritten_silently(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/agent-ipam").write_text("somebody else's")
    done = install(tmp_path, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "bin/agent-ipam") in done.stderr
    assert files(tmp_path) == {"bin", "bin/agent-ipam"}
    install(tmp_path, "FORCE=1")
    assert "agent-cni" in (tmp_path / "bin/agent-ipam").read_text()


def test_a_changed_conflist_is_not_overwritten_silently(place: Path):
    file = place / "etc/net.d/10-bridge-vxlan.conflist"
    original = file.read_text()
    file.write_text("{}")
    assert "differs" in install(place, "CONF=10-bridge-vxlan.conflist", check=False).stderr
    assert file.read_text() == "{}"
    file.write_text(original)


def test_a_staged_copy_refers_to_where_it_will_be(tmp_path: Path):
    sh(ROOT / "tools/install", f"DESTDIR={tmp_path}", "CONF=20-bridge.conflist", "UNIT_DIR=/units", env=OFFLINE)
    assert (tmp_path / "etc/cni/net.d/20-bridge.conflist").exists()
    assert (tmp_path / "opt/cni/bin/bridge-vxlan").read_text().startswith("#!/opt/agent-cni/bin/agent-cni-launcher\n")
    assert (tmp_path / "opt/agent-cni/bin/agent-cni").read_text().startswith("#!/opt/agent-cni/bin/python3")
    assert "ExecStart=/opt/agent-cni/bin/agent-cni serve\n" in (tmp_path / "units/agent-cni.service").read_text()
    sh(ROOT / "tools/uninstall", f"DESTDIR={tmp_path}", "UNIT_DIR=/units")
    assert not {item for item in files(tmp_path) if "agent" in item or "bridge-vxlan" in item}


@pytest.mark.parametrize("setting", ["PREFX=/x", "CONF=nothing.conflist"])
def test_a_wrong_setting_is_one_clear_line(tmp_path: Path, setting: str):
    done = install(tmp_path, setting, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
