"""Whether neighbours answer: what is asked is what pyroute2 makes of the same, and what is read is what the kernel says."""

from __future__ import annotations

import errno
from unittest import mock

import netlink_line as line
import pyroute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.errors import KernelRefused
from cni.kernel.netlink.wire import CREATE, REPLACE
from cni.kernel.view import ANSWERS, ASKED, FIXED, SILENT, LinkRef

LINK = LinkRef(5, "eth0")
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
USE = 0x01
#: linux/neighbour.h
INCOMPLETE, REACHABLE, STALE, DELAY, PROBE, FAILED, NOARP, PERMANENT = (1 << number for number in range(8))


def neighbour(verb: int, how: int, address: str, state: int = 0, flags: int = 0) -> bytes:
    fields = {"family": 10 if ":" in address else 2, "ifindex": 5, "state": state, "flags": flags}
    return pyroute.encoded(pyroute.NEIGHBOUR, verb, how, [("NDA_DST", address)], **fields)


def asking(address: str) -> list[bytes]:
    return [neighbour(pyroute.NEW, REPLACE, address, FAILED), neighbour(pyroute.NEW, CREATE, address, flags=USE)]


@given(ADDRESSES)
def test_one_is_asked_alone_after_it_is_doubted(address: str):
    asked = line.requests_of(lambda rtnl: rtnl.ask_again(LINK, address))
    assert asked == [neighbour(pyroute.NEW, REPLACE, address, state) for state in (STALE, PROBE)]


@given(ADDRESSES)
def test_everybody_is_asked_as_for_a_packet_whoever_answered_so_far(address: str):
    asked = line.requests_of(lambda rtnl: rtnl.ask_all(LINK, address))
    assert asked == asking(address)


@given(ADDRESSES)
def test_an_address_is_announced_by_asking_for_it_once(address: str):
    asked = line.requests_of(lambda rtnl: rtnl.announce(LINK, address))
    assert asked == [*asking(address), neighbour(pyroute.DELETE, 0, address)]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (0, SILENT), (INCOMPLETE, ASKED), (REACHABLE, ANSWERS), (STALE, ANSWERS), (DELAY, ANSWERS), (PROBE, ASKED),
        (FAILED, SILENT), (NOARP, FIXED), (PERMANENT, FIXED),
    ],
)  # fmt: skip
def test_what_the_kernel_knows_of_one(state: int, said: str):
    rtnl = line.speaking(kernel := line.Line(neighbour(pyroute.NEW, 0, "192.0.2.1", state)))
    assert rtnl.reachability(LINK, "192.0.2.1") == said
    assert kernel.requests == [neighbour(pyroute.GET, 0, "192.0.2.1")]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.EINVAL])
def test_one_that_is_not_known_is_silent(number: int):
    rtnl = line.speaking(kernel := line.Line())
    with mock.patch.object(kernel, "question", side_effect=KernelRefused("no", number)):
        assert rtnl.reachability(LINK, "192.0.2.1") == SILENT


def test_what_else_the_kernel_refuses_is_told():
    rtnl = line.speaking(kernel := line.Line())
    with (
        mock.patch.object(kernel, "question", side_effect=KernelRefused("no", errno.EPERM)),
        pytest.raises(KernelRefused),
    ):
        rtnl.reachability(LINK, "192.0.2.1")
