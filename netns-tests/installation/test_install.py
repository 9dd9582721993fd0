"""What `agent-cni install` gives a node or an image of one, and what `uninstall` takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab import BIN_DIR, OFFLINE, PATIENCE, ROOT, Host, Pod, eventually, everything, sh

PYTHON = Path(sys.executable).resolve()
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PLUGINS = {file.name for file in (ROOT / "plugins").iterdir() if not file.suffix}


SUITE = ROOT / ".venv/bin/agent-cni"
CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "ipam": {"subnet": "10.1.0.0/24"},
}  # fmt: skip
IMAGE = ("--systemd", "--link", "--conf", "20-bridge.conflist")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation from the checkout with its own prefix and folders, activated."""
    place = tmp_path_factory.mktemp("node")
    (place / "of a friend").symlink_to(ROOT / ".cache")
    wheels = os.environ | {"WHEELS": str(place / "of a friend/wheels")}
    sh("unshare", "--net", ROOT / "tools/install", *folders(place), "--conf", "10-bridge-vxlan.conflist", env=wheels)
    return place


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The root of a node that has Python and nothing else."""
    for path in (PYTHON, PYTHON.parent.parent / f"lib/python{VERSION}/sqlite3/__init__.py"):
        (tmp_path / "image" / path.relative_to("/")).parent.mkdir(parents=True)
        (tmp_path / "image" / path.relative_to("/")).touch()
    return tmp_path / "image"


def folders(place: Path) -> tuple[object, ...]:
    return "--prefix", place / "opt", "--bin-dir", place / "bin", "--conf-dir", place / "etc/net.d"


def install(place: Path, *more: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return sh(SUITE, "install", *folders(place), *more, check=check)


def bake(image: Path, *more: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return sh(SUITE, "install", "--root", image, *more, check=check)


def uninstall(
    host: Host, place: Path, *more: object, check: bool = True, by: Path = SUITE
) -> subprocess.CompletedProcess[str]:
    """On a host with logs of its own: the other tests' must stay."""
    own_logs = 'mount -t tmpfs tmpfs /var/log && mkdir /var/log/agent-cni && exec "$0" "$@"'
    return host.run("sh", "-c", own_logs, by, "uninstall", *folders(place), *more, check=check)


def files(folder: Path) -> set[str]:
    return {str(item.relative_to(folder)) for item in folder.rglob("*")}


def test_executables_have_an_absolute_interpreter_and_run_without_an_environment(place: Path):
    assert files(place / "bin") == PLUGINS
    for name in PLUGINS:
        first = (place / "bin" / name).read_text().splitlines()[0]
        assert first == f"#!{place}/opt/bin/agent-cni-launcher"
        done = sh("/usr/bin/env", "-i", "CNI_COMMAND=VERSION", place / "bin" / name)
        assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


def test_without_an_index_it_says_in_a_line_how_it_is_done(tmp_path: Path):
    done = sh("unshare", "--net", ROOT / "tools/install", *folders(tmp_path), check=False)
    *reasons, way = done.stderr.splitlines()
    assert len(reasons) <= 3
    assert way == (
        "install: without a package index: make wheels WHEELS=FOLDER where there is one, then make install WHEELS=FOLDER here"
    )
    assert (done.returncode, files(tmp_path)) == (1, set())


@pytest.mark.parametrize(
    ("lacks", "said"),
    [("cc", "this needs a C compiler (gcc libc6-dev), or WHEELS=FOLDER with built wheels"),
     ("python3", "this needs Python 3.11 or newer (python3)")],
)  # fmt: skip
def test_what_it_needs_is_said_before_anything_is_done(tmp_path: Path, lacks: str, said: str):
    path = tmp_path / "path"
    path.mkdir()
    for name in {"bash", "dirname", "cc", "python3"} - {lacks}:
        (path / name).symlink_to(shutil.which(name) or "")
    done = sh(path / "bash", ROOT / "tools/install", *folders(tmp_path), env={"PATH": str(path)}, check=False)
    assert f"install: {said}" in done.stderr.splitlines()
    assert not (tmp_path / "opt").exists()


def test_without_a_compiler_the_plugins_start_python_themselves(tmp_path: Path):
    done = sh(ROOT / "tools/install", *folders(tmp_path), env=OFFLINE | {"CC": "false"})
    assert "without a launcher" in done.stderr
    assert not (tmp_path / "opt/bin/agent-cni-launcher").exists()
    assert (tmp_path / "bin/macvlan").read_text().splitlines()[0] == f"#!{tmp_path}/opt/bin/python3 -I"
    done = sh("/usr/bin/env", "CNI_COMMAND=VERSION", tmp_path / "bin/macvlan")
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


def test_an_agent_of_an_earlier_installation_serves_nobody_and_becomes_the_new_ones(place: Path):
    socket = place / "agent.sock"
    agent = subprocess.Popen([place / "opt/bin/agent-cni", "serve", "--socket", socket])
    version = ["unshare", "--mount", "sh", "-c", 'mount --bind /bin/false "$0" && exec "$1"']
    warm = [*version, place / "opt/bin/python3", place / "bin/macvlan"]
    env = {"CNI_COMMAND": "NONE", "AGENT_CNI_SOCKET": str(socket)}
    served = lambda: "NONE" in sh(*warm, env=env, check=False).stdout  # noqa: E731
    assert eventually(served)
    before = set(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split())
    assert before
    (next((place / "opt/lib").glob("python3*/site-packages")) / "cni/__init__.py").touch()
    assert not served()
    assert eventually(served)
    assert not before & set(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split())
    agent.terminate()
    assert agent.wait(PATIENCE) == 0


def test_the_conflist_is_there_and_nothing_else_was_left_beside_it(place: Path):
    assert files(place / "etc") == {"net.d", "net.d/10-bridge-vxlan.conflist", "net.d/.agent-cni"}
    done = sh(place / "opt/bin/agent-cni", "validate", place / "etc/net.d/10-bridge-vxlan.conflist")
    assert "bridge-vxlan: ok" in done.stdout


def test_a_conflist_of_ones_own_is_judged_before_it_is_activated(tmp_path: Path):
    file = tmp_path / "10-own.conflist"
    wrong = {"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "macvlan", "mastr": "eth0"}]}
    file.write_text(json.dumps(wrong))
    said = install(tmp_path, "--conf", file, check=False).stderr
    assert said.startswith(f"agent-cni: {file}: $.plugins[0]: $.mastr: unknown key")
    assert not (tmp_path / "opt").exists()
    file.write_text(json.dumps(wrong | {"plugins": [{"type": "macvlan", "master": "eth0"}]}))
    install(tmp_path, "--conf", file)
    assert (tmp_path / "etc/net.d/10-own.conflist").read_text() == file.read_text()


def test_nothing_is_writable_by_others_and_there_is_bytecode_but_no_pip(place: Path):
    loose = [item for item in place.rglob("*") if not item.is_symlink() and item.stat().st_mode & 0o022]
    assert loose == []
    packages = next((place / "opt/lib").glob("python3*/site-packages"))
    assert (packages / "cni/__pycache__").is_dir()
    assert not (packages / "pip").exists()


def test_it_stands_for_a_reference_plugin_where_nobody_has_the_name(host: Host, tmp_path: Path):
    install(tmp_path, "--as", "bridge", "--as", "host-local")
    answered = sh(
        "/usr/bin/env", "-i", "CNI_COMMAND=STATUS", "CNI_PATH=/x", tmp_path / "bin/bridge", input="{}", check=False
    )
    assert "has no STATUS" in json.loads(answered.stdout)["msg"], answered
    assert install(tmp_path, "--as", "bridge", "--as", "host-local").stdout == "nothing to be installed\n"
    (tmp_path / "bin/ptp").write_text("the reference's\n")
    assert "bin/ptp" in install(tmp_path, "--as", "ptp", check=False).stderr
    assert "invalid choice" in install(tmp_path, "--as", "loopback", check=False).stderr
    said = uninstall(host, tmp_path, "--force")
    assert "ptp" not in said.stdout + said.stderr
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["ptp"]


def test_installing_again_changes_nothing(tmp_path: Path):
    install(tmp_path, "--conf", "10-bridge-vxlan.conflist")
    before = everything(tmp_path)
    again = install(tmp_path, "--conf", "10-bridge-vxlan.conflist")
    assert again.stdout == "nothing to be installed\n"
    assert everything(tmp_path) == before
    done = sh(tmp_path / "opt/bin/agent-cni", "install", *folders(tmp_path))
    assert done.stdout == "nothing to be installed\n"


def test_a_copy_can_be_copied_on(tmp_path: Path):
    install(tmp_path / "first")
    sh(tmp_path / "first/opt/bin/agent-cni", "install", *folders(tmp_path / "second"))
    first, second = everything(tmp_path / "first/opt/lib"), everything(tmp_path / "second/opt/lib")
    assert first.keys() == second.keys()
    assert {name for name, item in first.items() if item != second[name] and not name.endswith(".pyc")} == set()


def test_a_copy_is_copied_to_where_it_is_for_without_a_compiler(tmp_path: Path):
    """As an installer's image has it: each node would compile the same bytes."""
    install(tmp_path / "here")
    copy = tmp_path / "here/opt"
    bytecode = next(copy.rglob("errors.*.pyc"))
    bytecode.write_bytes(bytecode.read_bytes() + b"as it was")
    (tmp_path / "root").mkdir()
    sh(copy / "bin/agent-cni", "install", "--root", tmp_path / "root", *folders(tmp_path / "here"))
    assert everything(tmp_path / "root" / copy.relative_to("/")) == everything(copy)
    elsewhere = tmp_path / "elsewhere"
    sh(copy / "bin/agent-cni", "install", *folders(elsewhere))
    compiled = elsewhere / "opt" / bytecode.relative_to(copy)
    assert not compiled.read_bytes().endswith(b"as it was"), "it says where it is"


def test_a_foreign_executable_is_not_overwritten_silently(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/agent-ipam").write_text("somebody else's")
    done = install(tmp_path, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "bin/agent-ipam") in done.stderr
    assert files(tmp_path) == {"bin", "bin/agent-ipam"}
    install(tmp_path, "--force")
    assert "agent-cni" in (tmp_path / "bin/agent-ipam").read_text()


def test_only_what_is_called_is_put_beside_somebody_elses_plugins(host: Host, tmp_path: Path):
    """As on a node with the reference plugins, one of which has the name of one of ours."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/macvlan").write_text("theirs")
    conflists = tmp_path / "conflists"
    conflists.mkdir()
    routed = {"type": "bridge-vxlan", "ipam": {"type": "agent-ipam"}}
    theirs = {"type": "bridge", "ipam": {"type": "agent-ipam"}}
    for name, conf in {"10-a": routed, "20-b": {"type": "portmap"}}.items():
        (conflists / f"{name}.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": [conf]}))
    node = tmp_path / "node"
    place = ("--prefix", node / "opt", "--bin-dir", tmp_path / "bin", "--conf-dir", node / "net.d")
    sh(SUITE, "install", *place, "--called-by", conflists)
    assert files(tmp_path / "bin") == {"macvlan", "bridge-vxlan"}
    (conflists / "20-b.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": [theirs]}))
    sh(SUITE, "install", *place, "--called-by", conflists, "--only", "custom-plugin")
    assert files(tmp_path / "bin") == {"macvlan", "bridge-vxlan", "agent-ipam", "custom-plugin"}
    refused = sh(SUITE, "install", *place, "--only", "macvlan", check=False)
    assert (refused.returncode, f"{tmp_path}/bin/macvlan" in refused.stderr) == (1, True)
    said = host.run(
        "sh", "-c", 'mount -t tmpfs tmpfs /var/log && exec "$0" "$@"', SUITE, "uninstall", *place, "--force"
    )
    assert f"{tmp_path}/bin/macvlan was changed, or is somebody else's, and is left" in said.stderr
    assert files(tmp_path / "bin") == {"macvlan"}


def test_a_foreign_prefix_is_left_alone(tmp_path: Path):
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/precious").touch()
    assert f"{tmp_path}/opt is there and is not agent-cni's" in install(tmp_path, "--force", check=False).stderr
    assert files(tmp_path) == {"opt", "opt/precious"}


def test_a_changed_conflist_is_not_overwritten_and_stays(host: Host, tmp_path: Path):
    install(tmp_path, "--conf", "20-bridge.conflist")
    file = tmp_path / "etc/net.d/20-bridge.conflist"
    file.write_text("{}")
    assert "changed since" in install(tmp_path, "--conf", "20-bridge.conflist", check=False).stderr
    assert "is left" in uninstall(host, tmp_path, "--force").stderr
    assert files(tmp_path) == {"bin", "etc", "etc/net.d", "etc/net.d/20-bridge.conflist"}


def test_a_baked_image_refers_to_where_it_will_be(image: Path):
    bake(image, *IMAGE)
    assert (image / "etc/cni/net.d/20-bridge.conflist").exists()
    assert (image / "opt/cni/bin/bridge-vxlan").read_text().startswith("#!/opt/agent-cni/bin/agent-cni-launcher\n")
    assert (image / "opt/agent-cni/bin/agent-cni").read_text().startswith("#!/opt/agent-cni/bin/python3 -I\n")
    unit = (image / "etc/systemd/system/agent-cni.service").read_text()
    assert "\nExecStart=/opt/agent-cni/bin/agent-cni serve\n" in unit
    assert {"network/10-agent-cni.link", "networkd.conf.d/50-agent-cni.conf"} < files(image / "etc/systemd")
    assert (image / "usr/local/bin/agent-cni").read_text().endswith('\nexec /opt/agent-cni/bin/agent-cni "$@"\n')
    holds_it = [name for name, (_, content) in everything(image).items() if str(image).encode() in content]
    assert holds_it == []


def test_an_image_is_baked_with_the_same_bytes_whoever_does_it(image: Path, tmp_path: Path):
    bake(image, *IMAGE)
    first = everything(image)
    sh("cp", "-a", image, tmp_path / "elsewhere")
    sh(SUITE, "uninstall", "--root", tmp_path / "elsewhere")
    other = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7", "HOME": "/nowhere"}
    sh("sh", "-c", 'umask 077; exec "$@"', "-", SUITE, "install", "--root", tmp_path / "elsewhere", *IMAGE, env=other)
    assert everything(tmp_path / "elsewhere") == first


def test_times_are_those_of_the_source_where_it_has_some(image: Path):
    sh(SUITE, "install", "--root", image, env={"SOURCE_DATE_EPOCH": "1700000000"})
    made = [*(image / "opt/agent-cni").rglob("*"), *(image / "opt/cni/bin").iterdir()]
    times = {item.lstat().st_mtime for item in made}
    assert times == {1700000000}
    done = sh(SUITE, "install", "--root", image, env={"SOURCE_DATE_EPOCH": "today"}, check=False)
    assert done.stderr == "agent-cni: SOURCE_DATE_EPOCH is no number of seconds: 'today'\n"
    assert (image / "opt/agent-cni/bin/agent-cni").exists()
    assert {item.name for item in (image / "opt").iterdir()} == {"agent-cni", "cni"}


def test_uninstalling_leaves_what_was_there_before(image: Path):
    before = files(image)
    bake(image, *IMAGE)
    sh("systemctl", "--root", image, "enable", "agent-cni.socket")
    assert (image / "etc/systemd/system/sockets.target.wants/agent-cni.socket").is_symlink()
    (image / "var/log/agent-cni").mkdir(parents=True)
    sh(SUITE, "uninstall", "--root", image)
    left = files(image) - before
    assert {name for name in left if not (image / name).is_dir() or "agent-cni" in name} == set()
    assert sh(SUITE, "uninstall", "--root", image).stdout == "nothing to be removed\n"


def test_a_command_of_another_prefix_is_left(image: Path):
    bake(image, *IMAGE)
    sh(SUITE, "uninstall", "--root", image, "--prefix", "/somewhere/else")
    assert (image / "usr/local/bin/agent-cni").exists()


def test_a_folder_for_a_package_needs_no_python(tmp_path: Path):
    bake(tmp_path, *IMAGE)
    assert (tmp_path / "opt/cni/bin/macvlan").exists()


def test_an_image_without_python_is_told_so(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").touch()
    done = bake(tmp_path, check=False)
    assert done.stderr.startswith(f"agent-cni: {tmp_path} has no {PYTHON}: install Python {VERSION} there")
    assert files(tmp_path) == {"etc", "etc/os-release"}


def test_a_link_out_of_the_image_is_not_followed(image: Path, tmp_path: Path):
    (image / "etc").mkdir()
    (image / "etc/cni").symlink_to(tmp_path / "outside")
    assert "leads out of" in bake(image, *IMAGE, check=False).stderr
    assert files(image / "etc") == {"cni"}


def test_the_suite_stays_while_pods_need_it(host: Host, pod: Pod, tmp_path: Path):
    host.add(CONF, pod)
    install(tmp_path)
    done = uninstall(host, tmp_path, check=False)
    assert done.stderr.startswith("agent-cni: pods are attached here (1)")
    assert (tmp_path / "bin/macvlan").exists()
    host.delete_pod(CONF, pod)
    assert "removed /var/log/agent-cni" in uninstall(host, tmp_path, "--force").stdout
    assert not [item for item in tmp_path.rglob("*") if not item.is_dir()]
    assert list(host.folder.iterdir()) == []


def test_bridges_and_vxlan_devices_go_with_the_suite_where_nothing_else_is_on_them(
    host: Host, pod: Pod, tmp_path: Path
):
    overlay = CONF | {"vxlan": {"id": 7, "remotes": ["192.0.2.9"]}}
    lent = CONF | {"name": "lent", "bridge": "br1", "ipam": {"subnet": "10.2.0.0/24"}}
    for conf in (overlay, lent):
        host.add(conf, pod)
        host.delete_pod(conf, pod)
    under = CONF | {"name": "under", "bridge": "br3", "ipam": {"subnet": "10.3.0.0/24"}}
    host.add(under, pod)
    host.delete_pod(under, pod)
    for command in (
        "link add br2 type bridge",
        "link add tap1 type veth peer name tap2",
        "link set tap1 master br1",
        "link add link br3 name upper type macvlan",
    ):
        host.run("ip", *command.split())
    install(tmp_path)
    said = uninstall(host, tmp_path, "--force").stdout
    assert {"removed link br0", "removed link vxlan7"} < set(said.splitlines())
    assert {link["ifname"] for link in host.ip("link", "show")} == {"lo", "br1", "br2", "br3", "tap1", "tap2", "upper"}


@pytest.mark.parametrize("edited", [False, True])
def test_a_file_that_was_activated_goes_again_unless_it_is_ones_own_by_then(host: Host, tmp_path: Path, edited: bool):
    file = tmp_path / "10-own.conflist"
    own = {"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "macvlan", "master": "eth0"}]}
    file.write_text(json.dumps(own))
    install(tmp_path / "node", "--conf", file)
    there = tmp_path / "node/etc/net.d/10-own.conflist"
    file.write_text(json.dumps(own | {"name": "another"}))
    install(tmp_path / "node", "--conf", file)
    assert json.loads(there.read_text())["name"] == "another", "what was put there is replaced"
    if edited:
        there.write_text(json.dumps(own))
        assert "changed since" in install(tmp_path / "node", "--conf", file, check=False).stderr
    said = uninstall(host, tmp_path / "node", "--force").stderr
    assert (f"{there} was changed, or is somebody else's, and is left" in said) == edited
    assert files(tmp_path / "node/etc/net.d") == ({"10-own.conflist"} if edited else set())


def test_a_copy_that_takes_itself_away_knows_all_it_has_to_say(host: Host, tmp_path: Path):
    """Where a configuration of one's own is left, which is judged by what goes."""
    install(tmp_path, "--conf", "10-bridge-vxlan.conflist")
    own = tmp_path / "etc/net.d/20-own.conflist"
    own.write_text(json.dumps({"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "macvlan", "master": "e0"}]}))
    for more in (), ("--json",):
        done = uninstall(host, tmp_path, "--force", *more, by=tmp_path / "opt/bin/agent-cni")
        assert done.stderr == f"agent-cni: {own} is your own and still names plugins of this suite, and is left\n"
        assert [item.name for item in tmp_path.rglob("*") if not item.is_dir()] == ["20-own.conflist"]
        install(tmp_path)


def test_of_two_installations_each_takes_away_its_own(image: Path):
    """The first has what a node has one of: units, the command, the conflist, logs, state."""
    bake(image, *IMAGE)
    (image / "var/log/agent-cni").mkdir(parents=True)
    first = files(image)
    second = "--prefix", "/opt/second", "--bin-dir", "/opt/second-bin"
    said = bake(image, *IMAGE, *second).stderr
    command, service = image / "usr/local/bin/agent-cni", image / "etc/systemd/system/agent-cni.service"
    for path in (command, service):
        assert f"{path} is of the installation in /opt/agent-cni, and is left" in said
        assert "/opt/second" not in path.read_text()
    taken = bake(image, "--prefix", "/opt/second", check=False).stderr
    assert taken.startswith(f"agent-cni: {image}/opt/cni/bin/agent-ipam is of the installation in /opt/agent-cni; ")
    done = sh(SUITE, "uninstall", "--root", image, *second)
    assert "what this node has one of is left to the installation in /opt/agent-cni\n" in done.stderr
    assert files(image) == first | {"opt/second-bin"}
    assert bake(image, *IMAGE, "--link", *second, "--force").returncode == 0
    assert "/opt/second" in command.read_text()
    sh(SUITE, "uninstall", "--root", image)
    assert "/opt/second" in command.read_text()
    sh(SUITE, "uninstall", "--root", image, *second)
    assert not [item for item in files(image) - {"var/log"} if "agent-cni" in item]


def test_logs_are_rotated_by_the_real_logrotate_and_written_on(host: Host, pod: Pod, image: Path, tmp_path: Path):
    bake(image, *IMAGE)
    rotate = (
        'mount -t tmpfs tmpfs /var/log && "$0" && '
        'head -c 11000000 /dev/zero >>/var/log/agent-cni/bridge-vxlan.log && logrotate --state "$2" "$1" && "$0" && '
        "cd /var/log/agent-cni && ls && grep -c CHECK bridge-vxlan.log"
    )
    checked = tmp_path / "check"
    env = f"CNI_COMMAND=CHECK CNI_CONTAINERID=c CNI_IFNAME=eth0 CNI_NETNS={pod.path} CNI_PATH=/x AGENT_CNI_SOCKET="
    call = f"echo '{json.dumps(CONF)}' | {env} {BIN_DIR}/bridge-vxlan >/dev/null 2>&1 || true"
    checked.write_text(f"#!/bin/sh\n{call}\n")
    checked.chmod(0o755)
    done = host.run(
        "unshare", "--mount", "sh", "-c", rotate, checked, image / "etc/logrotate.d/agent-cni", tmp_path / "state"
    )
    assert done.stdout.split() == ["bridge-vxlan.log", "bridge-vxlan.log.1.gz", "1"]


#: A node that systemd runs, whose systemctl only keeps what it is told; /etc/systemd is its own. What is asked is answered by /run/active.
BOOTED = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system
mount -t tmpfs tmpfs /var/log && mount -t tmpfs tmpfs /etc/systemd && mount -t tmpfs tmpfs /usr/local/bin
printf '#!/bin/sh\ntest "$1" != is-active || exec grep -qsx "$2" /run/active\necho "$@" >>/run/told\n' >/run/systemctl
printf '#!/bin/sh\necho networkctl "$@" >>/run/told\n' >/run/networkctl
chmod +x /run/*ctl
for program in systemctl networkctl; do mount --bind /run/$program /usr/bin/$program; done
told() { cat /run/told 2>/dev/null || true; rm -f /run/told; echo; }
of_before() { for unit; do sed -i '1a # of before' /etc/systemd/$unit; done; }
set -e
"""


def booted(tmp_path: Path, script: str) -> list[str]:
    """What a script said on such a node; `install` and `uninstall` are of a copy of its own."""
    where = " ".join(map(str, folders(tmp_path)))
    commands = f'install="{SUITE} install {where} --systemd" uninstall="{SUITE} uninstall {where}"'
    done = sh("unshare", "--mount", "sh", "-ec", f"{BOOTED}\n{commands}\n{script}")
    return done.stdout.split("\n")


def test_what_starts_the_agent_and_who_answers_for_names_is_enabled_and_goes_with_them(tmp_path: Path):
    """`make install` asks for them where systemd runs, unless told not to."""
    make = f"make -s -C {ROOT} --dry-run install"
    assert booted(
        tmp_path,
        f"""
        {make} | grep -c -- --systemd; ! {make} SYSTEMD=0 | grep -- --systemd; ! {make} DESTDIR=/x | grep -- --systemd
        $install >/dev/null; told; readlink /etc/systemd/system/*.target.wants/agent-cni* | sort -r
        $install; test ! -e /run/told
        $uninstall >/dev/null; told
        find /etc/systemd -type f
        """,
    ) == [
        "1", "daemon-reload", "start agent-cni.socket agent-cni-names.path agent-cni-dnsgate.path", "", "/etc/systemd/system/agent-cni.socket",
        "/etc/systemd/system/agent-cni-names.path", "/etc/systemd/system/agent-cni-dnsgate.path", "nothing to be installed",
        "disable --now agent-cni.socket agent-cni-names.path agent-cni-dnsgate.path agent-cni.service agent-cni-member.service agent-cni-names.service agent-cni-dnsgate.service agent-cni-flows.service",
        "daemon-reload", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("of_before", "anew"),
    [
        (["agent-cni.service"], ["agent-cni.service"]),
        (["agent-cni-member.service"], ["agent-cni-member.service"]),
        (["agent-cni.socket"], ["agent-cni.socket"]),
        (["agent-cni-names.service"], ["agent-cni-names.service"]),
        (["agent-cni-flows.service"], ["agent-cni-flows.service"]),
        (["agent-cni-dnsgate.service"], ["agent-cni-dnsgate.service"]),
        (["agent-cni.socket", "agent-cni.service"], ["agent-cni.service", "agent-cni.socket"]),
    ],
)
def test_what_runs_by_a_unit_of_the_release_before_is_started_anew(
    tmp_path: Path, of_before: list[str], anew: list[str]
):
    """What was disabled since stays so."""
    wanted = "/etc/systemd/system/sockets.target.wants/agent-cni.socket /etc/systemd/system/multi-user.target.wants/agent-cni-*.path"
    assert booted(
        tmp_path,
        f"""
        $install >/dev/null; told >/dev/null; rm {wanted}
        of_before {" ".join(f"system/{unit}" for unit in of_before)}
        $install >/dev/null; told; ! ls {wanted} 2>/dev/null
        """,
    ) == ["daemon-reload", f"--no-block try-restart {' '.join(anew)}", "", ""]


def test_the_daemons_of_a_copy_that_is_another_are_started_anew(tmp_path: Path):
    """The agent sees to that itself. A copy of another prefix is none of theirs."""
    assert booted(
        tmp_path,
        f"""
        $install >/dev/null; told >/dev/null
        echo changed >>{tmp_path}/opt/pyvenv.cfg; $install >/dev/null; told
        {SUITE} install {" ".join(map(str, folders(tmp_path / "second")))} --systemd >/dev/null 2>&1; told
        {SUITE} install {" ".join(map(str, folders(tmp_path / "second")))} --systemd --force >/dev/null; told
        """,
    ) == [
        "--no-block try-restart agent-cni-dnsgate.service agent-cni-flows.service agent-cni-member.service agent-cni-names.service", "", "",
        "daemon-reload",
        "--no-block try-restart agent-cni-dnsgate.path agent-cni-dnsgate.service agent-cni-flows.service agent-cni-member.service agent-cni-names.path agent-cni-names.service agent-cni.service agent-cni.socket",
        "", "",
    ]  # fmt: skip


def test_networkd_hears_of_its_drop_ins_where_it_runs(tmp_path: Path):
    dropins = "network/10-agent-cni.network", "networkd.conf.d/50-agent-cni.conf"
    said = "agent-cni: systemd-networkd.service goes by /etc/systemd/networkd.conf.d/50-agent-cni.conf once it is restarted"
    assert booted(
        tmp_path,
        f"""
        echo systemd-networkd.service >/run/active
        $install 2>&1 >/dev/null; told
        of_before {dropins[0]}; $install 2>&1 >/dev/null; told
        of_before {dropins[1]}; $install 2>&1 >/dev/null; told
        rm /run/active; of_before {" ".join(dropins)}; $install 2>&1 >/dev/null; told
        """,
    ) == [
        said, "daemon-reload", "start agent-cni.socket agent-cni-names.path agent-cni-dnsgate.path", "networkctl reload", "",
        "networkctl reload", "", said, "", "", "",
    ]  # fmt: skip


def test_a_host_in_a_cluster_keeps_the_suite_until_it_has_left(tmp_path: Path):
    """Or until it is forced to; what says how it is in the cluster stays then, and a line says what is to be done elsewhere."""
    install(tmp_path / "node")
    (tmp_path / "etc/agent-cni").mkdir(parents=True)
    (tmp_path / "etc/agent-cni/cluster.json").write_text('{"etcd": {"endpoints": ["http://192.0.2.1:2379"]}}')
    script = f"""
    mount -t overlay overlay -o lowerdir={tmp_path}/etc:/etc /etc
    mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log
    uninstall="{SUITE} uninstall {" ".join(map(str, folders(tmp_path / "node")))}"
    $uninstall 2>&1 || echo refused
    $uninstall --force >/dev/null
    """
    done = sh("unshare", "--mount", "--net", "sh", "-c", script)
    file = "/etc/agent-cni/cluster.json"
    assert done.stdout.splitlines() == [
        f"agent-cni: this host is in a cluster, by {file}: agent-cni leave, or --force", "refused",
    ]  # fmt: skip
    assert done.stderr == (
        f"agent-cni: {file} says how this host is in a cluster, which counts it in until agent-cni node remove, and is left\n"
    )
    assert not (tmp_path / "node/opt").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            ("--conf", "nothing.conflist"),
            "there is no conflist 'nothing.conflist'; there are: 10-bridge-vxlan.conflist",
        ),
        (("--root", "here"), "argument --root: 'here' is no absolute path"),
        (
            ("--prefix", "/opt/agent cni"),
            "argument --prefix: '/opt/agent cni' has a space in it, where an executable's interpreter would end",
        ),
        (("--prefx", "/x"), "unrecognized arguments: --prefx /x"),
    ],
)
def test_a_wrong_option_is_one_clear_line(tmp_path: Path, option: tuple[str, str], said: str):
    done = install(tmp_path, *option, check=False)
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[-1]
    assert files(tmp_path) == set()
