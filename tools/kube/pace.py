"""How soon a cluster does what it is asked: pods that run, policies that hold. Only measured, for the network decides by how much."""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import images
from asked import Asked, addresses
from shell import eventually
from workloads import web

PODS, CHANGES = 20, 10
#: Asks for an echo every two milliseconds until it is told to end, and says of each by the machine's monotonic clock when it asked, and
#: whether that was answered.
ASKING = """import json, os, select, socket, struct, sys, time
host = sys.argv[1]
family, protocol, kind, answer = (10, 58, 128, 129) if ":" in host else (2, 1, 8, 0)
asking = socket.socket(family, socket.SOCK_RAW, protocol)
asking.connect((host, 0))
asking.setblocking(False)
asked, answered, own = [], set(), os.getpid() & 0xFFFF
while not select.select([sys.stdin], [], [], 0.002)[0]:
    number = len(asked)
    asked.append(time.monotonic())
    low, high = number & 0xFFFF, number >> 16
    total = (kind << 8) + own + low + high
    total = (total & 0xFFFF) + (total >> 16)
    try:
        asking.send(struct.pack("!BBHHHH", kind, 0, 0xFFFF - total, own, low, high))
        while True:
            got = asking.recv(128)
            got = got[(got[0] & 15) * 4:] if family == 2 else got
            if got[0] == answer and struct.unpack("!H", got[4:6])[0] == own:
                low, high = struct.unpack("!HH", got[6:10])
                answered.add(high << 16 | low)
    except OSError:
        pass
json.dump([[when, number in answered] for number, when in enumerate(asked)], sys.stdout)
"""
#: So many echoes in a row that are not answered are the policy's, and not the machine's.
IN_A_ROW, REST = 25, 1.0
#: Daemons of networks, by words of their command lines.
DAEMONS = {
    "agent": ("/opt/agent-cni/bin/agent-cni", "serve"), "member": ("/opt/agent-cni/bin/agent-cni", "join"),
    "flanneld": ("/opt/bin/flanneld",),
}  # fmt: skip
POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"


def starts(ask: Asked) -> None:
    """From a pod's creation, on a node that is said, until the API says that it runs; one after the other."""
    took = sorted(_started(ask, number) for number in range(PODS))
    said = f"p50 {1000 * statistics.median(took):.0f} ms, {1000 * took[0]:.0f} to {1000 * took[-1]:.0f}, {PODS} pods"
    ask.report("a pod created -> Running", None, said)


def daemons(ask: Asked) -> None:
    """What the network's own daemons take on a node: memory that is theirs, and their share of what they have in common (PSS)."""
    found = dict[str, float]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # he is gone meanwhile
            words = (folder / "cmdline").read_text().split("\0")
            if kind := next((kind for kind, marks in DAEMONS.items() if all(mark in words for mark in marks)), ""):
                size = re.search(r"^Pss:\s+(\d+)", (folder / "smaps_rollup").read_text(), re.MULTILINE)
                found[kind] = found.get(kind, 0) + int(size[1]) / 1024 / len(ask.cluster.nodes) if size else 0
    said = ", ".join(f"{kind} {size:.0f} MiB" for kind, size in sorted(found.items()))
    ask.report("its daemons", None, f"{sum(found.values()):.0f} MiB a node: {said}")


def _started(ask: Asked, number: int) -> float:
    name, node = f"pace-{number}", ask.cluster.nodes[number % len(ask.cluster.nodes)]
    container = {"name": "c", "image": images.SHELL, "imagePullPolicy": "Never", "command": ["sleep", "1000"]}
    spec = {"nodeName": node.name, "terminationGracePeriodSeconds": 0, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    path = "/api/v1/namespaces/default/pods"
    version = ask.api("GET", f"{path}?limit=1")["metadata"]["resourceVersion"]
    began = time.monotonic()
    ask.api("POST", path, pod)
    watched = ask.api.watch(f"{path}?fieldSelector=metadata.name%3D{name}&resourceVersion={version}", 60)
    runs = next(when for when, _, found in watched if found["status"].get("phase") == "Running")
    ask.api("DELETE", f"{path}/{name}?gracePeriodSeconds=0")
    eventually(lambda: all(one["metadata"]["name"] != name for one in ask.api.pods()), 60)
    return runs - began


def enforced(ask: Asked) -> None:
    """From a NetworkPolicy's creation until a pod it selects is not reached from another node any more, and back."""
    ask.make(web("paced", 2, topologySpreadConstraints=[_APART]))
    server, client = ask.wait("paced", 2)
    node = next(one for one in ask.cluster.nodes if one.name == client["spec"]["nodeName"])
    selected = {"podSelector": {"matchLabels": {"app": "paced"}}, "policyTypes": ["Ingress"]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "pace"},
        "spec": selected,
    }
    made, deleted = list[float](), list[float]()
    command = node.entering(
        "nsenter", "-t", ask.task(node, client), "-n", "python3", "-c", ASKING, addresses(server)[0]
    )
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(CHANGES):
        time.sleep(REST)
        made.append(time.monotonic())
        ask.api("POST", POLICIES, policy)
        time.sleep(REST)
        deleted.append(time.monotonic())
        ask.api("DELETE", f"{POLICIES}/pace")
    time.sleep(REST)
    asked = json.loads(program.communicate("end\n")[0])
    ends = [*deleted, asked[-1][0]]
    shut = [_first(asked, False, begun, end) for begun, end in zip(made, ends, strict=False)]
    opened = [_first(asked, True, begun, end) for begun, end in zip(deleted, [*made[1:], ends[-1]], strict=True)]
    for what, took in (("a policy made -> shut", shut), ("a policy deleted -> open", opened)):
        assert took, f"no {what}"
        each = f"{1000 * min(took):.0f} to {1000 * max(took):.0f}, {CHANGES} times"
        ask.report(what, None, f"p50 {1000 * statistics.median(took):.0f} ms, {each}")


def _first(asked: list[tuple[float, bool]], answered: bool, begun: float, end: float) -> float:
    """After how many seconds since `begun` echoes are answered, or are not any more, as they go on to be; infinity: not until `end`."""
    some = [one for one in asked if begun < one[0] < end]
    row = IN_A_ROW if not answered else 1
    for number, (when, _) in enumerate(some):
        if len(some) >= number + row and all(said == answered for _, said in some[number : number + row]):
            return when - begun
    return math.inf


_APART = {
    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": {"matchLabels": {"app": "paced"}},
}  # fmt: skip
