"""A node and a pod, and calls while something is amiss: what a call said, what it left, and what is wrong with that."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import armed as seam
from lab import AGENT_CNI, BIN_DIR, Host, Lab, environment, eventually

from cni.errors import CniError

#: A call waits for a lock for 30 s; nothing else is to take as long, also where eight others want the processor.
BOUND = 45
_IPAM = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
_HELD = {"policy": {"ingress": []}, "sidecar": {"mode": "tproxy", "captureDNS": True}, "ipMasq": True}
_SPAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "gateway": "192.0.2.1"}
NETWORKS: dict[str, dict[str, Any]] = {
    "bridge-vxlan": {"bridge": "br0", "isDefaultGateway": True, "vxlan": {"id": 9, "remotes": []}, "ipam": _IPAM} | _HELD,
    "macvlan": {"master": "eth0", "policy": {"ingress": []}, "sidecar": {}, "ipam": {"ranges": [[_SPAN]], "routes": [{"dst": "0.0.0.0/0"}]}},
    "custom-plugin": {"ipam": _IPAM} | _HELD,
}  # fmt: skip
#: A pod that lost its routes: who is asked about it then must say so.
BROKEN = "broken "


def _codes(kind: type[CniError] = CniError) -> set[int]:
    return {kind.code, *(code for each in kind.__subclasses__() for code in _codes(each))}


DESIGNED = _codes() - {999}


@dataclass(frozen=True)
class Said:
    """What a call came to; `mute` where it had nowhere to say it."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    mute: bool = False

    def wrong(self, *, plugin: bool) -> Iterator[str]:
        """What is wrong with the way it ended. A plugin prints one document, or for some verbs nothing."""
        if self.seconds > BOUND:
            yield f"took {self.seconds:.0f} s"
        if self.code not in (0, 1):
            yield f"exit code {self.code}: {self.stderr[-200:]!r}"
        if "raceback" in self.stderr or "a bug, please report it" in self.stderr:
            yield f"a bug: {self.stderr[-900:]!r}"
        if self.mute or not plugin:
            return
        try:
            document = json.loads(self.stdout) if self.stdout.strip() else {}
        except ValueError:
            yield f"no document: {self.stdout[:200]!r}"
            return
        if self.code and document.get("code") not in DESIGNED:
            yield f"no designed error: {self.stdout[:300]!r} {self.stderr[-200:]!r}"
        elif self.code and not document.get("msg"):
            yield f"no word of why: {self.stdout!r}"


@dataclass(frozen=True)
class Finding:
    """A call while something was amiss: what, whether the call failed, and what was wrong."""

    what: str
    failed: bool
    wrong: list[str]


class Scene:
    """A host with one pod of a network, attached or not, and what was there before. `armed` is the mode of calls that obey orders."""

    def __init__(self, lab: Lab, plugin: str, host: Host | None = None, armed: str = "") -> None:
        self.plugin = plugin
        self.conf = {"cniVersion": "1.1.0", "name": "net", "type": plugin} | copy.deepcopy(NETWORKS[plugin])
        self.host = lab.add(host) if host else lab.host()
        lab.underlay(self.host)
        self.armed = seam.serve(self.host) if armed == "warm" else seam.bin_dir() if armed else BIN_DIR
        self.pod = lab.pod()
        self.result: dict[str, Any] = {}
        self.attach()
        self.end()
        self.before = self.host.snapshot()

    def attach(self) -> None:
        self.result = self.host.add(self.conf, self.pod, AGENT_CNI_SOCKET="/nowhere")

    def end(self) -> None:
        self.host.delete_pod(self.conf, self.pod, AGENT_CNI_SOCKET="/nowhere")

    def ready(self, verb: str) -> None:
        """As it is to be before a verb: attached but for ADD, with something broken where somebody is to see it."""
        if verb != "ADD":
            self.attach()
        if verb.startswith(BROKEN):
            self.pod.run("ip", "route", "flush", "table", "main")

    def call(self, verb: str, within: Sequence[object] = (), armed: bool = False, **env: str) -> Said:
        """A verb, or a command of agent-cni's, begun by `within`."""
        verb = verb.removeprefix(BROKEN)
        conf: dict[str, Any] = self.conf | ({"prevResult": self.result} if verb == "CHECK" else {})
        conf |= {"cni.dev/valid-attachments": []} if verb == "GC" else {}
        argv: list[object] = [(self.armed if armed else BIN_DIR) / self.plugin]
        if not verb.isupper():
            argv = [*(seam.COMMAND if armed else [AGENT_CNI]), verb, *(["--all"] if verb == "repair" else [])]
        command = [*self.host.within(), *map(str, (*within, *argv))]
        environ = (
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | (environment(verb, self.pod) if verb.isupper() else {}) | env
        )
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, input=json.dumps(conf), env=environ, capture_output=True, text=True, errors="replace",
                timeout=3 * BOUND, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            return Said(-1, "", str(late)[-200:], time.monotonic() - began)
        return Said(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def found(self, verb: str, what: str, said: Said, *, undone: bool = False, believed: bool = False) -> Finding:
        """What is to be said of a verb's call. It ends as the scene began: nothing is attached, and nothing amiss any more.

        A failed ADD is `undone` where nothing hindered that; else DEL does it. What the kernel says is there is `believed`.
        """
        wrong = list(said.wrong(plugin=verb.removeprefix(BROKEN).isupper()))
        if not believed:
            wrong += self._untrue(verb, said)
        if verb in ("DEL", "GC") if said.code == 0 else verb == "ADD" and undone:
            wrong += (f"{verb} ended with {said.code} and left {line}" for line in self.left())
        if said.code and verb == "ADD" and (open_to := self._open()):
            wrong.append(f"ADD failed and left a pod that is held to nothing: {open_to}")
        last = self.host.cni("DEL", self.conf, self.pod, AGENT_CNI_SOCKET="/nowhere")
        if last.code:
            wrong.append(f"DEL afterwards: {last.stdout[:300]}")
        wrong += (f"DEL afterwards left {line}" for line in self.left())
        return Finding(what, said.code != 0, wrong)

    def _untrue(self, verb: str, said: Said) -> Iterator[str]:
        if said.code == 0 and verb in ("ADD", "repair", BROKEN + "repair"):
            result = json.loads(said.stdout) if verb == "ADD" and said.stdout.strip() else self.result
            again = self.host.check(self.conf, self.pod, result, AGENT_CNI_SOCKET="/nowhere")
            if again.code:
                yield f"{verb} said it is done, and CHECK: {again.stdout[:400]}"
        if said.code == 0 and verb == BROKEN + "CHECK":
            yield "said that all is well where a route is missing"

    def _open(self) -> str:
        """The addresses of a pod that was left attached by a link that is up, with no rule of ours on it."""
        link = self.pod.link("eth0")
        if not link or "UP" not in link["flags"]:
            return ""
        rules = self.host.run("nft", "list", "ruleset").stdout + self.pod.run("nft", "list", "ruleset").stdout
        held = [address.partition("/")[0] for address in self.pod.addresses("eth0")]
        return ", ".join(address for address in held if address not in rules and "agent_cni" not in rules)

    def left(self) -> list[str]:
        """What is other than before, area by area."""
        if eventually(lambda: self.host.snapshot() == self.before, 2):
            return []
        now = self.host.snapshot()
        return [
            f"{area}: {_difference(self.before[area], now[area])}" for area in now if now[area] != self.before[area]
        ]


def _difference(before: Any, now: Any) -> str:
    if isinstance(now, set):
        return f"+{sorted(map(str, now - before))} -{sorted(map(str, before - now))}"[:300]
    return f"{now}"[:300]
