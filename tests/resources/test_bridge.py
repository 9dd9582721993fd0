from __future__ import annotations

import errno
from typing import Any

import pytest

from cni.errors import Conflict, KernelRefused
from cni.naming import OWNER, is_mac
from cni.protocol.result import Interface, Result
from cni.resources import Bridge, GatewayAddress
from cni.values import replace

BRIDGE = Bridge("br0", "0a:58:0a:00:00:01", 1450, False)
REPORTED = Result((Interface("br0", BRIDGE.mac),))


def test_a_missing_bridge_is_made_with_its_mac_and_mtu(world: Any, host: Any, undone: Any):
    BRIDGE.ensure(world)
    assert host.asked == ["create_bridge br0 0a:58:0a:00:00:01 1450"]
    assert list(BRIDGE.differences(world)) == []
    assert undone() == ["delete_link br0"]


def test_a_bridge_without_a_wish_gets_a_fixed_mac(world: Any, host: Any):
    replace(BRIDGE, mac="").ensure(world)
    assert is_mac(host.all["br0"].mac)


def test_a_bridge_that_is_there_is_used_as_it_is(world: Any, host: Any, undone: Any):
    host.add("br0", "bridge", mtu=9000)
    BRIDGE.ensure(world)
    assert host.asked == undone() == []


def test_a_bridge_that_is_down_is_set_up_and_promiscuous_if_asked(world: Any, host: Any, undone: Any):
    host.add("br0", "bridge", up=False)
    replace(BRIDGE, promiscuous=True).ensure(world)
    assert host.asked == ["set_link br0 up=True", "set_promiscuous br0"]
    assert undone() == []


@pytest.mark.parametrize(("kind", "said"), [("vxlan", "is vxlan, not"), ("", "is no bridge, not")])
def test_another_link_of_that_name_is_left_untouched(world: Any, host: Any, kind: str, said: str):
    host.add("br0", kind)
    with pytest.raises(Conflict, match=said):
        BRIDGE.ensure(world)
    assert host.asked == []


def test_a_bridge_another_call_makes_meanwhile_is_not_ours_to_undo(world: Any, host: Any, undone: Any):
    def late(name: str, mac: str, mtu: int) -> None:
        host.add(name, "bridge")
        raise KernelRefused("create", errno.EEXIST)

    host.create_bridge = late
    BRIDGE.ensure(world)
    assert undone() == []


def test_a_bridge_with_ports_is_not_deleted(world: Any, host: Any):
    bridge = host.add("br0", "bridge")
    host.add("veth9", "veth", bridge=bridge.index)
    BRIDGE.remove(world)
    assert host.asked == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"kind": "dummy"}, ["bridge br0 is missing"]),
        ({"up": False}, ["bridge br0 is down"]),
        ({"mtu": 1400}, ["bridge br0 has MTU 1400, below the pod's 1450"]),
        ({"mtu": 9000, "mac": "0a:00:00:00:00:09"}, ["bridge br0 has MAC 0a:00:00:00:00:09, not 0a:58:0a:00:00:01"]),
        ({"promiscuous": False, "up": False}, ["bridge br0 is down", "bridge br0 is not promiscuous"]),
    ],
    ids=["another kind", "down", "too small", "another MAC", "two at once"],
)
def test_the_drift_of_a_bridge_is_named(world: Any, host: Any, facts: dict[str, Any], said: list[str]):
    host.add("br0", **{"kind": "bridge", "mac": BRIDGE.mac, "promiscuous": True, **facts})
    assert list(replace(BRIDGE, promiscuous=True).accepting(REPORTED).differences(world)) == said


def test_a_missing_bridge_is_one_line(world: Any):
    assert list(BRIDGE.differences(world)) == ["bridge br0 is missing"]
    BRIDGE.remove(world)


@pytest.mark.parametrize(
    ("mac", "kept"), [("0a:00:00:00:00:09", "0a:00:00:00:00:09"), ("00:00:00:00:00:00", BRIDGE.mac)]
)
@pytest.mark.parametrize("state", ["DOWN", "UNKNOWN"])
def test_a_foreign_bridge_without_ports_is_given_its_own_mac_for_good(
    world: Any, host: Any, state: str, mac: str, kept: str
):
    host.add("br0", "bridge", state=state, mac=mac)
    BRIDGE.ensure(world)
    assert host.asked == [f"set_link br0 address={kept}"]


@pytest.mark.parametrize(("alias", "asked"), [("", ["set_link br0 address=0a:00:00:00:00:09"]), (OWNER, [])])
def test_a_foreign_bridge_is_given_its_own_mac_with_a_gateway(world: Any, host: Any, alias: str, asked: list[str]):
    host.add("br0", "bridge", mac="0a:00:00:00:00:09", alias=alias)
    gateway = GatewayAddress("br0", "10.0.0.1/24", False)
    for wanted in ([*asked, "add_address br0 10.0.0.1/24"], []):
        host.asked.clear()
        gateway.ensure(world)
        assert host.asked == wanted


@pytest.mark.parametrize(
    ("held", "asked"),
    [("10.0.0.1/24", ["set_link br0 address=0a:58:0a:00:00:01"]), ("10.0.0.9/24", [])],
    ids=["nobody's", "another gateway's"],
)
def test_the_mac_of_ours_is_one_of_its_gateways(
    world: Any, host: Any, monkeypatch: pytest.MonkeyPatch, held: str, asked: list[str]
):
    settings: dict[str, str] = {}
    monkeypatch.setattr("cni.kernel.sysctl.read", lambda key: "0")
    monkeypatch.setattr("cni.kernel.sysctl.write", settings.__setitem__)
    host.add("br0", "bridge", mac="0a:58:0a:00:00:09", mtu=1450, alias=OWNER)
    GatewayAddress("br0", held, False).ensure(world)
    host.asked.clear()
    BRIDGE.ensure(world)
    assert host.asked == asked
    assert len(settings) == 2 * len(asked)
    assert list(BRIDGE.accepting(REPORTED).differences(world)) == []


@pytest.mark.parametrize(
    ("alias", "mtu", "others", "asked"),
    [
        (OWNER, 1400, [], ["set_link br0 mtu=1450"]),
        (OWNER, 9000, [("veth", 1450), ("vxlan", 8950)], ["set_link br0 mtu=1450"]),
        (OWNER, 9000, [("veth", 8000)], []),
        ("", 1400, [], []),
        ("", 9000, [], []),
    ],
    ids=["too small", "too large", "another pod's", "somebody's", "somebody's, larger"],
)
def test_our_bridge_has_the_largest_mtu_on_it(
    world: Any, host: Any, undone: Any, alias: str, mtu: int, others: list[tuple[str, int]], asked: list[str]
):
    link = host.add("br0", "bridge", mac=BRIDGE.mac, mtu=mtu, alias=alias)
    for number, (kind, its) in enumerate(others):
        host.add(f"port{number}", kind, mtu=its, bridge=link.index)
    BRIDGE.ensure(world)
    assert host.asked == asked
    assert undone() == [f"set_link br0 mtu={mtu}"] * len(asked)
