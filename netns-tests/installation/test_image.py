"""A node image: a minimal Debian root, the suite baked in, and a pod made by it without network or compiler."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, OFFLINE, PATIENCE, ROOT, Host, Pod, environment, eventually, everything, sh

SOURCES = ("cni", "plugins", "conf.d", "launcher", "tools", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
PLUGINS = sorted(file.name for file in (ROOT / "plugins").iterdir() if not file.suffix)
MIB = 1 << 20
CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True,
    "policy": {"ingress": ["10.0.0.0/8"]}, "sidecar": {"port": 15001}, "ipam": {"subnet": "10.1.0.0/24"},
}  # fmt: skip
IN_IMAGE = """
mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount --rbind /run "$0/run" && mount --rbind /dev "$0/dev"
exec chroot "$0" "$@"
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root before anything is baked in."""
    root = tmp_path_factory.mktemp("plain") / "root"
    shutil.copytree(ROOT / ".cache/image/root", root, symlinks=True)
    return root


@pytest.fixture(scope="module")
def image(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return baked(plain, tmp_path_factory.mktemp("image"), ROOT)


def baked(plain: Path, folder: Path, source: Path) -> Path:
    shutil.copytree(plain, folder / "root", symlinks=True)
    options = ("--root", folder / "root", "--python", "/usr/bin/python3", "--systemd", "--conf", "20-bridge.conflist")
    sh(source / "tools/install", *options, env=OFFLINE)
    return folder / "root"


def in_image(host: Host, image: Path, *argv: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of the image in it, on a host that reaches nobody."""
    return sh(*host.prefix(), "sh", "-ec", IN_IMAGE, image, *argv, **options)


def call(host: Host, image: Path, verb: str, conf: dict[str, Any], pod: Pod | None = None) -> Any:
    said = in_image(host, image, f"/opt/cni/bin/{conf['type']}", input=json.dumps(conf), env=environment(verb, pod))
    return json.loads(said.stdout or "null")


def new_files(plain: Path, image: Path) -> list[Path]:
    before = everything(plain).keys()
    return [image / name for name in everything(image) if name not in before]


def test_two_builds_of_one_source_are_the_same_to_the_byte(plain: Path, image: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    for name in SOURCES:
        sh("cp", "-a", ROOT / name, tmp_path / "elsewhere")
    other = baked(plain, tmp_path, tmp_path / "elsewhere")
    first, second = everything(image), everything(other)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_what_is_baked_is_roots_and_small(plain: Path, image: Path, capsys: pytest.CaptureFixture[str]):
    new = new_files(plain, image)
    assert {(item.lstat().st_uid, item.lstat().st_gid) for item in new} == {(0, 0)}
    assert [item for item in new if not item.is_symlink() and item.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)] == []
    size = sum(item.lstat().st_blocks * 512 for item in new)
    with capsys.disabled():
        print(f"\nbaked: {size / MIB:.0f} MiB beyond Python, {len(new)} files")
    assert size <= 60 * MIB


def test_the_image_has_no_compiler_and_no_word_of_where_it_was_built(image: Path):
    assert not [item for name in ("cc", "gcc", "ld", "pip", "pip3") for item in image.rglob(f"bin/{name}")]
    traces = (str(image).encode(), str(ROOT).encode())
    assert [name for name, (_, content) in everything(image).items() if any(item in content for item in traces)] == []


def test_every_plugin_answers_version_in_it(host: Host, image: Path):
    answers = [call(host, image, "VERSION", {"type": name}) for name in PLUGINS]
    assert [answer["cniVersion"] for answer in answers] == ["1.1.0"] * len(PLUGINS)


def test_version_needs_nothing_mounted_and_the_rest_says_what_it_needs(image: Path):
    def bare(verb: str) -> subprocess.CompletedProcess[str]:
        env = {"CNI_COMMAND": verb}
        return sh("chroot", image, "/opt/cni/bin/macvlan", env=env | {"PATH": "/usr/sbin:/usr/bin"}, check=False)

    assert json.loads(bare("VERSION").stdout)["cniVersion"] == "1.1.0"
    assert bare("ADD").stderr == "agent-cni-launcher: /proc/self/exe: No such file or directory\n"


def test_a_pod_is_made_and_ended_in_it(host: Host, pod: Pod, image: Path):
    before = host.snapshot()
    result = call(host, image, "ADD", CONF, pod)
    assert result["ips"][0]["address"] == "10.1.0.2/24"
    assert pod.pings("10.1.0.1")
    assert "15001" in pod.run("iptables-nft-save").stdout
    call(host, image, "CHECK", CONF | {"prevResult": result}, pod)
    shutil.copy("/usr/lib/cni/loopback", image / "opt/cni/bin")  # the runtime's
    told = in_image(host, image, "/opt/agent-cni/bin/agent-cni", "doctor").stdout.splitlines()
    others = ("agent: none, ", "cluster: none", "all is well; 1 attachment looked at")
    assert [line for line in told if not line.endswith(": ok") and not line.startswith(others)] == []
    call(host, image, "DEL", CONF, pod)
    after = host.snapshot()
    assert after["state"] == before["state"]
    assert pod.run("ip", "-o", "link").stdout.count("\n") == 1


def test_an_agent_in_a_container_serves_the_node(host: Host, pod: Pod, image: Path):
    """As deploy/daemonset.yaml runs it: changed root on the node's files, in mounts of its own. The caller has no Python."""
    socket = "/run/agent-cni/container.sock"
    serve = ("/opt/agent-cni/bin/agent-cni", "serve", "--socket", socket)
    agent = subprocess.Popen([*host.prefix(), "sh", "-ec", IN_IMAGE, str(image), *serve])
    assert eventually((host.folder / "container.sock").exists)
    without_python = f'mount --bind /bin/false "$0/usr/bin/python3.11"; {IN_IMAGE}'
    for verb in ("ADD", "DEL"):
        env = environment(verb, pod) | {"AGENT_CNI_SOCKET": socket}
        command = [*host.prefix(), "sh", "-ec", without_python, image, "/opt/cni/bin/bridge-vxlan"]
        sh(*command, input=json.dumps(CONF), env=env)
    agent.terminate()
    assert agent.wait(PATIENCE) == 0


def test_an_installer_needs_no_capability(plain: Path, tmp_path: Path):
    shutil.copytree(plain, tmp_path / "root", symlinks=True)
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    sh(*bare, AGENT_CNI, "install", "--root", tmp_path / "root", "--python", "/usr/bin/python3", "--link")
    assert (tmp_path / "root/opt/cni/bin/macvlan").exists()


def test_the_agents_socket_can_be_enabled_in_it(image: Path):
    sh("systemctl", "--root", image, "enable", "agent-cni.socket")
    wanted = image / "etc/systemd/system/sockets.target.wants/agent-cni.socket"
    assert wanted.readlink() == Path("/etc/systemd/system/agent-cni.socket")
