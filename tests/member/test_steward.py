"""What a host says of a network that the cluster has otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from member_host import network

from cni.member.steward import differing
from cni.values import replace


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"pools": network(subnet="10.11.0.0/24").pools},
            "pools is 10.11.0.0/24 (10.11.0.2-10.11.0.254, gateway 10.11.0.1) here and 10.10.0.0/24 (",
        ),
        ({"block": 32}, "block is 32 here and 16 there"),
        ({"mode": "l3"}, "mode is l3 here and l2 there"),
        ({"vni": 7}, "vni is 7 here and 100 there"),
        ({"port": 8472}, "port is 8472 here and 4789 there"),
        ({"reserved": ("10.10.0.5-10.10.0.9",)}, "reserved is 10.10.0.5-10.10.0.9 here and none there"),
    ],
)
def test_each_field_that_differs_is_said(change: dict[str, Any], said: str):
    theirs = network()
    ours = replace(theirs, **change)
    assert said in differing(ours, theirs)
    assert differing(theirs, ours)
    assert differing(ours, ours) == ""
