"""Pods whose gates have a table of their own, as the release before made them, are this one's too."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, Host, Lab, Pod
from town import RANGES

BRIDGED: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipam": {"ranges": RANGES},
}  # fmt: skip
HELD = BRIDGED | {"policy": {"ingress": ["10.0.0.0/8"]}}
ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"
DENY = {
    "kind": "NetworkPolicy",
    "metadata": {"namespace": "shop", "name": "deny"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}


def tables(host: Host) -> set[str]:
    """The tables gates are in."""
    return {line.split()[-1] for line in host.run("nft", "list", "tables", "netdev").stdout.splitlines()}


def made_before(host: Host, conf: dict[str, Any], pod: Pod, **options: Any) -> tuple[dict[str, Any], str]:
    """An ADD's result on an empty node, in kernel and record as the release before had it, and what its gates are called after."""
    result = host.add(conf, pod, **options)
    (bucket,) = tables(host)
    with closing(sqlite3.connect(host.folder / "state.db")) as state, state:
        kept = "attachment WHERE resources LIKE '%GateTable%'"
        (recorded,) = state.execute(f"SELECT resources FROM {kept}").fetchone()
        items = json.loads(recorded)
        gates = [item for item in items if item["kind"] == "Gate"]
        for gate in gates:
            assert f"agent_cni-{gate.pop('bucket')}" == bucket
        token = gates[0]["token"]
        (table,) = (item for item in items if item["kind"] == "GateTable")
        table["token"] = token
        state.execute(f"UPDATE {kept.replace(' WHERE', ' SET resources = ? WHERE')}", (json.dumps(items),))
        assert state.execute("DELETE FROM uses WHERE place LIKE 'GateTable %'").rowcount == 1
    listed = host.run("nft", "list", "table", "netdev", bucket).stdout
    own = listed.replace(f"table netdev {bucket} ", f"table netdev agent_cni-{token} ")
    led = f"add element inet agent_cni_policy out4 {{ {address_of(result, 4)} : jump out-{token} }}\n"
    host.run("nft", "-f", "-", input=f"delete table netdev {bucket}\n{own}\n{led}")
    assert tables(host) == {f"agent_cni-{token}"}
    return result, token


def faults(host: Host) -> list[dict[str, str]]:
    found = json.loads(host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)
    return [*found["leftovers"], *(item for item in found["attachments"] if item)]


def nothing_is_left(host: Host) -> None:
    assert host.state() == {"attachments": [], "leases": []}
    assert host.run("nft", "list", "ruleset").stdout == ""


@pytest.mark.tried(
    "pods whose gates have tables of their own, beside new ones", "CHECK is green, each goes with its DEL"
)
@pytest.mark.parametrize("first", ["the old one", "the new one"])
def test_they_live_beside_those_of_this_release(lab: Lab, first: str):
    host, old, new = lab.site().host, lab.pod(), lab.pod()
    result, token = made_before(host, HELD, old)
    host.check(HELD, old, result).ok()
    assert faults(host) == []
    ours = host.add(HELD, new)
    host.check(HELD, old, result).ok()
    host.check(HELD, new, ours).ok()
    assert faults(host) == []
    assert f"agent_cni-{token}" in tables(host)
    assert len(tables(host)) == 2
    assert "changed 0" in host.run(AGENT_CNI, "refresh").stdout
    order = (old, new) if first == "the old one" else (new, old)
    host.delete_pod(HELD, order[0])
    assert (f"agent_cni-{token}" in tables(host)) is (first == "the new one")
    assert faults(host) == []
    host.delete_pod(HELD, order[1])
    nothing_is_left(host)


@pytest.mark.tried("such a pod's gates deleted, its record lost", "made again where they were; DEL leaves nothing")
@pytest.mark.parametrize("lost", [False, True], ids=["recorded", "lost"])
def test_what_is_missing_is_made_again_where_it_was(lab: Lab, lost: bool):
    host, pod = lab.site().host, lab.pod()
    result, token = made_before(host, HELD, pod)
    host.run("nft", "delete", "table", "netdev", f"agent_cni-{token}")
    assert "spoofing guard" in host.check(HELD, pod, result).failed(104)
    assert "1 of 1 with other rules" in host.run(AGENT_CNI, "refresh").stdout
    host.check(HELD, pod, result).ok()
    assert tables(host) == {f"agent_cni-{token}"}
    for file in host.folder.glob("state.db*") if lost else ():
        file.unlink()
    host.delete_pod(HELD | {"prevResult": result}, pod)
    nothing_is_left(host)


@pytest.mark.tried("another policy for such a pod", "its gates move to the table they share, its own goes")
def test_with_another_policy_they_move(lab: Lab, tmp_path: Path):
    host, pod = lab.site().host, lab.pod()
    (tmp_path / "deny.json").write_text(json.dumps(DENY))
    fed = BRIDGED | {"policy": {"policyDir": str(tmp_path)}}
    result, token = made_before(host, fed, pod, CNI_ARGS=ARGS)
    (tmp_path / "deny.json").write_text(
        json.dumps(DENY | {"spec": DENY["spec"] | {"policyTypes": ["Ingress", "Egress"]}})
    )
    assert "changed 1 of 1" in host.run(AGENT_CNI, "refresh").stdout
    assert tables(host) == {f"agent_cni-{token[0]}"}
    host.check(fed, pod, result, CNI_ARGS=ARGS).ok()
    assert faults(host) == []
    host.delete_pod(fed, pod, CNI_ARGS=ARGS)
    nothing_is_left(host)


def test_a_chained_plugin_that_comes_again_moves_them(lab: Lab):
    host, pod = lab.site().host, lab.pod()
    chained = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "policy": {"ingress": ["10.0.0.0/8"]}}
    chained |= {"prevResult": host.add(BRIDGED, pod)}
    result, token = made_before(host, chained, pod)
    assert host.add(chained, pod) == result
    assert tables(host) == {f"agent_cni-{token[0]}"}
    host.check(chained, pod, result).ok()
    assert faults(host) == []
    host.delete_pod(chained, pod)
    host.delete_pod(BRIDGED, pod)
    nothing_is_left(host)
