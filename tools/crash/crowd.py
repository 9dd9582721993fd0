"""A node to which many calls come at the same time, and what must be so of each answer and of all together."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from subprocess import PIPE
from typing import Any

from agents import Agent
from lab import AGENT_CNI, BIN_DIR, Answer, Host, Lab, Pod, Site, environment, eventually, sh
from warm import stop

#: What a call may say beside success: try again later; of CHECK, what differs; of ADD, that it is attached already.
DESIGNED = {"ADD": {11, 105}, "CHECK": {11, 104}, "DEL": {11}, "GC": {11}}
#: Seconds after which a call hangs: it waits for each of the few locks it needs for 30 at most, and two hundred share the processors.
LONGEST = 600
_OWN = {"cniVersion": "1.1.0"}
_ABSENT = "/nowhere"

Conf = dict[str, Any]


def networks(**keys: Any) -> list[Conf]:
    """One of each kind: isolated with a tunnel, on the node's wire, routed, intercepted and masqueraded."""
    bridged = {"type": "bridge-vxlan", "isDefaultGateway": True}
    tunnel = {"vxlan": {"id": 7, "remotes": ["192.0.2.12"]}, "policy": {"ingress": ["10.1.0.0/16"]}}
    span = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.250", "gateway": "192.0.2.1"}
    nat = {"ipMasq": True, "ipMasqBackend": "nftables", "sidecar": {"port": 15001, "inboundPort": 15006}}
    found: list[Conf] = [
        bridged | {"name": "far", "bridge": "br1", "ipam": {"subnet": "10.1.0.0/16"}} | tunnel,
        {"name": "wire", "type": "macvlan", "master": "eth0", "hostAccess": True, "ipam": span},
        {"name": "routed", "type": "custom-plugin", "ipam": {"subnet": "10.3.0.0/16"}, "policy": {"ingress": []}},
        bridged | {"name": "nat", "bridge": "br4", "ipam": {"subnet": "10.4.0.0/16"}} | nat,
    ]
    return [_OWN | conf | keys for conf in found]


@dataclass
class Call:
    """One that was answered: which, of whom, after how many seconds, and how."""

    verb: str
    who: str
    seconds: float
    answer: Answer

    @property
    def code(self) -> int:
        """As the document says it; 0 for success, -1 for what is none."""
        try:
            return int(self.answer.json["code"]) if self.answer.code else 0
        except (ValueError, KeyError, TypeError):
            return -1


@dataclass
class Crowd:
    """A node (.11) and another machine on its wire, who answers its calls, and what is wrong so far."""

    lab: Lab
    site: Site
    warm: bool
    agent: Agent | None = None
    #: How often a runtime comes again that is told to.
    tries: int = 5
    calls: list[Call] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def _way(self) -> dict[str, str]:
        return {} if self.warm else {"AGENT_CNI_SOCKET": _ABSENT}

    @property
    def host(self) -> Host:
        return self.site.host

    def call(self, verb: str, conf: Conf, pod: Pod | None, **more: Any) -> Call:
        """One call, timed and judged by itself."""
        began = time.monotonic()
        answer = self.host.cni(verb, conf, pod, **self._way, **more)
        made = Call(verb, pod.name if pod else "all", time.monotonic() - began, answer)
        self.calls.append(made)
        if made.code and made.code not in DESIGNED[verb]:
            self.faults.append(
                f"{verb} of {made.who}: {answer.stdout.strip() or answer.stderr.strip()[-300:] or answer.code}"
            )
        if made.seconds > LONGEST:
            self.faults.append(f"{verb} of {made.who} took {made.seconds:.0f} s")
        return made

    def until_done(self, verb: str, conf: Conf, pod: Pod, **more: Any) -> Call:
        """As a runtime does it that is told to try again later: some times, and not for ever."""
        for _ in range(self.tries):
            made = self.call(verb, conf, pod, **more)
            if made.code != 11:
                return made
        self.faults.append(
            f"{verb} of {pod.name}: told {self.tries} times to try again later: {made.answer.stdout.strip()}"
        )
        return made

    def command(self, *words: str) -> Call:
        """A command of the operator's, which may find things to say and may not break."""
        began = time.monotonic()
        done = self.host.run(AGENT_CNI, *words, check=False)
        if done.returncode not in (0, 1, 3, 4) or "Traceback" in done.stderr:
            self.faults.append(
                f"agent-cni {' '.join(words)}: {done.returncode} {done.stdout[-300:]}{done.stderr[-300:]}"
            )
        answer = Answer(done.returncode, done.stdout, done.stderr)
        return Call(words[0], words[-1], time.monotonic() - began, answer)

    def begun(self, conf: Conf, pod: Pod) -> subprocess.Popen[str]:
        """An ADD that runs; nobody waits for it."""
        env = environment("ADD", pod) | self._way
        command = [*self.host.within(), str(BIN_DIR / conf["type"])]
        process = subprocess.Popen(command, env=env, text=True, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert process.stdin
        process.stdin.write(json.dumps(conf))
        process.stdin.close()
        process.stdin = None
        return process

    def bury(self, pods: Iterable[Pod]) -> None:
        """They are no more."""
        for pod in pods:
            pod.delete()
            self.lab.made.remove(pod)

    def as_new(self, *links: str) -> None:
        """Take away what outlives pods: these links, tunnels and the state, but for what an agent stands on."""
        for name in (*links, *(it["ifname"] for it in self.host.ip("link", "show", "type", "vxlan"))):
            sh("ip", "-n", self.host.name, "link", "del", name)
        self.host.lose_state()

    def attached(self, pods: Sequence[tuple[Conf, Pod]], width: int = 0, **more: Any) -> dict[str, Any]:
        """ADDs of all at the same time; each one's result by its pod."""
        made = at_once([lambda c=c, p=p: self.until_done("ADD", c, p, **more) for c, p in pods], width)
        results = {pod.name: it.answer.json for (_, pod), it in zip(pods, made, strict=True) if not it.answer.code}
        given = Counter(ip["address"].split("/")[0] for result in results.values() for ip in result["ips"])
        self.faults += [f"{address} was given {count} times" for address, count in given.items() if count > 1]
        self.faults += [
            f"{pod.name} is not attached: {it.answer.stdout}"
            for (_, pod), it in zip(pods, made, strict=True)
            if it.answer.code
        ]
        return results

    def checked(self, pods: Iterable[tuple[Conf, Pod]], results: dict[str, Any], width: int = 8) -> None:
        """CHECKs of all, each of which must find nothing."""
        calls = [
            lambda c=c, p=p: self.until_done("CHECK", c | {"prevResult": results[p.name]}, p)
            for c, p in pods
            if p.name in results
        ]
        self.faults += [
            f"{it.who} is other than its ADD left it: {it.answer.stdout}" for it in at_once(calls, width) if it.code
        ]

    def reached(self, pods: Sequence[tuple[Conf, Pod]], results: dict[str, Any], most: int = 24) -> None:
        """Whether pods reach their gateways."""
        step = max(1, len(pods) // most)
        for conf, pod in [it for it in pods if it[1].name in results][::step]:
            gateway = results[pod.name]["ips"][0].get("gateway")
            if gateway and not pod.pings(gateway, 20):
                self.faults.append(f"{pod.name} on {conf['name']} does not reach {gateway}")

    def detached(self, pods: Iterable[tuple[Conf, Pod]], width: int = 0) -> None:
        """DELs of all at the same time."""
        at_once([lambda c=c, p=p: self.until_done("DEL", c, p) for c, p in pods], width)

    def like(self, before: dict[str, Any], when: str) -> None:
        """What is otherwise on the node than before."""
        now = self.host.snapshot()
        for what, had in before.items():
            if now[what] != had:
                self.faults.append(f"{when}: {what} were {_short(had, now[what])}")

    def settle(self, confs: Iterable[Conf]) -> dict[str, Any]:
        """What the node has once each network was used and is not any more."""
        for conf in confs:
            pod = self.lab.pod()
            if not self.until_done("ADD", conf, pod).answer.code:
                self.until_done("DEL", conf, pod)
        return self.host.snapshot()

    def counts(self) -> dict[str, int]:
        """What was done, for the table."""
        again = sum(it.code == 11 for it in self.calls)
        return {"calls": len(self.calls), "answers to try again later": again}

    def restart(self, how: signal.Signals) -> None:
        """End the node's agent so, and start another."""
        if self.agent:
            self.agent.process.send_signal(how)
            self.agent.process.communicate(timeout=LONGEST)
        self.agent = served(self.host)

    def end(self) -> None:
        """End its agent; what that said of calls that broke is a fault."""
        if self.agent:
            self.agent.process.terminate()
            _, said = self.agent.process.communicate(timeout=LONGEST)
            self.faults += [line for line in said.splitlines() if "Traceback" in line or "a worker ended" in line]


def served(host: Host) -> Agent:
    """A node agent that sees what is mounted later, as the runtime does (docs/agent.md)."""
    command = [*Host.within(host), str(AGENT_CNI), "serve", "--conf-dir", _ABSENT]
    agent = Agent(host, subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=PIPE))
    assert eventually(lambda: not host.run(AGENT_CNI, "serve", "--probe", check=False).returncode)
    return agent


def at_once(calls: Sequence[Callable[[], Call]], width: int = 0) -> list[Call]:
    """Have all begin at the same moment, or so many at a time."""
    gate = threading.Barrier(len(calls)) if not width and calls else None

    def begun(call: Callable[[], Call]) -> Call:
        if gate:
            gate.wait()
        return call()

    with ThreadPoolExecutor(width or max(1, len(calls))) as pool:
        return list(pool.map(begun, calls))


@contextmanager
def crowd(name: str, *, warm: bool) -> Iterator[Crowd]:
    """A node of its own; who answers on it goes with it."""
    lab = Lab(name)
    try:
        site = lab.site()
        for host in (site.host, site.outside):
            if host.agent:
                stop(host.agent)
                host.agent = 0
        made = Crowd(lab, site, warm)
        if warm:
            made.restart(signal.SIGTERM)
        with ExitStack() as held:
            held.callback(made.end)
            yield made
    finally:
        lab.close()


def _short(before: Any, now: Any) -> str:
    if isinstance(before, set):
        return f"otherwise: gone {sorted(map(str, before - now))[:4]}, new {sorted(map(str, now - before))[:4]}"
    if isinstance(before, str):
        had, has = set(before.splitlines()), set(now.splitlines())
        return f"otherwise: gone {sorted(had - has)[:4]}, new {sorted(has - had)[:4]}"
    return f"{str(before)[:200]} and are {str(now)[:200]}"
