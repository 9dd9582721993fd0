"""A link's deletion, with the kernel's answer still to come."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from lab import Lab, sh

from cni.errors import KernelRefused
from cni.kernel import kept
from cni.kernel.locks import LockFile
from cni.kernel.netlink import Rtnl
from cni.kernel.netlink.departures import departures
from cni.kernel.netns import Netns
from cni.resources import World


@pytest.fixture(autouse=True)
def serves_many(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kept, "serves_many", True)
    kept.close()
    yield
    kept.close()
    assert departures.pending == 0


def veth(name: str, pod: str) -> None:
    sh("ip", "link", "add", name, "up", "type", "veth", "peer", "name", "eth0", "netns", pod)


def test_both_ends_are_gone_for_everybody_before_the_kernel_answers(lab: Lab):
    pod, links, early = lab.pod(), Rtnl.kept(), 0
    for number in range(8):
        veth(name := f"departs{number}", pod.name)
        links.delete_link(links.link_by_name(name))
        early += bool(departures.pending)
        assert links.link_by_name(name) is None
        assert not Path("/sys/class/net", name).exists()
        assert not Path("/proc/sys/net/ipv4/conf", name).exists()
        assert pod.link("eth0") is None
        veth(name, pod.name)  # the name is free
        links.delete_link(links.link_by_name(name))
    links.give_back()
    assert early, "the kernel waits for a grace period, which nobody should"


def test_a_link_in_a_pod_is_gone_before_the_kernel_answers_and_its_namespace_is_let_go(lab: Lab, tmp_path: Path):
    pod, early, fds = lab.pod(), 0, descriptors()
    sh("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    for _ in range(8):
        sh("ip", "link", "add", "link", "wire0", "name", "eth0", "netns", pod.name, "type", "macvlan")
        with (
            closing(Netns(pod.path)) as netns,
            closing(LockFile(tmp_path / "lock")) as lock,
            closing(World(netns, lock)) as world,
        ):
            world.pod.delete_link(world.pod.link_by_name("eth0"))
            early += bool(departures.pending)
            assert world.pod.link_by_name("eth0") is None
    kept.close()
    sh("ip", "link", "del", "wire0")
    assert early, "the kernel waits for a grace period, which nobody should"
    assert descriptors() == fds, "whose namespace is kept cannot go"


def descriptors() -> set[str]:
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def test_a_refusal_is_told_as_ever():
    links = Rtnl.kept()
    with pytest.raises(KernelRefused, match="delete lo: ") as refused:
        links.delete_link(links.link_by_name("lo"))
    assert refused.value.errno in (errno.EPERM, errno.EOPNOTSUPP)
    links.give_back()


def test_one_that_is_gone_already_is_deleted(lab: Lab):
    links = Rtnl.kept()
    veth("departs", lab.pod().name)
    link = links.link_by_name("departs")
    sh("ip", "link", "del", "departs")
    links.delete_link(link)
    links.give_back()


def test_a_process_that_serves_one_call_has_no_thread(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "serves_many", False)
    links = Rtnl.kept()
    veth("departs", lab.pod().name)
    links.delete_link(links.link_by_name("departs"))
    assert departures.pending == 0
    links.give_back()
