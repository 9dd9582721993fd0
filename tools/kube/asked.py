"""How a cluster is asked: in its pods, on its nodes, from outside."""

from __future__ import annotations

import collections
import contextlib
import ipaddress
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from addressing import at
from api import condition
from cluster import Cluster
from node import Node
from shell import eventually, sh

Report = Callable[[str, bool | None, str], None]
#: Runs a script somewhere, for so many seconds at most (90), and gives what it printed.
Asker = Callable[..., str]


class Asked:
    """A cluster, and how it is asked. `report` takes what was asked, whether it is right (None: only said), and what was seen; `many` is
    to how many pods it grows.
    """

    def __init__(self, cluster: Cluster, report: Report, many: int) -> None:
        self.cluster, self.api, self.report, self.many = cluster, cluster.api, report, many

    def pods(self, app: str = "web") -> list[dict[str, Any]]:
        """The pods of an application that are not on their way out."""
        return [
            pod for pod in self.api.pods(f"?labelSelector=app%3D{app}") if "deletionTimestamp" not in pod["metadata"]
        ]

    def wait(self, app: str, number: int, seconds: float = 90) -> list[dict[str, Any]]:
        def ready() -> list[dict[str, Any]] | None:
            pods = self.pods(app)
            return pods if len(pods) == number and all(condition(pod, "Ready") for pod in pods) else None

        pods = eventually(ready, seconds, 0.3)
        assert pods, f"{app}: not {number} ready pods: " + "; ".join(self.troubles(app))
        return pods

    def troubles(self, app: str) -> list[str]:
        events = self.api("GET", "/api/v1/namespaces/default/events")["items"]
        return [
            f"{e['involvedObject']['name']}: {e['message']}"
            for e in events
            if e["type"] == "Warning" and e["involvedObject"]["name"].startswith(app)
        ][-5:]

    def make(self, deployment: dict[str, Any]) -> None:
        self.api("POST", "/apis/apps/v1/namespaces/default/deployments", deployment)

    def scale(self, name: str, replicas: int) -> None:
        self.api(
            "PATCH",
            f"/apis/apps/v1/namespaces/default/deployments/{name}",
            {"spec": {"replicas": replicas}},
            "application/merge-patch+json",
        )

    def endpoints(self, name: str) -> set[str]:
        slices = self.api(
            "GET",
            f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3D{name}",
        )["items"]
        return {
            address
            for item in slices
            for end in item.get("endpoints") or []
            if end["conditions"].get("ready")
            for address in end["addresses"]
        }

    def inside(self, pod: dict[str, Any]) -> Asker:
        """How a pod's own shell is asked, without kubelet: in the namespaces of its container."""
        node = next(n for n in self.cluster.nodes if n.name == pod["spec"]["nodeName"])
        enter = ("nsenter", "-t", self.task(node, pod), "-n", "-m", "-u", "-p")
        return lambda script, seconds=90: node.run(*enter, "sh", "-c", script, check=False, timeout=seconds).stdout

    @staticmethod
    def task(node: Node, pod: dict[str, Any]) -> str:
        """The process of a pod's first container, as the node numbers it."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        lines = node.run("ctr", "-n", "k8s.io", "tasks", "ls").stdout.splitlines()
        return next(line.split()[1] for line in lines if line.startswith(container))

    def on(self, node: Node) -> Asker:
        return lambda script, seconds=90: node.run("sh", "-c", script, check=False, timeout=seconds).stdout

    def answers(self, ask: Asker, pods: list[dict[str, Any]]) -> tuple[int, list[tuple[str, str]]]:
        """How many addresses of the pods answer, and of those that do not the pod and curl's exit code."""
        asked = [(pod["metadata"]["name"], at(address, 8080)) for pod in pods for address in addresses(pod)]
        script = 'ask() { seen=$(curl -sm 2 http://$2/); code=$?; [ "$seen" = $1 ] || echo $1/$code; }; '
        said = ask(f"{script}{'; '.join(f'ask {name} {where}' for name, where in asked)}; echo done").split()
        assert said[-1:] == ["done"], "nobody asked"
        lost = [(name, code) for name, _, code in (item.partition("/") for item in said[:-1])]
        return len(asked) - len(lost), lost

    def matrix(self, label: str, askers: dict[str, Asker], app: str = "web") -> None:
        pods = self.pods(app)
        where = {pod["metadata"]["name"]: pod["spec"].get("nodeName") for pod in self.api.pods()}
        got, lost = 0, []
        for name, ask in askers.items():
            number, failed = self.answers(ask, pods)
            got += number
            lost += [f"{where.get(name, name)}>{where[item]}, curl {code}" for item, code in failed]
        said = f"{got} of {got + len(lost)}" + (f"; lost {dict(collections.Counter(lost))}" if lost else "")
        self.report(label, not lost, said)

    def spread(self, label: str, askers: dict[str, Asker], address: str, times: int = 20) -> None:
        """Ask an address many times; who answers, how often nobody."""
        for name, ask in askers.items():
            said = ask(f"for i in $(seq {times}); do curl -sm 2 http://{address}/ || echo lost; done").split()
            lost = said.count("lost")
            self.report(
                f"{label} ({name})",
                not lost and len(said) == times,
                f"{times - lost} of {times} answered by {len(set(said) - {'lost'})} pods",
            )

    def keep_asking(
        self, app: str = "web", pods: list[dict[str, Any]] | None = None
    ) -> Callable[[], tuple[int, list[str]]]:
        """Have a pod of each node ask every pod (of an application, or these) over and over; what is returned ends that, and says how
        many answered, and what was lost: of that the second of the day, curl's exit code and the address.
        """
        pods = self.pods(app) if pods is None else pods
        every = " ".join(at(address, 8080) for pod in pods for address in addresses(pod))
        script = (
            f"got=0; until [ -e /tmp/over ]; do for pod in {every}; do curl -so /dev/null -m 2 http://$pod/; code=$?; "
            "if [ $code = 0 ]; then got=$((got+1)); else echo $(date +%T)/$code/$pod; fi; sleep 0.05; done; done; rm /tmp/over; echo $got"
        )
        askers = [self.inside(pod) for pod in {pod["spec"]["nodeName"]: pod for pod in pods}.values()]
        pool = ThreadPoolExecutor(len(askers))
        futures = [pool.submit(ask, script, 400) for ask in askers]

        def end() -> tuple[int, list[str]]:
            for ask in askers:
                ask("touch /tmp/over")
            said = [future.result().split() for future in futures]
            pool.shutdown()
            return sum(int(words[-1]) for words in said), [word for words in said for word in words[:-1]]

        return end

    def settle(self, node: Node) -> None:
        """Wait until a node's pods are ready and the addresses it holds are theirs; for two seconds, with a bound."""

        def quiet() -> bool:
            pods = self.api("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node.name}")["items"]
            return all(condition(pod, "Ready") for pod in pods) and self.held(node) == self.meant(node)

        eventually(lambda: quiet() and (time.sleep(2) or quiet()), 90, 1)

    def held(self, node: Node) -> set[str]:
        """The addresses a node's IPAM has given."""
        if (node.root / "usr/local/bin/agent-cni").is_file():
            shown = json.loads(node.run("agent-cni", "show", "--json", check=False).stdout or "{}")
            return {item["address"].split("/")[0] for item in shown.get("leases", [])}
        return {
            line.split("/")[-1]
            for line in node.run("sh", "-c", "ls -d /var/lib/cni/networks/pods/[0-9]* || :").stdout.split()
        }

    def meant(self, node: Node) -> set[str]:
        """The addresses of pods the API says are on a node."""
        pods = self.api("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node.name}")["items"]
        return {address for pod in pods if not pod["spec"].get("hostNetwork") for address in addresses(pod)}


def addresses(pod: dict[str, Any]) -> list[str]:
    """Those the API says a pod has, of the cluster's first family first."""
    return [item["ip"] for item in pod["status"].get("podIPs", [])]


def plain(seen: str) -> str:
    """An address as busybox's httpd gives it to a script."""
    return seen.strip().strip("[]").removeprefix("::ffff:")


def same(one: str, other: str) -> bool:
    """Whether two spellings are of one address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    return False


def outside(script: str) -> str:
    """Ask from the wire, where no cluster is."""
    return sh("sh", "-c", script, check=False, timeout=90).stdout
