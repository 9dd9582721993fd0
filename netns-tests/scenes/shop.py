"""A node whose pods a folder of Kubernetes objects feeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interception import address_of
from lab import AGENT_CNI, Host, Lab, Pod, eventually
from town import FAMILIES, RANGES, serving
from traffic import TIMED_OUT, Actor

NAMED = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="


def kube_pod(name: str, result: dict[str, Any], **labels: str) -> dict[str, Any]:
    ips = [{"ip": address_of(result, family)} for family in (4, 6)]
    return {"kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": labels}, "status": {"podIPs": ips}}


def network_policy(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


WEB = {"matchLabels": {"app": "web"}}
DENY = network_policy("deny", podSelector={})
FRIEND = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}
FROM_FRIEND = network_policy("friend", podSelector=WEB, ingress=[FRIEND])


@dataclass
class Shop:
    """A node whose pods a folder feeds; `friend` and `stranger` have no policy of their own."""

    lab: Lab
    host: Host
    kind: dict[str, Any]
    folder: Path
    held: ExitStack
    pods: dict[str, Pod] = field(default_factory=dict)
    confs: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    actors: dict[str, Actor] = field(default_factory=dict)
    known: list[dict[str, Any]] = field(default_factory=list)

    def conf(self, policy: dict[str, Any] | None) -> dict[str, Any]:
        section = {} if policy is None else {"policy": policy}
        return self.kind | {"ipam": {"ranges": RANGES}} | section

    def open(self, name: str, policy: dict[str, Any] | None = None) -> None:
        """Attach a pod, by default one without a policy, and let it serve."""
        self.pods[name], self.confs[name] = self.lab.pod(), self.conf(policy)
        self.results[name] = self.host.add(self.confs[name], self.pods[name], CNI_ARGS=NAMED + name)
        self.actors[name] = serving(self.held.enter_context(Actor(self.pods[name])))

    def fed(self, name: str, **section: Any) -> None:
        """Attach a pod that the folder feeds."""
        self.open(name, {"policyDir": str(self.folder), **section})

    def know(self, name: str, **spec: Any) -> None:
        """Put a pod's object, as it is now, into the folder."""
        mine = kube_pod(name, self.results[name], app=name) if name in self.results else self.unplaced(name)
        self.known = [item for item in self.known if item["metadata"]["name"] != name] + [mine | {"spec": spec}]
        self.put("pods.json", {"kind": "PodList", "apiVersion": "v1", "items": self.known})

    def unplaced(self, name: str) -> dict[str, Any]:
        return {"kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}}}

    def put(self, name: str, content: Any) -> Path:
        (self.folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return self.folder / name

    def refresh(self) -> tuple[int, str, str]:
        done = self.host.run(AGENT_CNI, "refresh", check=False)
        return done.returncode, done.stdout, done.stderr

    def doctor(self) -> list[dict[str, str]]:
        """What it says of attachments."""
        found = json.loads(self.host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)
        return list(found["attachments"])

    def gets_in(self, name: str, to: str = "web", port: int = 80) -> bool:
        """Whether a pod reaches another's port, in both families alike."""
        seen = [self.actors[name].connect(address_of(self.results[to], family), port) for family in FAMILIES]
        assert all(item == TIMED_OUT or item.get("who") == "it" for item in seen), seen
        assert len({item == TIMED_OUT for item in seen}) == 1, seen
        return seen[0] != TIMED_OUT


@contextmanager
def opened(lab: Lab, host: Host, kind: dict[str, Any], folder: Path) -> Iterator[Shop]:
    """A shop with its friend and stranger; `web` is held to `friend` when it is attached. At its end nothing may be left."""
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
    with ExitStack() as held:
        made = Shop(lab, host, kind, folder, held)
        for name in ("friend", "stranger"):
            made.open(name)
            made.know(name)
        made.know("web")
        made.put("deny.json", DENY)
        made.put("friend.json", FROM_FRIEND)
        yield made
        for name, pod in made.pods.items():
            host.delete_pod(made.confs[name], pod)
        assert host.run("nft", "list", "ruleset").stdout == ""


def holds(shop: Shop) -> bool:
    """Whether the friend gets in, and the stranger does not, whose own way is open."""
    return shop.gets_in("friend") and not shop.gets_in("stranger") and shop.gets_in("stranger", "friend")


def soon(shop: Shop, gets_in: bool, *who: str) -> bool:
    """Whether a pod gets in soon, or does not any more; in between one family may be ahead of what is asked of the other."""

    def seen() -> bool:
        with suppress(AssertionError):
            return shop.gets_in(*who) is gets_in
        return False

    return bool(eventually(seen))


def relabel(shop: Shop, **labels: str) -> None:
    """Give pods other labels, at once."""
    known: list[dict[str, Any]] = []
    for item in shop.known:
        name = item["metadata"]["name"]
        app = labels.get(name, item["metadata"]["labels"]["app"])
        known.append(item | {"metadata": item["metadata"] | {"labels": {"app": app}}})
    shop.known = known
    shop.put("pods.json", {"kind": "PodList", "apiVersion": "v1", "items": known})
