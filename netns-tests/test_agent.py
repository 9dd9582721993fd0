"""The node agent: who is served by it, who is not, and what is left when anybody dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, BIN_DIR, ROOT, Host, Lab, Pod, environment, eventually, nursery, sh
from warm import stop

PYTHON = ROOT / ".venv/bin/python3"
WITHOUT_PYTHON = ["unshare", "--mount", "sh", "-c", f'mount --bind /bin/false {PYTHON} && exec "$@"', "sh"]


@dataclass
class Agent:
    """`agent-cni serve` on a host, as a user starts it."""

    host: Host
    process: subprocess.Popen[str]

    def processes(self) -> list[int]:
        """The agent's own and its workers', as /proc has them."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def private_kib(self) -> int:
        """What its processes have each for itself."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes()]
        return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if "Private_Dirty" in line)

    def send(self, number: signal.Signals) -> None:
        """Signal every process of the agent."""
        for pid in self.processes():
            os.kill(pid, number)


def serving(host: Host, *options: str) -> Agent:
    """Start an agent and wait until it listens."""
    command = [*host.prefix(), str(AGENT_CNI), "serve", *options]
    process = subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    agent = Agent(host, process)
    assert eventually(
        lambda: "NONE" in sh(*warm_only(host, "macvlan"), env={"CNI_COMMAND": "NONE"}, check=False).stdout
    )
    return agent


def warm_only(host: Host, plugin: str) -> list[str]:
    """A plugin's call that only an agent can answer: for its caller there is no Python."""
    return [*host.prefix(), *WITHOUT_PYTHON, str(BIN_DIR / plugin)]


@pytest.fixture
def node(host: Host) -> Host:
    """A host without an agent of the test run's; nothing may be left on it."""
    if host.agent:
        stop(host.agent)
        host.agent = 0
    return host


@pytest.fixture
def agent(node: Host) -> Iterator[Agent]:
    made = serving(node)
    yield made
    made.send(signal.SIGCONT)
    made.process.terminate()
    made.process.communicate(timeout=30)


@pytest.fixture
def conf(conf: dict) -> dict:
    return conf | {"ipMasq": False}


def call(agent: Agent, verb: str, conf: dict[str, Any], pod: Pod) -> subprocess.CompletedProcess[str]:
    """A call that can be answered by the agent only."""
    return sh(*warm_only(agent.host, conf["type"]), input=json.dumps(conf), env=environment(verb, pod), check=False)


def waiting_ipam(folder: Path) -> str:
    """An IPAM plugin that says it was called, and takes longer than anybody waits."""
    script = folder / "sleepy"
    script.write_text(f"#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit\ntouch {folder}/called\nexec sleep 50\n")
    script.chmod(0o755)
    return f"{BIN_DIR}:{folder}"


def begun(node: Host, conf: dict[str, Any], pod: Pod, path: str, ipam: str = "sleepy") -> subprocess.Popen[str]:
    """An ADD that waits for its IPAM."""
    env = environment("ADD", pod) | {"CNI_PATH": path}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*node.prefix(), str(BIN_DIR / conf["type"])], env=env, text=True, **pipes)
    assert process.stdin
    process.stdin.write(json.dumps(conf | {"ipam": {"type": ipam}}))
    process.stdin.close()
    process.stdin = None
    assert eventually((Path(path.rpartition(":")[2]) / "called").exists)
    return process


def test_an_agent_serves_every_verb_without_starting_python(agent: Agent, pod: Pod, conf: dict):
    done = call(agent, "ADD", conf, pod)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pod.pings("10.1.0.1")
    for verb in ("VERSION", "STATUS", "CHECK", "GC", "DEL"):
        sent = conf | {"prevResult": json.loads(done.stdout)}
        assert call(agent, verb, sent, pod).returncode == 0, verb
    assert agent.host.state() == {"attachments": [], "leases": []}


def test_an_agent_keeps_nothing_of_the_calls_it_served(node: Host):
    agent = serving(node, "--workers", "2")
    status = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(BIN_DIR)}
    conf = json.dumps({"cniVersion": "1.1.0", "name": "n", "type": "macvlan", "mode": "bridge"})

    def ask(numbers: range) -> None:
        for number in numbers:
            env = status | {f"CALLER{number % 10}": f"{number}-" * 2000}
            assert sh(*agent.host.prefix(), str(BIN_DIR / "macvlan"), input=conf, env=env, check=False).returncode == 0

    with ThreadPoolExecutor(2) as both:  # each worker's first call copies pages, whenever it comes
        list(both.map(ask, (range(100), range(100, 200))))
    before = agent.private_kib()
    ask(range(200, 1200))
    grown = agent.private_kib() - before
    agent.process.terminate()
    agent.process.communicate(timeout=10)
    assert grown < 2000, "of 8 to 10 MB that went through it"


def test_what_is_wrong_is_said_as_a_cold_run_says_it(agent: Agent, pod: Pod, conf: dict):
    wrong = conf | {"brigde": "br1"}
    warm, cold = call(agent, "ADD", wrong, pod), agent.host.cni("ADD", wrong, pod, AGENT_CNI_SOCKET="/none")
    assert (warm.returncode, warm.stdout) == (cold.code, cold.stdout)
    assert "did you mean 'bridge'" in cold.stdout


def test_one_call_leaves_nothing_for_the_next(agent: Agent, lab: Lab, conf: dict):
    pods = [lab.pod() for _ in range(6)]
    for pod in pods:
        assert call(agent, "ADD", conf, pod).returncode == 0
        assert call(agent, "ADD", conf | {"bridge": "x" * 20}, pod).returncode == 1
    with ThreadPoolExecutor(1) as alone:
        first = alone.submit(agent.processes).result()
    assert len({tuple(pod.addresses("eth0")) for pod in pods}) == 6
    for pid in first[1:]:
        files = [str(item.readlink()) for item in Path(f"/proc/{pid}/fd").iterdir()]
        assert len(files) < 14, files
        assert not [item for item in files if "netns" in item or "lock" in item]
        assert str(Path(f"/proc/{pid}/cwd").readlink()) == "/"
    for pod in pods:
        assert call(agent, "DEL", conf, pod).returncode == 0


def test_a_stopped_agent_is_not_waited_for_and_does_nothing_when_it_goes_on(agent: Agent, pod: Pod, conf: dict):
    agent.send(signal.SIGSTOP)
    agent.host.add(conf, pod)  # cold
    agent.send(signal.SIGCONT)
    time.sleep(0.5)
    assert len(agent.host.state()["attachments"]) == 1
    assert call(agent, "DEL", conf, pod).returncode == 0
    assert agent.host.state() == {"attachments": [], "leases": []}


def test_a_killed_agent_leaves_a_socket_that_disturbs_nobody_and_the_next_takes_it(node: Host, pod: Pod, conf: dict):
    first = serving(node)
    first.send(signal.SIGKILL)
    first.process.communicate()
    assert (node.folder / "agent.sock").exists()
    node.add(conf, pod)
    second = serving(node)
    assert eventually(lambda: call(second, "DEL", conf, pod).returncode == 0)
    second.process.terminate()
    second.process.communicate(timeout=10)
    assert not (node.folder / "agent.sock").exists()


def test_a_second_agent_is_refused(agent: Agent):
    done = agent.host.run(AGENT_CNI, "serve", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "listens on /run/agent-cni/agent.sock already" in done.stderr


def test_a_caller_in_another_network_namespace_is_not_served(agent: Agent, lab: Lab, pod: Pod, conf: dict):
    other = lab.host()
    if other.agent:
        stop(other.agent)
        other.agent = 0
    bind = 'mount --bind "$0" /run/agent-cni && exec "$@"'
    command = ["nsenter", f"--net={other.path}", "unshare", "--mount", "sh", "-c", bind, agent.host.folder]
    done = sh(*command, BIN_DIR / conf["type"], input=json.dumps(conf), env=environment("ADD", pod))
    assert json.loads(done.stdout)["ips"]
    assert other.link("br0")
    assert not agent.host.link("br0")


def test_a_caller_that_may_less_than_the_agent_gets_no_more_by_asking_it(agent: Agent, pod: Pod, conf: dict):
    weak = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    command = [*agent.host.prefix(), *weak, BIN_DIR / conf["type"]]
    done = sh(*command, input=json.dumps(conf), env=environment("ADD", pod), check=False)
    assert done.returncode == 1
    assert "Operation not permitted" in json.loads(done.stdout)["msg"]


def test_a_netns_the_agent_cannot_see_is_handed_over(agent: Agent, pod: Pod, conf: dict):
    hidden = f"mkdir -p /run/seen && mount -t tmpfs none /run/seen && touch /run/seen/pod && mount --bind {pod.path} /run/seen/pod"
    command = [
        *agent.host.prefix(),
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'{hidden} && mount --bind /bin/false {PYTHON} && exec "$0"',
    ]
    env = environment("ADD", pod) | {"CNI_NETNS": "/run/seen/pod"}
    done = sh(*command, BIN_DIR / conf["type"], input=json.dumps(conf), env=env, check=False)
    assert done.returncode == 0, done.stdout
    assert pod.pings("10.1.0.1")
    assert call(agent, "DEL", conf, pod).returncode == 0


@pytest.mark.parametrize("milliseconds", [0, 2, 4, 6, 8, 10, 14, 20])
def test_a_killed_launcher_leaves_nothing_or_what_del_finds(agent: Agent, lab: Lab, conf: dict, milliseconds: int):
    first = lab.pod()
    agent.host.add(conf, first)
    agent.host.delete_pod(conf, first)
    before = agent.host.snapshot()
    for _ in range(5):
        pod = lab.pod()
        process = agent.host.started(conf, pod)
        time.sleep(0.02 + milliseconds / 1000)
        process.kill()
        process.communicate()
        assert eventually(lambda: all(item["state"] != "incomplete" for item in agent.host.state()["attachments"]))
        if agent.host.state()["attachments"]:
            assert pod.link("eth0")
        else:
            assert eventually(lambda: agent.host.snapshot() == before)
            assert not pod.link("eth0")
        agent.host.delete_pod(conf, pod)
        assert agent.host.snapshot() == before


def test_when_the_caller_dies_its_call_is_undone(agent: Agent, pod: Pod, conf: dict, tmp_path: Path):
    process = begun(agent.host, conf, pod, waiting_ipam(tmp_path))
    process.kill()
    process.communicate()
    assert eventually(lambda: agent.host.state()["attachments"] == [])
    assert call(agent, "ADD", conf, pod).returncode == 0
    assert call(agent, "DEL", conf, pod).returncode == 0


def test_a_worker_that_is_killed_takes_nobody_along(agent: Agent, lab: Lab, conf: dict, tmp_path: Path):
    pod, others = lab.pod(), [lab.pod() for _ in range(4)]
    idle = set(agent.processes())
    process = begun(agent.host, conf, pod, waiting_ipam(tmp_path))
    sleeper = int(sh("pgrep", "-f", "sleep 50").stdout.split()[-1])
    worker = int(Path(f"/proc/{sleeper}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert worker in idle
    with ThreadPoolExecutor(4) as pool:
        adds = [pool.submit(call, agent, "ADD", conf, other) for other in others]
        os.kill(worker, signal.SIGKILL)
        assert [add.result().returncode for add in adds] == [0] * 4
    said, _ = process.communicate(timeout=10)
    os.kill(sleeper, signal.SIGKILL)
    assert (process.returncode, json.loads(said)["code"]) == (1, 11)
    assert [item["state"] for item in agent.host.state()["attachments"]].count("incomplete") == 1
    for one in (pod, *others):
        agent.host.delete_pod(conf, one, CNI_PATH=waiting_ipam(tmp_path))
    assert agent.host.state() == {"attachments": [], "leases": []}


def test_a_call_ends_at_its_deadline(node: Host, pod: Pod, conf: dict, tmp_path: Path):
    agent = serving(node, "--deadline", "2")
    process = begun(node, conf, pod, waiting_ipam(tmp_path))
    said, _ = process.communicate(timeout=20)
    assert (process.returncode, json.loads(said)["code"]) == (1, 108)
    assert node.state() == {"attachments": [], "leases": []}
    assert call(agent, "ADD", conf, pod).returncode == 0
    assert call(agent, "DEL", conf, pod).returncode == 0
    agent.process.terminate()
    agent.process.communicate(timeout=10)


def test_an_agent_that_is_asked_to_stop_finishes_what_it_does(node: Host, pod: Pod, conf: dict, tmp_path: Path):
    agent = serving(node)
    script = tmp_path / "slow"
    answer = json.dumps({"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]})
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\nsleep 1\necho '{answer}'\n")
    script.chmod(0o755)
    process = begun(node, conf, pod, str(tmp_path), "slow")
    agent.process.terminate()
    assert process.wait(10) == 0
    assert agent.process.wait(10) == 0
    assert not (node.folder / "agent.sock").exists()
    node.delete_pod(conf | {"ipam": {"type": "slow"}}, pod, CNI_PATH=str(tmp_path))


def test_an_agent_that_is_asked_to_stop_as_soon_as_it_listens_leaves_no_socket(node: Host):
    for _ in range(40):
        stop(nursery().start(node.path, node.folder))
        assert not (node.folder / "agent.sock").exists()


def test_more_calls_than_workers_are_all_served(node: Host, lab: Lab, conf: dict):
    agent = serving(node, "--workers", "3")
    pods = [lab.pod() for _ in range(30)]
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda pod: node.cni("ADD", conf, pod), pods))
    assert len({item["address"] for answer in answers for item in answer.ok()["ips"]}) == 60
    assert len(agent.processes()) <= 4
    for pod in pods:
        node.delete_pod(conf, pod)
    agent.process.terminate()
    agent.process.communicate(timeout=10)


def test_a_folder_nobody_can_make_is_one_clear_line(node: Host, tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = node.run(AGENT_CNI, "serve", "--socket", tmp_path / "file/agent.sock", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "file/agent.sock") in done.stderr


def test_the_units_are_what_systemd_understands(tmp_path: Path):
    for unit in (ROOT / "tools/systemd/system").iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace("@PREFIX@", str(ROOT / ".venv")))
    done = sh("systemd-analyze", "verify", *tmp_path.iterdir(), check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_agent_takes_the_socket_systemd_passes(node: Host, pod: Pod, conf: dict):
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1]); s.listen(9);"
        "os.dup2(s.fileno(), 3); os.set_inheritable(3, True); os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())};"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    command = [*node.prefix(), PYTHON, "-c", script, "/run/agent-cni/agent.sock", AGENT_CNI, "serve"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    assert eventually((node.folder / "agent.sock").exists)
    agent = Agent(node, process)
    assert eventually(lambda: call(agent, "ADD", conf, pod).returncode == 0)
    assert call(agent, "DEL", conf, pod).returncode == 0
    process.terminate()
    process.communicate(timeout=10)
    assert (node.folder / "agent.sock").exists(), "it is systemd's to remove"


def test_calls_leave_no_descriptors_in_a_worker(agent: Agent, pod: Pod, conf: dict):
    assert call(agent, "ADD", conf, pod).returncode == 0
    valid = {"cni.dev/valid-attachments": [{"containerID": pod.container, "ifname": "eth0"}]}
    for _ in range(40):
        assert call(agent, "GC", conf | valid, pod).returncode == 0
    assert call(agent, "DEL", conf, pod).returncode == 0
    assert max(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in agent.processes()) < 30
