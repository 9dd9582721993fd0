"""One conflist for all nodes, made each node's own."""

from __future__ import annotations

from typing import Any

import pytest

from cni.conflist.template import filled
from cni.errors import InvalidConfig

FOUR, SIX = "10.244.1.0/24", "fd00:244:0:1::/64"
BOTH = [[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:244::/56"}]]
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def ipam(section: Any, *spans: str, plugin: str = "bridge-vxlan") -> Any:
    made = filled({"name": "pods", "plugins": [{"type": plugin, "ipam": section}, PORTMAP]}, spans)
    assert (made["name"], made["plugins"][1]) == ("pods", PORTMAP)
    return made["plugins"][0]["ipam"]


@pytest.mark.parametrize("section", [{"type": "agent-ipam"}, {"dataDir": "/x"}, {"type": "host-local"}])
def test_who_says_no_addresses_has_the_nodes(section: dict[str, Any]):
    assert ipam(section, FOUR, SIX) == section | {"ranges": [[{"subnet": FOUR}], [{"subnet": SIX}]]}


@pytest.mark.parametrize(
    "section",
    [
        None, {}, {"type": "dhcp"}, {"type": "agent-ipam", "subnet": "192.0.2.0/24"},
        {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24"}]]},
    ],
)  # fmt: skip
def test_who_says_his_own_or_has_none_is_left_alone(section: Any):
    assert ipam(section, FOUR) == section


@pytest.mark.parametrize(
    ("spans", "left"), [((FOUR, SIX), BOTH), ((SIX, FOUR), BOTH), ((FOUR,), BOTH[:1]), ((SIX,), BOTH[1:])]
)
def test_a_network_of_the_cluster_keeps_the_families_of_the_node(spans: tuple[str, ...], left: Any):
    section = {"cluster": True, "ranges": BOTH, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
    made = ipam(section, *spans)
    assert made["ranges"] == left
    assert len(made["routes"]) == len(left)
    alone = {"cluster": True, "subnet": "10.244.0.0/16", "rangeStart": "10.244.0.9", "ranges": BOTH[1:]}
    assert ("subnet" in ipam(alone, *spans), "rangeStart" in ipam(alone, *spans)) == (FOUR in spans, FOUR in spans)


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        (("10.245.1.0/24",), r"\$\.plugins\[0\]\.ipam: this node's 10\.245\.1\.0/24 is not in 10\.244\.0\.0/16"),
        ((SIX,), r"no subnet of a family this node has a block of \(fd00:244:0:1::/64\)"),
    ],
)
def test_a_block_that_no_subnet_has_is_refused(spans: tuple[str, ...], said: str):
    with pytest.raises(InvalidConfig, match=said):
        ipam({"type": "agent-ipam", "cluster": True, "subnet": "10.244.0.0/16"}, *spans)
