"""Keys of etcd: whatever is of a block is one range, and no name gets out of its place."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.cluster.etcd.gateway import Row
from cni.cluster.etcd.items import told
from cni.cluster.etcd.keys import Keys
from cni.cluster.fields import Malformed
from cni.cluster.model import Block, Key

KEYS = Keys("/agent-cni")
NAMES = st.text(min_size=1, max_size=8) | st.sampled_from(["a", "a/b", "..", "%2F", "pods", "pods/4-0a", "\ud800"])
ADDRESSES = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(IPv6Address, st.integers(0, 2**128 - 1))


def block(address: IPv4Address | IPv6Address, bits: int, network: str = "pods") -> Block:
    return Block(network, str(ip_network((address, address.max_prefixlen - bits), strict=False)), "n", "m")


@given(NAMES, NAMES, ADDRESSES, st.integers(0, 12))
def test_a_key_comes_back_as_it_was(one: str, other: str, address: IPv4Address | IPv6Address, bits: int):
    for key in (
        ("nodes", one), ("alive", one), ("networks", one), ("turn", one),
        block(address, bits, one).key, ("addresses", one, str(address)),
    ):  # fmt: skip
        at = KEYS.of(key)
        assert KEYS.key(at) == key
        assert at.count(b"/") == len(key) + 1
        assert at.isascii()
    assert (KEYS.of(("nodes", one)) == KEYS.of(("nodes", other))) == (one == other)


@given(ADDRESSES, st.integers(0, 12), st.integers(0, 12), st.integers(-5000, 5000))
def test_what_overlaps_a_block_is_found_and_nothing_else(
    address: IPv4Address | IPv6Address, bits: int, other_bits: int, away: int
):
    there = int(address) + away
    if not 0 <= there < 2**address.max_prefixlen:
        return
    one, other = block(address, bits), block(type(address)(there), other_bits)
    within, around = KEYS.overlapping(one)
    at = KEYS.of(other.key)
    assert (within.first <= at < within.end or at in around) == one.addresses.overlaps(other.addresses)
    assert len(around) <= 12
    elsewhere = KEYS.of(("blocks", "pods-2", other.span))
    assert elsewhere not in around
    assert elsewhere < within.first or elsewhere >= within.end


@given(ADDRESSES, st.integers(0, 12), st.integers(-5000, 5000))
def test_endpoints_of_a_block_are_one_range(address: IPv4Address | IPv6Address, bits: int, away: int):
    there = int(address) + away
    if not 0 <= there < 2**address.max_prefixlen:
        return
    one, endpoint = block(address, bits), type(address)(there)
    within = KEYS.endpoints(one)
    assert (within.first <= KEYS.of(("addresses", "pods", str(endpoint))) < within.end) == (endpoint in one.addresses)
    everything = KEYS.all()
    assert everything.first < within.first < within.end < everything.end


def test_endpoints_are_apart_from_all_else_which_is_one_range():
    rest, everything = KEYS.all_but_endpoints(), KEYS.all()
    assert everything.first < rest.first < rest.end == everything.end
    for name in ("a", "~", "zz", "\x7f", "é"):
        assert KEYS.of(("addresses", name, "255.255.255.255")) < rest.first
        for room in ("alive", "networks", "nodes"):
            assert rest.first < KEYS.of((room, name)) < rest.end
        assert rest.first < KEYS.of(("blocks", name, "10.0.0.0/24")) < rest.end


def test_families_are_apart():
    six = ip_address("a0a:540::")
    assert not set(KEYS.overlapping(block(six, 6))[1]) & {KEYS.of(block(ip_address("10.10.5.64"), 6).key)}


@pytest.mark.parametrize(
    "path",
    [
        "nodes", "nodes/", "nodes/a/b", "nodes/a%2fb", "nodes/%41", "nodes/%4", "nodes/%zz", "nodes/ö", "blocks/pods",
        "blocks/pods/4-0a0a0540", "blocks/pods/4-0a0a0541-26", "blocks/pods/4-0A0A0540-26", "blocks/pods/4-0a0a0540-33",
        "blocks/pods/6-0a0a0540-26", "blocks/pods/5-0a0a0540-26", "blocks/pods/4-0a0a0540-026", "blocks/pods/4-0a0a0540-26/x",
        "addresses/pods/4-0a0a0540-26", "addresses/pods/4-0a0a05", "addresses/pods/4-zzzzzzzz", "addresses//4-0a0a0540", "addresses/pods/",
    ],
)  # fmt: skip
def test_a_key_nobody_would_make_is_named(path: str):
    with pytest.raises(Malformed, match=f"{path} in the store"):
        KEYS.key(b"/agent-cni/" + path.encode())
    found = told(KEYS, [Row(b"/agent-cni/" + path.encode(), b"{}", 1, 1, "0"), b"/agent-cni/" + path.encode()])
    assert (found.items, found.gone, len(found.refused)) == ((), (), 1)


def test_rooms_of_a_later_release_and_bytes_of_no_text_end_nothing():
    rows = [
        Row(b"/agent-cni/later/a/b/c", b"\xff", 1, 1, "0"),
        Row(b"/agent-cni/nodes/\xff", b"{}", 1, 1, "0"),
        Row(b"/agent-cni/nodes/a", b"\xff\xfe", 1, 1, "0"),
        Row(b"/agent-cni/nodes/deep", b"[" * 100_000, 1, 1, "0"),
        b"/elsewhere",
    ]
    found = told(KEYS, rows)
    assert (found.items, found.gone) == ((), ())
    assert [line.split(" ")[0] for line in found.refused] == [
        "nodes/\N{REPLACEMENT CHARACTER}",
        "nodes/a",
        "nodes/deep",
        "b'/elsewhere'",
    ]


def test_the_newest_word_of_a_key_counts():
    key: Key = ("alive", "a")
    row = Row(KEYS.of(key), b'{"token": "t"}', 1, 1, "0")
    assert told(KEYS, [row, row.key]).gone == (key,)
    again = told(KEYS, [row.key, row])
    assert (again.gone, [item.key for item in again.items]) == ((key,), [key]), "what went with it is gone all the same"
