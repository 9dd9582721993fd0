"""Who asks the node agent: what the kernel says of a caller counts, and not what he says of himself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agents import PYTHON, Agent
from lab import BIN_DIR, PATIENCE, ROOT, Lab, Pod, environment, eventually, sh

from cni import __version__
from cni.agent.request import PROTOCOL

STRANGER = ROOT / "netns-tests/scenes/stranger.py"
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
OWN_USER_NAMESPACE = ["unshare", "--user", "--keep-caps"]


@pytest.fixture
def delegate(tmp_path: Path) -> Path:
    """A folder with an IPAM plugin that notes who runs it, and refuses."""
    folder = tmp_path / "delegates"
    folder.mkdir()
    script = folder / "evil"
    script.write_text(
        "#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit 0\n"
        f"{{ readlink /proc/self/ns/user; grep CapEff /proc/self/status; }} >>{tmp_path}/ran\n"
        'echo \'{"cniVersion": "1.1.0", "code": 7, "msg": "the delegate ran"}\'\nexit 1\n'
    )
    script.chmod(0o755)
    return folder


@pytest.fixture
def conf(conf: dict) -> dict:
    return conf | {"ipMasq": False, "ipam": {"type": "evil"}}


def wish(conf: dict[str, Any], pod: Pod, delegate: Path, how: str, **more: object) -> str:
    """What a stranger is told to do: an ADD with its own delegate."""
    env = environment("ADD", pod) | {"CNI_PATH": f"{BIN_DIR}:{delegate}"}
    prefix = str(ROOT / ".venv")
    texts = [PROTOCOL, __version__, prefix, f"{BIN_DIR}/bridge-vxlan", *(f"{name}={env[name]}" for name in env)]
    said = {"socket": "/run/agent-cni/agent.sock", "texts": texts, "conf": json.dumps(conf), "how": how}
    return json.dumps(said | more) + "\n"


def stranger(agent: Agent, wanted: str, *through: object) -> str:
    """Have a process, which is started `through` other programs, ask; what it got."""
    command = [*agent.host.prefix(), *through, PYTHON, "-I", STRANGER]
    return sh(*command, input=wanted, check=False).stdout.strip()


def ran(delegate: Path) -> bool:
    return (delegate.parent / "ran").exists()


def test_who_could_do_it_himself_is_served(pod: Pod, agent: Agent, conf: dict, delegate: Path):
    assert "the delegate ran" in stranger(agent, wish(conf, pod, delegate, "plainly"))
    assert ran(delegate)


@pytest.mark.tried(
    "root without capabilities in a user namespace of its own, one capability less, another user or network namespace, GO by a child",
    "refused; its delegate does not run as root",
)
@pytest.mark.parametrize(
    ("through", "how"),
    [
        ([*WITHOUT_CAPABILITIES, *OWN_USER_NAMESPACE], "plainly"),
        (OWN_USER_NAMESPACE, "plainly"),
        (["unshare", "--user", "--map-root-user", *OWN_USER_NAMESPACE], "plainly"),
        (WITHOUT_CAPABILITIES, "plainly"),
        (WITHOUT_CAPABILITIES, "unsharing"),
        (["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"], "plainly"),
        (["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all"], "plainly"),
        (["unshare", "--net"], "plainly"),
        ([], "by another"),
    ],
    ids=[
        *("no capabilities but in a user namespace", "a user namespace", "a user namespace in another"),
        *("no capabilities", "no capabilities, then a user namespace", "one capability less", "another user"),
        *("another network namespace", "GO by a child"),
    ],
)
def test_who_could_not_is_refused(pod: Pod, agent: Agent, conf: dict, delegate: Path, through: list[str], how: str):
    answer = stranger(agent, wish(conf, pod, delegate, how), *through)
    assert answer == "unreachable" if "--reuid=65534" in through else answer in ("refused", "nothing")
    assert not ran(delegate)
    assert "the delegate ran" in stranger(agent, wish(conf, pod, delegate, "plainly"))


def test_texts_of_the_former_protocol_are_nobodys(pod: Pod, agent: Agent, conf: dict, delegate: Path):
    wanted = json.loads(wish(conf, pod, delegate, "plainly"))
    status = Path(f"/proc/{agent.process.pid}/ns/net").stat()
    protocol, version, prefix, *rest = wanted["texts"]
    assert protocol != "agent-cni/1"
    wanted["texts"] = ["agent-cni/1", version, prefix, f"{status.st_dev}:{status.st_ino}", *rest]
    for through in ([], ["unshare", "--net"]):
        assert stranger(agent, json.dumps(wanted) + "\n", *through) == "refused"
    assert not ran(delegate)


def test_a_caller_that_exits_after_it_sent_everything_leaves_nothing(
    pod: Pod, agent: Agent, conf: dict, delegate: Path
):
    for _ in range(20):
        assert stranger(agent, wish(conf, pod, delegate, "exits")) == "sent"
    assert "the delegate ran" in stranger(agent, wish(conf, pod, delegate, "plainly"))
    assert eventually(lambda: agent.host.state() == {"attachments": [], "leases": []})
    assert not pod.link("eth0")


@pytest.mark.tried("a process number that real root has by now", "refused")
@pytest.mark.parametrize("how", ["recycled", "recycled early"])
def test_a_number_that_another_process_has_by_now_is_nobody(
    pod: Pod, agent: Agent, conf: dict, delegate: Path, how: str
):
    agent.send(signal.SIGSTOP)
    command = [*agent.host.prefix(), *WITHOUT_CAPABILITIES, PYTHON, "-I", STRANGER]
    asked = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert asked.stdin
    assert asked.stdout
    asked.stdin.write(wish(conf, pod, delegate, how))
    asked.stdin.flush()
    asked.wait(PATIENCE)
    assert asked.stdout.readline() == f"{asked.pid}\n"
    heir = with_number(asked.pid, [*agent.host.prefix(), "sleep", "60"])
    agent.send(signal.SIGCONT)
    asked.stdin.write("\n")
    asked.stdin.close()
    answer = asked.stdout.read().strip()
    heir.kill()
    heir.wait()
    assert answer in ("refused", "nothing")
    assert not ran(delegate)


def with_number(pid: int, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a program under a process number that is free."""
    for _ in range(200):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        made = subprocess.Popen(command)
        if made.pid == pid:
            assert eventually(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
            return made
        made.kill()
        made.wait()
    raise AssertionError(f"no process got number {pid}")


@pytest.mark.tried("other delegates, state or installation under the same names", "refused, runs cold")
@pytest.mark.parametrize("changed", ["delegates", "state", "installation", "pod's namespace", "nothing"])
def test_a_caller_for_whom_names_mean_other_files_is_refused(
    lab: Lab, pod: Pod, agent: Agent, conf: dict, delegate: Path, tmp_path: Path, changed: str
):
    mounts = {
        "delegates": (lookalike(delegate, tmp_path), delegate),
        "state": (tmp_path, "/run/agent-cni"),
        "installation": (tmp_path, ROOT / ".venv"),
        "pod's namespace": (lab.pod().path, pod.path),
        "nothing": (tmp_path, tmp_path),
    }
    where = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', *mounts[changed]]
    before = ["sh", "-c", 'exec 9</run/agent-cni; exec "$@"', "sh"]
    wanted = wish(conf, pod, delegate, "plainly", socket="/proc/self/fd/9/agent.sock")
    python = os.path.realpath(sys.executable)
    done = sh(*within(agent), *before, *where, python, "-I", STRANGER, input=wanted, check=False)
    assert ("the delegate ran" in done.stdout) == (changed == "nothing"), done.stdout + done.stderr
    assert ran(delegate) == (changed == "nothing")


def lookalike(folder: Path, place: Path) -> Path:
    """A copy of a folder: another one with the same files."""
    return Path(shutil.copytree(folder, place / "lookalike"))


def within(agent: Agent) -> list[str]:
    """Where the agent itself is."""
    return ["nsenter", f"--target={agent.process.pid}", "--net", "--mount"]


@pytest.mark.tried("a caller with another root folder", "refused")
def test_a_caller_with_another_root_is_refused(pod: Pod, agent: Agent, conf: dict, delegate: Path, tmp_path: Path):
    for command in (agent.host.prefix(), within(agent)):
        for root, answer in ((str(tmp_path), "refused"), ("/", "the delegate ran")):
            wanted = wish(conf, pod, delegate, "another root", root=root)
            assert answer in sh(*command, PYTHON, "-I", STRANGER, input=wanted).stdout
            assert ran(delegate) == (root == "/")
        (delegate.parent / "ran").unlink()


def test_a_launcher_in_a_user_namespace_runs_its_call_itself(pod: Pod, agent: Agent, conf: dict, delegate: Path):
    env = environment("ADD", pod) | {"CNI_PATH": f"{BIN_DIR}:{delegate}"}
    plugin = BIN_DIR / "bridge-vxlan"
    served = sh(*agent.host.prefix(), plugin, input=json.dumps(conf), env=env, check=False)
    assert "the delegate ran" in served.stdout
    through = [*agent.host.prefix(), *WITHOUT_CAPABILITIES, *OWN_USER_NAMESPACE]
    own = sh(*through, plugin, input=json.dumps(conf), env=env, check=False)
    assert json.loads(own.stdout)["code"]
    ours, *others = (delegate.parent / "ran").read_text().split("CapEff")[0].split()
    assert ours == str(Path("/proc/self/ns/user").readlink())
    assert ours not in others
