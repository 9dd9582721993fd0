"""What is packed by hand is, byte for byte, what pyroute2's codec makes of the same."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.kernel import codec, messages, packing
from cni.kernel.channel import CREATE, EXCLUSIVE

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_é", min_size=1, max_size=7)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
NUMBERS = st.integers(1, (1 << 31) - 1)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def spelled(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(f"IFLA_{name.upper()}", value) for name, value in settings.items()]


@given(st.one_of(st.just(""), NAMES), st.one_of(st.just(0), NUMBERS))
def test_a_question_for_a_link(name: str, index: int):
    wanted = [("IFLA_IFNAME", name or None), ("IFLA_EXT_MASK", 8)]
    assert packing.link(name, index) == bytes(codec.encoded(codec.LINK, codec.GET, 0, wanted, index=index))


@given(NAMES, MACS, NUMBERS, st.one_of(st.just(0), NUMBERS), NAMES, MACS, NUMBERS)
def test_a_veth(name: str, mac: str, mtu: int, bridge: int, inside: str, its_mac: str, fd: int):
    peer = {"ifname": inside, "address": its_mac, "mtu": mtu, "net_ns_fd": fd}
    data = codec.nested([("VETH_INFO_PEER", codec.nested(spelled(peer)))])
    info = codec.nested([("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)])
    own = {"ifname": name, "mtu": mtu, "address": mac, "master": bridge or None}
    wanted = [*spelled(own), ("IFLA_LINKINFO", info)]
    theirs = codec.encoded(codec.LINK, codec.NEW, CREATE | EXCLUSIVE, wanted, flags=1, change=1)
    assert packing.veth(name, mac, mtu, bridge, peer) == bytes(theirs)


@pytest.mark.parametrize("up", [True, False])
@given(
    NUMBERS,
    st.fixed_dictionaries(
        {}, optional={"mtu": NUMBERS, "master": st.integers(0, 99), "address": MACS, "ifalias": NAMES}
    ),
)
def test_a_change_of_a_link(up: bool, index: int, settings: dict[str, Any]):
    flags = {"flags": 1, "change": 1} if up else {}
    theirs = codec.encoded(codec.LINK, codec.NEW, 0, spelled(settings), index=index, **flags)
    assert packing.link_change(index, up, settings) == bytes(theirs)


@given(NUMBERS, ADDRESSES, st.integers(0, 32), st.booleans())
def test_an_address(index: int, address: Any, prefix: int, nodad: bool):
    own = [("IFA_LOCAL", str(address)), ("IFA_ADDRESS", str(address)), ("IFA_FLAGS", 2 if nodad else None)]
    place = {"family": {4: 2, 6: 10}[address.version], "index": index, "prefixlen": prefix}
    theirs = codec.encoded(codec.ADDRESS, codec.NEW, CREATE | EXCLUSIVE, own, **place)
    assert packing.new_address(index, ip_interface((address, prefix)), nodad) == bytes(theirs)


@given(st.ip_addresses(v=6), st.integers(0, 128), NUMBERS)
def test_an_address_label_is_read_as_it_is_said(address: Any, length: int, label: int):
    prefix = ip_network(f"{address}/{length}", strict=False)
    for request in (packing.new_label(prefix, label), packing.label_deletion(prefix, label)):
        assert messages.label_of(request) == (str(prefix), label)
