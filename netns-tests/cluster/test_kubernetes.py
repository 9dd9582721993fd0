"""Hosts that know each other by the Kubernetes API: one that is played, and Kubernetes' own where `make kube-test` has built it."""

from __future__ import annotations

import json

import pytest
from cluster import Node, Placed
from cluster import conf as clustered
from kube_api import namespace, policy
from kubernetes import APISERVER, KubeCluster, Played, Real
from lab import AGENT_CNI, Lab, eventually, sh

SERVERS = [
    Played,
    pytest.param(
        Real, marks=pytest.mark.skipif(not APISERVER.exists(), reason="`make kube-test` builds it, half an hour")
    ),
]
ROUTED = clustered("l3", block=256)
STRETCHED = clustered("l2", block=256)
#: An address on the wire that no host has.
MOVED = "192.0.2.199"


def routes(host: Node) -> set[str]:
    """The ways to other hosts' blocks."""
    return {
        item["dst"]
        for family in (4, 6)
        for item in host.ip("route", "show", family=family)
        if item.get("dev") == "vx100"
    }


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("conf", [ROUTED, STRETCHED], ids=["l3", "l2"])
def test_nodes_reach_every_pod_by_what_the_api_says(lab: Lab, server: type[Played | Real], conf: dict[str, object]):
    with KubeCluster(lab, server=server) as town:
        one, two, empty = town.nodes
        town.join()
        pods = [town.add(host, conf) for host in (one, two, one)]
        for number, placed in enumerate(pods):
            town.show(placed, f"pod-{number}")
        assert all(it.address(4).startswith(f"10.10.{it.host.number}.") for it in pods)
        town.meshed()  # also from the node that has no pod
        late = town.more()
        town.register(late)
        town.join(late)
        town.show(town.add(late, conf), "late")
        town.meshed()
        town.remove(pods[0])
        town.api.delete("Pod", "pod-0", "default")
        town.show(town.add(two, conf), "another")
        town.meshed()
        assert empty.holdings() == {f"net 10.10.{empty.number}.0/24", f"net fd00:10::{empty.number:x}00/120"}
        town.leave()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("first", [True, False], ids=["before the member", "after it"])
def test_what_the_runtime_reads_is_the_clusters_before_the_first_pod(
    lab: Lab, server: type[Played | Real], first: bool
):
    with KubeCluster(lab, hosts=1, server=server) as town:
        (host,) = town.nodes
        if first:
            _write(host, ROUTED)
        town.join()
        if not first:
            _write(host, ROUTED)
        assert eventually(lambda: len(host.holdings()) == 2), host.said()
        host.add(ROUTED, lab.pod())


def _write(host: Node, conf: dict[str, object]) -> None:
    """As an administrator would, for the runtime."""
    folder = host.etc / "cni/net.d"
    folder.mkdir(parents=True, exist_ok=True)
    plugin = {key: value for key, value in conf.items() if key not in ("cniVersion", "name")}
    header = {"cniVersion": "1.0.0", "name": conf["name"], "plugins": [plugin]}
    (folder / "10-pods.conflist").write_text(json.dumps(header))


@pytest.mark.parametrize("server", SERVERS)
def test_while_the_api_is_away_pods_come_go_and_talk_and_members_begin_anew(lab: Lab, server: type[Played | Real]):
    with KubeCluster(lab, hosts=2, server=server) as town:
        one, two = town.nodes
        town.join()
        first = town.add(one, ROUTED)
        town.add(two, ROUTED)
        town.meshed()
        town.api.stop()
        town.add(two, ROUTED)
        town.remove(first)
        two.kill()
        two.start()
        town.meshed()
        assert eventually(lambda: "store is not reached" in (two.remembered(lambda store: store.member()).trouble))
        town.api.start()
        assert eventually(lambda: town.joined(two), 40)
        town.add(one, ROUTED)
        town.meshed()


@pytest.mark.long
def test_a_node_that_is_cut_off_from_the_api_says_so_and_catches_up(lab: Lab):
    with KubeCluster(lab, hosts=2) as town:
        one, two = town.nodes
        town.join()
        town.add(one, ROUTED)
        town.add(two, ROUTED)
        town.meshed()
        town.partition(two)
        assert eventually(lambda: "store is not reached" in two.remembered(lambda store: store.member()).trouble, 60)
        town.add(two, ROUTED)
        town.meshed()
        late = town.more()
        town.register(late)
        town.join(late)
        town.heal()
        assert eventually(lambda: town.joined(two), 60)
        town.add(late, ROUTED)
        town.meshed(30)


@pytest.mark.parametrize("conf", [ROUTED, STRETCHED], ids=["l3", "l2"])
def test_a_node_with_another_internal_ip_is_sought_there(lab: Lab, conf: dict[str, object]):
    with KubeCluster(lab, hosts=2) as town:
        one, two = town.nodes
        town.join(vtep=None)
        for host in (one, two):
            town.show(town.add(host, conf), f"pod-{host.number}")
        town.meshed()
        (link,) = {
            item["ifname"] for item in two.ip("addr") for at in item["addr_info"] if at["local"] == two.underlay()
        }
        node = town.api.get("Node", two.name)
        node["status"]["addresses"][0]["address"] = MOVED
        town.api.put(node)
        sh("ip", "-n", two.name, "addr", "add", f"{MOVED}/24", "dev", link)
        assert eventually(lambda: MOVED in one.run("bridge", "fdb", "show").stdout), two.said()
        assert two.underlay() not in one.run("bridge", "fdb", "show").stdout
        _write(two, conf)
        two.run(AGENT_CNI, "refresh", "--conf-dir", two.etc / "cni/net.d")
        town.meshed()


def test_a_deleted_node_is_reached_still_and_its_members_word_comes_back_with_it(lab: Lab):
    with KubeCluster(lab, hosts=2) as town:
        one, two = town.nodes
        town.join()
        town.add(one, ROUTED)
        town.add(two, ROUTED)
        town.meshed()
        before = routes(one)
        town.api.delete("Node", two.name)
        assert eventually(lambda: "no Node" in two.remembered(lambda store: store.member()).trouble)
        town.meshed()
        assert routes(one) == before
        town.register(two)
        assert eventually(lambda: town.joined(two))
        town.add(two, ROUTED)
        town.meshed()


@pytest.mark.parametrize("conf", [ROUTED, STRETCHED], ids=["l3", "l2"])
def test_a_node_whose_state_is_lost_gives_no_address_of_a_pod_that_lives(lab: Lab, conf: dict[str, object]):
    with KubeCluster(lab, hosts=2) as town:
        one, two = town.nodes
        town.join()
        pods = [town.add(host, conf) for host in (one, one, two)]
        for number, placed in enumerate(pods):
            town.show(placed, f"pod-{number}")
        one.kill()
        one.lose_state()
        town.join(one)
        town.show(town.add(one, conf), "late")
        town.meshed()
        town.remove(pods[0])
        assert len(one.remembered(lambda store: store.all_leases())) == 4, "of two pods, of both families"


@pytest.mark.tried(
    "a node is moved from another network, one of whose pods is still there",
    "its address is given to nobody until it is gone",
)
def test_the_address_of_another_networks_pod_is_given_when_that_is_gone(lab: Lab):
    with KubeCluster(lab, hosts=1) as town:
        (host,) = town.nodes
        stranger = lab.pod()
        taken = [f"10.10.{host.number}.{number}" for number in (2, 3)]
        ends = ("veth1a2b3c4d", "type", "veth", "peer", "name", "eth0", "netns", stranger.name)
        sh("ip", "-n", host.name, "link", "add", *ends)
        for address in taken:
            sh("ip", "-n", stranger.name, "addr", "add", f"{address}/24", "dev", "eth0")
        town.join()
        ours = [town.add(host, ROUTED) for _ in range(3)]
        assert not {it.address(4) for it in ours} & {*taken}, [it.address(4) for it in ours]
        doctor = host.run(AGENT_CNI, "doctor", check=False).stdout
        assert all(f"{address} of network net is a pod's of another network" in doctor for address in taken), doctor
        sh("ip", "-n", host.name, "link", "del", "veth1a2b3c4d")
        assert eventually(lambda: len(host.remembered(lambda store: store.all_leases())) == 6), "ours, of both families"


@pytest.mark.parametrize("server", SERVERS)
def test_policies_and_labels_come_from_the_api(lab: Lab, server: type[Played | Real]):
    conf = ROUTED | {"policy": {"cluster": True}}
    with KubeCluster(lab, hosts=2, server=server) as town:
        one, two = town.nodes
        town.join()
        town.api.put(namespace("shop"))
        assert all(eventually(lambda host=host: host.cni("STATUS", conf).code == 0) for host in town.nodes)
        near, far, web = (_named(town, host, conf, name) for host, name in ((one, "near"), (two, "far"), (two, "web")))
        assert eventually(lambda: _reaches(near, web) and _reaches(far, web))
        ingress = [{"from": [{"podSelector": {"matchLabels": {"app": "near"}}}]}]
        town.api.put(policy("web", "shop", podSelector={"matchLabels": {"app": "web"}}, ingress=ingress))
        assert eventually(lambda: _reaches(near, web) and not _reaches(far, web))
        late = town.add(one, conf, CNI_ARGS="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=late")
        assert not _reaches(far, late), "whose labels are not known yet may be anybody's"
        town.show(late, "late", "shop", app="late")
        assert eventually(lambda: _reaches(far, late))
        town.show(far, "far", "shop", app="near")
        assert eventually(lambda: _reaches(far, web))
        town.api.delete("NetworkPolicy", "web", "shop")
        town.show(far, "far", "shop", app="far")
        assert eventually(lambda: _reaches(far, web))


def _named(town: KubeCluster, host: Node, conf: dict[str, object], name: str) -> Placed:
    placed = town.add(host, conf, CNI_ARGS=f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}")
    town.show(placed, name, "shop", app=name)
    return placed


def _reaches(one: Placed, other: Placed) -> bool:
    return all(one.pod.pings(other.address(family), 1) for family in (4, 6))
