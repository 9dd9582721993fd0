"""Announcements that are said when a call is answered: what the kernel itself would say, by the link that they are of."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from lab import Lab, Pod, eventually, sh

from cni.kernel import kept
from cni.kernel.announcements import announcements
from cni.kernel.locks import LockFile
from cni.kernel.netns import Netns
from cni.resources import Announcement, World

MAC, OTHER = "0a:00:00:00:00:11", "0a:00:00:00:00:22"
ADDRESSES = [ipaddress.ip_address(text) for text in ("10.9.0.5", "fd00:9::5")]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    kept.close()
    yield
    kept.close()


@pytest.fixture
def pod(lab: Lab) -> Iterator[Pod]:
    """One that has both addresses, at the end of a wire whose other end is here."""
    made = lab.pod()
    sh("ip", "link", "add", "heard", "up", "type", "veth", "peer", "name", "eth0", "address", MAC, "netns", made.name)
    made.run("ip", "link", "set", "eth0", "up")
    made.run("ip", "addr", "add", "10.9.0.5/24", "dev", "eth0")
    made.run("ip", "addr", "add", "fd00:9::5/64", "dev", "eth0", "nodad")
    yield made
    sh("ip", "link", "del", "heard", check=False)


@contextmanager
def heard() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        wire.bind(("heard", 3))
        wire.settimeout(0.3)
        yield wire


def said(wire: socket.socket) -> list[bytes]:
    """Frames about one of the two addresses, in order, until there are no more."""
    found = []
    try:
        while True:
            frame = wire.recv(256)
            if any(address.packed in frame for address in ADDRESSES):
                found.append(frame)
    except TimeoutError:
        return found


def begin(pod: Pod) -> None:
    with closing(Netns(pod.path)) as netns, netns.entered():
        assert announcements.begin("eth0", ADDRESSES)


def test_it_is_what_the_kernel_says_where_a_mac_is_set(pod: Pod):
    pod.run("sysctl", "-qw", "net.ipv4.conf.eth0.arp_notify=1", "net.ipv6.conf.eth0.ndisc_notify=1")
    with heard() as wire:
        pod.run("ip", "link", "set", "eth0", "address", MAC)
        by_kernel = said(wire)
        begin(pod)
        assert said(wire) == [], "not before the call is answered"
        kept.let_go()
        assert said(wire) == by_kernel
    assert len(by_kernel) == len(ADDRESSES)


def test_it_names_the_mac_the_link_has_by_then(pod: Pod):
    begin(pod)
    pod.run("ip", "link", "set", "eth0", "address", OTHER)
    with heard() as wire:
        kept.let_go()
        frames = said(wire)
    assert {frame[6:12].hex(":") for frame in frames} == {OTHER}
    assert all(bytes.fromhex(MAC.replace(":", "")) not in frame for frame in frames)


@pytest.mark.parametrize(
    "change", [("del", "eth0"), ("set", "eth0", "down"), ("set", "eth0", "netns", "1")], ids=" ".join
)
def test_a_link_that_is_gone_says_nothing(pod: Pod, lab: Lab, change: tuple[str, ...]):
    begin(pod)
    other = lab.pod()
    pod.run("ip", "link", *[other.name if word == "1" else word for word in change])
    with heard() if change[0] != "del" else closing(socket.socket()) as wire:
        kept.let_go()
        if change[0] != "del":
            assert said(wire) == []
    assert eventually(lambda: not announcements.pending)


def test_where_there_is_no_such_link_the_kernel_is_to_say_it(pod: Pod):
    with closing(Netns(pod.path)) as netns, netns.entered():
        assert not announcements.begin("eth7", ADDRESSES)
    assert not announcements.pending


def test_a_process_that_serves_many_calls_leaves_the_mac_and_the_neighbours_as_they_are(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The kernel forgets all neighbours of a link whose MAC is set, and a plugin of the chain may have set another by then."""
    monkeypatch.setattr(kept, "serves_many", True)
    with (
        closing(Netns(pod.path)) as netns,
        closing(LockFile(tmp_path / "lock")) as lock,
        closing(World(netns, lock)) as world,
    ):
        Announcement("eth0", MAC, tuple(map(str, ADDRESSES))).ensure(world)
    pod.run("ip", "link", "set", "eth0", "address", OTHER)
    pod.run("ip", "neigh", "add", "10.9.0.9", "lladdr", OTHER, "dev", "eth0", "nud", "permanent")
    with heard() as wire:
        kept.let_go()
        assert len(said(wire)) == len(ADDRESSES)
    assert pod.link("eth0")["address"] == OTHER
    assert pod.ip("neigh", "show", "10.9.0.9")
