"""An ADD that takes over one that was killed at the last moment: everything of the first was there."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from interception import APP_UID, IN, OUT
from lab import AGENT_CNI, Host, Lab, Namespace, Pod
from traffic import PROXY, Actor

CAPTURED = {"inboundPort": IN, "captureDNS": True}
SIX = {"subnet": "fd00:2::/64", "rangeStart": "fd00:2::100", "rangeEnd": "fd00:2::199"}
FOUR = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
DUAL = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
HEADER = {"cniVersion": "1.1.0", "name": "net"}
NETWORKS: dict[str, dict[str, Any]] = {
    "bridge-vxlan": {"bridge": "br0", "isDefaultGateway": True, "ipMasq": True, "ipam": DUAL},
    "hairpin": {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "hairpinMode": True, "ipam": DUAL},
    "overlay": {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipam": DUAL,
                "vxlan": {"id": 42, "remotes": ["192.0.2.12"]}},
    "custom-plugin": {"ipam": DUAL},
    "macvlan": {"master": "eth0", "hostAccess": True, "isDefaultGateway": True, "ipam": {"ranges": [[FOUR], [SIX]]}},
}  # fmt: skip
EXTRAS = {
    "plain": {},
    "captured": {"sidecar": CAPTURED},
    "transparent": {"sidecar": CAPTURED | {"mode": "tproxy", "denyUncaptured": True}},
    "policed": {"sidecar": CAPTURED, "policy": {}},
}


def killed(host: Host) -> None:
    """What a call leaves that is killed after its last change, before it says so."""
    with sqlite3.connect(host.folder / "state.db") as db:
        assert db.execute("UPDATE attachment SET complete = 0, result = 'null'").rowcount
    db.close()


def reached(host: Host, pod: Pod, address: str) -> tuple[str, str]:
    """Who answers the application, and who the proxy, when they call a server on the host."""
    with Actor(host) as server, Actor(pod, PROXY) as proxy, Actor(pod, APP_UID) as app:
        server.listen("host", 80)
        proxy.listen("outbound", OUT)
        return app.reaches(address, 80), proxy.reaches(address, 80)


@pytest.mark.tried("an ADD that comes again after a killed one, on five networks", "it works, captured traffic passes")
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("network", NETWORKS)
def test_it_takes_over_a_killed_one_and_works(lab: Lab, network: str, extra: str):
    site = lab.site()
    host, pod = site.host, lab.pod()
    conf = HEADER | {"type": network} | NETWORKS[network] | EXTRAS[extra]
    first = host.add(conf, pod)
    killed(host)
    again = host.add(conf, pod)
    assert [item["name"] for item in again["interfaces"]] == [item["name"] for item in first["interfaces"]]
    host.check(conf, pod, again).ok()
    expected = "outbound" if EXTRAS[extra] else "host"
    assert reached(host, pod, "192.0.2.11") == (expected, "host")
    host.delete_pod(conf, pod)
    assert pod.link("eth0") is None
    assert host.state() == {"attachments": [], "leases": []}


def ruleset(where: Namespace) -> list[str]:
    """Every line, whatever the order of tables, and without what packets count."""
    return sorted(re.sub(r"packets \d+ bytes \d+", "", where.run("nft", "list", "ruleset").stdout).splitlines())


POLICED = {"type": "custom-plugin", "policy": {"defaultDeny": True}}


@pytest.mark.parametrize("inside", [False, True], ids=["with its host end", "as if it had none"])
@pytest.mark.parametrize("chained", [{"type": "sidecar-redirect", **CAPTURED}, POLICED], ids=["captured", "policed"])
def test_a_chained_one_by_another_path_of_the_same_namespace_keeps_what_it_made(
    host: Host, pod: Pod, tmp_path: Path, chained: dict, inside: bool
):
    first = HEADER | {"type": "bridge-vxlan", **NETWORKS["bridge-vxlan"]}
    result = host.add(first, pod)
    if inside:
        own = [item for item in result["interfaces"] if "sandbox" in item]
        result |= {"interfaces": own, "ips": [item | {"interface": 0} for item in result["ips"]]}
    conf = HEADER | chained | {"prevResult": result}
    host.add(conf, pod)
    rules = [ruleset(where) for where in (pod, host)]
    tmp_path.joinpath("alias").symlink_to("/run/netns")
    host.cni("ADD", conf, pod, CNI_NETNS=f"{tmp_path}/alias/{pod.name}").ok()
    assert [ruleset(where) for where in (pod, host)] == rules
    host.check(conf, pod, conf["prevResult"]).ok()
    host.delete_pod(conf, pod)
    host.delete_pod(first, pod)
    assert host.state() == {"attachments": [], "leases": []}


def test_what_a_chained_one_wants_now_is_what_a_refresh_makes(host: Host, pod: Pod, tmp_path: Path):
    first = HEADER | {"type": "bridge-vxlan", **NETWORKS["bridge-vxlan"]}
    tmp_path.chmod(0o755)
    open_to_all = {"type": "custom-plugin", "policy": {"policyDir": str(tmp_path)}, "prevResult": host.add(first, pod)}
    args = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"}
    host.cni("ADD", HEADER | open_to_all, pod, **args).ok()
    later = {"kind": "Wormhole", "to": {"planet": "mars"}}
    with sqlite3.connect(host.folder / "state.db") as db:
        ((text,),) = db.execute("SELECT resources FROM attachment WHERE plugin = 'custom-plugin'").fetchall()
        both = json.dumps([*json.loads(text), later])
        db.execute("UPDATE attachment SET resources = ? WHERE plugin = 'custom-plugin'", (both,))
    shut = HEADER | open_to_all | {"policy": {"policyDir": str(tmp_path), "defaultDeny": True}}
    host.cni("ADD", shut, pod, **args).ok()
    rules = ruleset(host)
    said = host.run(str(AGENT_CNI), "refresh").stdout
    assert ruleset(host) == rules, said
    with sqlite3.connect(host.folder / "state.db") as db:
        ((text,),) = db.execute("SELECT resources FROM attachment WHERE plugin = 'custom-plugin'").fetchall()
    assert later in json.loads(text)
    host.delete_pod(shut, pod)
    host.delete_pod(first, pod)


def test_a_chained_one_takes_over_where_the_link_was_made_anew(host: Host, pod: Pod):
    first = HEADER | {"type": "bridge-vxlan", **NETWORKS["bridge-vxlan"]}
    chained = HEADER | {"type": "sidecar-redirect", **CAPTURED}
    host.add(chained | {"prevResult": host.add(first, pod)}, pod)
    killed(host)
    result = host.add(first, pod)
    host.add(chained | {"prevResult": result}, pod)
    assert reached(host, pod, "10.1.0.1") == ("outbound", "host")
    host.delete_pod(chained | {"prevResult": result}, pod)
    host.delete_pod(first, pod)
    assert host.state() == {"attachments": [], "leases": []}
