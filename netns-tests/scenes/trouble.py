"""What befalls a cluster, each of it over when it returns; and pods that come and go while it does."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Self

from cluster import Cluster, Node, Placed, conf
from lab import ROOT, sh
from overlay import tunnels

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


def befall(cluster: Cluster, seed: object, trouble: str) -> None:
    """Let something befall a host, or the store, that chance chooses."""
    chance = random.Random(f"{seed} {trouble}")
    LASTING[trouble](cluster, chance.choice(cluster.nodes), chance)


def partitioned(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A host does not reach the store for longer than its session, and then it does."""
    cluster.partition(node)
    time.sleep(cluster.session * (1 + chance.random()))
    cluster.heal()


def paused(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A member does nothing for longer than its session, and then goes on where it was."""
    node.pause()
    time.sleep(cluster.session * (1 + chance.random()))
    node.go_on()


def killed(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """Members are killed at random, and started again."""
    for _ in range(6):
        one = chance.choice(cluster.nodes)
        one.kill()
        time.sleep(chance.random())
        one.start()
        time.sleep(chance.random())


def jumped(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A member's clock of the day jumps a day ahead and two back: libfaketime says another CLOCK_REALTIME to it, and no other."""
    said = node.folder / "faketime"
    node.kill()
    said.write_text("+0\n")
    node.around = (
        "env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={said}", "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    )  # fmt: skip
    node.start()
    for offset in ("+1d", "-1d", "+0"):
        time.sleep(cluster.session / 2)
        said.write_text(f"{offset}\n")
    time.sleep(cluster.session / 2)
    node.kill()
    node.around = ()
    node.start()


def stopped(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """The store is away for longer than a session."""
    for number in range(cluster.stores):
        cluster.etcd.kill(number)
    time.sleep(cluster.session * (1 + chance.random()))
    cluster.etcd.start_all()


def wiped(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """The store lost everything."""
    cluster.etcd.wipe()


def restored(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """The store is restored from a backup older than what happened since."""
    kept = cluster.etcd.backup(cluster.etcd.folder / "backup")
    time.sleep(cluster.session * (0.5 + chance.random()))
    cluster.etcd.wipe(kept)


def unlinked(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """The tunnels of every host are deleted by another hand."""
    for one in cluster.nodes:
        for link in tunnels(one):
            sh("ip", "-n", one.name, "link", "del", link, check=False)
        time.sleep(chance.random())


def bounced(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """Links go down and up again, with which the kernel forgets neighbours and routes."""
    for _ in range(4):
        for link in ("br0", "br1", *tunnels(node)):
            for state in ("down", "up"):
                sh("ip", "-n", node.name, "link", "set", link, state, check=False)
        time.sleep(chance.random())


#: What befalls the store or the way to it, members, and the kernel; each is over when it returns. Of one group one at a time.
GROUPS: tuple[dict[str, Callable[[Cluster, Node, random.Random], None]], ...] = (
    {
        "a host partitioned from the store": partitioned,
        "the store stopped": stopped,
        "the store wiped": wiped,
        "the store restored from an older backup": restored,
    },
    {
        "a member paused longer than a session": paused,
        "members killed at random": killed,
        "a clock that jumps": jumped,
    },
    {
        "tunnels deleted": unlinked,
        "links down and up": bounced,
    },
)
LASTING = {name: what for group in GROUPS for name, what in group.items()}
