"""Releases that come and go on a cluster: one is rolled out and taken back while pods talk, come and go; a ConfigMap likewise."""

from __future__ import annotations

import json
from pathlib import Path

import brought
import images
from asked import Asked
from node import Node
from shell import ROOT, eventually, sh
from workloads import everywhere, web

#: A commit to go back to: the first that is built of what a checkout has of the Python Package Index.
EARLIER = "60366d0"
MANIFEST, CONFLIST = "deploy/l3/agent-cni.yaml", "10-agent-cni.conflist"
_CONFIG = "/api/v1/namespaces/kube-system/configmaps/agent-cni"
_LAYOUT = "cni/state/layout.py"
_LAYOUT_OF = (
    "import sqlite3; print(*sqlite3.connect('/run/agent-cni/state.db').execute('PRAGMA user_version').fetchone())"
)
#: What makes a layout of today's one that has one more table.
_ONE_MORE_TABLE = (
    ("VERSION = 5\n", "VERSION = 6\n_LATER = 'CREATE TABLE later (said TEXT);\\n'\n"),
    ("{_BOOT} {_MEMBERSHIP}", "{_BOOT} {_MEMBERSHIP} {_LATER}"),
    ('f"{_MEMBERSHIP}PRAGMA', 'f"{_MEMBERSHIP if version < 5 else _LATER}PRAGMA'),
)


def returned(ask: Asked) -> None:
    """An earlier release, today's, one whose state has one more table, today's: each takes over the pods of the one before."""
    _begin(ask)
    today = (ROOT / MANIFEST).read_text()
    earlier = sh("git", "-C", ROOT, "show", f"{EARLIER}:{MANIFEST}").stdout
    fills = {"earlier": images.of_commit(EARLIER), "later": _later}
    for name, fill in fills.items():
        tar = images.suite(f"releases/{name}", images.SUITE.replace("0.1.0", name), fill)
        for node in ask.cluster.nodes:
            node.images(tar)
    layouts = dict[str, set[str]]()
    for name, manifest in (("earlier", earlier), ("today", today), ("later", today), ("today", today)):
        tag = "0.1.0" if name == "today" else name
        _roll_out(ask, f"{name}'s release", manifest.replace("image: agent-cni:0.1.0", f"image: agent-cni:{tag}"))
        layouts[name] = {node.run("python3", "-c", _LAYOUT_OF).stdout.strip() for node in ask.cluster.nodes}
    gone_on = layouts["later"] == layouts["today"] == {str(5 << 16 | 6)}
    ask.report("today's release goes on with the later layout", gone_on, f"{layouts}")


def _roll_out(ask: Asked, what: str, manifest: str) -> None:
    before = {pod["metadata"]["name"] for pod in brought.pods(ask)}
    asking = ask.keep_asking("each")
    ask.cluster.kubectl("apply", "-f", "-", input=manifest)
    done = eventually(lambda: brought.renewed(ask, before), 300)
    said = "" if done else str([brought.words(ask, pod) for pod in brought.pods(ask)])[:900]
    ask.report(f"{what} is rolled out", bool(done), said)
    _come_and_go(ask, what)
    got, lost = asking()
    said = f"{got} of {got + len(lost)} answered; lost {lost[:9]}"
    ask.report(f"nobody is cut off by {what}", got > 0 and not lost, said)


def reconfigured(ask: Asked) -> None:
    """A ConfigMap that is changed, and changed back, reaches every node, and pods that come then; others talk all the while."""
    _begin(ask)
    before = ask.api("GET", _CONFIG)["data"][CONFLIST]
    conflist = json.loads(before)
    conflist["plugins"][0]["mtu"] = 1400
    asking = ask.keep_asking("each")
    for what, text, mtu in (("a changed ConfigMap", json.dumps(conflist), "1400"), ("the one before", before, "1450")):
        ask.api("PATCH", _CONFIG, {"data": {CONFLIST: text}}, brought.MERGE)
        put = eventually(lambda text=text: all(_has(node, text) for node in ask.cluster.nodes), 180, 1)
        ask.report(f"{what} is on every node", bool(put), "")
        _come_and_go(ask, what)
        seen = {ask.inside(pod)("cat /sys/class/net/eth0/mtu").strip() for pod in ask.pods()}
        ask.report(f"pods that come have what {what} says", seen == {mtu}, f"MTU {seen}")
    got, lost = asking()
    ask.report(
        "nobody is cut off meanwhile", got > 0 and not lost, f"{got} of {got + len(lost)} answered; lost {lost[:9]}"
    )


def _begin(ask: Asked) -> None:
    if not ask.pods("each"):
        ask.api("POST", "/apis/apps/v1/namespaces/default/daemonsets", everywhere("each"))
        ask.make(web("web", 6))
    ask.wait("each", len(ask.cluster.nodes))
    ask.wait("web", 6)


def _come_and_go(ask: Asked, what: str) -> None:
    """All pods of a Deployment are made anew, and those of the DaemonSet stay as they are."""
    for command in (("restart",), ("status", "--timeout=180s")):
        ask.cluster.kubectl("rollout", command[0], "deployment", "web", *command[1:])
    ask.wait("web", 6)
    pods = [*ask.pods("each"), *ask.pods()]
    ask.matrix(f"pod to pod with {what}", {pod["metadata"]["name"]: ask.inside(pod) for pod in pods})
    ask.matrix(
        f"pod to a pod of before with {what}", {pod["metadata"]["name"]: ask.inside(pod) for pod in pods}, "each"
    )
    for node in ask.cluster.nodes:
        ask.settle(node)
        held, meant = ask.held(node), ask.meant(node)
        ask.report(
            f"addresses held on {node.name} with {what}", held == meant, f"held {sorted(held)}, running {sorted(meant)}"
        )
        doctor = node.run("agent-cni", "doctor", check=False)
        ask.report(
            f"agent-cni doctor on {node.name} with {what}",
            doctor.returncode == 0,
            " | ".join((doctor.stdout + doctor.stderr).split("\n"))[:900],
        )


def _has(node: Node, text: str) -> bool:
    return json.loads(node.run("cat", f"/etc/cni/net.d/{CONFLIST}").stdout) == json.loads(text)


def _later(target: Path) -> None:
    images.copy_source(target)
    text = (target / _LAYOUT).read_text()
    for today, later in _ONE_MORE_TABLE:
        assert today in text, f"{_LAYOUT} has no {today!r} any more"
        text = text.replace(today, later)
    (target / _LAYOUT).write_text(text)
