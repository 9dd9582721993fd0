"""A bridge's switch: whose it is stands first."""

from __future__ import annotations

from typing import Any

import pytest

from cni.kernel import netfilter
from cni.resources import BridgeFilter


def test_who_is_killed_before_the_switch_is_on_has_said_that_it_is_ours(world: Any, host: Any, monkeypatch: Any):
    host.add("br0", "bridge")

    def killed(script: str) -> None:
        assert script.startswith("add element ")
        raise KeyboardInterrupt

    monkeypatch.setattr(netfilter, "nft_if_there", killed)
    with pytest.raises(KeyboardInterrupt):
        BridgeFilter("br0").ensure(world)
    assert not host.all["br0"].filtered
