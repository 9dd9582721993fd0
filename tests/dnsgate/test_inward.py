from __future__ import annotations

import ipaddress

import pytest

from cni.dnsgate.inward import Inward


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


@pytest.fixture
def inward() -> Inward:
    found = Inward()
    found._addresses = frozenset([ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")])
    found._networks = frozenset([ipaddress.ip_network("10.1.0.0/24"), ipaddress.ip_network("fd00:1::/64")])
    return found


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.1", "2001:db8::1", "10.1.0.9", "fd00:1::9", "127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "ff02::1", "::ffff:10.1.0.9", "::ffff:127.0.0.1", "64:ff9b::10.1.0.9", "64:ff9b:1::10.1.0.9",
        "2002:a01:9::1", "2002:7f00:1::",
    ],
)  # fmt: skip
def test_no_answer_lets_a_pod_reach_the_node_or_pods_however_it_is_spelled(inward: Inward, text: str):
    assert inward.has(packed(text), ())


@pytest.mark.parametrize("text", ["192.0.2.2", "2001:db8::2", "10.2.0.9", "2002:cb00:7109::1", "64:ff9b::203.0.113.9"])
def test_others_are_not_inward_and_nor_is_what_is_said(inward: Inward, text: str):
    assert not inward.has(packed(text), ())
    assert not inward.has(packed("10.1.0.9"), (ipaddress.ip_network("10.1.0.0/28"),))
    assert inward.has(packed("10.1.0.99"), (ipaddress.ip_network("10.1.0.0/28"),))
