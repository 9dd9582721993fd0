"""An interception of the release before, as that release spells it, beside a second attachment of this one."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cni.errors import Conflict
from cni.naming import Attachment
from cni.protocol.result import Result
from cni.resources import Host, PodRules
from cni.sidecar.model import Interception
from cni.sidecar.pod import intercepting
from cni.values import replace

RELEASE = Path(__file__).parent.parent.parent / "netns-tests/scenes/releases/layout-1.tar.xz"
SPELL = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cni.sidecar.model import Interception
from cni.sidecar.rule import spelled
from cni.sidecar.rules import tables
deep = lambda value: tuple(map(deep, value)) if isinstance(value, list) else value
confs = [Interception(**{key: deep(value) for key, value in conf.items()}) for conf in json.load(sys.stdin)]
print(json.dumps([{family: spelled(tables(conf, family), family) for family in (4, 6)} for conf in confs]))
"""
HOST = Host("/run/netns/p", pod_rules="iptables-nft", pod_families=(4, 6))
WANTED = {
    "nothing said": Interception(),
    "tproxy": Interception(transparent=True),
    "the guard": Interception(deny_uncaptured=True),
    "tproxy and the guard": Interception(transparent=True, deny_uncaptured=True),
    "DNS": Interception(capture_dns=True, resolvers=("10.9.9.9", "fd00::9")),
    "DNS of one family": Interception(capture_dns=True, resolvers=("10.9.9.9",)),
    "DNS anywhere": Interception(capture_dns=True),
    "outbound alone": Interception(include_inbound_ports=()),
    "inbound alone": Interception(include_outbound_cidrs=()),
    "tproxy inbound alone": Interception(include_outbound_cidrs=(), transparent=True),
    "exceptions": Interception(exclude_inbound_ports=(22,), exclude_outbound_ports=(25,), exclude_outbound_cidrs=("10.0.0.0/8",)),
    "groups": Interception(include_groups=(5,), capture_dns=True),
    "invalid": Interception(drop_invalid=True, port=16001),
}  # fmt: skip
OTHERS = [
    replace(Interception(), **change)
    for change in (
        {"port": 9},
        {"proxy_uids": (7,)},
        {"exclude_inbound_ports": (22,)},
        {"exclude_outbound_ports": (25,)},
    )
] + [Interception(capture_dns=True, drop_invalid=True), Interception(exclude_interfaces=("eth9",))]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, str]]:
    """What that release's own code makes of each, by family."""
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(RELEASE) as archive:
        archive.extractall(folder, filter="data")
    confs = json.dumps([vars(wanted) for wanted in WANTED.values()])
    argv = [sys.executable, "-I", "-c", SPELL, str(folder)]
    done = subprocess.run(argv, input=confs, capture_output=True, text=True, check=True)
    return dict(
        zip(WANTED, [{int(key): text for key, text in one.items()} for one in json.loads(done.stdout)], strict=True)
    )


def beside(texts: dict[int, str]) -> Host:
    rules = [PodRules("/run/netns/p", "iptables-nft", family, text) for family, text in texts.items() if text]
    return replace(HOST, others=lambda *_: [(Attachment("net", "c1", "eth0"), item) for item in rules])


def rules_of(wanted: Interception, host: Host) -> list[Any]:
    return [item for item in intercepting(wanted, "net1", Result(), host) if isinstance(item, PodRules)]


@pytest.mark.parametrize("name", WANTED)
def test_an_unchanged_configuration_shares_what_is_there(earlier: dict[str, dict[int, str]], name: str):
    texts = earlier[name]
    assert texts != {item.family: item.text for item in rules_of(WANTED[name], HOST)}
    made = rules_of(WANTED[name], beside(texts))
    assert {item.family: item.text for item in made} == {family: text for family, text in texts.items() if text}
    assert not any(item.sparing for item in made)


@pytest.mark.parametrize("name", WANTED)
def test_a_changed_one_is_refused(earlier: dict[str, dict[int, str]], name: str):
    for other in (*(item for key, item in WANTED.items() if key != name), *OTHERS):
        with pytest.raises(Conflict, match="net/c1/eth0 has other interception rules"):
            rules_of(other, beside(earlier[name]))
