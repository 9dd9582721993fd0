"""Pods that come and go by the thousand on one node of a cluster, and what grows meanwhile."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from cluster import Cluster, Node, conf
from lab import AGENT_CNI, ROOT, Host, Lab, Pod, eventually
from names import Names
from recorder import Recorder
from resolver import Gate
from warm import stop

from crash.crowd import served
from crash.story import Told
from crash.weighed import family, files, kernel, milliseconds, processes, rows

WHAT = "pods made and removed beside agent, member, names, gate, guard and flows; what each holds, first against last"
STORIES = {"120 attachments": 120, "1000 attachments": 1000, "10000 attachments": 10_000}
FIXED = ("120 attachments",)

#: So many pods are there at any time, by so many names; every so many attachments are weighed, and documents change.
LIVING, NAMES, SAMPLES, CHANGING = 24, 48, 20, 50
#: How much more the last tenth may be than the first. Counts are equal but where a call or the kernel's clock is in the midst of one.
#: Memory: an allocator's pages come in steps of a MiB; time: beside other work on the same processors.
COUNTED, OF_MEMORY, OF_TIME = (1.0, 4), (1.10, 2048), (1.30, 2)
#: What a file has once grown to it keeps, by SQLite: a log until it is begun anew at 1,000 pages, which is 4 MiB.
_KEPT = {"bytes": (1.25, 4 << 20), "kib": OF_MEMORY, "ms": OF_TIME, "descriptors": (1.0, 4), "processes": (1.0, 2)}

ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
_OWN = {"cniVersion": "1.1.0", "isDefaultGateway": True}


def networks(folder: Path) -> list[dict[str, Any]]:
    """What pods are attached to, in turn: isolated by labels in a cluster, with names; routed, to names; intercepted and masqueraded."""
    fed = {"policy": {"policyDir": str(folder)}}
    web = {"egress": [{"to": [{"domainNames": ["api.example.com"]}]}], "ingress": ["10.20.0.0/16"]}
    routed = {"name": "routed", "type": "custom-plugin", "ipam": {"subnet": "10.21.0.0/24"}, "policy": web}
    meshed = {"name": "meshed", "type": "bridge-vxlan", "bridge": "br2", "ipMasq": True, "ipMasqBackend": "nftables"}
    return [
        conf("l2", names={}, **fed),
        {"cniVersion": "1.1.0"} | routed,
        conf("l2", names={}, **fed),
        _OWN | meshed | {"ipam": {"subnet": "10.22.0.0/24"}, "sidecar": {"port": 15001, "inboundPort": 15006}},
    ]


@dataclass
class Soak:
    """One node, its daemons, and its pods."""

    node: Soaked
    daemons: dict[str, int]
    documents: Path
    lab: Lab
    made: int = 0
    living: deque[tuple[dict[str, Any], Pod]] = field(default_factory=deque)
    spent: dict[str, float] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        self._networks = networks(self.documents)

    def turn(self) -> None:
        """One pod more, and the oldest goes."""
        if len(self.living) >= LIVING:
            self.go()
        net, pod = self._networks[self.made % len(self._networks)], self.lab.pod()
        result = self._call("ADD", net, pod)
        self.living.append((net, pod))
        if self.made % 10 == 0:
            self._call("CHECK", net | {"prevResult": result}, pod)
            pod.pings(result["ips"][0]["gateway"], 5)
        self.made += 1
        if self.made % CHANGING == 0:
            self.say(self.made // CHANGING)

    def go(self) -> None:
        """The oldest goes."""
        net, pod = self.living.popleft()
        self._call("DEL", net, pod)
        pod.delete()
        self.lab.made.remove(pod)

    def say(self, number: int) -> None:
        """Have the documents say otherwise who is whose friend."""
        rule = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]}
        items = [{"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "one"}, "spec": spec}]
        for index in range(NAMES):
            labels = {"app": ("web", "friend", "stranger")[(index // 2 + number) % 3]}
            items.append({"kind": "Pod", "metadata": {"namespace": "shop", "name": f"p{index}", "labels": labels}})
        new = self.documents / "new"
        new.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": items}))
        new.rename(self.documents / "all.json")

    def weigh(self) -> dict[str, float]:
        """What there is now, and what a call took on the average since it was asked last."""
        self.node.run(AGENT_CNI, "refresh")
        self.node.settled()
        found: dict[str, float] = dict(kernel(self.node))
        for file in ("state.db", "documents.db"):
            found |= {f"{file}: {name}": count for name, count in rows(self.node.folder / file).items()}
        found |= files(self.node.folder, self.node.names, Path("/run/netns"))
        for name, pid in self.daemons.items():
            found |= {f"{name}: {what}": value for what, value in processes(pid).items()}
            taken = milliseconds(family(pid))
            found[f"{name}: ms of processor a call"] = (taken - self.spent.get(name, taken)) / max(1, self.calls)
            self.spent[name] = taken
        self.calls = 0
        return found

    def _call(self, verb: str, net: dict[str, Any], pod: Pod) -> dict[str, Any]:
        self.calls += 1
        name = f"p{int(pod.name.rpartition('-')[2]) % NAMES}"
        self.node.attaching = True
        answer = self.node.cni(verb, net, pod, CNI_ARGS=ARGS + name)
        self.node.attaching = False
        return answer.ok()


class Soaked(Node):
    """A node whose calls see its folders and nothing laid over /etc, which no call reads: to lay it takes longer than a call."""

    attaching = False

    def within(self) -> list[str]:
        return Host.within(self) if self.attaching else self.prefix()

    def settled(self) -> None:
        """Wait until the member has said what calls left it to say."""
        assert eventually(lambda: not self.unsaid()), self.said()


@contextmanager
def soak(folder: Path) -> Iterator[Soak]:
    """The node with everything on it that a node may have."""
    lab = Lab(f"soaked {folder}")
    try:
        with Cluster(lab, hosts=2, kind=Soaked) as cluster:
            cluster.join()
            far = cluster.add(cluster.nodes[1], conf("l2", names={}), CNI_ARGS=f"{ARGS}far")
            with ExitStack() as held:
                daemons = _begun(cluster.nodes[0], held)
                folder.mkdir(parents=True, exist_ok=True)
                made = Soak(cluster.nodes[0], daemons, folder, lab)
                made.say(0)
                yield made
                while made.living:
                    made.go()
            cluster.remove(far)
            cluster.leave()
    finally:
        lab.close()


def _begun(node: Soaked, held: ExitStack) -> dict[str, int]:
    """What runs on a node, each by its process."""
    if node.agent:
        stop(node.agent)
        node.agent = 0
    agent = served(node).process
    held.callback(agent.wait, 60)
    held.callback(agent.terminate)
    names, gate, flows = (held.enter_context(daemon(node)) for daemon in (Names, Gate, Recorder))
    running = {"agent": agent, "member": node.member, "names": names.process, "gate": gate.process}
    return {name: process.pid for name, process in (running | {"flows": flows.process}).items()}


def stories() -> Iterable[str]:
    return STORIES


def tell(story: str, seed: str) -> Told:
    count = STORIES[story]
    began, samples = time.monotonic(), []
    kept = ROOT / ".cache/crash" / f"{story.replace(' ', '-')}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with soak(Path("/run/soaked-documents")) as made, kept.open("w") as file:
        for number in range(LIVING * 2 + count + 1):
            made.turn()
            if number >= LIVING * 2 and (number - LIVING * 2) % max(1, count // SAMPLES) == 0:
                samples.append(made.weigh())
                sample = {"after": made.made, "seconds": round(time.monotonic() - began)} | samples[-1]
                print(json.dumps(sample), file=file, flush=True)
    counts = {"attachments": made.made, "samples": len(samples), "figures compared": len(samples[0])}
    again = f"make crash-test PARTS=soaked STORIES='{story}'"
    return Told(counts, [f"{story}: {line}: {again}" for line in grown(samples[1:])])


def grown(samples: list[dict[str, float]]) -> Iterator[str]:
    """What the last tenth has more of than the first, by more than it may."""
    tenth = max(1, len(samples) // 10)
    first, last = samples[:tenth], samples[-tenth:]
    for name in sorted({name for sample in samples for name in sample}):
        was, became = (mean(sample.get(name, 0) for sample in some) for some in (first, last))
        ratio, besides = next((may for what, may in _KEPT.items() if what in name.partition(": ")[2].split()), COUNTED)
        if became > was * ratio + besides:
            yield f"{name} was {was:.1f} and became {became:.1f}"
