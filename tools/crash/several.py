"""Several kills: of one container one after the other, or of three at once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from effects import AFTER, BEFORE
from killing import Killed, Node
from lab import Pod

from crash import afterwards
from crash.afterwards import Kill, Then
from crash.chains import NETWORKS, SHARED_NETWORKS
from crash.trial import Trial

#: How often each is told.
_TIMES = {"twice": 20, "three": 8}
_AT_ONCE: tuple[Then, ...] = (
    afterwards.again,
    afterwards.deleted,
    afterwards.deleted_fully,
    afterwards.deleted_gone,
    afterwards.deleted_unnamed,
    afterwards.deleted_edited,
    afterwards.elsewhere,
)
_THEN: tuple[Then, ...] = (*_AT_ONCE, afterwards.deleted_replaced, afterwards.collected, afterwards.swept)


def several_stories() -> Iterator[str]:
    yield from (f"{verb} {name} mixed" for verb in _TIMES for name in NETWORKS | SHARED_NETWORKS)


def several(node: Node, counts: Counter[str], astray: Callable[[], list[str]], verb: str, seed: str) -> Iterator[str]:
    return Several(node, counts, astray, random.Random(seed)).run(verb)


@dataclass
class Several(Trial):
    """One network, and kills by chance; each call is cold or warm."""

    chance: random.Random

    def run(self, verb: str) -> Iterator[str]:
        """Each fault."""
        neighbour, before = self.begun()
        effects = self._effects()
        for _ in range(_TIMES[verb]):
            with self.pods({"twice": 1, "three": 3}[verb]) as pods:
                told = {"twice": self._twice, "three": self._three}[verb](pods, neighbour, effects)
                found = [f"{said}: {wrong}" for said, kill in told for wrong in kill.found]
                if left := self.left(neighbour, before):
                    found.append(f"{'; '.join(said for said, _ in told)}: left {'; '.join(left)}")
            yield from found
            before = self.seen(neighbour) if left else before

    def _effects(self) -> dict[str, int]:
        """How many each verb has."""
        with self.pods() as (pod,):
            assert not (wrong := self.node.add(pod, last=-1)), wrong
            many = {verb: self.node.killed(verb, pod, 0, BEFORE).effects for verb in ("ADD", "DEL")}
            assert not (wrong := self.node.delete(pod)), wrong
        return many

    def _twice(self, pods: list[Pod], neighbour: Pod, effects: dict[str, int]) -> list[tuple[str, Kill]]:
        """A call is killed, and then the same again, or a DEL."""
        (pod,), first = pods, self.chance.choice(("ADD", "DEL"))
        self._ready(pod, first)
        verbs = (first, self.chance.choice(("ADD", "DEL") if first == "ADD" else ("DEL", "DEL", "ADD")))
        calls = [self._killed(verb, pod, effects) for verb in verbs]
        return [self._followed(verbs, calls, Kill(self.node, pod, neighbour, calls[-1]), self.chance.choice(_THEN))]

    def _three(self, pods: list[Pod], neighbour: Pod, effects: dict[str, int]) -> list[tuple[str, Kill]]:
        """Calls of three are killed at once, and what follows comes at once, too."""
        verbs = [self.chance.choice(("ADD", "ADD", "DEL")) for _ in pods]
        for verb, pod in zip(verbs, pods, strict=True):
            self._ready(pod, verb)
        with ThreadPoolExecutor(len(pods)) as threads:
            calls = list(threads.map(lambda verb, pod: self._killed(verb, pod, effects), verbs, pods))
            kills = [Kill(self.node, pod, neighbour, call) for pod, call in zip(pods, calls, strict=True)]
            thens = self.chance.sample(_AT_ONCE, len(pods))
            return list(
                threads.map(
                    lambda verb, kill, then: self._followed((verb,), [kill.call], kill, then), verbs, kills, thens
                )
            )

    def _ready(self, pod: Pod, verb: str) -> None:
        assert not (wrong := self.node.add(pod, last=-1 if verb == "ADD" else 0)), wrong

    def _killed(self, verb: str, pod: Pod, effects: dict[str, int]) -> Killed:
        number, when = self.chance.randint(1, effects[verb]), self.chance.choice((BEFORE, AFTER))
        call = self.node.killed(verb, pod, number, when, warm=self.chance.random() < 0.5)
        self.counts["kills"] += bool(call.last)
        return call

    def _followed(self, verbs: tuple[str, ...], calls: list[Killed], kill: Kill, then: Then) -> tuple[str, Kill]:
        self.follows(kill, then)
        killed = ", ".join(f"{verb} at {call.last or 'its end'}" for verb, call in zip(verbs, calls, strict=True))
        return f"killed {killed}, then {then.__name__}", kill
