"""make cluster-soak: five hosts, three stores, pods that come and go, and troubles at random, two at a time; told as it happens.

    tools/isolated .venv/bin/python3 tools/soak.py [SECONDS [SEED]]

After each round everything is let be, and what must be so is asked: no address twice, all hosts agree with the store, everybody
reaches every pod and nobody answers for another. In the end all leave, and nothing may be left. The same seed is the same troubles.
"""

from __future__ import annotations

import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from cluster import Cluster, conf  # noqa: E402
from lab import Lab  # noqa: E402
from trouble import GROUPS, Churn, befall  # noqa: E402

HOSTS, STORES, PATIENCE = 5, 3, 90


def soak(cluster: Cluster, seconds: float, seed: str) -> None:
    """Rounds until the time is over; each ends with what must be so."""
    cluster.join()
    chance, end, number = random.Random(seed), time.monotonic() + seconds, 0
    modes: dict[str, dict[str, Any]] = {"l2": {}, "l3": {"name": "routed", "number": 1}}
    for node in cluster.nodes:  # a host has its part of a network from its first pod on
        for mode, keys in modes.items():
            cluster.add(node, conf(mode, **keys))
    while time.monotonic() < end:
        number += 1
        seed_of_round, troubles = f"{seed} {number}", [chance.choice(list(it)) for it in chance.sample(GROUPS, 2)]
        mode = chance.choice(list(modes))
        began = time.monotonic()
        with Churn(cluster, seed_of_round, mode=mode, **modes[mode]) as churn, ThreadPoolExecutor(2) as pool:
            list(pool.map(partial(befall, cluster, seed_of_round), troubles))
        lasted, began = time.monotonic() - began, time.monotonic()
        cluster.sound(PATIENCE)
        print(f"{number:4} {mode}: {' + '.join(troubles)}: {churn.done} calls in {lasted:.0f} s, {churn.refused} refused,"
              f" {len(cluster.placed)} pods; all is well after {time.monotonic() - began:.1f} s", flush=True)  # fmt: skip
    cluster.leave()
    assert cluster.written() == [], cluster.written()
    print("all left, and nothing is left")


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = sys.argv[2] if len(sys.argv) > 2 else str(time.time_ns() % 100_000)
    print(f"seed {seed}", flush=True)
    lab = Lab(f"soak {seed}")
    try:
        with Cluster(lab, hosts=HOSTS, stores=STORES) as cluster:
            soak(cluster, seconds, seed)
    finally:
        lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
