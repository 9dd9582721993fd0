"""Each capability that a unit leaves its service is missed: with all of them something works, and without one of them it does not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from agents import PYTHON, Agent, call
from lab import AGENT_CNI, PATIENCE, ROOT, Host, Lab, Pod, Site, eventually
from names import Names
from resolver import Gate, Resolver, ask
from serving import Scene

from cni.kernel import hostsdir

pytestmark = [pytest.mark.threat, pytest.mark.sweep]

CONFINED = ROOT / "netns-tests/scenes/confined.py"
STRANGER = 4242
#: Seconds in which what works has worked long ago, for what is to fail.
SHORTLY = 5
ALLOWED = {"egress": [{"to": [{"domainNames": ["api.example.com"]}], "ports": [{"port": 80}]}]}
ZONE = {"api.example.com": [("A", "198.51.100.7", 5)]}


def confined(folder: Path, unit: str, without: str = "") -> list[str]:
    """What starts a service as its unit has it, but for one capability."""
    text = (ROOT / f"tools/systemd/system/{unit}.service").read_text()
    (said,) = re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", text)
    kept = [name for name in said.split() if name != f"CAP_{without}"]
    assert len(kept) == len(said.split()) - bool(without)
    file = folder / f"{unit}{without}.service"
    file.write_text(text.replace(f"CapabilityBoundingSet={said}", f"CapabilityBoundingSet={' '.join(kept)}"))
    return [str(PYTHON), str(CONFINED), str(file)]


def capabilities(unit: str) -> list[str]:
    text = (ROOT / f"tools/systemd/system/{unit}.service").read_text()
    return [
        name.removeprefix("CAP_")
        for line in re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", text)
        for name in line.split()
    ]


@contextmanager
def serving(node: Host, *around: str) -> Iterator[Agent]:
    """An agent that listens; whether it answers is another question."""
    command = [*node.prefix(), *around, str(AGENT_CNI), "serve"]
    process = subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert eventually((node.folder / "agent.sock").exists)
    yield Agent(node, process)
    process.terminate()
    process.communicate(timeout=PATIENCE)


# --- the node agent


@dataclass
class Calls:
    """An agent, and what is asked of it; each says whether that works."""

    agent: Agent
    lab: Lab
    conf: dict[str, Any]
    folder: Path

    def add(self) -> bool:
        pod = self.lab.pod()
        done = call(self.agent, "ADD", self.conf, pod).returncode == 0
        self.agent.host.delete_pod(self.conf, pod, AGENT_CNI_SOCKET="/nowhere")
        return done

    def add_on_a_wire(self) -> bool:
        """Where it is asked by ARP whether somebody has the address."""
        host = self.agent.host
        host.run("ip", "link", "add", "up0", "up", "type", "veth", "peer", "name", "up1")
        host.run("ip", "link", "set", "up1", "up")
        self.conf = {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "up0", "enabledad": True}
        self.conf |= {"ipam": {"subnet": "192.0.2.0/24"}}
        done = self.add()
        host.run("ip", "link", "delete", "up0")
        return done

    def file_of_another(self) -> bool:
        file = self.folder / "resolv.conf"
        file.write_text("nameserver 192.0.2.1\n")
        file.chmod(0o600)
        subprocess.run(["chown", str(STRANGER), file], check=True)
        self.conf = self.conf | {"ipam": self.conf["ipam"] | {"resolvConf": str(file)}}
        return self.add()


CALLS: dict[str, Callable[[Calls], bool]] = {
    "NET_ADMIN": Calls.add, "SYS_ADMIN": Calls.add, "SYS_PTRACE": Calls.add, "NET_RAW": Calls.add_on_a_wire, "DAC_OVERRIDE": Calls.file_of_another,
}  # fmt: skip


@pytest.mark.parametrize("capability", capabilities("agent-cni"))
def test_the_agent_misses(node: Host, lab: Lab, conf: dict[str, Any], tmp_path: Path, capability: str):
    for without, works in (("", True), (capability, False)):
        with serving(node, *confined(tmp_path, "agent-cni", without)) as agent:
            assert CALLS[capability](Calls(agent, lab, conf, tmp_path)) == works


# --- the DNS gate


@dataclass
class Elsewhere(Pod):
    """A pod whose namespace is named by one of its processes, which is somebody else's."""

    process: int = 0

    @property
    def path(self) -> str:
        return f"/proc/{self.process}/ns/net" if self.process else super().path


@pytest.mark.parametrize("capability", capabilities("agent-cni-dnsgate"))
def test_the_gate_misses(site: Site, lab: Lab, tmp_path: Path, capability: str):
    """Of a macvlan pod, which has no end on the host."""
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "eth0"}
    conf |= {"ipam": {"ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100"}]]}}
    other, pod = lab.pod(), lab.add(Elsewhere(lab.name("pod")))
    server = site.host.add(conf, other)["ips"][0]["address"].split("/")[0]
    within = ["nsenter", f"--net={pod.path}", "setpriv", "--reuid", str(STRANGER), "--clear-groups", "sleep", "600"]
    with ExitStack() as held:
        if capability == "SYS_PTRACE":
            sleeper = held.enter_context(subprocess.Popen(within))
            held.callback(sleeper.kill)
            eventually(lambda: f"Uid:\t{STRANGER}" in Path(f"/proc/{sleeper.pid}/status").read_text())
            pod.process = sleeper.pid
        held_to = conf | {"policy": ALLOWED}
        site.host.add(held_to, pod)
        held.callback(site.host.delete_pod, conf, other)
        held.callback(site.host.delete_pod, held_to, pod)
        held.enter_context(Resolver(other, ZONE))
        for without, works in (("", True), (capability, False)):
            with Gate(site.host, *confined(tmp_path, "agent-cni-dnsgate", without)):
                answer = ask(lab_view(pod), server, "api.example.com")
                assert bool(answer and answer.addresses) == works


def lab_view(pod: Elsewhere) -> Pod:
    """The same pod by the name of its namespace."""
    return Pod(pod.name)


# --- who answers for names


def answers(scene: Scene, names: Names, seconds: int) -> bool:
    """Whether a network has a server within some seconds, and none any more when it is no network."""
    scene.network("net", 1)
    is_served = eventually(lambda: "net" in names.servers(), seconds)
    scene.host.run("rm", "-r", "/run/agent-cni-names/net")
    return bool(is_served) and bool(eventually(lambda: not names.servers(), seconds)) and names.stop() == 0


@pytest.mark.parametrize("capability", capabilities("agent-cni-names"))
def test_who_answers_for_names_misses(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: str):
    for without, works in (("", True), (capability, False)):
        scene = Scene(lab.host())
        monkeypatch.setattr(hostsdir, "FOLDER", scene.host.names)
        with Names(scene.host, *confined(tmp_path, "agent-cni-names", without)) as names:
            assert answers(scene, names, PATIENCE if works else SHORTLY) == works
        for (
            left
        ) in names.servers().values():  # who may end nobody leaves one, unless the kernel does (PR_SET_PDEATHSIG)
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        assert eventually(lambda: not names.servers())


# --- what listens to conntrack, and the member


@pytest.mark.parametrize("capability", capabilities("agent-cni-flows"))
def test_a_recorder_misses(node: Host, tmp_path: Path, capability: str):
    words = [AGENT_CNI, "flows", "--record", "--folder", tmp_path / "flows"]
    for without, code in (("", 124), (capability, 1)):
        done = node.run("timeout", SHORTLY, *confined(tmp_path, "agent-cni-flows", without), *words, check=False)
        assert done.returncode == code, done.stderr
        assert ("Operation not permitted" in done.stderr) == bool(without)


@pytest.mark.parametrize("capability", capabilities("agent-cni-member"))
def test_a_member_misses(node: Host, tmp_path: Path, capability: str):
    config = {"node": "here", "vtep": "192.0.2.11", "etcd": {"endpoints": ["http://127.0.0.1:9"]}}
    (tmp_path / "cluster.json").write_text(json.dumps(config))
    (tmp_path / "cluster.json").chmod(0o600)
    words = [AGENT_CNI, "join", "--config", tmp_path / "cluster.json"]
    for without in ("", capability):
        done = node.run("timeout", SHORTLY, *confined(tmp_path, "agent-cni-member", without), *words, check=False)
        assert ("Operation not permitted" in done.stderr) == bool(without), done.stderr
