"""`agent-cni reach` says what packets do: whatever is attached, whatever is broken."""

from __future__ import annotations

import os
from random import Random

import pytest
from lab import Lab
from reaching import Overlay, World

#: How many worlds are tried, of which seed; the same every time, unless `make reach-sweep` says so.
EXAMPLES, SEED = int(os.environ.get("EXAMPLES") or 6), int(os.environ.get("SEED") or 24)
QUESTIONS = 40

pytestmark = pytest.mark.sweep


@pytest.mark.tried(
    "pods of every plugin under random policies, up to three of twenty things broken, and 40 questions each: TCP, UDP, ICMP, both families; `make reach-sweep` tries more",
    "`agent-cni reach` says what packets do",
)
@pytest.mark.parametrize("number", range(EXAMPLES))
def test_reach_says_what_packets_do(lab: Lab, number: int):
    with World(lab, Random(f"{SEED} {number}")) as world:
        _compared(world, f"SEED={SEED} {number}")


@pytest.mark.tried(
    "the same from a host of a cluster to pods of another, bridged and routed tunnels, rows and neighbours lost",
    "the same",
)
@pytest.mark.parametrize("number", range(max(1, EXAMPLES // 6)))
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_to_another_host_too(lab: Lab, mode: str, number: int):
    with Overlay(lab, Random(f"{SEED} {mode} {number}"), mode) as world:
        _compared(world, f"SEED={SEED} {mode} {number}")


def _compared(world: World, called: str) -> None:
    world.spoil()
    agree, unknown, differ = world.compare(QUESTIONS)
    print(f"\n{called}: {world.broken}: {agree} agree, {unknown} unknown, {len(differ)} differ")
    print(*sorted(set(world.unknown)), sep="\n")
    sections = {name: member.conf.get("policy", "") for name, member in world.members.items()}
    assert not differ, "\n".join([called, str(world.broken), str(sections), *map(str, differ)])
