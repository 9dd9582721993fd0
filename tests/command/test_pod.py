"""All there is to say of one pod."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni.command import pod
from cni.kernel.counters import Counted
from cni.kernel.view import KernelRoute
from cni.resources import NftMasquerade, PodPolicy
from cni.state import Record


def test_a_pod_that_is_not_here_is_said_with_those_that_are(agent: Any, attach: Callable[..., Record], folder: Path):
    attach("c1", "10.1.0.2")
    said = agent("show", "shop/none", "--data-dir", folder)
    assert (said.status, said.err) == (1, "agent-cni: no pod 'shop/none' is on this node; there are: default/web\n")


def test_a_pod_by_name_or_by_its_containers_id(
    agent: Any, attach: Callable[..., Record], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pod, "_in_pod", lambda *_: ())
    monkeypatch.setattr(pod, "_of_namespace", lambda *_: {"addresses": ["10.1.0.2/24"], "routes": [], "neighbours": []})
    attach("c1", "10.1.0.2")
    attach("d2", "10.1.0.3", alive=False)
    (one, other) = json.loads(agent("show", "default/web", "--data-dir", folder, "--json").out)
    assert (one["container"], one["state"], other["state"]) == ("c1", "attached", "stale")
    (one,) = json.loads(agent("show", "c", "--data-dir", folder, "--json").out)
    assert set(one) == {
        "pod", "network", "container", "ifname", "plugin", "netns", "state", "links", "addresses", "routes", "neighbours", "rules",
        "policies", "drops",
    }  # fmt: skip
    told = agent("show", "c1", "--data-dir", folder).out
    assert "default/web (pods/c1/eth0): attached, by bridge-vxlan" in told
    assert "  addresses:\n    10.1.0.2/24\n  routes:\n    none" in told


def test_what_a_pods_own_chains_dropped(monkeypatch: pytest.MonkeyPatch):
    said = {
        "in-0a": [
            Counted("NetworkPolicy shop/deny", "drop", 3, 180),
            Counted("NetworkPolicy shop/web", "return", 9, 9),
        ],
        "out-0a": [Counted("the configuration", "drop", 1, 60)],
    }
    monkeypatch.setattr(pod, "counted", lambda _, chain: said.get(chain, []))
    policy = PodPolicy(("10.1.0.2",), (), closed=False, pod="", token="0a")
    found = list(pod._drops([NftMasquerade("nftables", 4, "10.1.0.2", "", ""), policy], None))
    assert found == [
        {"direction": "ingress", "by": "NetworkPolicy shop/deny", "packets": 3, "bytes": 180},
        {"direction": "egress", "by": "the configuration", "packets": 1, "bytes": 60},
    ]


def test_a_route_is_spelled_as_ip_route_does():
    assert pod._route(KernelRoute("0.0.0.0/0", "10.1.0.1", 254, 0, 0, 0, 0), "eth0") == "default via 10.1.0.1 dev eth0"
    assert (
        pod._route(KernelRoute("10.1.0.0/24", "", 254, 7, 1400, 0, 0), "eth0")
        == "10.1.0.0/24 dev eth0 metric 7 mtu 1400"
    )
