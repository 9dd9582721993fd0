"""Addresses and labels: what is asked is what pyroute2 makes of the same, and what is read is what was said."""

from __future__ import annotations

import sys
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import netlink_line as line
import pyroute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.kernel.netlink.addresses import address_of
from cni.kernel.netlink.labels import label_of
from cni.kernel.netlink.wire import CREATE, DUMP, EXCLUSIVE
from cni.kernel.view import MEMBER, HeldAddress, LinkRef

NUMBERS = st.integers(1, (1 << 31) - 1)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
FAMILY = {4: 2, 6: 10}
FOREVER = {"ifa_preferred": 0, "ifa_valid": 0xFFFFFFFF}


def encoded(verb: int, how: int, address: Any, prefix: int, index: int, **more: Any) -> bytes:
    own = {"IFA_LOCAL": str(address), "IFA_ADDRESS": str(address), **more}
    place = {"family": FAMILY[address.version], "index": index, "prefixlen": prefix}
    return pyroute.encoded(pyroute.ADDRESS, verb, how, own.items(), **place)


def test_a_question_for_the_addresses_of_a_link():
    wanted = pyroute.encoded(pyroute.ADDRESS, pyroute.GET, DUMP, index=3)
    assert line.request_of(lambda rtnl: rtnl.addresses(LinkRef(3, "lo"))) == wanted


def test_who_holds_an_address_is_found_among_all():
    kernel = line.Line(*(encoded(pyroute.NEW, 0, ip_address(f"192.0.2.{n}"), 24, n) for n in (1, 2)))
    rtnl = line.speaking(kernel)
    assert [rtnl.link_holding(ip_address(f"192.0.2.{n}")) for n in (1, 2, 3)] == [1, 2, 0]
    assert kernel.requests[0] == pyroute.encoded(pyroute.ADDRESS, pyroute.GET, DUMP)


@given(NUMBERS, ADDRESSES, st.integers(0, 32), st.booleans(), st.booleans())
def test_an_address_is_added(index: int, address: Any, prefix: int, nodad: bool, deprecated: bool):
    interface, link = ip_interface((address, prefix)), LinkRef(index, "x")
    known = interface.version == 4 and prefix < 31
    more = {
        "IFA_BROADCAST": str(interface.network.broadcast_address) if known else None,
        "IFA_FLAGS": 2 if nodad else None,
        "IFA_CACHEINFO": FOREVER if deprecated else None,
    }
    ours = line.request_of(lambda rtnl: rtnl.add_address(link, interface, nodad=nodad, deprecated=deprecated))
    assert ours == encoded(pyroute.NEW, CREATE | EXCLUSIVE, address, prefix, index, **more)


@given(NUMBERS, ADDRESSES, st.integers(0, 32))
def test_an_address_says_who_made_it(index: int, address: Any, prefix: int):
    """IFA_PROTO, which pyroute2 does not know: it is the rest, and one attribute more."""
    interface, link = ip_interface((address, prefix)), LinkRef(index, "x")
    plain = line.request_of(lambda rtnl: rtnl.add_address(link, interface))
    ours = line.request_of(lambda rtnl: rtnl.add_address(link, interface, protocol=MEMBER))
    assert ours[4:] == plain[4:] + b"\x05\x00\x0b\x00\xac\x00\x00\x00"
    assert int.from_bytes(ours[:4], sys.byteorder) == len(ours)
    assert address_of(ours).protocol == MEMBER


@given(NUMBERS, ADDRESSES, st.integers(0, 32), st.integers(0, 255))
def test_an_address_is_of_a_scope(index: int, address: Any, prefix: int, scope: int):
    interface = ip_interface((address, prefix))
    ours = line.request_of(lambda rtnl: rtnl.add_address(LinkRef(index, "x"), interface, scope=scope))
    _, _, said = pyroute.decoded(ours)
    assert (said["scope"], said["index"], said["prefixlen"]) == (scope, index, prefix)
    assert address_of(ours).scope == scope


@given(NUMBERS, ADDRESSES, st.integers(0, 32))
def test_an_address_is_deleted(index: int, address: Any, prefix: int):
    interface, link = ip_interface((address, prefix)), LinkRef(index, "x")
    ours = line.request_of(lambda rtnl: rtnl.delete_address(link, interface))
    assert ours == encoded(pyroute.DELETE, 0, address, prefix, index)


@pytest.mark.parametrize(("text", "nodad", "family"), [("10.0.0.2/16", False, 2), ("fd00::2/64", True, 10)])
def test_an_address(text: str, nodad: bool, family: int):
    added = line.request_of(lambda rtnl: rtnl.add_address(LinkRef(3, "x"), ip_interface(text), nodad=nodad))
    kind, how, message = pyroute.decoded(added)
    assert (kind, how, message["family"], message["index"]) == (20, 0x605, family, 3)
    found = pyroute.said(message)
    assert f"{found['LOCAL']}/{message['prefixlen']}" == f"{found['ADDRESS']}/{message['prefixlen']}" == text
    assert found.get("FLAGS") == (2 if nodad else None)


@given(ADDRESSES, st.integers(0, 32), st.booleans(), st.booleans())
def test_an_address_is_read_as_it_is_said(address: Any, prefix: int, tentative: bool, duplicate: bool):
    flags = 0x40 * tentative | 0x08 * duplicate
    message = encoded(pyroute.NEW, 0, address, prefix, 3, IFA_FLAGS=flags)
    assert address_of(message) == HeldAddress(ip_interface((address, prefix)), tentative, duplicate)


def test_the_other_end_of_a_point_to_point_address_is_not_taken_for_it():
    ends = [("IFA_LOCAL", "10.9.1.1"), ("IFA_ADDRESS", "10.9.1.2")]
    message = pyroute.encoded(pyroute.ADDRESS, pyroute.NEW, 0, ends, family=2, index=3, prefixlen=32)
    assert str(address_of(message).interface) == "10.9.1.1/32"


@given(st.ip_addresses(v=6), st.integers(0, 128), NUMBERS)
def test_an_address_label_is_read_as_it_is_said(address: Any, length: int, label: int):
    prefix = ip_network(f"{address}/{length}", strict=False)
    for speak in (lambda rtnl: rtnl.add_label(prefix, label), lambda rtnl: rtnl.delete_label(prefix, label)):
        assert label_of(line.request_of(speak)) == (str(prefix), label)


def test_labels_by_prefix():
    prefixes = [(ip_network("fc00::/7"), 5), (ip_network("::/0"), 1)]
    messages = [line.request_of(lambda rtnl, said=said: rtnl.add_label(*said)) for said in prefixes]
    assert line.speaking(line.Line(*messages)).labels() == {"fc00::/7": 5, "::/0": 1}
