"""Ports of pods whose addresses are another host's by now."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from cluster_memory import Memory
from member_host import Host, network
from rtnl import FakeRtnl

from cni.kernel.netlink import Rtnl
from cni.member.cutoff import CutOff
from cni.naming import Attachment
from cni.state.membership import HELD, LOST

NET = network()
PORTS = [Attachment("net", f"c{number}", "eth0").host_interface for number in range(2)]


class Kernel(FakeRtnl):
    def give_back(self) -> None: ...


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeRtnl:
    """It has a port for each of two pods, and one that is down and nobody's."""
    made = Kernel()
    monkeypatch.setattr(Rtnl, "kept", lambda: made)
    for port in PORTS:
        made.add(port)
    made.add("down0", up=False)
    return made


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host("node-a", Memory(), tmp_path)
    made.share(NET)
    made.turn(2)
    assert made.add("c0", NET)
    assert made.add("c1", NET)
    return made


def say(host: Host, what: str) -> None:
    """Of all its blocks."""
    with closing(host.state) as state, state.transaction():
        for holding in state.blocks():
            state.put_block(holding.block, what)


def keep(cut_off: CutOff, host: Host) -> None:
    with closing(host.state) as state:
        cut_off.keep(state)


def are_up(kernel: FakeRtnl) -> list[bool]:
    return [kernel.all[port].up for port in PORTS]


def test_they_are_down_as_long_as_that_is_so(kernel: FakeRtnl, host: Host):
    cut_off = CutOff()
    keep(cut_off, host)
    assert are_up(kernel) == [True, True]
    assert kernel.asked == []
    say(host, LOST)
    keep(cut_off, host)
    assert are_up(kernel) == [False, False]
    kernel.set_link(kernel.all[PORTS[0]], up=True)
    keep(cut_off, host)
    assert are_up(kernel) == [False, False], "whoever sets them up"
    say(host, HELD)
    keep(cut_off, host)
    assert are_up(kernel) == [True, True]
    assert not kernel.all["down0"].up


def test_another_process_sets_them_up_again(kernel: FakeRtnl, host: Host):
    """The block came back while no member ran, or the state is another: its pods were without a network until they were deleted."""
    say(host, LOST)
    keep(CutOff(), host)
    host.delete("c1", NET)  # the runtime has yet to take its link
    say(host, HELD)
    again = CutOff()
    keep(again, host)
    assert are_up(kernel) == [True, True]
    kernel.asked.clear()
    keep(again, host)
    keep(CutOff(), host)
    assert kernel.asked == [], "it is done, and known to be"
    assert not kernel.all["down0"].up, "somebody else's business"


@pytest.mark.parametrize("step", range(1, 5))
def test_each_step_can_be_the_last(kernel: FakeRtnl, host: Host, step: int, monkeypatch: pytest.MonkeyPatch):
    class Killed(BaseException):
        """kill -9."""

    left = step

    def dying(name: str) -> None:
        asked = getattr(FakeRtnl, name)

        def ask(self: FakeRtnl, *args: object, **options: object) -> None:
            nonlocal left
            asked(self, *args, **options)
            left -= 1
            if not left:
                raise Killed

        monkeypatch.setattr(Kernel, name, ask, raising=False)

    host.delete("c1", NET)
    dying("set_link")
    dying("set_down")
    for what in (LOST, HELD):
        say(host, what)
        cut_off = CutOff()
        try:
            keep(cut_off, host)
        except Killed:
            keep(CutOff(), host)
        assert kernel.all[PORTS[0]].up == (what == HELD)
    assert left <= 0
    assert kernel.all[PORTS[0]].alias == ""
