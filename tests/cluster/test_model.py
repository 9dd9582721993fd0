"""What others wrote is read with refusal by name."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from cni.cluster.blocks import capacity, host_address
from cni.cluster.fields import Malformed
from cni.cluster.model import Block, Key, Network, read

SCOPED = "2001:db8::1%x } ; flush ruleset ; {"
POOL = {"subnet": "fd00::/64", "first": "fd00::1", "last": "fd00::9", "gateway": ""}
NETWORK = {"pools": [POOL], "block": 64, "mode": "l2", "vni": 1, "reserved": []}
OWNER = {"node": "a", "machine": "m"}
NODE = {"machine": "m", "vtep": "192.0.2.1", "mac": "0a:00:00:00:00:01"}


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        (("nodes", "a"), NODE | {"vtep": SCOPED}),
        (("blocks", "net", f"{SCOPED}/64"), {"node": "a", "machine": "m"}),
        (("addresses", "net", SCOPED), {"node": "a", "mac": NODE["mac"]}),
        *(
            (("networks", "net"), NETWORK | {"pools": [POOL | {name: text}]})
            for name, text in (("subnet", f"{SCOPED}/64"), ("first", SCOPED), ("last", SCOPED), ("gateway", SCOPED))
        ),
        (("networks", "net"), NETWORK | {"reserved": [f"{SCOPED}-fd00::9"]}),
    ],
)
def test_an_address_with_a_scope_is_refused_wherever_it_is(key: Key, raw: dict[str, Any]):
    """Python takes any text for a scope, and with it what comes into a script of rules."""
    with pytest.raises(Malformed, match="has a scope"):
        read(key, raw)


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        *((("networks", "net"), NETWORK | {"block": size}) for size in (-8, 0, 4, 48, 8192, 1 << 64, True)),
        *((("networks", "net"), NETWORK | {"vni": vni}) for vni in (-1, 1 << 24)),
        *((("networks", "net"), NETWORK | {"port": port}) for port in (0, 1 << 16, "4789", None)),
        *(
            (("networks", "net"), NETWORK | {"pools": [POOL | ends]})
            for ends in (
                {"first": "fd00::9", "last": "fd00::1"},
                {"first": "10.0.0.1", "last": "10.0.0.9"},
                {"last": "fd00:0:0:1::"},
                {"gateway": "10.0.0.1"},
            )
        ),
        *((("blocks", "net", span), OWNER) for span in ("10.0.0.0/16", "10.0.0.0/19", "::/0", "10.0.0.1/24")),
        *((("nodes", "a"), NODE | {"fences": seconds}) for seconds in (-5, 1 << 31, 10**400, 60.0)),
    ],
)
def test_what_no_host_can_have_said_is_refused(key: Key, raw: dict[str, Any]):
    with pytest.raises(Malformed):
        read(key, raw)


def test_a_network_without_a_port_has_vxlans_own():
    """So a release wrote it that knew of no port."""
    assert read(("networks", "net"), NETWORK) == read(("networks", "net"), NETWORK | {"port": 4789})
    assert read(("networks", "net"), NETWORK) != read(("networks", "net"), NETWORK | {"port": 8472})


@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize("span", ["fd00::/128", "fd00::2/127", "fd00::/116", "10.0.0.0/32", "10.0.0.0/31"])
def test_a_block_of_another_size_has_a_host_address_and_a_capacity(span: str, mode: str):
    network, block = read(("networks", "net"), NETWORK | {"mode": mode}), read(("blocks", "net", span), OWNER)
    assert isinstance(network, Network)
    assert isinstance(block, Block)
    assert ipaddress.ip_address(host_address(network, block.span)) in block.addresses
    assert capacity(network, block.span) >= 0
