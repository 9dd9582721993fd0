"""What befalls a cluster beyond `trouble`: ways that are cut in one direction or between hosts, stores without a majority, full ones,
hosts that boot, agents that hang, two hosts of one name.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trouble
from cluster import Cluster, Node
from lab import Namespace, eventually, sh
from witness import Witnessed, now

Befalls = Callable[[Cluster, Node, random.Random], None]


def _lasts(cluster: Cluster, chance: random.Random) -> None:
    """For half a session to one and a half: some hosts are counted as gone."""
    time.sleep(cluster.session * (0.5 + chance.random()))


@contextmanager
def _dropping(where: Namespace, *rules: str) -> Iterator[None]:
    """Rules of what comes in there, as long as it lasts; of one kind in a namespace at a time."""
    chain = "add table inet amiss\nadd chain inet amiss in { type filter hook input priority -300; }\n"
    where.run("nft", "-f", "-", input=chain + "".join(f"add rule inet amiss in {rule}\n" for rule in rules))
    try:
        yield
    finally:
        where.run("nft", "delete table inet amiss", check=False)


def _from(*ends: str) -> list[str]:
    return [f"ip{'6' * (':' in end)} saddr {end} drop" for end in ends]


def answers_lost(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A host's requests reach the store, and no answer reaches the host."""
    with _dropping(node, *_from(*cluster.etcd.addresses)):
        _lasts(cluster, chance)


def hosts_apart(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """Two hosts do not hear each other; both reach the store."""
    other = chance.choice([it for it in cluster.nodes if it is not node])
    to_one, to_other = _from(node.underlay(4), node.underlay(6)), _from(other.underlay(4), other.underlay(6))
    with _dropping(node, *to_other), _dropping(other, *to_one):
        _lasts(cluster, chance)


def one_does_not_hear(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A host does not hear another one, which hears it."""
    other = chance.choice([it for it in cluster.nodes if it is not node])
    with _dropping(node, *_from(other.underlay(4), other.underlay(6))):
        _lasts(cluster, chance)


def lossy(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A host loses a third of what comes by its wire."""
    with _dropping(node, 'iifname "eth0" numgen random mod 3 == 0 drop'):
        _lasts(cluster, chance)


def slow(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A host's wire takes 100 kbit/s, with a queue of seconds."""
    sh(
        "tc",
        "-n",
        node.name,
        "qdisc",
        "add",
        "dev",
        "eth0",
        "root",
        "tbf",
        "rate",
        "100kbit",
        "burst",
        "4k",
        "latency",
        "2s",
    )
    _lasts(cluster, chance)
    sh("tc", "-n", node.name, "qdisc", "del", "dev", "eth0", "root")


def minority(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """The leader of the store is cut off from its peers, and not from the hosts."""
    leader = cluster.etcd.leader()
    cluster.etcd.isolate(leader)
    _lasts(cluster, chance)
    cluster.etcd.rejoin(leader)
    _is_well(cluster)


def no_majority(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """Two of the store's three members are killed."""
    two = chance.sample(range(cluster.stores), 2)
    for number in two:
        cluster.etcd.kill(number)
    _lasts(cluster, chance)
    cluster.etcd.start_all()


def hanging(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """Members of the store are silent, and keep their connections."""
    silent = chance.sample(range(cluster.stores), chance.choice((1, 2, 3)))
    for number in silent:
        cluster.etcd.pause(number)
    _lasts(cluster, chance)
    for number in silent:
        cluster.etcd.go_on(number)
    _is_well(cluster)


def full(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """The store takes nothing more, and then has room again."""
    etcd = cluster.etcd
    for number in range(30):
        if "exceeded" in etcd.ctl("put", f"/junk/{number}", input="x" * 1_000_000, check=False):
            break
    _lasts(cluster, chance)
    etcd.ctl("del", "--prefix", "/junk/", "--command-timeout", "20s")
    etcd.ctl("compact", etcd.revision(), check=False)
    for number in range(cluster.stores):
        etcd.ctl("defrag", "--command-timeout", "20s", number=number)
    etcd.ctl("alarm", "disarm")


def booted(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A host loses its power, and comes back with neither pods nor memory; the runtime tells of the pods it had."""
    assert isinstance(node, Witnessed)
    with node.busy:
        had = [placed for placed in cluster.placed if placed.host is node]
        for placed in had:
            began = now()
            cluster.forget(placed)
            placed.pod.delete()
            cluster.lab.made.remove(placed.pod)
            assert node.witness
            node.witness.write("gone", container=placed.pod.container, began=began)
        node.reboot()
        time.sleep(cluster.session * chance.choice((0.1, 1.5)))
        node.start()
        for placed in had:
            node.ended(placed.conf, placed.pod)


def agent_amiss(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """A host's agent is killed, or hangs longer than a session; without one, its member hangs for less than one."""
    if not node.agent:
        node.pause()
        time.sleep(cluster.session * chance.random())
        return node.go_on()
    assert isinstance(node, Witnessed)
    if chance.random() < 0.5:
        with node.busy:
            node.agent_again(signal.SIGKILL)
        return None
    os.kill(node.agent, signal.SIGSTOP)
    _lasts(cluster, chance)
    os.kill(node.agent, signal.SIGCONT)
    return None


def one_name(cluster: Cluster, node: Node, chance: random.Random) -> None:
    """Another machine comes with a host's name."""
    twin = next((it for it in cluster.spare), None)
    assert twin
    cluster.configure(twin, node=node.name)
    twin.start()
    _lasts(cluster, chance)
    twin.kill()
    twin.reboot()


def _is_well(cluster: Cluster) -> None:
    assert eventually(lambda: all(map(cluster.etcd.healthy, range(cluster.stores))))


#: Of one group one at a time. What `loses` has the store forget.
WAYS: dict[str, Befalls] = {
    "a host partitioned from the store": trouble.partitioned,
    "answers of the store lost": answers_lost,
    "two hosts apart": hosts_apart,
    "a host that does not hear another": one_does_not_hear,
    "a third of all packets lost": lossy,
    "a slow wire": slow,
}
STORES: dict[str, Befalls] = {
    "the store stopped": trouble.stopped,
    "the store wiped": trouble.wiped,
    "the store restored from an older backup": trouble.restored,
    "the store's leader alone": minority,
    "the store without a majority": no_majority,
    "members of the store hang": hanging,
    "the store full": full,
}
HOSTS: dict[str, Befalls] = {
    "a member paused longer than a session": trouble.paused,
    "members killed at random": trouble.killed,
    "a clock that jumps": trouble.jumped,
    "a host boots": booted,
    "an agent amiss": agent_amiss,
    "two hosts of one name": one_name,
}
KERNELS: dict[str, Befalls] = {"tunnels deleted": trouble.unlinked, "links down and up": trouble.bounced}
GROUPS = (WAYS, STORES, HOSTS, KERNELS)
LOSES = ("the store wiped", "the store restored from an older backup")
