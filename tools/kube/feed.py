"""The outside manager a `policyDir` asks for: what the API says goes into a folder all nodes see, then `agent-cni refresh`."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster import Cluster

#: Kinds with their apiVersion, and where the API lists them.
LISTS = {
    ("networking.k8s.io/v1", "NetworkPolicy"): "/apis/networking.k8s.io/v1/networkpolicies",
    ("v1", "Namespace"): "/api/v1/namespaces",
    ("v1", "Pod"): "/api/v1/pods",
}


@contextmanager
def feeding(cluster: Cluster, *, refresh: bool) -> Iterator[dict[str, Any]]:
    """Poll, and refresh all nodes whenever something changed; what it took is in the mapping."""
    said: dict[str, Any] = {"rounds": 0, "seconds": [], "errors": []}
    over = threading.Event()
    thread = threading.Thread(target=_loop, args=(cluster, refresh, said, over), daemon=True)
    thread.start()
    try:
        yield said
    finally:
        over.set()
        thread.join(60)
        took = said["seconds"] or [0.0]
        print(f"  ..  feeder: {said['rounds']} changes fed, refresh of all nodes median {statistics.median(took):.2f} s, "
              f"worst {max(took):.2f} s; errors: {len(said['errors'])} {sorted(set(said['errors']))[:5]}", flush=True)  # fmt: skip


def _loop(cluster: Cluster, refresh: bool, said: dict[str, Any], over: threading.Event) -> None:
    before = ""
    while not over.wait(0.5):
        try:
            now = json.dumps([item for kind in LISTS for item in _items(cluster, *kind)])
            if now == before:
                continue
            begun = time.monotonic()
            file = cluster.folder / "policies/.cluster.json"
            file.write_text(json.dumps({"kind": "List", "items": json.loads(now)}))
            file.rename(cluster.folder / "policies/cluster.json")
            workers = [
                threading.Thread(target=_refresh, args=(node, said))
                for node in cluster.nodes
                if refresh and node.services
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            said["rounds"] += 1
            said["seconds"].append(time.monotonic() - begun)
            before = now
        except (OSError, RuntimeError, ValueError) as error:
            said["errors"].append(str(error)[:160])


def _items(cluster: Cluster, version: str, kind: str) -> Iterator[dict[str, Any]]:
    """What a policy needs to know of each object, so that nothing else counts as a change."""
    parts = {
        "metadata": ("namespace", "name", "labels"),
        "spec": ("hostNetwork",),
        "status": ("phase", "podIP", "podIPs"),
    }
    for item in cluster.api("GET", LISTS[version, kind])["items"]:
        said = {
            part: {key: item[part][key] for key in keys if key in item.get(part, {})} for part, keys in parts.items()
        }
        if kind == "Pod":
            said["spec"]["containers"] = [
                {"name": c["name"], "ports": c.get("ports", [])} for c in item["spec"]["containers"]
            ]
        if kind == "NetworkPolicy":
            said["spec"] = item["spec"]
        yield {"apiVersion": version, "kind": kind} | {part: value for part, value in said.items() if value}


def _refresh(node: Any, said: dict[str, Any]) -> None:
    done = node.run("agent-cni", "refresh", check=False, timeout=120)
    if done.returncode:
        said["errors"].append(f"{node.name}: {(done.stderr or done.stdout).strip()[-150:]}")
