"""Kubernetes NetworkPolicies from a folder: pods are held to them at ADD, and after `agent-cni refresh`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from interception import address_of
from lab import AGENT_CNI, Host, Lab, Pod
from test_policy import RANGES, serving
from traffic import TIMED_OUT, Actor


def kube_pod(name: str, result: dict[str, Any], **labels: str) -> dict[str, Any]:
    ips = [{"ip": address_of(result, family)} for family in (4, 6)]
    return {"kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": labels}, "status": {"podIPs": ips}}


def only_from(app: str) -> dict[str, Any]:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": app}}}]}
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]}
    return {"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "web"}, "spec": spec}


def test_a_pod_follows_the_folder(lab: Lab, host: Host, tmp_path: Path):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "ipam": {"ranges": RANGES}}
    fed = conf | {"policy": {"policyDir": str(tmp_path)}}
    pods: dict[str, Pod] = {name: lab.pod() for name in ("friend", "stranger", "web")}
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
    results = {name: host.add(conf, pods[name], CNI_ARGS=args + name) for name in ("friend", "stranger")}
    known = [kube_pod(name, results[name], app=name) for name in results]
    mine = {"kind": "Pod", "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web"}}}
    (tmp_path / "pods.json").write_text(json.dumps({"kind": "List", "items": [*known, mine]}))
    (tmp_path / "policy.json").write_text(json.dumps(only_from("friend")))
    result = results["web"] = host.add(fed, pods["web"], CNI_ARGS=args + "web")
    with ExitStack() as held:
        actors = {name: serving(held.enter_context(Actor(pod))) for name, pod in pods.items()}
        for family in (4, 6):
            assert actors["friend"].connect(address_of(result, family), 80, keep=f"kept{family}")["who"] == "it"
            assert actors["stranger"].connect(address_of(result, family), 80) == TIMED_OUT
        (tmp_path / "policy.json").write_text(json.dumps(only_from("stranger")))
        assert "changed 1 of 1" in host.run(AGENT_CNI, "refresh").stdout
        for family in (4, 6):
            assert actors["stranger"].reaches(address_of(result, family), 80) == "it"
            assert actors["friend"].echo(f"kept{family}") == TIMED_OUT, "what is no longer allowed is cut"
        assert "changed 0 of 1" in host.run(AGENT_CNI, "refresh").stdout
        (tmp_path / "policy.json").write_text("a: [")
        refused = host.run(AGENT_CNI, "refresh", check=False)
        assert (refused.returncode, str(tmp_path / "policy.json") in refused.stderr) == (1, True)
        found = json.loads(host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["attachments"]
        assert [item["mend"] for item in found] == ["put the folder or file right, then agent-cni refresh"]
        assert actors["stranger"].reaches(address_of(result, 4), 80) == "it", "the last good policy stays"
        (tmp_path / "policy.json").unlink()
        host.run(AGENT_CNI, "refresh")
        assert actors["friend"].reaches(address_of(result, 4), 80) == "it"
    host.check(fed, pods["web"], result, CNI_ARGS=args + "web").ok()
    for name, pod in pods.items():
        host.delete_pod(fed if name == "web" else conf, pod)
    assert host.run("nft", "list", "ruleset").stdout == ""


def test_a_folder_that_cannot_be_read_attaches_nobody(host: Host, pod: Pod):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "policy": {"policyDir": "/nowhere"}}
    assert "/nowhere is no folder" in host.cni("ADD", conf, pod).failed(7)
    host.delete_pod(conf, pod)
