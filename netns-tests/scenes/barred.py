"""Programs whose setns(2) fails once, and what can be seen of what they leave."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from interception import REFERENCE
from lab import AGENT_CNI, BIN_DIR, PATIENCE, REFERENCE_DIR, ROOT, Host, Pod, environment, eventually

PYTHON = ROOT / ".venv/bin/python3"
EMPTY_TABLE = re.compile(r"table ip6? (raw|mangle|filter|nat) \{(\s+chain [A-Z]+ \{\s+type [^}]+;\s+\})*\s+\}\n+")
LISTED = """nft list ruleset; echo listed:; for family in -4 -6; do
ip $family -o addr; ip $family route show table all; ip $family rule; ip $family neigh show nud permanent; done"""


def stopped_at(host: Host, number: int, *argv: object, **options: Any) -> tuple[subprocess.CompletedProcess[str], bool]:
    """A cold program whose setns(2) number `number` fails, and whether there were so many."""
    trace = host.folder / "trace"
    inject = f"inject=setns:error=EPERM:when={number}"
    strace = ("strace", "-f", "--seccomp-bpf", "-o", trace, "-e", "trace=setns", "-e", inject)
    done = host.run(*strace, PYTHON, "-I", *argv, check=False, timeout=PATIENCE, **options)
    return done, "(INJECTED)" in trace.read_text()


def stopped_call(host: Host, verb: str, conf: dict[str, Any], pod: Pod, number: int) -> tuple[dict[str, Any], bool]:
    """A cold call that is stopped so: its document, and whether it was stopped; one that was must have failed."""
    stdin, env = json.dumps(conf), environment(verb, pod)
    done, hit = stopped_at(host, number, BIN_DIR / conf["type"], input=stdin, env=env)
    document = json.loads(done.stdout or "{}")
    assert bool(done.returncode) is hit, document
    if hit:
        assert document["code"] == 100 or (verb in ("DEL", "GC") and document["code"] == 107), document
    return document, hit


@dataclass
class Scene:
    """A node where `other` stays attached and `pod` comes and goes, both after another plugin where `chained`.

    `conf` is what the pod is attached with; `bare` is the same when nobody remembers what was there before.
    """

    host: Host
    bare: dict[str, Any]
    pod: Pod
    other: Pod
    chained: bool

    def begin(self) -> None:
        given = [self._before(pod) for pod in (self.other, self.pod)]
        self.other_conf, self.conf = (self.bare | extra for extra in given)
        self.held = self.host.add(self.other_conf, self.other)
        self.seen = {pod.name: seen(pod) for pod in (self.other, self.pod)}

    def end(self) -> None:
        self.host.delete_pod(self.other_conf, self.other)
        for pod in (self.other, self.pod) if self.chained else ():
            self.host.delete_pod(REFERENCE, pod, bin_dir=REFERENCE_DIR)

    def _before(self, pod: Pod) -> dict[str, Any]:
        return {"prevResult": self.host.add(REFERENCE, pod, bin_dir=REFERENCE_DIR)} if self.chained else {}

    def attached(self) -> dict[str, Any]:
        """Attach the pod; its configuration with the result."""
        return self.conf | {"prevResult": self.host.add(self.conf, self.pod)}

    def valid(self, *pods: Pod) -> dict[str, Any]:
        """What a runtime says at GC."""
        return self.bare | {"cni.dev/valid-attachments": [{"containerID": p.container, "ifname": "eth0"} for p in pods]}

    def next(self, number: int) -> None:
        """What comes next, something else at each turn, works as usual."""
        if number % 3 == 0:
            refreshed(self.host)
        elif number % 3 == 1:
            self.host.cni("GC", self.valid(self.other, self.pod)).ok()
        else:
            self.host.check(self.other_conf, self.other, self.held).ok()


def each_setns() -> Iterator[int]:
    """Every number, until the test sees that there were no more."""
    yield from range(1, 60)
    pytest.fail("there is no end of setns(2)")


def outline(where: Host | Pod) -> set[str]:
    """The links and tables of a namespace; whose gates there are is left out."""
    tables = re.sub(r"(?<=agent_cni-)\S+", "TOKEN", where.run("nft", "list", "tables").stdout)
    return {item["ifname"] for item in where.ip("link", "show")} | set(tables.splitlines())


def seen(where: Host | Pod) -> list[str]:
    """Everything a call could make or change in a namespace, and in the node's state.

    Left out are what the kernel adds by itself, and the empty tables iptables leaves.
    """
    rules, _, listed = where.run("sh", "-c", LISTED).stdout.partition("listed:\n")
    rules = re.sub(r"counter packets \d+ bytes \d+", "", EMPTY_TABLE.sub("", rules))
    lines = [line for line in listed.splitlines() if not re.search(r"fe80::|ff00::|multicast", line)]
    return sorted([*links_of(where), *rules.splitlines(), *lines, *recorded(where)])


def links_of(where: Host | Pod) -> list[str]:
    return [f"{item['ifname']} {item['address']} {item['mtu']}" for item in where.ip("link", "show")]


def recorded(where: Host | Pod) -> Iterator[str]:
    """The rows of a node's state; `agent-cni show` would cost more than the rest of a turn."""
    file = where.folder / "state.db" if isinstance(where, Host) else None
    if file and file.exists():
        database = sqlite3.connect(file)
        for area in ("attachment", "lease", "uses"):
            for row in database.execute(f"SELECT * FROM {area}"):
                yield re.sub(r"'\d{4}-\d\d-\d\d [\d:]+'", "when it was written", str(row))
        database.close()


def refreshed(host: Host) -> int:
    """How many attachments `agent-cni refresh` mended."""
    return json.loads(host.run(AGENT_CNI, "refresh", "--json").stdout)["changed"]


def same(where: Host | Pod, before: list[str]) -> bool:
    """Whether a namespace is as it was; the kernel forgets a link in its own time."""
    return eventually(lambda: seen(where) == before)


def doctor(host: Host) -> dict[str, list[str]]:
    areas = json.loads(host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)
    return {area: [item["what"] for item in items] for area, items in areas.items()}


def is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
