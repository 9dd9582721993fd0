"""Node agents as a user starts them, and calls that only they can answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import AGENT_CNI, BIN_DIR, ROOT, Host, Pod, environment, eventually, sh

PYTHON = ROOT / ".venv/bin/python3"
WITHOUT_PYTHON = ["unshare", "--mount", "sh", "-c", f'mount --bind /bin/false {PYTHON} && exec "$@"', "sh"]


@dataclass
class Agent:
    """`agent-cni serve` on a host, as a user starts it."""

    host: Host
    process: subprocess.Popen[str]

    def processes(self) -> list[int]:
        """The agent's own and its workers', as /proc has them."""
        return [self.process.pid, *children(self.process.pid)]

    def workers(self) -> list[int]:
        """Those that answer calls, and not who watches rules."""
        return [pid for pid in self.processes()[1:] if not watches_rules(pid)]

    def private_kib(self) -> int:
        """What its processes have each for itself."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes()]
        return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if "Private_Dirty" in line)

    def send(self, number: signal.Signals) -> None:
        """Signal every process of the agent."""
        for pid in self.processes():
            os.kill(pid, number)


def children(pid: int) -> list[int]:
    """Those of a process with one thread, as /proc has them."""
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def watches_rules(pid: int) -> bool:
    """Whether a process is in the group that nf_tables tells of changes."""
    try:
        sockets = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        table = [line.split() for line in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]]
    except OSError:
        return False
    inodes = {item[8:-1] for item in sockets if item.startswith("socket:[")}
    return any(row[1] == "12" and row[9] in inodes and int(row[3], 16) & 0x40 for row in table)


def serving(host: Host, *options: str, unit: Path | None = None, within: Sequence[str] = ()) -> Agent:
    """Start an agent and wait until it listens; with `unit` it may do no more than that lets it, and `within` is what starts it."""
    bounds = [str(PYTHON), str(Path(__file__).with_name("confined.py")), str(unit)] if unit else []
    command = [*host.prefix(), *bounds, *within, str(AGENT_CNI), "serve", *options]
    process = subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    agent = Agent(host, process)
    assert eventually(
        lambda: "NONE" in sh(*warm_only(host, "macvlan"), env={"CNI_COMMAND": "NONE"}, check=False).stdout
    )
    return agent


def warm_only(host: Host, plugin: str) -> list[str]:
    """A plugin's call that only an agent can answer: for its caller there is no Python."""
    return [*host.prefix(), *WITHOUT_PYTHON, str(BIN_DIR / plugin)]


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
