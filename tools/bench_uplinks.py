"""make bench, cluster: for how long pods of two hosts do not hear each other when the uplink of one fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster import conf
from lab import Lab, eventually
from uplinks import FAILURES, Uplinks, pauses

if TYPE_CHECKING:
    from bench_cluster import Aim

TIMES = 3
#: The most it is to be, in seconds.
MOST = 1.5


def failovers(lab: Lab, aim: type[Aim]) -> list[Aim]:
    """Each kind of failure, some times, of one host, and of both at once; the worst counts."""
    print("\nuplinks: seconds without an answer, asked every 20 ms, each time")
    found = {failure: [failed(lab, failure) for _ in range(TIMES)] for failure in FAILURES}
    found["silent at both hosts"] = [failed(lab, "silent", hosts=2) for _ in range(TIMES)]
    for failure, seconds in found.items():
        print(f"{failure:<24}{''.join(f'{it:8.2f}' for it in sorted(seconds))}")
    return [aim(f"uplink {failure}", max(seconds), MOST, "s") for failure, seconds in found.items()]


def failed(lab: Lab, failure: str, hosts: int = 1) -> float:
    """The pause of a new pair of hosts."""
    with Uplinks(lab, hosts=2) as town:
        town.join()
        here, far = (town.add(node, conf(families="4", block=8)) for node in town.nodes)
        town.sound()
        with pauses(here, far) as talk:
            time.sleep(1)
            for node in town.nodes[:hosts]:
                FAILURES[failure](node)
            assert eventually(lambda: all(town.is_at(node, "eth1") for node in town.nodes[:hosts]))
            time.sleep(1)
            return talk.longest()
