"""What befalls a cluster, each of it over when it returns; and pods that come and go while it does."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Self

from cluster import Cluster, Node, Placed, conf
from lab import ROOT, sh

FAKETIME = ROOT / ".cache/faketime/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
#: Pods a host has at most while they come and go.
MOST = 8


class Churn:
    """Pods that come and go on every host while a `with` block runs; what failed in it fails the test.

    An ADD may be refused with "try again later" where a host has no address left and the store is away; a DEL may not.
    """

    def __init__(self, cluster: Cluster, seed: object, **keys: Any) -> None:
        self.cluster, self.done, self.refused = cluster, 0, 0
        self._conf, self._over = conf(**keys), Event()
        self._failed: list[BaseException] = []
        self._threads = [Thread(target=self._churn, args=(node, f"{seed} {node.number}")) for node in cluster.nodes]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._failed and not kind:
            raise self._failed[0]

    def _churn(self, node: Node, seed: str) -> None:
        chance = random.Random(seed)
        try:
            while not self._over.is_set():
                mine = [placed for placed in self.cluster.placed if placed.host is node]
                if mine and (len(mine) >= MOST or chance.random() < 0.5):
                    self.cluster.remove(chance.choice(mine))
                else:
                    self._come(node)
                self.done += 1
        except AssertionError as error:
            self._failed.append(error)

    def _come(self, node: Node) -> None:
        pod = self.cluster.lab.pod()
        answer = node.cni("ADD", self._conf, pod)
        if answer.code:
            answer.failed(11)
            self.refused += 1
            node.cni("DEL", self._conf, pod).ok()
            return
        self.cluster.answers.say(pod)
        self.cluster.placed.append(Placed(node, pod, self._conf, answer.ok()))


def partitioned(cluster: Cluster) -> None:
    """A host does not reach the store for longer than its session, and then it does."""
    cluster.partition(cluster.nodes[0])
    time.sleep(cluster.session * 2)
    cluster.heal()


def paused(cluster: Cluster) -> None:
    """A member does nothing for longer than its session, and then goes on where it was."""
    cluster.nodes[0].pause()
    time.sleep(cluster.session * 2)
    cluster.nodes[0].go_on()


def killed(cluster: Cluster) -> None:
    """Members are killed at random, and started again."""
    chance = random.Random("killed")
    for _ in range(6):
        node = chance.choice(cluster.nodes)
        node.kill()
        time.sleep(chance.random())
        node.start()
        time.sleep(chance.random())


def jumped(cluster: Cluster) -> None:
    """A member's clock of the day jumps a day ahead and two back: libfaketime says another CLOCK_REALTIME to it, and no other."""
    node = cluster.nodes[0]
    said = node.folder / "faketime"
    node.kill()
    said.write_text("+0\n")
    settings = {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": said,
        "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
    }
    node.around = ("env", *(f"{name}={value}" for name, value in settings.items()))
    node.start()
    for offset in ("+1d", "-1d", "+0"):
        time.sleep(cluster.session / 2)
        said.write_text(f"{offset}\n")
    time.sleep(cluster.session / 2)


def stopped(cluster: Cluster) -> None:
    """The store is away for longer than a session."""
    cluster.etcd.kill(0)
    time.sleep(cluster.session * 2)
    cluster.etcd.start(0)


def wiped(cluster: Cluster) -> None:
    """The store lost everything."""
    cluster.etcd.wipe()


def restored(cluster: Cluster) -> None:
    """The store is restored from a backup older than what happened since."""
    kept = cluster.etcd.backup(cluster.etcd.folder / "backup")
    time.sleep(cluster.session / 2)
    cluster.etcd.wipe(kept)


def unlinked(cluster: Cluster) -> None:
    """The tunnels of every host are deleted by another hand."""
    for node in cluster.nodes:
        sh("ip", "-n", node.name, "link", "del", "vxlan100", check=False)
        time.sleep(0.2)


TROUBLES: dict[str, Callable[[Cluster], None]] = {
    "a host partitioned from the store": partitioned,
    "a member paused longer than a session": paused,
    "members killed at random": killed,
    "a clock that jumps": jumped,
    "the store stopped": stopped,
    "the store wiped": wiped,
    "the store restored from an older snapshot": restored,
    "tunnels deleted": unlinked,
}
