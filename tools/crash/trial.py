"""A node and a neighbour on it, who is as before and is reached, whatever is killed beside him."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from killing import Node, Seen, differences
from lab import Pod, eventually

from crash.afterwards import Kill, Then, collected, swept

#: How long a program stands still whose call is dead, in seconds: what follows would be over by then if nobody waited for it.
_ASLEEP = 1.5


@dataclass
class Trial:
    """What each story begins with, and how a kill is judged."""

    node: Node
    counts: Counter[str]
    #: What others say that is not so.
    astray: Callable[[], list[str]]

    def begun(self) -> tuple[Pod, Seen]:
        """The neighbour, and all there is beside him."""
        neighbour = self.node.lab.pod()
        assert not (wrong := self.node.add(neighbour)), wrong
        self.settle()
        eventually(lambda: self._reached(neighbour) == neighbour.addresses("eth0"), 10)
        return neighbour, self.seen(neighbour)

    @contextmanager
    def pods(self, many: int = 1) -> Iterator[list[Pod]]:
        """Pods that a kill is about."""
        lab, pods = self.node.lab, [self.node.lab.pod() for _ in range(many)]
        yield pods
        for pod in pods:
            pod.delete()
            lab.made.remove(pod)

    def settle(self) -> None:
        """What the first pod of a network makes and nobody takes away is there."""
        with self.pods() as (pod,):
            assert not (wrong := self.node.add(pod) or self.node.delete(pod)), wrong

    def seen(self, neighbour: Pod) -> Seen:
        return self.node.seen(neighbour) | {"reached": self._reached(neighbour)}

    def _reached(self, neighbour: Pod) -> set[str]:
        """Which of a pod's addresses answer the node."""
        held = neighbour.addresses("eth0") if neighbour.link("eth0") else ()
        return {item for item in held if self.node.host.pings(item.split("/")[0], 2)}

    def follows(self, kill: Kill, then: Then) -> list[str]:
        """What a runtime does next, and what was wrong with it."""
        asleep = _ASLEEP
        if then in (collected, swept):  # who collects waits for nobody, and comes again
            self.node.wake(kill.call)
            asleep = 0
        waking = threading.Timer(asleep, self.node.wake, [kill.call])
        waking.start()
        then(kill)
        for pod in kill.others:
            kill.must(self.node.delete(pod, previous=False))
        waking.join()
        return kill.found

    def left(self, neighbour: Pod, before: Seen) -> Iterable[str]:
        """What is not as it was."""
        left: list[str] = []

        def same() -> bool:
            left[:] = differences(before, self.seen(neighbour)) or self.astray()
            return not left

        eventually(same, 10)
        return left[:6]
