"""Pods of an earlier release are the next one's: it reads their state in place, CHECKs, DELetes and collects them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, ROOT, Host, Lab, Pod, environment, eventually, sh
from traffic import Actor

from cni.state.layout import VERSION

RELEASE = ROOT / "netns-tests/scenes/releases/layout-1.tar.xz"
OLD_ADD = "import sys; sys.path.insert(0, sys.argv[1]); from cni.main import main; raise SystemExit(main(sys.argv[2]))"
RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
HEAD = {"cniVersion": "1.1.0", "name": "net"}
BRIDGE = HEAD | {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipam": {"ranges": RANGES}}
POLICY = {"ingress": ["10.0.0.0/8", "fd00:1::/64"], "egressDrop": True, "hostAccess": False}
CONFS: dict[str, dict[str, Any]] = {
    "policy": BRIDGE | {"policy": POLICY},
    "masquerade by nft": BRIDGE | {"ipMasq": True, "ipMasqBackend": "nftables"},
    "masquerade by iptables": BRIDGE | {"ipMasq": True, "ipMasqBackend": "iptables"},
    "sidecar": BRIDGE | {"sidecar": {"denyUncaptured": True}},
    "everything": BRIDGE | {"ipMasq": True, "policy": POLICY, "sidecar": {"mode": "tproxy", "captureDNS": True}},
    "routed": HEAD | {"type": "custom-plugin", "policy": {"defaultDeny": True, "allowDNS": True}, "ipMasq": True},
    "vxlan": BRIDGE | {"vxlan": {"id": 100, "dev": "eth0", "remotes": ["192.0.2.12"]}, "policy": {"ingress": []}},
}


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    sh("tar", "-xJf", RELEASE, "-C", folder)
    return folder


def old_add(release: Path, host: Host, conf: dict[str, Any], pod: Pod) -> dict[str, Any]:
    """An ADD as the release before layout 2 made it."""
    script = release / "plugins" / conf["type"]
    argv = (ROOT / ".venv/bin/python3", "-I", "-c", OLD_ADD, release, script)
    done = host.run(*argv, input=json.dumps(conf), env=environment("ADD", pod), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def macvlan(net: dict[str, Any]) -> dict[str, Any]:
    return net | {"hostAccess": True, "policy": {"ingress": ["192.0.2.0/24"]}, "sidecar": {}}


@pytest.fixture(params=[*CONFS, "macvlan"])
def conf(request: pytest.FixtureRequest, macvlan: dict[str, Any]) -> dict[str, Any]:
    return CONFS.get(request.param, macvlan)


def layout(host: Host) -> int:
    with sqlite3.connect(host.folder / "state.db") as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def uncounted(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("-A")]


def nothing_is_left(host: Host) -> None:
    assert host.state() == {"attachments": [], "leases": []}
    listed = host.run("nft", "list", "tables").stdout
    assert "agent_cni" not in listed
    assert "ACNI" not in host.run("iptables-nft-save", "-t", "nat").stdout
    assert not [item for item in host.ip("link", "show") if item["ifname"].startswith(("veth", "mv-"))]


@pytest.mark.tried("pods made by the release before, state file and all", "CHECK is green, DEL leaves nothing")
def test_a_pod_of_the_release_before_is_checked_and_deleted(lab: Lab, release: Path, conf: dict[str, Any]):
    host, pod = lab.site().host, lab.pod()
    result = old_add(release, host, conf, pod)
    assert layout(host) == 1
    host.check(conf, pod, result).ok()
    assert layout(host) == VERSION
    host.delete_pod(conf, pod)
    nothing_is_left(host)


@pytest.mark.tried("such pods beside new ones, deleted in both orders", "each, until its own DEL")
def test_its_pods_and_ours_live_beside_each_other(lab: Lab, release: Path, conf: dict[str, Any]):
    host, old, new = lab.site().host, lab.pod(), lab.pod()
    result = old_add(release, host, conf, old)
    ours = host.add(conf, new)
    host.check(conf, old, result).ok()
    host.check(conf, new, ours).ok()
    host.delete_pod(conf, new)
    host.check(conf, old, result).ok()
    again = host.add(conf, new)
    host.delete_pod(conf, old)
    host.check(conf, new, again).ok()
    host.delete_pod(conf, new)
    nothing_is_left(host)


@pytest.mark.tried(
    "a second network for such a pod with interception", "the pod's rules, shared; CHECK of both is green"
)
@pytest.mark.parametrize("name", ["sidecar", "everything", "plain"])
def test_its_pod_gets_a_second_attachment(lab: Lab, release: Path, name: str):
    conf = CONFS.get(name, BRIDGE | {"sidecar": {}})
    host, pod = lab.site().host, lab.pod()
    result = old_add(release, host, conf, pod)
    rules = pod.run("iptables-nft-save").stdout
    second = conf | {"isDefaultGateway": False, "isGateway": True}
    host.cni("ADD", second | {"sidecar": conf["sidecar"] | {"port": 16001}}, pod, ifname="net1").failed(101)
    later = host.add(second, pod, ifname="net1")
    assert uncounted(pod.run("iptables-nft-save").stdout) == uncounted(rules)
    host.check(conf, pod, result).ok()
    host.check(second, pod, later, ifname="net1").ok()
    host.delete_pod(conf, pod)
    host.check(second, pod, later, ifname="net1").ok()
    host.delete_pod(second, pod, ifname="net1")
    nothing_is_left(host)
    assert "ACNI" not in pod.run("iptables-nft-save").stdout


@pytest.mark.tried("such a pod's record is lost, then its DEL", "nothing of it is left on the node")
@pytest.mark.parametrize("kind", ["policy", "routed"])
def test_a_lost_one_is_found_by_what_the_runtime_remembers(lab: Lab, release: Path, kind: str):
    host, pod, conf = lab.site().host, lab.pod(), CONFS[kind]
    result = old_add(release, host, conf, pod)
    host.lose_state()
    host.delete_pod(conf | {"prevResult": result}, pod)
    nothing_is_left(host)


@pytest.mark.tried("a pod of this release comes and goes beside policed ones of that", "their policies")
def test_its_policies_hold_before_and_after_one_of_ours(lab: Lab, host: Host, release: Path):
    conf = CONFS["policy"]
    web, friend, stranger = lab.pod(), lab.pod(), lab.pod()
    open_conf = {key: value for key, value in conf.items() if key != "policy"}
    seen = old_add(release, host, open_conf, friend)
    old_add(release, host, open_conf, stranger)
    own = [f"{address_of(seen, 4)}/32", f"{address_of(seen, 6)}/128"]
    result = old_add(release, host, conf | {"policy": {"ingress": own, "egressDrop": True}}, web)
    with Actor(web) as server, Actor(friend) as one, Actor(stranger) as other:
        server.listen("it", 80)

        def holds() -> None:
            for family in (4, 6):
                assert one.reaches(address_of(result, family), 80) == "it"
                assert other.reaches(address_of(result, family), 80) == "TimeoutError"

        holds()
        ours = lab.pod()
        host.add(conf, ours)
        holds()
        host.delete_pod(conf, ours)
        holds()


@pytest.mark.tried("such a pod dies unseen", "`agent-cni gc` removes it and leaves the others")
def test_what_is_left_of_its_dead_pods_is_collected(lab: Lab, release: Path, conf: dict[str, Any]):
    host, dead, alive = lab.site().host, lab.pod(), lab.pod()
    old_add(release, host, conf, dead)
    result = old_add(release, host, conf, alive)
    dead.delete()  # the kernel takes a namespace's links away later, and until then they tell of it
    assert eventually(lambda: host.run(AGENT_CNI, "gc").stdout == "removed 1 of 1 stale attachments\n")
    host.check(conf, alive, result).ok()
    host.delete_pod(conf, alive)
    nothing_is_left(host)
