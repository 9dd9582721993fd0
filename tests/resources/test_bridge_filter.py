"""A bridge's switch: whose it is stands first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cni.kernel import netfilter, ruleset, switched
from cni.resources import BridgeFilter
from cni.resources.gate import guarded_devices

FILTER = BridgeFilter("br0")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    """Where it is written down; there are no rules, as after a flush."""
    monkeypatch.setattr(switched, "FOLDER", tmp_path / "switched")
    monkeypatch.setattr(ruleset, "has_element", lambda _: False)
    monkeypatch.setattr(f"{guarded_devices.__module__}.guarded_devices", lambda: ())
    monkeypatch.setattr(netfilter, "nft_list", lambda _: "")
    return tmp_path / "switched"


def test_who_is_killed_before_the_switch_is_on_has_said_that_it_is_ours(world: Any, host: Any, monkeypatch: Any):
    host.add("br0", "bridge")
    monkeypatch.setattr(host, "filter_bridge", _killed)
    with pytest.raises(KeyboardInterrupt):
        FILTER.ensure(world)
    assert switched.is_noted("br0", host.all["br0"].index)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_it_is_known_after_a_flush(world: Any, host: Any, folder: Path):
    host.add("br0", "bridge")
    FILTER.ensure(world)
    assert host.all["br0"].filtered
    FILTER.ensure(world)
    FILTER.remove(world)
    assert not host.all["br0"].filtered
    assert [*folder.iterdir()] == []


def test_what_another_switched_on_stays_on(world: Any, host: Any):
    host.add("br0", "bridge", filtered=True)
    FILTER.ensure(world)
    FILTER.remove(world)
    assert host.all["br0"].filtered


@pytest.mark.parametrize("again", [True, False], ids=["made anew by another", "gone"])
def test_a_bridge_that_is_another_by_now_is_its_makers(world: Any, host: Any, folder: Path, again: bool):
    host.add("br0", "bridge")
    FILTER.ensure(world)
    host.delete_link(host.all["br0"])
    if again:
        host.add("br0", "bridge", filtered=True)
    FILTER.remove(world)
    assert not again or host.all["br0"].filtered
    assert [*folder.iterdir()] == []


def test_what_the_release_before_wrote_down_holds(world: Any, host: Any, monkeypatch: Any):
    host.add("br0", "bridge", filtered=True)
    said: list[str] = []
    monkeypatch.setattr(ruleset, "has_element", lambda _: True)
    monkeypatch.setattr(netfilter, "nft_if_there", said.append)
    FILTER.remove(world)
    assert not host.all["br0"].filtered
    assert said == ['delete element inet agent_cni_policy switched { "br0" }\n']
