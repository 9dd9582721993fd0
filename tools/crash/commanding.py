"""What an operator tells a host of a cluster, struck at each effect and told again: `leave`, and `refresh` and `repair` of what was taken away."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack

import effects
from cluster import Cluster
from lab import AGENT_CNI, Lab, eventually

from crash.joining import Town, rows
from crash.ordered import DOORS, told
from crash.story import Told

PATIENCE = 40
#: What is said where somebody else is at the same pod.
HELD = "another call holds"
WORDS = {"leave": ["leave"], "refresh": ["refresh"], "repair": ["repair", "--all"]}


def tell(story: str, seed: str) -> Told:
    """`leave killed in l3, 1 of 2`: at the first effect, the third ..."""
    verb, lab = story.partition(" ")[0], Lab(story)
    mode = "l3" if " in l3" in story else "l2"
    try:
        with Cluster(lab, 3) as cluster, ExitStack() as held:
            town = Town(cluster, mode, held)
            if verb != "leave":
                cluster.join(town.tried)
                town.attach("web", town.tried)
            found = told(story, seed, lambda order: (leave if verb == "leave" else mend)(town, order, WORDS[verb]))
            held.close()
            cluster.leave()
    finally:
        lab.close()
    return found


def leave(town: Town, order: effects.Order, words: list[str]) -> list[str]:
    """Of a host that has joined, and whose pod has gone; what was wrong then."""
    node, cluster = town.tried, town.cluster
    before = node.snapshot()
    cluster.join(node)
    town.attach("web", node)
    town.detach("web")
    node.wanted = False
    found = _struck(town, order, words)
    if (node.etc / "agent-cni/cluster.json").exists():
        found += _again(town, words)
    if not eventually(lambda: not node.running, PATIENCE):
        found.append("the member goes on")
        node.kill()
    found += cluster.left(node)
    now = node.snapshot()
    found += [f"{area}: {now[area]} instead of {before[area]}" for area in before if now[area] != before[area]]
    if not eventually(lambda: not any(rows(other, node) for other in cluster.nodes[1:]), PATIENCE):
        found.append("other hosts still send there")
    return [*found, *cluster.duplicates()]


def mend(town: Town, order: effects.Order, words: list[str]) -> list[str]:
    """Of a host whose rules somebody took away, and whose pod has lost its routes where it is repaired."""
    node, web = town.tried, town.placed["web"]
    node.run("nft", "flush", "ruleset")
    if words[0] == "repair":
        web.pod.run("ip", "route", "flush", "table", "main")
    found = _struck(town, order, words) + _again(town, words)
    checked = node.check(web.conf, web.pod, web.result)
    found += [f"CHECK: {checked.stdout}"] * (checked.code != 0)
    found += town.soon("friend", True) + ["a stranger gets in"] * town.gets_in("stranger")
    return [*found, *town.wrong()]


def _struck(town: Town, order: effects.Order, words: list[str]) -> list[str]:
    """Tell it, again where the member is at the pod just then."""
    command = [*town.tried.prefix(), *DOORS, str(AGENT_CNI), *words]
    said, code = HELD, 1
    while HELD in said:
        order.log.unlink(missing_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | order.environ, check=False, timeout=120)  # fmt: skip
        said, code = done.stdout + done.stderr, done.returncode
    found = [said] if "Traceback" in said or "a bug, please report it" in said else []
    return found + [f"undisturbed it ends with {code}: {said}"] * (not order.number and code != 0)


def _again(town: Town, words: list[str]) -> list[str]:
    said = [""]

    def done() -> bool:
        told = town.tried.run(AGENT_CNI, *words, check=False)
        said[0] = f"again it ends with {told.returncode}: {told.stdout}{told.stderr}"
        return told.returncode == 0 or HELD not in said[0]

    eventually(done, PATIENCE)
    return said if not said[0].startswith("again it ends with 0") else []
