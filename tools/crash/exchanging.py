"""Releases that take each other's place while calls run: by their own installers, in folders of their own, under callers that never pause."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from earlier import installed
from lab import PATIENCE, REFERENCE_DIR, ROOT, Answer, Host, Lab, eventually, sh

from crash.crowd import networks
from crash.installing import become_later
from crash.story import Told

PLACE = Path("/run/exchanged")
PREFIX, BIN = PLACE / "opt", PLACE / "bin"
FOLDERS = ("--prefix", PREFIX, "--bin-dir", BIN, "--conf-dir", PLACE / "etc")
COMMAND = PREFIX / "bin/agent-cni"
#: How often, and how long each is there, in seconds.
EXCHANGES, MOST = 6, 3.0
LATER, TRY_AGAIN = "later", 11
_COLD = {"AGENT_CNI_SOCKET": "/nowhere"}


def images(other: str) -> dict[str, Path]:
    """This release, and another: a commit's, or this one with other files; each as an installer's image has it."""
    found = {}
    for name in ("this", other):
        found[name] = root = PLACE / "images" / name
        root.mkdir(parents=True)
        program = installed(name) / "opt/bin/agent-cni" if name not in ("this", LATER) else ROOT / ".venv/bin/agent-cni"
        sh(program, "install", "--root", root, *FOLDERS)
        if name == LATER:
            become_later(root / PREFIX.relative_to("/"))
    return found


@dataclass
class Exchange:
    """A node on which two releases take turns."""

    host: Host
    lab: Lab
    images: dict[str, Path]
    warm: bool
    there: str = ""
    turns: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def install(self, name: str) -> None:
        """Have one take the other's place, by its own installer."""
        self.there, self.turns = "", self.turns + 1
        python = self.images[name] / PREFIX.relative_to("/") / "bin/python3"
        done = self.host.run(python, "-I", "-m", "cni.command.main", "install", *FOLDERS, check=False)
        if done.returncode and name not in ("this", LATER):
            self.calls["installations by another release that failed"] += 1
        elif done.returncode:
            self.faults.append(f"install {name}: {done.stdout}{done.stderr}"[:400])
        self.there = name

    def call(self, verb: str, conf: dict[str, Any], pod: Any, designed: tuple[int, ...] = (0, TRY_AGAIN)) -> Answer:
        """A call of whatever is there; one that another release began, or may have, is that one's to answer for."""
        this_ones, turn = self.there == "this", self.turns
        way = {} if self.warm else _COLD
        answer = self.host.cni(verb, conf, pod, bin_dir=BIN, CNI_PATH=f"{BIN}:{REFERENCE_DIR}", **way)
        self.calls[verb] += 1
        code = answer.json.get("code", 1) if answer.code and answer.stdout.startswith("{") else answer.code
        if code not in designed or "raceback" in answer.stderr:
            if (this_ones and turn == self.turns) or LATER in self.images:
                self.faults.append(f"{verb} {conf['name']} {pod.name}: {answer.stdout}{answer.stderr}"[:400])
            else:
                self.calls["failed that another release may have begun"] += 1
        return answer

    def refresh(self) -> None:
        """Have whatever is there look at all, twice: what the first found well the second need not ask again, nor another release."""
        for _ in range(2):
            if (done := self.host.run(COMMAND, "refresh", check=False)).returncode:
                self.faults.append(f"refresh by {self.there}: {done.stdout}{done.stderr}"[:400])

    def come_and_go(self, conf: dict[str, Any], over: Event) -> None:
        """Pods of a network, one after the other."""
        while not over.is_set():
            pod = self.lab.pod()
            answer = self.call("ADD", conf, pod)
            if not answer.code:
                self.call("CHECK", conf | {"prevResult": answer.json}, pod)
            if not eventually(lambda pod=pod: not self.call("DEL", conf, pod).code):
                self.faults.append(f"DEL {conf['name']} {pod.name}: never done")
            pod.delete()
            self.lab.made.remove(pod)

    @contextmanager
    def served(self) -> Iterator[None]:
        """With an agent, which is begun anew where it fails, as systemd does, if calls are to be warm."""
        over = Event()

        def serve() -> None:
            while not over.is_set():
                agent = subprocess.Popen([*self.host.within(), str(COMMAND), "serve"], stdin=subprocess.DEVNULL)
                while agent.poll() is None and not over.wait(0.1):
                    pass
                if over.is_set():
                    agent.send_signal(signal.SIGTERM)
                    if code := agent.wait(PATIENCE):
                        self.faults.append(f"the agent ends with {code}")
                    return
                self.calls["agents that failed"] += 1
                if LATER in self.images:
                    self.faults.append(f"the agent ended by itself, {agent.returncode}")

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(serve) if self.warm else None
            try:
                yield
            finally:
                over.set()
                if running:
                    running.result()


def exchanged(story: str, other: str, seed: str, *, warm: bool) -> Told:
    """One node, four callers, and so many exchanges."""
    chance, lab, over = random.Random(f"{story} {seed}"), Lab(story), Event()
    try:
        node = Exchange(lab.site().host, lab, images(other), warm)
        node.install(other)
        assert not node.faults, node.faults
        with node.served():
            elders = [(conf, pod := lab.pod(), node.call("ADD", conf, pod).ok()) for conf in networks()]
            with ThreadPoolExecutor(len(elders)) as pool:
                callers = [pool.submit(node.come_and_go, conf, over) for conf, _, _ in elders]
                for number in range(EXCHANGES):
                    time.sleep(chance.random() * MOST)
                    node.install(("this", other)[number % 2])
                    for conf, pod, result in elders:
                        node.call("CHECK", conf | {"prevResult": result}, pod)
                over.set()
                for caller in callers:
                    caller.result()
            for name in (other, "this", other, "this"):
                node.install(name)
                node.refresh()
                for conf, pod, result in elders:
                    node.call("CHECK", conf | {"prevResult": result}, pod, designed=(0,))
            for conf, pod, _ in elders:
                node.call("DEL", conf, pod, designed=(0,))
        node.faults += left(node.host)
    finally:
        lab.close()
    return Told({"exchanges": EXCHANGES} | dict(node.calls), [f"{story}: {fault}" for fault in node.faults[:12]])


def left(host: Host) -> Iterator[str]:
    """What there still is where all are gone."""
    if host.kept() != {"attachment": [], "lease": []}:
        yield f"left: {host.kept()}"
    if "agent_cni" in (tables := host.run("nft", "list", "tables").stdout):
        yield f"left: {tables}"
    yield from (
        f"left: link {it['ifname']}" for it in host.ip("link", "show") if it["ifname"].startswith(("veth", "mv-"))
    )
