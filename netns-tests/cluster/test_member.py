"""The member as a process: how it begins, how it ends, what it says of itself, and what it leaves."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from cluster import Cluster, Node
from cluster import conf as clustered
from lab import AGENT_CNI, Lab, eventually, sh

NET = clustered("l2", families="4", block=8)


class Notices:
    """What a service says of itself to who started it."""

    def __init__(self, name: str) -> None:
        self.path = Path(f"/run/{name}-notify")
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self.path))

    def close(self) -> None:
        self._socket.close()
        self.path.unlink()

    def hear(self, beginning: str) -> bool:
        """Whether such a line is said, in time."""
        return eventually(lambda: self._heard(beginning), 20)

    def _heard(self, beginning: str) -> bool:
        with suppress(BlockingIOError):
            while True:
                self.lines += self._socket.recv(4096).decode().splitlines()
        return any(line.startswith(beginning) for line in self.lines)


def test_a_member_says_when_it_is_ready_and_ends_at_once_without_a_trace_of_it_in_the_kernel(lab: Lab):
    with Cluster(lab, hosts=2) as town:
        one, other = town.nodes
        with closing(Notices(lab.name("n"))) as heard:
            one.around = ("env", f"NOTIFY_SOCKET={heard.path}", "WATCHDOG_USEC=9000000")
            town.etcd.kill(0)
            town.configure(one)
            one.start()
            assert heard.hear("READY=1"), heard.lines  # a boot does not wait for the store
            assert "the cluster's store is not reached" in trouble(one)
            assert one.stop() == 0
            assert heard.hear("STOPPING=1")
            heard.lines.clear()
            town.etcd.start(0)
            town.join()
            for line in ("READY=1", f"STATUS=in the cluster as {one.name}, at 192.0.2.11", "WATCHDOG=1"):
                assert heard.hear(line), heard.lines
            town.add(one, NET)
            town.add(other, NET)
            town.sound()
            kernel = [one.routes(4), sh("bridge", "-n", one.name, "fdb", "show").stdout]
            assert heard.hear("READY=1")  # all that was said meanwhile is read: a queue is short
            one.signal(signal.SIGHUP)
            began = time.monotonic()
            assert one.stop() == 0
            assert time.monotonic() - began < 1.5
            assert heard.hear("STOPPING=1"), heard.lines
        assert [one.routes(4), sh("bridge", "-n", one.name, "fdb", "show").stdout] == kernel
        assert town.alive(one)  # its session is left to run out
        assert not (one.folder / "member.sock").exists()
        placed = town.add(one, NET)  # of the blocks it has
        one.around = ()
        town.join(one)
        town.sound()
        wrong = one.cni("ADD", clustered("l2", families="4", block=16), lab.pod())
        assert "16" in wrong.failed(101)
        assert eventually(lambda: one.remembered(lambda store: bool(store.shared()[0][1])))
        one.kill()
        town.join(one)  # what is refused now was agreed once, and pods have it
        town.add(other, NET)
        town.sound()
        town.remove(placed)
        town.settle()


def test_a_member_that_stood_still_or_was_killed_goes_on(lab: Lab):
    with Cluster(lab, hosts=2) as town:
        town.join()
        one, other = town.nodes
        town.add(one, NET)
        town.add(other, NET)
        one.pause()
        assert eventually(lambda: not town.alive(one), 20)
        late = [town.add(one, NET) for _ in range(2)]
        town.remove(late.pop())
        assert town.duplicates() == []
        one.go_on()
        town.sound()
        one.kill()
        town.add(one, NET)
        town.join(one)
        town.sound()


def test_a_name_is_one_machines_and_a_host_has_one_member(lab: Lab):
    with Cluster(lab, hosts=2) as town:
        one, other = town.nodes
        town.join(one)
        second = one.run(AGENT_CNI, "join", check=False)
        assert second.returncode != 0 or one.running
        assert town.joined(one)
        town.configure(other)
        file = other.etc / "agent-cni/cluster.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"node": one.name}))
        other.start()
        assert eventually(lambda: "another machine" in trouble(other), 20), other.said()
        refused = other.cni("ADD", NET, lab.pod()).failed(11)
        assert "another machine" in refused
        assert town.joined(one)


def test_what_a_host_gives_up_its_kernel_cuts_off_though_its_member_stands_still(lab: Lab):
    with Cluster(lab, hosts=2, session=2) as town:
        town.join(freeAfter=8)
        one, other = town.nodes
        here, there, far = (town.add(node, NET) for node in (one, one, other))
        town.sound()
        one.pause()
        assert eventually(lambda: not here.pod.pings(far.address(4), 1), 20)
        assert not here.pod.pings(there.address(4), 1)
        assert "freeAfter" in one.cni("ADD", NET, lab.pod()).failed(11)
        assert eventually(lambda: not [it for it in town.listing() if getattr(it, "node", "") == one.name], 20)
        one.go_on()
        town.sound()
        tables = one.run("nft", "list", "tables").stdout
        assert "inet agent_cni_fence" in tables
        town.join(one, freeAfter=0) if one.stop() == 0 else None
        town.sound()
        assert eventually(lambda: "agent_cni_fence" not in one.run("nft", "list", "tables").stdout, 20)


@pytest.mark.sweep
def test_who_slept_for_too_long_gives_nothing_before_the_store_has_heard_of_it(lab: Lab):
    """CLOCK_BOOTTIME goes on in a sleep, whatever the day's clock says, and no process of the host saw it go by."""
    with Cluster(lab, hosts=2, session=2) as town:
        town.join(freeAfter=600)
        one, other = town.nodes
        here, far = (town.add(node, NET) for node in (one, other))
        town.sound()
        one.kill()
        town.partition(one)
        one.sleep(200)
        town.add(one, NET)
        one.start()
        assert eventually(lambda: "not reached" in trouble(one), 20), one.said()
        one.kill()
        one.sleep(150)
        assert "freeAfter" in one.cni("ADD", NET, lab.pod()).failed(11), "before there is a member, too"
        one.start()
        assert eventually(lambda: "not reached" in trouble(one), 20), one.said()
        assert "freeAfter" in one.cni("ADD", NET, lab.pod()).failed(11)
        assert here.pod.pings(far.address(4), 1), "three quarters are not over"
        one.kill()
        one.sleep(150)
        one.start()
        assert eventually(lambda: not here.pod.pings(far.address(4), 1), 20)
        town.heal()
        assert eventually(lambda: town.joined(one), 20), one.said()
        town.add(one, NET)
        town.sound()


def trouble(node: Node) -> str:
    member = node.remembered(lambda store: store.member())
    return str(member and member.trouble)


def test_a_state_that_is_an_older_copy_or_lost_gives_no_address_of_a_pod_that_lives(lab: Lab):
    with Cluster(lab, hosts=2) as town:
        town.join()
        one, other = town.nodes
        town.add(other, NET)
        town.add(one, NET)
        town.settle()
        copies = one.folder.with_suffix(".copy")
        shutil.copytree(one.folder, copies, ignore=shutil.ignore_patterns("*.sock", "folders"))
        try:
            late = [town.add(one, NET) for _ in range(3)]
            town.sound()
            for restored in (copies, None):
                one.kill()
                one.lose_state()
                for file in restored.glob("state.db*") if restored else ():
                    shutil.copy2(file, one.folder / file.name)
                town.join(one)
                town.settle()
                late += [town.add(one, NET) for _ in range(3)]
                town.sound()
            for placed in late:
                town.remove(placed)
            town.sound()
        finally:
            shutil.rmtree(copies)


def test_a_pod_the_cluster_was_never_told_of_keeps_its_address_when_the_state_is_lost(lab: Lab):
    with Cluster(lab, hosts=2) as town:
        town.join()
        one, other = town.nodes
        town.add(other, NET)
        town.add(one, NET)
        town.settle()
        town.partition(one)
        late = [town.add(one, NET) for _ in range(3)]
        one.kill()
        one.lose_state()
        town.heal()
        town.join(one)
        late += [town.add(one, NET) for _ in range(3)]
        town.sound()
        town.meshed()
        for placed in late:
            town.remove(placed)
        town.settle()
        assert len(one.remembered(lambda store: store.all_leases())) == 1, "the first pod's"
        town.sound()
