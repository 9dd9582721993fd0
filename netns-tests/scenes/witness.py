"""A cluster whose history is written down: every call, fault and answer, for who judges it by that alone (tools/crash/history.py)."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from answers import heard
from cluster import Cluster, Node
from earlier import installed
from lab import AGENT_CNI, BIN_DIR, Answer, Lab, Namespace, Pod, eventually, nursery, sh
from shop import NAMED
from warm import stop

from cni.kernel.view import MEMBER
from cni.overlay.wireguard import vtep
from cni.state.membership import HELD


def now() -> float:
    """When it is, as histories say it."""
    return round(time.monotonic(), 4)


class Witness:
    """Writes lines, in order. Threads may share it."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file, self._lock, self._number = file, threading.Lock(), 0
        self._out = file.open("w")

    def write(self, what: str, /, **said: Any) -> None:
        """Something that is so, from now on."""
        with self._lock:
            self._out.write(json.dumps({"at": now(), "is": what} | said) + "\n")
            self._out.flush()

    def number(self) -> int:
        """One that nobody has."""
        with self._lock:
            self._number += 1
            return self._number

    @contextmanager
    def fault(self, what: str, *, loses: bool) -> Iterator[None]:
        """Something befalls the cluster for as long as it lasts."""
        number = self.number()
        self.write("fault", fault=number, what=what, loses=loses)
        try:
            yield
        finally:
            self.write("mended", fault=number)

    @contextmanager
    def call(self, node: Node, verb: str, conf: dict[str, Any], pod: Named) -> Iterator[dict[str, Any]]:
        """A call; what its answer is goes into what is yielded, and nothing where it was killed."""
        number, answer = self.number(), dict[str, Any]()
        self.write(
            "call", call=number, node=node.name, verb=verb, network=conf["name"], container=pod.container, app=pod.app
        )
        try:
            yield answer
        finally:
            self.write("answer", call=number, **{"code": None, "addresses": [], "said": ""} | answer)


@dataclass
class Named(Pod):
    """A pod with a name in Kubernetes, and an app, by which policies go."""

    app: str = ""
    called: str = ""

    @property
    def args(self) -> str:
        """Its CNI_ARGS."""
        return NAMED + self.called


@dataclass
class Witnessed(Node):
    """A host all calls of which are written down, one at a time with what befalls it whole; perhaps of another release."""

    witness: Witness | None = None
    warm: bool = False
    bin_dir: Path = BIN_DIR
    release: str = ""
    busy: threading.RLock = field(default_factory=threading.RLock)

    def create(self) -> None:
        super().create()
        if self.warm and not self.agent:
            self._serve()

    def become(self, release: str) -> None:
        """Have the executables of a release from the next call and start on; of today's if it is empty."""
        place = installed(release) if release else None
        self.bin_dir, self.release = place / "bin" if place else BIN_DIR, release
        self.program = place / "opt/bin/agent-cni" if place else AGENT_CNI
        if self.agent:
            self.agent_again(signal.SIGTERM)
        self.introduce()

    def introduce(self) -> None:
        """Have written down what it is."""
        assert self.witness
        self.witness.write("node", node=self.name, own=self.own, release=self.release, agent=bool(self.agent))

    def call(self, verb: str, conf: dict[str, Any], pod: Named) -> Answer:
        """A call that is answered."""
        assert self.witness
        with self.witness.call(self, verb, conf, pod) as told:
            answer = self.cni(verb, conf, pod, bin_dir=self.bin_dir, CNI_ARGS=pod.args)
            said = answer.json if answer.stdout.strip() else {}
            ips = [item["address"].split("/")[0] for item in said.get("ips", [])]
            told |= {
                "code": said.get("code", 1) if answer.code else 0,
                "addresses": ips,
                "said": said.get("msg", answer.stderr)[:300],
            }
        return answer

    def killed(self, conf: dict[str, Any], pod: Named, after: float) -> None:
        """An ADD that is killed, unless it is answered before, which nobody hears."""
        assert self.witness
        with self.witness.call(self, "ADD", conf, pod):
            process = self.started(conf, pod, bin_dir=self.bin_dir, CNI_ARGS=pod.args)
            time.sleep(after)
            process.kill()
            process.communicate()

    def ended(self, conf: dict[str, Any], pod: Named) -> None:
        """DEL until it is done, as a runtime does while it is told to try again; what else an answer says is the judge's."""
        eventually(lambda: self.call("DEL", conf, pod).code == 0)

    def agent_again(self, number: signal.Signals) -> None:
        """End its agent, and start another."""
        stop(self.agent, number)
        (self.folder / "agent.sock").unlink(missing_ok=True)
        self._serve()

    def _serve(self) -> None:
        """Have an agent of its release."""
        if self.release:
            self.agent = subprocess.Popen([*self.prefix(), str(self.program), "serve"]).pid
            assert eventually((self.folder / "agent.sock").exists)
        else:
            self.agent = nursery().start(self.path, self.folder, self.names)

    def reboot(self) -> None:
        """Nothing runs on it any more, and the kernel and /run know nothing; its member is to be started."""
        self.kill()
        has_agent = bool(self.agent)
        if has_agent:
            stop(self.agent, signal.SIGKILL)
        sh("find", self.folder, self.names, "-mindepth", 1, "-delete")
        for link in self.ip("link", "show"):
            if link["ifname"] not in ("lo", "eth0"):
                sh("ip", "-n", self.name, "link", "del", link["ifname"], check=False)
        for family in ("-4", "-6"):
            sh("ip", "-n", self.name, family, "route", "flush", "type", "unreachable")
        self.run("nft", "flush", "ruleset")
        self.agent = 0
        if has_agent:
            self._serve()

    def seen(self) -> dict[str, Any]:
        """Where it sends what, as its kernel says: addresses by neighbours and their MACs by FDBs, spans by routes, of tunnels and bridges."""
        ways = dict[tuple[str, str], str]()
        for row in json.loads(sh("bridge", "-n", self.name, "-j", "fdb", "show").stdout or "[]"):
            if "dst" in row:
                ways[row.get("master") or row["ifname"], row["mac"]] = row["dst"]
        rows = [row for family in (4, 6) for row in self.ip("neigh", "show", "nud", "permanent", family=family)]
        routes = [route for family in (4, 6) for route in self.routes(family) if route.get("protocol") == str(MEMBER)]
        far = {row["dst"]: ways.get((row["dev"], row.get("lladdr", ""))) for row in rows}
        return {
            "node": self.name,
            "own": self.own,
            "far": {address: way for address, way in far.items() if way},
            "holds": self.has_addresses(),
            "blocks": {route["dst"]: far.get(way) for route in routes if (way := _gateway(route))},
        }

    def has_addresses(self) -> list[str]:
        """Of which network and family: it has none where blocks are few, and is answered by nobody there then."""
        return sorted({f"{network} {6 if ':' in span else 4}" for network, span in map(str.split, self.holdings(HELD))})

    @property
    def own(self) -> list[str]:
        """Its addresses on the wire, and its end of tunnels."""
        return [self.underlay(4), self.underlay(6), vtep(self.name)]


def _gateway(route: dict[str, Any]) -> str | None:
    """By which neighbour a route is (ip-route(8): one of another family is in `via`)."""
    return route.get("gateway") or route.get("via", {}).get("host")


def witnessed(lab: Lab, witness: Witness, *, warm: bool, **options: Any) -> Cluster:
    """A cluster of hosts whose calls are written down, which have node agents if they are to be `warm`."""
    return Cluster(lab, kind=partial(Witnessed, witness=witness, warm=warm), **options)  # type: ignore[arg-type]


class Probing:
    """Pods and nodes that ask at random who answers where, while a `with` block runs."""

    def __init__(self, cluster: Cluster, witness: Witness, seed: str, most: int = 12) -> None:
        self._cluster, self._witness, self._chance, self._most = cluster, witness, random.Random(seed), most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._probe)
        self._recent: list[str] = []

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _probe(self) -> None:
        while not self._over.wait(0.1):
            placed = list(self._cluster.placed)
            self._recent = [*self._recent, *(address for it in placed for address in it.addresses)][-300:]
            askers: list[Namespace] = [*(it.pod for it in placed), *self._cluster.nodes]
            asked = self._chance.sample(sorted(set(self._recent)), min(self._most, len(set(self._recent))))
            probe(self._witness, self._chance.choice(askers), asked, 1)


def probe(witness: Witness, asker: Namespace, addresses: list[str], asked: int = 3) -> dict[str, str | None]:
    """Ask who answers addresses; nothing where the asker is gone."""
    began = now()
    try:
        said = heard(asker, addresses, asked)
    except OSError:
        return {}
    answers = {address: f"container-{said[address]}" if address in said else None for address in addresses}
    name = asker.container if isinstance(asker, Pod) else asker.name
    witness.write("probe", **{"from": name, "began": began, "answers": answers})
    return answers
