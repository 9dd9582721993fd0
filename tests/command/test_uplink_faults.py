"""What doctor says of a host's uplinks."""

from __future__ import annotations

import ipaddress

import pytest
from rtnl import FakeRtnl

from cni.command.doctor import uplinks as uplink_faults
from cni.kernel.view import ANSWERS, MAIN_TABLE, KernelRoute
from cni.values import replace

ONE = "192.0.2.11"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeRtnl:
    """One with two uplinks in different subnets, with gateways that answer."""
    made = FakeRtnl()
    for name, subnet in (("eth0", "192.0.2"), ("eth1", "198.51.100")):
        made.add(name)
        made.held[name] = [ipaddress.ip_interface(f"{subnet}.11/24")]
        made.ways[name] = [KernelRoute("0.0.0.0/0", f"{subnet}.1", MAIN_TABLE, 0, 0, 0, 0)]
        made.reach[name, f"{subnet}.1"] = ANSWERS
    monkeypatch.setattr(uplink_faults, "Asking", lambda: made)
    monkeypatch.setattr(uplink_faults, "_STEP", 0)
    monkeypatch.setattr(uplink_faults.sysctl, "read", made_strict([]).get)
    return made


def made_strict(names: list[str]) -> dict[str, str]:
    return {f"net.ipv4.conf.{name}.rp_filter": "1" for name in names}


def lines(*names: str) -> list[str]:
    return [item.line for item in uplink_faults.uplink_faults(names or ("eth0", "eth1"), ONE)]


def test_of_uplinks_that_are_well_nothing_is_said(host: FakeRtnl):
    assert lines() == []
    host.reach["eth0", "192.0.2.1"] = "asked"
    assert lines() == ["uplink eth0: its gateway 192.0.2.1 is silent"]
    host.known["eth0"]["192.0.2.1"] = "0a:00:00:00:00:09"
    assert lines() == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"up": False, "state": "DOWN"}, "uplink eth1 carries nothing: it is set down"),
        ({"state": "LOWERLAYERDOWN"}, "uplink eth1 carries nothing: it has no carrier (LOWERLAYERDOWN)"),
        ({"mtu": 9000}, "uplinks eth0 and eth1 have MTUs 1500 and 9000: by the lesser larger packets are lost"),
    ],
)
def test_what_is_wrong_with_a_link(host: FakeRtnl, facts: dict[str, object], said: str):
    host.all["eth1"] = replace(host.all["eth1"], **facts)
    assert lines() == [said]


def test_one_that_is_missing_or_bare(host: FakeRtnl):
    host.held["eth1"] = []
    assert lines() == ["uplink eth1 has no address others could send to"]
    assert lines("eth0", "eth9") == ["uplink eth9: there is no such link"]


def test_ports_of_one_bond(host: FakeRtnl):
    bond = host.add("bond0", "bond")
    host.held["bond0"] = host.held["eth0"]
    for name in ("eth0", "eth1"):
        host.all[name] = replace(host.all[name], bridge=bond.index)
    assert lines() == ["uplinks eth0 and eth1 are one link, bond0, which decides itself"]


def test_a_kernel_that_takes_only_what_it_would_answer(host: FakeRtnl, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uplink_faults.sysctl, "read", made_strict(["eth1"]).get)
    (said,) = lines()
    assert said.startswith("uplink eth1: the kernel takes only what it would answer by it (rp_filter 1)")
    host.held["eth1"] = [ipaddress.ip_interface("192.0.2.111/24")]
    host.ways["eth1"] = []
    host.reach["eth1", "192.0.2.1"] = ANSWERS
    assert lines() == []
