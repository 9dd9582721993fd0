from __future__ import annotations

import errno
from ipaddress import ip_interface
from typing import Any

import pytest

from cni.errors import Conflict
from cni.kernel.netns import home_identity
from cni.kernel.view import Vxlan
from cni.naming import OWNER, vtep_mac
from cni.resources import VxlanLink
from cni.values import replace

WANTED = VxlanLink("vxlan7", 7, 4789, "192.0.2.1", "", 1450, "br0")
MAC = vtep_mac("vxlan7", home_identity())
SETTINGS = Vxlan(7, 4789, "192.0.2.1", 0)


@pytest.fixture(autouse=True)
def own_address(host: Any) -> None:
    host.held["lo"] = [ip_interface("192.0.2.1/32")]


def test_a_missing_device_is_made_and_set_up_last(world: Any, host: Any, undone: Any):
    bridge = host.add("br0", "bridge")
    WANTED.ensure(world)
    assert host.asked == [
        "create_vxlan vxlan7 1450",
        f"set_link vxlan7 master={bridge.index}",
        "set_port vxlan7 neigh_suppress=1 mode=0 isolated=0 learning=1 flood=1 mcast_flood=1 bcast_flood=1",
        "set_link vxlan7 up=True",
    ]
    assert list(WANTED.differences(world)) == []
    assert undone() == ["delete_link vxlan7"]


def test_of_a_clusters_device_its_bridge_learns_nothing(world: Any, host: Any):
    bridge = host.add("br0", "bridge")
    clustered = replace(WANTED, learning=False, mac="0a:58:00:00:00:01")
    facts = {"vxlan": replace(SETTINGS, learning=False), "bridge": bridge.index, "mac": clustered.mac, "alias": OWNER}
    host.add("vxlan7", "vxlan", **facts, mtu=1450, neigh_suppress=True)
    assert list(clustered.differences(world)) == ["VXLAN device vxlan7 has learning on as a port of br0"]
    clustered.ensure(world)
    assert host.asked == ["set_port vxlan7 neigh_suppress=1 mode=0 isolated=0 learning=0"]
    assert list(clustered.differences(world)) == []


def test_a_device_that_is_right_is_left(world: Any, host: Any, undone: Any):
    bridge = host.add("br0", "bridge")
    host.add("vxlan7", "vxlan", vxlan=SETTINGS, bridge=bridge.index, neigh_suppress=True)
    WANTED.ensure(world)
    assert host.asked == undone() == []


def test_somebody_elses_device_grows_and_never_shrinks(world: Any, host: Any):
    bridge = host.add("br0", "bridge")
    host.add("vxlan7", "vxlan", vxlan=SETTINGS, bridge=bridge.index, neigh_suppress=True, mtu=1400)
    WANTED.ensure(world)
    replace(WANTED, mtu=1300).ensure(world)
    assert host.asked == ["set_link vxlan7 mtu=1450"]


@pytest.mark.parametrize(("pod", "mtu"), [(1450, 1450), (1300, 1300)])
def test_our_own_device_shrinks_to_what_its_pods_have(world: Any, host: Any, pod: int, mtu: int):
    bridge = host.add("br0", "bridge")
    facts = {"vxlan": SETTINGS, "bridge": bridge.index, "neigh_suppress": True, "mtu": 1450, "alias": OWNER}
    host.add("vxlan7", "vxlan", **facts)
    host.add("veth0", "veth", bridge=bridge.index, mtu=pod)
    replace(WANTED, mtu=1300).ensure(world)
    assert host.all["vxlan7"].mtu == mtu


def test_an_address_that_this_host_lost_is_named(world: Any, host: Any):
    bridge = host.add("br0", "bridge")
    host.add("vxlan7", "vxlan", vxlan=SETTINGS, bridge=bridge.index, neigh_suppress=True)
    host.held.clear()
    said = "VXLAN device vxlan7 has local address 192.0.2.1, which this host does not have"
    assert list(WANTED.differences(world)) == [said]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"kind": "bridge", "vxlan": None}, "vxlan7 exists on the host and is bridge"),
        ({"vxlan": replace(SETTINGS, vni=8)}, "has VNI 8 and UDP port 4789, not 7 and 4789"),
        ({"vxlan": replace(SETTINGS, port=8472)}, "has VNI 7 and UDP port 8472"),
        ({"vxlan": replace(SETTINGS, local="192.0.2.9")}, r"has local address 192\.0\.2\.9, not 192\.0\.2\.1"),
        ({"vxlan": replace(SETTINGS, local="")}, "has local address none"),
    ],
    ids=["another kind", "VNI", "port", "local", "no local"],
)
def test_another_device_of_that_name_is_left_untouched(world: Any, host: Any, facts: dict[str, Any], said: str):
    host.add("br0", "bridge")
    host.add("vxlan7", **{"kind": "vxlan", **facts})
    with pytest.raises(Conflict, match=said):
        WANTED.ensure(world)
    assert host.asked == []
    assert said.replace("\\", "") in "; ".join(WANTED.differences(world))


@pytest.mark.parametrize(("held", "wanted"), [("eth0", "eth1"), ("", "eth0")], ids=["another", "none"])
def test_a_device_bound_to_another_link_is_a_conflict(world: Any, host: Any, held: str, wanted: str):
    links = {name: host.add(name).index for name in ("eth0", "eth1")}
    bridge = host.add("br0", "bridge")
    bound = replace(SETTINGS, dev=links.get(held, 0))
    host.add("vxlan7", "vxlan", vxlan=bound, bridge=bridge.index, neigh_suppress=True)
    with pytest.raises(Conflict, match=wanted):
        replace(WANTED, dev=wanted).ensure(world)


def test_a_vni_that_another_device_holds_is_named(world: Any, host: Any):
    host.add("br0", "bridge")
    host.add("foreign0", "vxlan", vxlan=SETTINGS)
    host.refusals["create_vxlan"] = errno.EEXIST
    with pytest.raises(Conflict, match=r"^VNI 7 on UDP port 4789 is held by foreign0$"):
        WANTED.ensure(world)


def test_a_udp_port_that_another_program_holds_is_named(world: Any, host: Any, undone: Any):
    bridge = host.add("br0", "bridge")
    host.add("vxlan7", "vxlan", vxlan=SETTINGS, bridge=bridge.index, neigh_suppress=True, up=False)
    host.refusals["set_link"] = errno.EADDRINUSE
    with pytest.raises(Conflict, match="UDP port 4789 is taken by another program"):
        WANTED.ensure(world)
    assert undone() == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"bridge": 77}, "VXLAN device vxlan7 is not a port of br0"),
        ({"up": False}, "VXLAN device vxlan7 is down"),
        ({"mtu": 1400}, "VXLAN device vxlan7 has MTU 1400, below the pods' 1450"),
        ({"neigh_suppress": False}, "VXLAN device vxlan7 does not suppress ARP and ND for the gateway"),
        ({"switched_off": ("flood",)}, "VXLAN device vxlan7 has flood off"),
        ({"hairpin": True}, "VXLAN device vxlan7 has hairpin on"),
        ({"isolated": True}, "VXLAN device vxlan7 has isolated on"),
        ({"alias": OWNER, "mac": "0a:00:00:00:00:09"}, f"VXLAN device vxlan7 has MAC 0a:00:00:00:00:09, not {MAC}"),
        ({"alias": OWNER, "vxlan": replace(SETTINGS, learning=False)}, "vxlan7 has learning off"),
        ({"alias": OWNER, "vxlan": replace(SETTINGS, dev=1)}, "vxlan7 is bound to a link"),
    ],
    ids=str,
)
def test_the_drift_of_a_device_is_named(world: Any, host: Any, facts: dict[str, Any], said: str):
    bridge = host.add("br0", "bridge")
    facts = {"mac": MAC, "vxlan": SETTINGS, "bridge": bridge.index, "neigh_suppress": True, **facts}
    host.add("vxlan7", "vxlan", **facts)
    assert list(WANTED.differences(world)) == [said]


def test_a_missing_device_is_one_line_and_only_a_vxlan_is_removed(world: Any, host: Any):
    assert list(WANTED.differences(world)) == ["VXLAN device vxlan7 is missing"]
    WANTED.remove(world)
    host.add("vxlan7", "tun")
    WANTED.remove(world)
    assert host.asked == []
