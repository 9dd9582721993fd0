"""What `agent-cni explain` prints, as a reviewer reads it: one golden file per configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni.command.main import main

ROOT = Path(__file__).parent.parent
CONFLISTS = sorted((ROOT / "conf.d").iterdir())
PLAIN = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "bridge-vxlan",
    "bridge": "br0",
    "ipam": {"subnet": "10.1.0.0/24"},
}
IPV6 = {"ipam": {"subnet": "fd00:1::/64"}}

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "is-gateway": {"isGateway": True},
    "default-gateway": {"isDefaultGateway": True},
    "force-address": {"isGateway": True, "forceAddress": True},
    "masquerade-nftables": {"ipMasq": True, "ipMasqBackend": "nftables"},
    "masquerade-iptables": {"ipMasq": True, "ipMasqBackend": "iptables"},
    "masquerade-spared": {
        "ipMasq": True,
        "ipMasqBackend": "nftables",
        "nonMasqueradeCIDRs": ["172.30.0.0/24", "10.0.0.0/8", "fd00::/8"],
    },
    "mtu": {"mtu": 1400},
    "hairpin": {"hairpinMode": True},
    "promiscuous": {"promiscMode": True},
    "isolated": {"portIsolation": True},
    "layer-2": {"ipam": {}},
    "pod-end-down": {"ipam": {}, "disableContainerInterface": True},
    "ipv6": IPV6,
    "ipv6-dad": IPV6 | {"enabledad": True},
    "dns": {"dns": {"nameservers": ["10.96.0.10"], "search": ["cluster.local"]}},
    "routes": {
        "ipam": {
            "subnet": "10.1.0.0/24",
            "routes": [
                {"dst": "10.96.0.0/12", "mtu": 1400, "advmss": 1360, "priority": 5, "table": 100},
                {"dst": "192.0.2.0/24", "gw": "198.51.100.1"},
            ],
        }
    },
    "mac": {"runtimeConfig": {"mac": "0A-00-00-00-00-05"}},
    "vxlan": {"vxlan": {"id": 7}},
    "vxlan-remotes": {"vxlan": {"id": 7, "dstport": 8472, "local": "192.0.2.1", "remotes": ["192.0.2.2", "192.0.2.1"]}},
    "vxlan-no-remotes": {"vxlan": {"id": 7, "remotes": []}},
    "vxlan-ipv6": {"vxlan": {"id": 7, "dev": "eth1", "remotes": ["fd00:9::0:2"]}},
    "vxlan-mtu": {"vxlan": {"id": 7, "mtu": 1300}},
    "flat": {"ipam": None, "ip": ["192.168.10.10/24", "fd00:10::10/64"], "gateway": ["192.168.10.1", "fd00:10::1"]},
    "flat-no-default": {"ipam": None, "ip": "192.168.10.10/24", "gateway": "192.168.10.1", "isDefaultGateway": False},
    "cluster-l2": {"isDefaultGateway": True, "vxlan": {"id": 7}, "ipam": {"cluster": True, "subnet": "10.10.0.0/16"}},
    "cluster-l3": {
        "isGateway": True,
        "ipMasq": True,
        "ipMasqBackend": "nftables",
        "vxlan": {"id": 7, "mode": "l3"},
        "ipam": {"cluster": True, "ranges": [[{"subnet": "10.10.0.0/16"}], [{"subnet": "fd00:10::/64"}]]},
    },
    "foreign-ipam": {"ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}, "isGateway": True},
    "names": {
        "isDefaultGateway": True,
        "names": {"domain": "pods.example", "upstream": ["192.0.2.53"]},
        "health": {"tcp": 5432, "interval": "2s"},
        "runtimeConfig": {"aliases": {"net": ["sql"]}},
    },
    "sidecar": {"sidecar": {}},
    "sidecar-tproxy": {"sidecar": {"mode": "tproxy", "captureDNS": True}, "dns": {"nameservers": ["10.96.0.10"]}},
    "policy": {"policy": {"ingress": ["10.0.0.0/8"], "egressDrop": True}},
    "old-version": {"cniVersion": "0.2.0", "isDefaultGateway": True},
}


@pytest.fixture
def explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[dict[str, Any]], str]:
    def explained(conf: dict[str, Any]) -> str:
        file = tmp_path / "it.conf"
        file.write_text(json.dumps({key: value for key, value in conf.items() if value is not None}))
        status = main(["explain", str(file)])
        printed = capsys.readouterr()
        assert (status, printed.err) == (0, "")
        return printed.out

    return explained


@pytest.mark.parametrize("file", CONFLISTS, ids=lambda file: file.stem)
def test_the_plan_of_each_conflist_we_ship(file: Path, capsys: pytest.CaptureFixture[str], golden: Callable[..., None]):
    assert main(["explain", str(file)]) == 0
    golden(f"explain-{file.stem}.txt", capsys.readouterr().out)


@pytest.mark.parametrize("name", CASES)
def test_the_plan_of_each_kind_of_configuration(
    name: str, explain: Callable[[dict[str, Any]], str], golden: Callable[..., None]
):
    golden(f"plan-{name}.txt", explain(PLAIN | CASES[name]))


@pytest.mark.parametrize("name", [name for name in CASES if name != "plain"])
def test_every_key_shows_in_the_plan(name: str, explain: Callable[[dict[str, Any]], str]):
    assert explain(PLAIN | CASES[name]) != explain(PLAIN)


@pytest.mark.parametrize("file", CONFLISTS, ids=lambda file: file.stem)
def test_each_conflist_we_ship_is_valid(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["validate", str(file)]) == 0
    assert capsys.readouterr().err == ""
