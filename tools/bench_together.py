"""make bench, together: different pods at once, as on a node that boots; ours with the agent and without, and the reference's, in turn.

A call is a process that is begun with all the others and waited for; its processor time is that of all that came of it, and of the agent.
"""

from __future__ import annotations

import json
import os
import select
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench_calls import OURS, THEIRS, Side, agent, in_turn, sides
from crash.weighed import family, milliseconds
from lab import Lab, sh

PODS = (40, 200)
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
#: What is told of calls at once, and its unit; of the first more is better.
FIGURES = {"calls": "calls/s", "slowest": "s", "processor": "ms a call"}


def rush(side: Side, verb: str, pods: Sequence[str], served: int) -> dict[str, float]:
    """One call for each pod, all at once; `served` is the agent's process."""
    with TemporaryDirectory() as folder:
        given, said = Path(folder, "conf"), Path(folder, "said")
        given.write_text(json.dumps(side.chain[0]))
        spent, began, begun = milliseconds(family(served)), time.perf_counter(), {}
        for pod in pods:
            program, env = side.process(verb, side.chain[0], pod)
            into = [(os.POSIX_SPAWN_OPEN, 0, given, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)]  # fmt: skip
            pid = os.posix_spawn(program, [program], env, file_actions=into)
            begun[os.pidfd_open(pid)] = pid, time.perf_counter()
        taken, processor = _ended(begun, said)
        whole = time.perf_counter() - began
        processor += milliseconds(family(served)) - spent
    return {"calls": len(pods) / whole, "slowest": max(taken), "processor": processor / len(pods)}


def _ended(begun: dict[int, tuple[int, float]], said: Path) -> tuple[list[float], float]:
    """How long each took, and the processor time of all in ms."""
    poll, taken, processor = select.poll(), [], 0.0
    for fd in begun:
        poll.register(fd, select.POLLIN)
    while begun:
        for fd, _ in poll.poll():
            pid, since = begun.pop(fd)
            taken.append(time.perf_counter() - since)
            _, status, used = os.wait4(pid, 0)
            assert status == 0, said.read_text()[-500:]
            processor += (used.ru_utime + used.ru_stime) * 1000
            poll.unregister(fd)
            os.close(fd)
    return taken, processor


def run(lab: Lab) -> None:
    """A table for each number of pods."""
    with agent() as process:
        for count in PODS:
            pods = [f"together-{number}" for number in range(count)]
            for pod in pods:
                sh("ip", "netns", "add", pod)

            def both(side: Side, _: int, pods: Sequence[str] = pods) -> dict[str, float]:
                told = {verb: rush(side, verb, pods, process.pid) for verb in ("ADD", "DEL")}
                return {f"{verb} {name}": value for verb, found in told.items() for name, value in found.items()}

            before = os.getloadavg()[0]
            _table(count, before, in_turn(sides(f"at{count}", OURS, [THEIRS]), ROUNDS, both))
            for pod in pods:
                sh("ip", "netns", "del", pod)


def _table(count: int, load: float, taken: dict[str, dict[str, list[float]]]) -> None:
    print(f"\n{f'{count} pods at once, from a load of {load:.1f} on':<46}{'warm':>9}{'cold':>9}{'reference':>11}{'warm/ref':>10}{'cold/ref':>10}")  # fmt: skip
    for label, found in taken.items():
        verb, _, name = label.partition(" ")
        warm, cold, other = (statistics.median(found[side]) for side in ("warm", "cold", "reference"))
        print(f"{f'{verb}: {name} ({FIGURES[name]})':<46}{warm:9.2f}{cold:9.2f}{other:11.2f}{warm / other:10.2f}{cold / other:10.2f}")  # fmt: skip
