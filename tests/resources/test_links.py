from __future__ import annotations

import errno
from typing import Any

import pytest

from cni.errors import Conflict
from cni.protocol.result import Interface, Result
from cni.resources import PodLink, VethPair
from cni.values import replace

VETH = VethPair("veth0", "0e:00:00:00:00:02", "eth0", "0a:58:0a:00:00:02", 1450, "br0", False, False)
POD = PodLink("eth0", "0a:58:0a:00:00:02", 1450)


def test_a_veth_is_born_with_everything_and_on_its_bridge(world: Any, host: Any, undone: Any):
    bridge = host.add("br0", "bridge")
    VETH.ensure(world)
    made = f"create_veth veth0 0e:00:00:00:00:02 1450 {bridge.index} eth0 0a:58:0a:00:00:02 1450"
    assert host.asked == [made, "set_link veth0 up=True"]
    assert list(VETH.differences(world)) == []
    assert undone() == ["delete_link veth0"]


def test_a_port_loses_its_ipv6_before_it_goes_up(world: Any, host: Any, monkeypatch: pytest.MonkeyPatch):
    host.add("br0", "bridge")
    was_up: list[tuple[str, str, bool]] = []
    monkeypatch.setattr(
        "cni.kernel.sysctl.prefers", lambda key, value: was_up.append((key, value, host.all["veth0"].up))
    )
    VETH.ensure(world)
    assert was_up == [("net.ipv6.conf.veth0.disable_ipv6", "1", False)]
    assert host.all["veth0"].up


def test_hairpin_and_isolation_are_set_while_the_pods_end_is_down(world: Any, host: Any):
    host.add("br0", "bridge")
    veth = replace(VETH, hairpin=True, isolated=True)
    veth.ensure(world)
    assert host.asked[1:] == ["set_port veth0 up=True mode=1 isolated=1"]
    assert list(veth.differences(world)) == []


def test_a_veth_that_a_lost_record_left_is_replaced(world: Any, host: Any):
    host.add("br0", "bridge")
    host.add("veth0", "veth")
    VETH.ensure(world)
    assert [request.split()[0] for request in host.asked] == ["create_veth", "delete_link", "create_veth", "set_link"]


def test_an_interface_of_the_pod_that_is_not_ours_is_left_as_it_is(world: Any, host: Any, pod: Any, undone: Any):
    host.add("br0", "bridge")
    pod.add("eth0")
    host.refusals["create_veth"] = errno.EEXIST
    with pytest.raises(Conflict, match="eth0 exists already in /run/netns/c1"):
        VETH.ensure(world)
    assert undone() == pod.asked == []


def test_only_a_veth_is_removed_under_the_veths_name(world: Any, host: Any):
    host.add("veth0", "tun")
    VETH.remove(world)
    assert host.asked == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, []),
        ({"bridge": 77}, ["host interface veth0 is not a port of br0"]),
        ({"up": False}, ["host interface veth0 is down"]),
        ({"mtu": 1500}, ["host interface veth0 has MTU 1500, not 1450"]),
        ({"hairpin": True}, ["host interface veth0 has hairpin on"]),
        ({"isolated": True}, ["host interface veth0 has isolated on"]),
        ({"mac": "0a:00:00:00:00:09"}, ["host interface veth0 has MAC 0a:00:00:00:00:09, not 0e:00:00:00:00:02"]),
        (
            {"switched_off": ("flood", "learning")},
            ["host interface veth0 has flood off", "host interface veth0 has learning off"],
        ),
    ],
    ids=str,
)
def test_the_drift_of_a_host_end_is_named(world: Any, host: Any, facts: dict[str, Any], said: list[str]):
    bridge = host.add("br0", "bridge")
    host.add("veth0", "veth", **{"mtu": 1450, "mac": VETH.host_mac, "bridge": bridge.index, **facts})
    assert list(VETH.differences(world)) == said


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, []),
        ({"up": False}, ["eth0 is down in the pod"]),
        ({"mac": "0a:00:00:00:00:09"}, ["eth0 has MAC 0a:00:00:00:00:09, not 0a:58:0a:00:00:02"]),
        ({"mtu": 1400}, []),
        ({"mtu": 1500}, ["eth0 has MTU 1500, above 1450"]),
    ],
    ids=str,
)
def test_the_drift_of_a_pods_end_is_named(world: Any, pod: Any, facts: dict[str, Any], said: list[str]):
    pod.add("eth0", **{"mac": POD.mac, "mtu": POD.mtu, **facts})
    assert list(POD.differences(world)) == said


@pytest.mark.parametrize("resource", [VETH, POD], ids=lambda item: type(item).__name__)
def test_a_missing_link_is_one_line(world: Any, resource: Any):
    (said,) = resource.differences(world)
    assert said.endswith(("is missing", "is missing in the pod"))
    resource.remove(world)


def test_what_later_plugins_reported_is_accepted():
    reported = Result((Interface("veth0", mtu=1300), Interface("eth0", "0a:00:00:00:00:09", 1300, "/run/netns/c1")))
    assert VETH.accepting(reported).mtu == 1300
    assert POD.accepting(reported) == PodLink("eth0", "0a:00:00:00:00:09", 1300)
    assert POD.accepting(Result((Interface("eth0", "0a:00:00:00:00:09", 1300),))) == POD
    assert VETH.accepting(Result()) == VETH
