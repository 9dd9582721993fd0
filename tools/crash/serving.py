"""The node agent killed anywhere: launchers at each of their system calls, the first process at each that makes or ends something."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from agents import Agent, call, serving
from lab import AGENT_CNI, BIN_DIR, ROOT, Host, Lab, Pod, environment, eventually, sh

from crash.story import Told

CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isGateway": True, "policy": {"ingress": []},
    "ipam": {"type": "agent-ipam", "subnet": "10.1.0.0/24"},
}  # fmt: skip
#: By which the first process makes, ends or passes on something.
TURNS = "bind,chmod,listen,unlink,clone,clone3,vfork,socketpair,wait4,execve,dup2,shutdown,recvfrom,connect,memfd_create,kill,setpriority"
PACKAGE = next((ROOT / ".venv/lib").glob("python3*/site-packages/cni/__init__.py"))
PATIENCE = 30
SENT = {"killed": signal.SIGKILL, "stopped": signal.SIGTERM, "hung up": signal.SIGHUP}
#: What callers may be told: all is well, or that it is to be tried again.
FINE = (0, 11)


@contextmanager
def node(story: str) -> Iterator[tuple[Lab, Host, dict[str, Any]]]:
    """A host on which a first pod has been, and what it is like then."""
    lab = Lab(story)
    try:
        host, first = lab.host(), lab.pod()
        host.add(CONF, first)
        host.delete_pod(CONF, first)
        yield lab, host, host.snapshot()
    finally:
        lab.close()


def end(agent: Agent) -> None:
    """As systemd does."""
    if agent.process.poll() is None:
        agent.process.terminate()
    agent.process.communicate(timeout=PATIENCE)


# --- launchers


def launcher(story: str, seed: str) -> Told:
    """`launcher killed at ADD, every 5th`: a caller's end at each of its system calls leaves its call done or undone, and the agent as it was."""
    verb, step = _read(story)
    faults, kills = [], 0
    with node(story) as (lab, host, before):
        agent, pod = serving(host), lab.pod()
        made = _calls(host, pod, verb)
        for number in range(random.Random(seed).randrange(step), len(made), step):
            name, ordinal = made[number]
            if verb != "ADD":
                host.add(CONF, pod)
            kills += 1
            _traced(host, pod, verb, "-e", f"inject={name}:signal=SIGKILL:when={ordinal}")
            found = _undone(host, pod, before, begun=verb == "ADD")
            faults += [f"{story}: killed at call {number} ({name}): {fault}" for fault in found]
        served = call(agent, "ADD", CONF, pod).returncode, call(agent, "DEL", CONF, pod).returncode
        faults += [] if served == (0, 0) else [f"{story}: the agent serves nobody any more"]
        end(agent)
    return Told(({"system calls": len(made)} if step == 1 else {}) | {"kills": kills}, faults)


def _read(story: str) -> tuple[str, int]:
    found = re.fullmatch(r"\w+ (?:killed|stopped|hung up)(?: at (\w+))?(?:, every (\d+)\w+)?", story)
    assert found
    return found[1] or "", int(found[2] or 1)


def _calls(host: Host, pod: Pod, verb: str) -> list[tuple[str, int]]:
    """The system calls of a launcher, each by its name and which of that name it is."""
    if verb != "ADD":
        host.add(CONF, pod)
    said = _traced(host, pod, verb)
    host.delete_pod(CONF, pod)
    seen = Counter[str]()
    names = [found[1] for line in said.splitlines() if (found := re.match(r"\d+ +(\w+)\(", line))]
    made = []
    for name in names:
        seen[name] += 1
        made.append((name, seen[name]))
    return [it for it in made if it[0] != "exit_group"]


def _traced(host: Host, pod: Pod, verb: str, *options: str) -> str:
    log = host.folder / "strace"
    command = [*host.within(), "strace", "-f", "-qq", "-o", log, *options, BIN_DIR / CONF["type"]]
    sh(*command, input=json.dumps(CONF), env=environment(verb, pod), check=False)
    return log.read_text(errors="replace")


def _undone(host: Host, pod: Pod, before: dict[str, Any], *, begun: bool) -> list[str]:
    """What is wrong with an ADD (`begun`) or a DEL that was cut off, and after a DEL."""
    if not eventually(lambda: all(complete for *_, complete in host.kept()["attachment"]), PATIENCE):
        return [f"an attachment stays half done: {host.kept()}"]
    found = []
    if begun and host.kept()["attachment"] and not pod.link("eth0"):
        found.append("an attachment has no link")
    answer = host.cni("DEL", CONF, pod)
    if answer.code:
        found.append(f"DEL ends with {answer.code}: {answer.stdout}")
    if not eventually(lambda: host.snapshot() == before, PATIENCE):
        found.append(f"left: {_difference(host.snapshot(), before)}")
    return [*found, "eth0 is left"] if pod.link("eth0") else found


def _difference(now: dict[str, Any], before: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {now[key]} instead of {before[key]}" for key in before if now[key] != before[key])[:500]


# --- the first process


def first(story: str, seed: str) -> Told:
    """`agent killed`: at each turn of its life; calls go on meanwhile, and another agent after it. `agent stopped`, `agent hung up`: by signals it minds."""
    _, step = _read(story)
    sent = next(number for how, number in SENT.items() if f" {how}" in story)
    faults, kills, calls = [], 0, 0
    with node(story) as (lab, host, before):
        turns, pods = _turns(lab, host), [lab.pod() for _ in range(2)]
        for number in range(random.Random(seed).randrange(step), len(turns), step):
            name, ordinal = turns[number]
            kills += 1
            with Callers(host, pods) as callers:
                life = Life(host, "-e", f"inject={name}:signal={sent.name}:when={ordinal}")
                life.told()
            calls += callers.done
            found = [*callers.faults, *life.left(sent)]
            again = serving(host)
            found += [fault for pod in pods for fault in _undone(host, pod, before, begun=False)]
            end(again)
            faults += [f"{story}: {sent.name} at turn {number} ({name} {ordinal}): {fault}" for fault in found]
    return Told({"turns": len(turns), "kills" if sent == signal.SIGKILL else "signals": kills, "calls": calls}, faults)


def _turns(lab: Lab, host: Host) -> list[tuple[str, int]]:
    life = Life(host)
    life.told()
    seen, made = Counter[str](), []
    for line in life.log.read_text(errors="replace").splitlines():
        if (found := re.match(r"(\w+)\(", line)) and found[1] in TURNS.split(","):
            seen[found[1]] += 1
            made.append((found[1], seen[found[1]]))
    return made


class Callers:
    """Calls that are made all the while, of each pod in turn; what is wrong with their answers."""

    def __init__(self, host: Host, pods: list[Pod]) -> None:
        self._host, self._over = host, threading.Event()
        self.done, self.faults = 0, list[str]()
        self._threads = [threading.Thread(target=self._call, args=(pod,)) for pod in pods]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, pod: Pod) -> None:
        """As a runtime does: a DEL that is to be tried again later is, before anything else."""
        while not self._over.is_set():
            self._answered("ADD", pod)
            if not eventually(lambda: self._answered("DEL", pod) == 0, PATIENCE):
                self.faults.append("DEL is told to try again, and again")

    def _answered(self, verb: str, pod: Pod) -> int:
        answer = self._host.cni(verb, CONF, pod)
        self.done += 1
        try:
            code = answer.json.get("code", 0) if answer.stdout else 0
        except ValueError:
            code = -1
        if code not in FINE or bool(code) != bool(answer.code):
            self.faults.append(f"{verb} ends with {answer.code}: {answer.stdout}{answer.stderr}"[:400])
        return int(code)


class Life:
    """An agent's first process under strace, from its start to its end."""

    def __init__(self, host: Host, *options: str) -> None:
        self._host, self.log = host, host.folder / "life"
        command = [
            *host.prefix(),
            "strace",
            "-qq",
            "-o",
            self.log,
            "-e",
            f"trace={TURNS}",
            *options,
            AGENT_CNI,
            "serve",
            "--workers",
            "3",
        ]
        self._process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def told(self) -> None:
        """It serves, loses a worker and its guard, becomes the next installation's, serves, and is asked to end; until it is killed."""
        for step in (self._serves, self._loses_children, self._is_outdated, self._serves, self._ends):
            step()

    def left(self, sent: signal.Signals) -> list[str]:
        """What is left of it when it is over, and heard this signal. It is stopped, or goes on, from where it minds them; before there is nothing."""
        said = self._process.communicate(timeout=PATIENCE)[1]
        found = [f"it said {line}" for line in said.splitlines() if "Traceback" in line or "Error" in line]
        if self._process.returncode not in (0, -sent):
            found.append(f"it ends with {self._process.returncode}")
        if sent != signal.SIGKILL and (self._host.folder / "agent.sock").exists():
            found.append("its socket is left")
        if not eventually(lambda: not _agents(), PATIENCE):
            found.append(f"processes are left: {_agents()}")
            for pid in _agents():
                os.kill(pid, signal.SIGKILL)
        return found

    def _until(self, seen: Callable[[], Any]) -> None:
        eventually(lambda: self._process.poll() is not None or seen(), PATIENCE)

    def _serves(self) -> None:
        self._until(lambda: len(_children(self._pid())) >= 3)
        time.sleep(0.2)

    def _loses_children(self) -> None:
        """The last, which is a worker or the guard, and the first."""
        for pid in _children(self._pid())[::2]:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)

    def _is_outdated(self) -> None:
        if before := _children(self._pid()):
            PACKAGE.touch()
            self._until(lambda: not {*before} & {*_children(self._pid())})

    def _ends(self) -> None:
        if (pid := self._pid()) and self._process.poll() is None:
            os.kill(pid, signal.SIGTERM)
        self._process.wait(PATIENCE)

    def _pid(self) -> int:
        """strace's child."""
        return next(iter(_children(self._process.pid)), 0)


def _children(pid: int) -> list[int]:
    try:
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] if pid else []
    except OSError:
        return []


def _agents() -> list[int]:
    """Whatever runs of an agent, in this namespace of processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in words or b"refresh" in words or b"repair" in words:
            found.append(int(path.parent.name))
    return found
