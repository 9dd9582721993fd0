"""The node agent: who is served by it, who is not, and what is left when anybody dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from agents import PYTHON, Agent, begun, call, serving, waiting_ipam
from lab import AGENT_CNI, BIN_DIR, PATIENCE, ROOT, Host, Lab, Pod, environment, eventually, nursery, sh
from warm import stop


@pytest.fixture
def conf(conf: dict) -> dict:
    return conf | {"ipMasq": False}


def test_an_agent_serves_every_verb_without_starting_python(agent: Agent, pod: Pod, conf: dict):
    done = call(agent, "ADD", conf, pod)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pod.pings("10.1.0.1")
    for verb in ("VERSION", "STATUS", "CHECK", "GC", "DEL"):
        sent = conf | {"prevResult": json.loads(done.stdout)}
        assert call(agent, verb, sent, pod).returncode == 0, verb
    assert agent.host.state() == {"attachments": [], "leases": []}


@pytest.mark.long
def test_an_agent_keeps_nothing_of_the_calls_it_served(node: Host):
    agent = serving(node, "--workers", "2")
    status = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(BIN_DIR)}
    conf = json.dumps({"cniVersion": "1.1.0", "name": "n", "type": "macvlan", "mode": "bridge"})

    def ask(numbers: range) -> None:
        for number in numbers:
            env = status | {f"CALLER{number % 10}": f"{number}-" * 2000}
            assert sh(*agent.host.within(), str(BIN_DIR / "macvlan"), input=conf, env=env, check=False).returncode == 0

    with ThreadPoolExecutor(2) as both:  # each worker's first call copies pages, whenever it comes
        list(both.map(ask, (range(100), range(100, 200))))
    before = agent.private_kib()
    ask(range(200, 1200))
    grown = agent.private_kib() - before
    agent.process.terminate()
    agent.process.communicate(timeout=PATIENCE)
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
        workers = alone.submit(agent.workers).result()
    assert len({tuple(pod.addresses("eth0")) for pod in pods}) == 6
    assert workers
    for pid in workers:
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
    second.process.communicate(timeout=PATIENCE)
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
    (worker,) = [pid for pid in idle if sh("pgrep", "-P", pid, "sleep", check=False).stdout]
    sleeper = int(sh("pgrep", "-P", worker, "sleep").stdout)
    with ThreadPoolExecutor(4) as pool:
        adds = [pool.submit(call, agent, "ADD", conf, other) for other in others]
        os.kill(worker, signal.SIGKILL)
        assert [add.result().returncode for add in adds] == [0] * 4
    said, _ = process.communicate(timeout=PATIENCE)
    os.kill(sleeper, signal.SIGKILL)
    assert (process.returncode, json.loads(said)["code"]) == (1, 11)
    assert [item["state"] for item in agent.host.state()["attachments"]].count("incomplete") == 1
    for one in (pod, *others):
        agent.host.delete_pod(conf, one, CNI_PATH=waiting_ipam(tmp_path))
    assert agent.host.state() == {"attachments": [], "leases": []}


def test_a_call_ends_at_its_deadline(node: Host, pod: Pod, conf: dict, tmp_path: Path):
    agent = serving(node, "--deadline", "2")
    process = begun(node, conf, pod, waiting_ipam(tmp_path))
    said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, json.loads(said)["code"]) == (1, 108)
    assert node.state() == {"attachments": [], "leases": []}
    assert call(agent, "ADD", conf, pod).returncode == 0
    assert call(agent, "DEL", conf, pod).returncode == 0
    agent.process.terminate()
    agent.process.communicate(timeout=PATIENCE)


def test_an_agent_that_is_asked_to_stop_finishes_what_it_does(node: Host, pod: Pod, conf: dict, tmp_path: Path):
    agent = serving(node)
    script = tmp_path / "slow"
    answer = json.dumps({"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]})
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\nsleep 1\necho '{answer}'\n")
    script.chmod(0o755)
    process = begun(node, conf, pod, str(tmp_path), "slow")
    agent.process.terminate()
    assert process.wait(PATIENCE) == 0
    assert agent.process.wait(PATIENCE) == 0
    assert not (node.folder / "agent.sock").exists()
    node.delete_pod(conf | {"ipam": {"type": "slow"}}, pod, CNI_PATH=str(tmp_path))


def test_an_agent_that_is_asked_to_stop_as_soon_as_it_listens_leaves_no_socket(node: Host):
    for _ in range(40):
        stop(nursery().start(node.path, node.folder, node.names))
        assert not (node.folder / "agent.sock").exists()


def test_more_calls_than_workers_are_all_served(node: Host, lab: Lab, conf: dict):
    agent = serving(node, "--workers", "3")
    pods = [lab.pod() for _ in range(30)]
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda pod: node.cni("ADD", conf, pod), pods))
    assert len({item["address"] for answer in answers for item in answer.ok()["ips"]}) == 60
    assert len(agent.workers()) <= 3
    for pod in pods:
        node.delete_pod(conf, pod)
    agent.process.terminate()
    agent.process.communicate(timeout=PATIENCE)


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
    process.communicate(timeout=PATIENCE)
    assert (node.folder / "agent.sock").exists(), "it is systemd's to remove"


def test_calls_leave_no_descriptors_in_a_worker(agent: Agent, pod: Pod, conf: dict):
    assert call(agent, "ADD", conf, pod).returncode == 0
    valid = {"cni.dev/valid-attachments": [{"containerID": pod.container, "ifname": "eth0"}]}
    for _ in range(40):
        assert call(agent, "GC", conf | valid, pod).returncode == 0
    assert call(agent, "DEL", conf, pod).returncode == 0
    assert max(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in agent.processes()) < 30


def limited(node: Host, limit: str) -> Agent:
    """An agent that may open so many files (soft:hard)."""
    command = [*node.prefix(), "prlimit", f"--nofile={limit}", str(AGENT_CNI), "serve"]
    process = subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert eventually((node.folder / "agent.sock").exists)
    return Agent(node, process)


@pytest.mark.parametrize("limit", [16, 20, 24, 32, 48, 64])
def test_calls_run_cold_where_an_agent_may_open_too_few_files_for_them(node: Host, lab: Lab, conf: dict, limit: int):
    agent = limited(node, f"{limit}:{limit}")
    for _ in range(2):
        pod = lab.pod()
        result = node.add(conf, pod)
        assert node.check(conf, pod, result).code == 0
        node.delete_pod(conf, pod)
    assert agent.process.poll() is None
    agent.process.terminate()
    agent.process.communicate(timeout=PATIENCE)


def test_an_agent_raises_a_low_limit_of_open_files_as_far_as_it_may(node: Host, pod: Pod, conf: dict):
    agent = limited(node, "32:4096")
    assert eventually(lambda: call(agent, "ADD", conf, pod).returncode == 0)
    assert call(agent, "DEL", conf, pod).returncode == 0
    for pid in agent.processes():
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        assert [line.split()[3:5] for line in limits if line.startswith("Max open files")] == [["1024", "4096"]]
    agent.process.terminate()
    agent.process.communicate(timeout=PATIENCE)


def test_workers_whose_limit_is_lowered_take_no_more_calls(pod: Pod, agent: Agent, conf: dict):
    for pid in agent.processes():
        sh("prlimit", f"--pid={pid}", "--nofile=30:30")
    assert agent.host.cni("ADD", conf, pod).code == 0
    agent.host.delete_pod(conf, pod)


def test_a_worker_serves_call_after_call(pod: Pod, agent: Agent, conf: dict):
    before = agent.processes()
    for _ in range(10):
        for verb in ("NONE", "ADD", "ADD", "DEL", "STATUS"):
            call(agent, verb, conf, pod)
    assert agent.processes()[: len(before)] == before, "a call that takes long may have one more forked"


def test_a_call_that_is_asked_to_stop_at_any_moment_says_one_document_or_had_not_begun(
    lab: Lab, agent: Agent, conf: dict
):
    codes, first = [], lab.pod()
    began = time.monotonic()
    agent.host.add(conf, first)
    taken = time.monotonic() - began
    agent.host.delete_pod(conf, first)
    for number in range(60):
        pod = lab.pod()
        process = agent.host.started(conf, pod)
        time.sleep(taken * (0.2 + number % 20 / 20))
        process.terminate()
        out, _ = process.communicate(timeout=PATIENCE)
        if process.returncode == -signal.SIGTERM:
            assert out == ""
        else:
            said = json.loads(out)
            assert process.returncode == (1 if "code" in said else 0)
            codes.append(said.get("code", 0))
            assert codes[-1] in (0, 11, 108), out
        agent.host.delete_pod(conf, pod)
    assert set(codes) & {11, 108}, "some were asked in time"
    assert agent.host.state() == {"attachments": [], "leases": []}


@pytest.mark.tried("workers killed at forty moments", "a result and 0, or one error and 1")
def test_a_document_and_its_code_stay_together_when_workers_die(lab: Lab, agent: Agent, conf: dict):
    seen = set()
    for number in range(40):
        pod = lab.pod()
        process = agent.host.started(conf, pod)
        if number % 2:
            assert process.stdout
            first = os.read(process.stdout.fileno(), 1).decode()  # it has answered
        else:
            first = ""
            time.sleep(0.012 + number / 2000)
        for pid in agent.processes()[1:]:
            os.kill(pid, signal.SIGKILL)
        out, _ = process.communicate(timeout=PATIENCE)
        said = json.loads(first + out)
        assert (process.returncode, said.get("code", 0)) in ((0, 0), (1, 11)), (process.returncode, out)
        seen.add(process.returncode)
        agent.host.delete_pod(conf, pod)
    assert 0 in seen


@pytest.mark.parametrize("plugin", ["bridge-vxlan", "macvlan"])
@pytest.mark.parametrize("stdout", [">/dev/full", "> >(true)", "1</dev/null", ">&-"])
def test_an_add_whose_result_nobody_gets_is_taken_back(pod: Pod, agent: Agent, conf: dict, plugin: str, stdout: str):
    sent = conf | {"type": plugin} if plugin == "bridge-vxlan" else layer_2(agent.host)
    agent.host.add(sent, pod)
    agent.host.delete_pod(sent, pod)
    before = agent.host.snapshot()
    script = f'{{ wait $!; "$0"; echo "$?" >&2; }} {stdout}'
    for env in ({}, {"AGENT_CNI_SOCKET": ""}):
        command = [*agent.host.prefix(), "bash", "-c", script, BIN_DIR / plugin]
        done = sh(*command, input=json.dumps(sent), env=environment("ADD", pod) | env)
        assert (done.stdout, done.stderr.splitlines()[-1]) == ("", "1"), env
        assert eventually(lambda: agent.host.snapshot() == before)
        assert not pod.link("eth0")


def layer_2(host: Host) -> dict:
    sh("ip", "-n", host.name, "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    sh("ip", "-n", host.name, "link", "set", "wire0", "up")
    return {
        "cniVersion": "1.1.0",
        "name": "wire",
        "type": "macvlan",
        "master": "wire0",
        "ipam": {"subnet": "10.3.0.0/24"},
    }


def test_a_result_larger_than_a_packet_is_printed_whole(pod: Pod, agent: Agent, conf: dict):
    routes = [{"dst": f"10.{a}.{b}.0/24", "gw": "10.1.0.1"} for a in range(100, 120) for b in range(250)]
    sent = conf | {"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]], "routes": routes}}
    done = call(agent, "ADD", sent, pod)
    assert done.returncode == 0
    assert len(done.stdout) > 192 << 10
    assert len(json.loads(done.stdout)["routes"]) >= len(routes)
    assert call(agent, "DEL", sent, pod).returncode == 0


def test_who_looks_after_a_stopped_agent_with_a_full_queue_does_not_wait(pod: Pod, agent: Agent, conf: dict):
    filler = (
        "import socket, sys, time\nkept = []\ntry:\n    while True:\n"
        "        kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))\n"
        "        kept[-1].connect('/run/agent-cni/agent.sock')\n"
        "except BlockingIOError: print('full', flush=True)\nsys.stdin.read()"
    )
    agent.send(signal.SIGSTOP)
    doctor = ("doctor", "--bin-dir", BIN_DIR, "--conf-dir", "/nowhere")
    said = agent.host.run("timeout", PATIENCE, AGENT_CNI, *doctor, check=False).stdout
    assert "takes no calls" in said
    command = [*agent.host.prefix(), PYTHON, "-c", filler]
    with subprocess.Popen(list(map(str, command)), stdin=-1, stdout=-1, text=True) as filling:
        assert filling.stdout
        assert filling.stdout.readline() == "full\n"
        began = time.monotonic()
        agent.host.add(conf, pod)
        second = agent.host.run("timeout", PATIENCE, AGENT_CNI, "serve", check=False)
        said = agent.host.run("timeout", PATIENCE, AGENT_CNI, *doctor, check=False).stdout
        agent.host.delete_pod(conf, pod)
        left = agent.host.run(
            "timeout", PATIENCE, AGENT_CNI, "uninstall", "--prefix", "/nowhere/agent-cni", check=False
        )
        assert time.monotonic() - began < PATIENCE
        filling.communicate("")
    assert (second.returncode, second.stderr.count("\n")) == (1, 1)
    assert "listens on /run/agent-cni/agent.sock already" in second.stderr
    assert "takes no calls" in said
    assert left.returncode == 1
    assert "an agent listens on" in left.stderr
    agent.send(signal.SIGCONT)
    assert eventually(lambda: call(agent, "STATUS", conf, pod).returncode == 0)
    assert "agent: ok" in agent.host.run(AGENT_CNI, *doctor, check=False).stdout
