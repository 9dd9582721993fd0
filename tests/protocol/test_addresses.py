from __future__ import annotations

import pytest

from cni.protocol import addresses
from cni.protocol.result import Result


@pytest.mark.parametrize(
    "text", ["::ffff:10.9.0.1", "::ffff:a09:1", "0:0:0:0:0:ffff:10.9.0.1", "fe80::1%eth0", 5, None, [], ""]
)
def test_what_others_take_for_another_address_is_none(text: object):
    with pytest.raises(ValueError, match=r"."):
        addresses.address(text)
    with pytest.raises(ValueError, match=r"."):
        addresses.interface(f"{text}/120")
    with pytest.raises(ValueError, match=r"."):
        addresses.interface(text)


def test_a_mapped_one_is_explained():
    with pytest.raises(ValueError, match="is an IPv4 address in IPv6's spelling"):
        addresses.network("::ffff:10.9.0.0/120")


@pytest.mark.parametrize("text", ["10.9.0.1", "fd00::1", "::", "0.0.0.0", "::1", "64:ff9b::a09:1", "2002:a09:1::"])
def test_an_address_is_one(text: str):
    assert str(addresses.address(text)) == text
    assert str(addresses.interface(f"{text}/32")) == f"{text}/32"


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "::/95", "10.0.0.0/8"])
def test_a_network_is_one(text: str):
    assert str(addresses.network(text)) == text


def test_a_resolver_may_have_a_zone_which_rules_do_not_see():
    result = Result.read({"dns": {"nameservers": ["fe80::1%eth0", "10.9.0.3"]}})
    assert result.dns.nameservers == ("fe80::1%eth0", "10.9.0.3")
    assert result.dns.resolvers == ("fe80::1", "10.9.0.3")
