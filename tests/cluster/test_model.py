"""What others wrote is read with refusal by name."""

from __future__ import annotations

from typing import Any

import pytest

from cni.cluster.model import Key, Malformed, read

SCOPED = "2001:db8::1%x }\nflush ruleset\n{"
POOL = {"subnet": "fd00::/64", "first": "fd00::1", "last": "fd00::9", "gateway": ""}
NODE = {"machine": "m", "vtep": "192.0.2.1", "mac": "0a:00:00:00:00:01"}


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        (("nodes", "a"), NODE | {"vtep": SCOPED}),
        (("blocks", "net", f"{SCOPED}/64"), {"node": "a", "machine": "m"}),
        (("endpoints", "net", SCOPED), {"node": "a", "mac": NODE["mac"]}),
        *(
            (("networks", "net"), {"pools": [POOL | {name: text}], "block": 64, "mode": "l2", "vni": 1, "reserved": []})
            for name, text in (("subnet", f"{SCOPED}/64"), ("first", SCOPED), ("last", SCOPED), ("gateway", SCOPED))
        ),
        (
            ("networks", "net"),
            {"pools": [POOL], "block": 64, "mode": "l2", "vni": 1, "reserved": [f"{SCOPED}-fd00::9"]},
        ),
    ],
)
def test_an_address_with_a_scope_is_refused_wherever_it_is(key: Key, raw: dict[str, Any]):
    """Python takes any text for a scope, and with it what comes into a script of rules."""
    with pytest.raises(Malformed, match="has a scope"):
        read(key, raw)
