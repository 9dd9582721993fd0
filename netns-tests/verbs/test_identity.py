"""A namespace is what it is and not its path: another one under that path is nobody's, in every verb and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, Host, Lab, Pod, Site, sh
from traffic import Actor

BRIDGED = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True}
BRIDGED |= {"ipam": {"subnet": "10.1.0.0/24"}, "sidecar": {}, "policy": {"ingress": []}}


@pytest.fixture
def macvlan(net: dict[str, Any]) -> dict[str, Any]:
    return net | {"policy": {"ingress": []}, "sidecar": {}}


def reborn(pod: Pod) -> None:
    """The same path, another namespace."""
    pod.delete()
    pod.create()


def tables(pod: Pod) -> str:
    return pod.run("nft", "--stateless", "list", "ruleset").stdout


def gc_verb(host: Host, conf: dict[str, Any], *valid: str) -> None:
    listed = [{"containerID": container, "ifname": "eth0"} for container in valid]
    host.cni("GC", conf | {"cni.dev/valid-attachments": listed}).ok()


ENDS = {
    "DEL": lambda host, conf, old, new: host.cni("DEL", conf, old, container="first").ok(),
    "DEL without its path": lambda host, conf, old, new: host.cni("DEL", conf, container="first").ok(),
    "GC": lambda host, conf, old, new: gc_verb(host, conf, "second"),
    "agent-cni gc": lambda host, conf, old, new: host.run(AGENT_CNI, "gc"),
}


@pytest.mark.tried(
    "a dead pod's path means another pod's namespace; DEL and GC of the dead one",
    "the other's policy and interception, rule for rule",
)
@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_one_takes_nothing_from_who_has_its_path_now(
    lab: Lab, site: Site, macvlan: dict[str, Any], end: str
):
    host, pod = site.host, lab.pod()
    host.add(macvlan, pod, container="first")
    reborn(pod)
    result = host.add(macvlan, pod, container="second")
    before = tables(pod)
    ENDS[end](host, macvlan, pod, pod)
    assert [item["container"] for item in host.state()["attachments"]] == ["second"]
    assert tables(pod) == before
    host.check(macvlan, pod, result, container="second").ok()
    with Actor(pod) as server:
        server.listen("it", 80)
        with Actor(site.outside) as outside:
            assert outside.reaches(address_of(result, 4), 80) == "TimeoutError"
            assert server.reaches("127.0.0.1", 80) == "it"
    host.cni("DEL", macvlan, pod, container="second").ok()


@pytest.mark.tried(
    "a dead pod's path means the node's own namespace; DEL and GC", "done, and nothing of the node's is touched"
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
@pytest.mark.parametrize("end", ENDS)
def test_a_path_that_means_the_node_itself_by_now(lab: Lab, host: Host, end: str, known: bool):
    pods = [lab.pod(), lab.pod()]
    for pod, name in zip(pods, ("first", "second"), strict=True):
        host.add(BRIDGED, pod, container=name)
    if not known:
        host.run("python3", "-c", _OF_RECORDS.format("netns_id = '', home = ''"))
    before = sorted(host.run("iptables-nft-save").stdout.splitlines())
    host.bury(pods[0])
    Path(pods[0].path).touch()
    sh("mount", "--bind", host.path, pods[0].path)
    areas = json.loads(host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["attachments"]
    assert [item["mend"] for item in areas if "first" in item["what"]] == ["agent-cni gc"]
    host.cni("ADD", BRIDGED | {"name": "other"}, pods[0], container="third").failed(8)
    ENDS[end](host, BRIDGED, pods[0], pods[1])
    assert [item["container"] for item in host.state()["attachments"]] == ["second"]
    assert sorted(host.run("iptables-nft-save").stdout.splitlines()) == before
    host.cni("DEL", BRIDGED, pods[1], container="second").ok()


@pytest.mark.tried("the same by a path that leads to another namespace later", "the other's interception")
def test_a_path_of_a_process_is_not_the_next_ones(lab: Lab, host: Host):
    pods = [lab.pod(), lab.pod()]
    link = f"/run/netns-link-{host.name}"
    sh("ln", "-sfn", pods[0].path, link)
    host.add(BRIDGED, pods[0], container="first", CNI_NETNS=link)
    pods[0].delete()
    sh("ln", "-sfn", pods[1].path, link)
    result = host.add(
        BRIDGED | {"name": "other", "bridge": "br1", "ipam": {"subnet": "10.2.0.0/24"}}, pods[1], CNI_NETNS=link
    )
    before = tables(pods[1])
    assert "ACNI" in before
    host.cni("DEL", BRIDGED, container="first", CNI_NETNS=link).ok()
    assert tables(pods[1]) == before
    assert address_of(result, 4) == "10.2.0.2"
    sh("rm", link)


@pytest.mark.tried("CHECK with the path of another namespace", "drift (104) that says so")
def test_check_names_another_namespace(lab: Lab, host: Host):
    pod, other = lab.pod(), lab.pod()
    result = host.add(BRIDGED, pod)
    said = host.cni("CHECK", BRIDGED | {"prevResult": result}, pod, CNI_NETNS=other.path).failed(104)
    assert "another namespace" in said
    host.check(BRIDGED, pod, result).ok()


def test_an_add_in_another_namespace_begins_anew(lab: Lab, host: Host):
    pod = lab.pod()
    host.add(BRIDGED, pod)
    assert "attached already" in host.cni("ADD", BRIDGED, pod).failed(105)
    reborn(pod)
    result = host.add(BRIDGED, pod)
    host.check(BRIDGED, pod, result).ok()
    assert len(host.state()["attachments"]) == 1


def hidden(host: Host, *argv: object) -> Any:
    """Run a command where /run/netns is an empty folder, as in a debug container."""
    script = 'mount -t tmpfs none /run/netns && exec "$@"'
    return host.run("unshare", "--mount", "sh", "-c", script, "sh", *argv, check=False)


_OF_RECORDS = (
    "import sqlite3; db = sqlite3.connect('/run/agent-cni/state.db')\n"
    'db.execute("UPDATE attachment SET {}"); db.commit()'
)
#: What a record says of its namespace: one that was brought up from the release before may say less.
KNOWN = {
    "all": "",
    "no home": _OF_RECORDS.format("home = ''"),
    "nothing": _OF_RECORDS.format("home = '', netns_id = ''"),
}

CONTAINED = 'mount -t tmpfs none /run/netns && exec "$@"'


def contained(host: Host, *argv: object) -> Any:
    """Run a command in a process namespace of its own, with its own /run/netns, on the host's network."""
    own = ("--mount", "--pid", "--fork", "--mount-proc")
    return host.run("unshare", *own, "sh", "-c", CONTAINED, "sh", *argv, check=False)


def elsewhere(host: Host, *argv: object) -> Any:
    """The same on a network of its own."""
    own = ("--mount", "--net", "--pid", "--fork", "--mount-proc")
    return host.run("unshare", *own, "sh", "-c", CONTAINED, "sh", *argv, check=False)


@pytest.mark.tried(
    "`agent-cni gc` and `doctor` from a debug container: no /run/netns, other namespaces",
    "nothing is touched; what cannot be seen is refused and told",
)
@pytest.mark.parametrize("look", [hidden, contained, elsewhere])
@pytest.mark.parametrize("kind", ["bridged", "macvlan"])
@pytest.mark.parametrize("known", KNOWN)
def test_gc_touches_nothing_it_cannot_see(
    lab: Lab, site: Site, macvlan: dict[str, Any], kind: str, look: Any, known: str
):
    host, pod = site.host, lab.pod()
    conf = BRIDGED if kind == "bridged" else macvlan
    result = host.add(conf, pod)
    host.run("python3", "-c", KNOWN[known])
    done = look(host, AGENT_CNI, "gc", "--json")
    said = json.loads(done.stdout)
    assert said["removed"] == 0
    assert len(host.state()["leases"]) == 1
    host.check(conf, pod, result).ok()
    if look is elsewhere or (known != "all" and kind == "macvlan" and said["failed"]):
        assert done.returncode == 1
        assert "cannot be seen from here" in said["failed"][0]
        doctor = look(host, AGENT_CNI, "doctor").stdout
        assert "cannot be seen from here" in doctor
        assert "agent-cni gc" not in doctor
    host.delete_pod(conf, pod)
    host.run("ip", "link", "del", "br0", check=False)


@pytest.mark.tried("gc where one pod is dead and one hidden", "the dead one goes where that is proven, the other stays")
@pytest.mark.parametrize("kind", ["bridged", "macvlan"])
@pytest.mark.parametrize("known", KNOWN)
def test_gc_removes_what_is_gone_beside_what_is_hidden(
    lab: Lab, site: Site, macvlan: dict[str, Any], kind: str, known: str
):
    host, dead, alive = site.host, lab.pod(), lab.pod()
    conf = BRIDGED if kind == "bridged" else macvlan
    host.add(conf, dead)
    result = host.add(conf, alive)
    host.run("python3", "-c", KNOWN[known])
    dead.delete()
    assert json.loads(hidden(host, AGENT_CNI, "gc", "--json").stdout)["removed"] in (0, 1)
    host.check(conf, alive, result).ok()
    assert host.run(AGENT_CNI, "gc").returncode == 0
    assert [item["container"] for item in host.state()["attachments"]] == [alive.container]
    host.check(conf, alive, result).ok()
    host.delete_pod(conf, alive)
    host.run("ip", "link", "del", "br0", check=False)
