"""A refresh does not ask again what it found before, and finds all the same whatever became another meanwhile."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, Host, Lab, Pod
from town import RANGES

HEAD = {"cniVersion": "1.1.0", "name": "net", "ipam": {"ranges": RANGES}}
KINDS: dict[str, dict[str, Any]] = {
    "bridged": HEAD | {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True},
    "routed": HEAD | {"type": "custom-plugin"},
}
NAMED = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
POLICY = {
    "kind": "NetworkPolicy",
    "metadata": {"namespace": "shop", "name": "friends"},
    "spec": {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
    },
}
#: By what a hand did, in the shell; each is mended by one refresh.
TAMPERED = {
    "everything flushed": "nft flush ruleset",
    "an entry is gone": "nft delete element {table} in4 '{{ {address} }}'",
    "an entry lets everything in": "nft 'delete element {table} in4 {{ {address} }}; add element {table} in4 {{ {address} : accept }}'",
    "an entry goes where it jumped": "nft 'delete element {table} in4 {{ {address} }}; add chain {table} foreign; "
    "add element {table} in4 {{ {address} : goto foreign }}'",
    "the pod's chain is empty": "nft flush chain {table} in-{token}",
    "the pod's chain has a rule more": "nft insert rule {table} in-{token} accept",
    "the pod's chain has a rule instead of another": "nft 'flush chain {table} out-{token}; add rule {table} out-{token} accept'",
    "a base chain has a rule more": "nft insert rule {table} forward accept",
    "a base chain is empty": "nft flush chain {table} forward",
    "a base chain hangs nowhere": "nft 'delete chain {table} forward; add chain {table} forward'",
    "the table sleeps": "nft 'add table {table} {{ flags dormant; }}'",
    "the gates sleep": "nft 'add table {gates} {{ flags dormant; }}'",
    "a gate is empty": "nft flush chain {gates} from-{token}",
    "a gate lets everything through": "nft 'add chain {gates} into-{token} {{ policy accept; }}'",
    "the gates are gone": "nft delete table {gates}",
    "a set of peers lacks one": "nft delete element {table} {peers} '{{ {address} }}'",
    "a set of peers has a stranger": "nft add element {table} {peers} '{{ 203.0.113.9 }}'",
}
OF_A_BRIDGE = {"the bridge does not show its traffic": "ip link set br0 type bridge nf_call_iptables 0"}
OF_A_ROUTE = {"the route to the pod is gone": "ip route del {address}"}
OF_ITS_POD = {"the pod does not know the host": "ip neigh flush dev eth0 nud permanent"}


@dataclass
class Scene:
    """A host, a pod there that a policy selects, and what a script that tampers with it calls things."""

    host: Host
    web: Pod
    conf: dict[str, Any]
    result: dict[str, Any]
    names: dict[str, str]


@pytest.fixture
def scene(lab: Lab, tmp_path: Path, kind: str) -> Scene:
    host, web = lab.site().host, lab.pod()
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    conf = KINDS[kind] | {"policy": {"policyDir": str(tmp_path)}}
    result = host.add(conf, web, CNI_ARGS=f"{NAMED}web")
    address = result["ips"][0]["address"].split("/")[0]
    pod = {"kind": "Pod", "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web"}}}
    (tmp_path / "web.json").write_text(json.dumps(pod | {"status": {"podIPs": [{"ip": address}]}}))
    refreshed(host)
    listed = host.run("nft", "list", "table", "inet", "agent_cni_policy").stdout
    token = listed.partition(f"{address} : jump in-")[2].split()[0].rstrip(",")
    peers = next(line.split()[1] for line in listed.splitlines() if line.strip().startswith("set p4-"))
    names = {"table": "inet agent_cni_policy", "gates": f"netdev agent_cni-{token[0]}"}
    return Scene(host, web, conf, result, names | {"token": token, "address": address, "peers": peers})


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fourth", range(4))
@pytest.mark.tried("rules changed by hand after a refresh that found nothing", "the next one finds each all the same")
def test_a_refresh_finds_what_became_another_since_one_found_nothing(scene: Scene, kind: str, fourth: int):
    host = scene.host
    own = OF_A_BRIDGE if kind == "bridged" else OF_A_ROUTE | OF_ITS_POD
    for name, script in list((TAMPERED | own).items())[fourth::4]:
        stands(host)
        (scene.web if name in OF_ITS_POD else host).run("sh", "-c", script.format(**scene.names))
        assert [item for item in doctor(host) if item["mend"] == "agent-cni refresh"], name
        assert refreshed(host) == 1, name
        assert doctor(host) == [], name
        host.check(scene.conf, scene.web, scene.result).ok()
    stands(host)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refresh_finds_another_policy_and_documents_that_are_lost(scene: Scene, tmp_path: Path, kind: str):
    host = scene.host
    stands(host)
    policy = POLICY | {"spec": POLICY["spec"] | {"ingress": []}}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    assert refreshed(host) == 1
    stands(host)
    for file in host.folder.glob("documents.db*"):
        file.unlink()
    assert refreshed(host) == 0
    stands(host)


def refreshed(host: Host) -> int:
    """How many attachments a refresh changed."""
    found: int = json.loads(host.run(AGENT_CNI, "refresh", "--json").stdout)["changed"]
    return found


def stands(host: Host) -> None:
    """Have the node be one of which a refresh knows everything."""
    assert refreshed(host) == 0
    assert refreshed(host) == 0
    with closing(sqlite3.connect(host.folder / "documents.db")) as documents:
        known = documents.execute("SELECT folder, value FROM standing ORDER BY folder").fetchall()
    assert [bool(folder) for folder, _ in known] == [False, True]
    assert known[0][1] != ""


def doctor(host: Host) -> list[dict[str, str]]:
    """What it says of attachments; CHECK asks everything anew."""
    found: list[dict[str, str]] = json.loads(host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["attachments"]
    return found


@pytest.mark.tried("a document wrong in a part, then right", "each refresh names it, and none when it is right")
def test_what_is_wrong_with_a_document_is_named_by_every_refresh(lab: Lab, tmp_path: Path):
    host, web = lab.site().host, lab.pod()
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    host.add(KINDS["routed"] | {"policy": {"policyDir": str(tmp_path)}}, web, CNI_ARGS=f"{NAMED}web")
    assert refreshed(host) == 0
    (tmp_path / "policy.json").write_text(json.dumps(POLICY | {"spec": POLICY["spec"] | {"form": 1}}))
    for _ in range(3):
        done = host.run(AGENT_CNI, "refresh", check=False)
        assert (done.returncode, done.stderr.count("spec.form")) == (1, 1), done.stderr
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    stands(host)


@pytest.mark.tried("what no rule tells of a pod whose rules stand", "doctor names it all the same")
def test_doctor_asks_of_a_pod_whose_rules_stand_all_the_rest(lab: Lab, tmp_path: Path):
    host, web = lab.site().host, lab.pod()
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    host.add(KINDS["routed"] | {"policy": {"policyDir": str(tmp_path)}}, web, CNI_ARGS=f"{NAMED}web")
    stands(host)
    assert doctor(host) == []
    web.run("ip", "route", "del", "default")
    stands(host)
    (found,) = doctor(host)
    assert "route 0.0.0.0/0 is missing in the pod" in found["what"]
