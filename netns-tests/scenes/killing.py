"""A node on which calls are killed at one of their effects, and what must be so whatever comes next.

A judge shares no code with cni/: `ip`, `nft`, SQLite and files say what is there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import armed
from agents import children, watches_rules
from effects import DURING, Order
from lab import AGENT_CNI, BIN_DIR, Answer, Host, Lab, Pod, environment, eventually, sh

#: What an attachment leaves on purpose: where the next address is looked for, and whose it was.
_REMEMBERED = ("last_given", "sticky", "member")
_HEAD = {"cniVersion": "1.1.0", "name": "killed"}
#: System calls that change something, or by which a call holds or enters something: each is stepped through by itself, for strace counts each
#: by itself; of what there is much, one of so many.
SYSCALLS = dict.fromkeys(
    ("sendto", "sendmsg", "write", "pwrite64", "fdatasync", "mkdir", "rename", "unlink", "execve", "setns", "unshare", "mount", "flock", "connect",
     "bind", "setsockopt", "ftruncate", "symlink", "link", "chmod", "fchmod", "vfork", "clone3", "shutdown"), 1,
) | {"fcntl": 7, "socket": 3, "ioctl": 7, "close": 40, "openat": 60, "munmap": 30, "exit_group": 1}  # fmt: skip
_KILLED = "+++ killed by SIGKILL +++"
Seen = dict[str, set[str]]


@dataclass(frozen=True)
class Killed:
    """A call that is over: with which exit code, and where it was killed, if it was."""

    code: int
    last: str
    #: What goes on without it: a process that stands still.
    orphan: Path | None = None
    effects: int = 0


@dataclass
class Node:
    """A node with an agent on a wire (192.0.2.11, .12 is a machine elsewhere), a network, and one pod in it that nothing may happen to.

    A call that is killed is cold or warm; what comes before it is the agent's, and what follows by turns.
    """

    lab: Lab
    chain: tuple[dict[str, Any], ...]
    warm: bool
    orders: Path
    #: A host that is on a wire already.
    given: Host | None = None
    turn: int = 0
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host = self.given or self.lab.host()
        if not self.given:
            self.lab.underlay(self.host, self.lab.host())
        armed.serve(self.host)
        self.chain = tuple(_HEAD | keys for keys in self.chain)
        self.wakes = iter(range(1 << 30))

    def call(self, verb: str, pod: Pod | None, conf: dict[str, Any], **env: str) -> Answer:
        """A call that nobody kills; every other one is cold."""
        self.turn += 1
        cold = {"AGENT_CNI_SOCKET": "/nowhere"} if self.turn % 2 else {}
        return self.host.cni(verb, conf, pod, **_named(pod) | cold | env)

    def killed(
        self, verb: str, pod: Pod | None, number: int, when: str, keys: dict[str, Any] | None = None, *, warm: bool | None = None
    ) -> Killed:  # fmt: skip
        """A call of the chain's last plugin that ends at an effect; what stands before it in a chain is there."""
        order = Order(self.orders / f"{next(self.wakes)}", number, when)
        conf = self.chain[-1] | self._given(pod) | (keys or {})
        bin_dir = BIN_DIR if (self.warm if warm is None else warm) else armed.bin_dir()
        answer = self.host.cni(verb, conf, pod, bin_dir=bin_dir, **_named(pod) | order.environ)
        return _met(order, answer)

    def traced(self, verb: str, pod: Pod | None, number: int, call: str, keys: dict[str, Any] | None = None) -> Killed:
        """The same, cold and not knowing of it, where strace has whichever process comes to a system call so often die before it."""
        conf, log = self.chain[-1] | self._given(pod) | (keys or {}), self.orders / "strace"
        environ = environment(verb, pod) | _named(pod) | {"AGENT_CNI_SOCKET": "/nowhere"}
        words = (*_bent(log, call, number), BIN_DIR / conf["type"])
        done = self.host.run(*words, input=json.dumps(conf), env=environ, check=False)
        return Killed(done.returncode, _last(log))

    def served(self, verb: str, pod: Pod | None, number: int, call: str, keys: dict[str, Any] | None = None) -> Killed:
        """The same of a call that the agent serves: it is the worker that dies, which knows of nothing."""
        conf, log = self.chain[-1] | self._given(pod) | (keys or {}), self.orders / "strace"
        workers = [pid for pid in children(self.host.agent) if not watches_rules(pid)]
        attached = [word for pid in workers for word in ("-p", str(pid))]
        strace = subprocess.Popen(list(map(str, (*_bent(log, call, number), *attached))), stderr=subprocess.DEVNULL)
        assert eventually(lambda: all(map(_is_traced, workers))), "strace does not come"
        answer = self.host.cni(verb, conf, pod, **_named(pod))
        strace.terminate()
        try:
            strace.wait(3)
        except subprocess.TimeoutExpired:  # now and then it waits for who is dead
            strace.kill()
            strace.wait()
        died = next((pid for pid in workers if _is_over(pid)), 0)
        return Killed(answer.code, _last(log) or (f"{died} {call}" if died else ""))

    def killed_command(self, number: int, when: str, *words: str) -> Killed:
        """The same of agent-cni, which is cold."""
        order = Order(self.orders / f"{next(self.wakes)}", number, when)
        done = self.host.run(*armed.COMMAND, *words, env=os.environ | order.environ, check=False)
        return _met(order, Answer(done.returncode, done.stdout, done.stderr))

    def traced_command(self, number: int, call: str, *words: str) -> Killed:
        """The same, which does not know of it."""
        log = self.orders / "strace"
        done = self.host.run(*_bent(log, call, number), AGENT_CNI, *words, check=False)
        return Killed(done.returncode, _last(log))

    def add(self, pod: Pod, first: int = 0, last: int = 0) -> str:
        """Make what a runtime makes, from the chain's `first` plugin to the `last` (of None: none is left out); what was wrong."""
        if first == 0 or len(self.chain) == 1:
            self.results.pop(pod.name, None)  # a chain begins with no result
        for conf in self.chain[first : len(self.chain) + last]:
            answer = self.call("ADD", pod, conf | self._given(pod))
            if answer.code:
                return f"ADD of {conf['type']}: {answer.stdout.strip() or answer.stderr.strip()}"
            self.results[pod.name] = answer.json
        return ""

    def check(self, pod: Pod) -> str:
        for conf in self.chain:
            answer = self.call("CHECK", pod, conf | self._given(pod))
            if answer.code:
                return f"CHECK of {conf['type']}: {answer.stdout.strip()}"
        return ""

    def delete(self, pod: Pod, *, edit: dict[str, Any] | None = None, previous: bool = True, **env: str) -> str:
        for conf in reversed(self.chain):
            shape = (
                conf if edit is None else {key: conf[key] for key in (*_HEAD, "type", "master") if key in conf} | edit
            )
            answer = self.call("DEL", pod, shape | (self._given(pod) if previous else {}), **env)
            if answer.code:
                return f"DEL of {conf['type']}: {answer.stdout.strip() or answer.stderr.strip()}"
        self.results.pop(pod.name, None)
        return ""

    def collect(self, *valid: Pod) -> str:
        listed = [{"containerID": pod.container, "ifname": "eth0"} for pod in valid]
        for conf in reversed(self.chain):
            answer = self.call("GC", None, conf | {"cni.dev/valid-attachments": listed})
            if answer.code:
                return f"GC of {conf['type']}: {answer.stdout.strip()}"
        return ""

    def command(self, *words: str) -> str:
        done = self.host.run(AGENT_CNI, *words, check=False)
        return f"{words[0]}: {done.stdout}{done.stderr}" if done.returncode else ""

    def wipe(self) -> None:
        """Have the node as before its first pod, but for what of it is the kernel's."""
        for link in self.host.ip("link", "show"):
            if link["ifname"] not in ("lo", "eth0"):
                self.host.run("ip", "link", "del", link["ifname"], check=False)
        self.host.lose_state()

    def is_complete(self, pod: Pod) -> bool:
        """Whether the state says that the last plugin's ADD is done."""
        plugin = self.chain[-1]["type"]
        return any(row[1] == pod.container and row[3] == plugin and row[4] for row in self.host.kept()["attachment"])

    def wake(self, call: Killed) -> None:
        """Let a program go on whose call was killed `during` it, if it lives, and wait for its end."""
        if call.orphan:
            with suppress(FileNotFoundError, ProcessLookupError):
                pid = int(call.orphan.read_text())
                os.kill(pid, signal.SIGCONT)
                assert eventually(lambda: _is_over(pid), 20)

    def seen(self, *pods: Pod) -> Seen:
        """All there is on the node, and in pods."""
        told = self.host.snapshot()
        rules = [
            *told.pop("rules").splitlines(),
            *self._said("iptables-legacy-save"),
            *self._said("ip6tables-legacy-save"),
        ]
        found = {"rules": {_settled(line) for line in rules}} | {name: set(map(str, it)) for name, it in _flat(told)}
        found["settings"] = set(self._settings())
        found["rows"] = set(_rows(self.host.folder / "state.db"))
        found["files"] = {str(file) for file in self.host.folder.rglob("*") if "state.db" not in file.name}
        for pod in pods:
            found[pod.name] = inside(pod)
        return found

    def _settings(self) -> Iterator[str]:
        """Of each link what is not in its line: whose it says that it is, and what its bridge shows to rules."""
        for link in self.host.ip("link", "show"):
            kind = link.get("linkinfo", {}).get("info_data", {})
            shown = {
                key: kind.get(key)
                for key in ("nf_call_iptables", "nf_call_ip6tables", "id", "port", "learning", "mode")
            }
            yield f"{link['ifname']} {link.get('ifalias')} {shown}"

    def _said(self, program: str) -> list[str]:
        return [line for line in self.host.run(program, check=False).stdout.splitlines() if line.startswith("-A")]

    def _given(self, pod: Pod | None) -> dict[str, Any]:
        return {"prevResult": self.results[pod.name]} if pod and pod.name in self.results else {}


def inside(pod: Pod) -> set[str]:
    """All there is in a pod."""
    told = [
        sh("ip", "-n", pod.name, *words).stdout
        for words in (["-br", "addr"], ["route"], ["-6", "route"], ["rule"], ["-6", "rule"])
    ]
    told += [pod.run("nft", "list", "ruleset").stdout]
    told += [
        re.sub(r"^[#:].*$", "", pod.run(f"{program}-legacy-save").stdout, flags=re.MULTILINE)
        for program in ("iptables", "ip6tables")
    ]
    return {
        _settled(line) for text in told for line in text.splitlines() if "fe80::" not in line and "ff00::" not in line
    }


def differences(before: Seen, after: Seen) -> list[str]:
    """A line for each thing that is missing or too many."""
    found = []
    for area in before.keys() | after.keys():
        was, now = before.get(area, set()), after.get(area, set())
        found += [f"{area} +{item[:1000]}" for item in now - was] + [f"{area} -{item[:1000]}" for item in was - now]
    return sorted(found)


def _named(pod: Pod | None) -> dict[str, str]:
    return {"CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod.name}"} if pod else {}


def _met(order: Order, answer: Answer) -> Killed:
    """What a thread does after the answer may take a moment."""
    if answer.code == 0 and order.number:
        eventually(lambda: len(order.told()) >= order.number, 0.1)
    effects = order.told()
    last = effects[order.number - 1] if len(effects) >= order.number else ""
    orphan = order.log.with_name(f"{order.log.name}.pid") if order.when == DURING else None
    return Killed(answer.code, last, orphan, len(effects))


def _bent(log: Path, call: str, number: int) -> tuple[Any, ...]:
    """strace, which has whoever comes to a system call so often die before it."""
    return ("strace", "-f", "-qq", "-o", log, f"--trace={call}", f"--inject={call}:signal=KILL:when={number}")


def _last(log: Path) -> str:
    """The system call at which somebody died, and who; nothing where nobody did."""
    lines = log.read_text(errors="replace").splitlines()
    dead = next((line.split()[0] for line in lines if line.endswith(_KILLED)), "")
    return next(
        (line[:120] for line in reversed(lines) if line.split()[0] == dead and not line.endswith(_KILLED)), dead
    )


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def _is_over(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def _flat(told: dict[str, Any]) -> list[tuple[str, Any]]:
    addresses = told.pop("addresses")
    told.pop("state")
    return [*told.items(), ("addresses", {(link, item) for link, them in addresses.items() for item in them})]


def _rows(file: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as state:
        tables = [name for (name,) in state.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [
            f"{table} {json.dumps(row, default=repr)}" for table in tables if table not in _REMEMBERED
            for row in state.execute(f"SELECT * FROM {table}")
        ]  # fmt: skip


def _settled(line: str) -> str:
    """A rule without what it counts and in which order a set has its elements."""
    line = re.sub(r"counter packets \d+ bytes \d+|\[\d+:\d+\]", "counter", line.strip())
    if "elements = {" in line or line.endswith((",", "}")):
        return " ".join(sorted(filter(None, re.split(r"[\s,]+", line))))
    return line
