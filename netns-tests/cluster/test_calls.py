"""Calls on a network of the cluster: its member is played, for what it does is written in the state, and no call asks for more."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any

import pytest
from cluster import Cluster
from cluster import conf as clustered
from lab import AGENT_CNI, BIN_DIR, REFERENCE_DIR, Host, Lab, Pod, eventually, sh
from played import Played, asked, me, said
from strace import cold
from traffic import Actor

from cni.state.membership import LOST

SPANS = ("10.10.0.0/29", "fd00:10::/125", "10.10.0.8/29", "fd00:10::8/125")
CONF = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge-vxlan",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipMasqBackend": "nftables",
    "vxlan": {"id": 7},
    "ipam": {"cluster": True, "blockSize": 8, "ranges": [[{"subnet": "10.10.0.0/16"}], [{"subnet": "fd00:10::/64"}]]},
}


def in_mode(mode: str) -> dict[str, Any]:
    return CONF | {"vxlan": {"id": 7, "mode": mode}}


def addresses(result: dict[str, Any]) -> list[str]:
    return [ip["address"].split("/")[0] for ip in result["ips"]]


@pytest.fixture
def host(lab: Lab) -> Host:
    if lab.transcript:
        lab.transcript.drop()  # who waits may wait twice
    made = lab.host()
    lab.underlay(made)
    return made


def remembered(host: Host) -> tuple[set[str], set[str]]:
    """The addresses that are leased, and those the cluster is to know of."""
    leases = asked(host, lambda store: {str(address) for address, *_ in store.all_leases()})
    return leases, {address for address, item in said(host).items() if item.wanted}


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_the_life_of_pods_on_a_network_of_the_cluster(host: Host, lab: Lab, mode: str):
    conf, pods = in_mode(mode), [lab.pod() for _ in range(7)]
    with Played(host, SPANS):
        results = [host.add(conf, pod) for pod in pods]
        member = me(host)
        tunnel = next(item for item in host.ip("link", "show", "vxlan7"))
        data = tunnel["linkinfo"]["info_data"]
        assert (tunnel["address"], data["local"], data["learning"], tunnel["mtu"]) == (
            member.mac,
            "192.0.2.11",
            False,
            1450,
        )
        assert tunnel.get("master") == ("br0" if mode == "l2" else None)
        assert all(next(pod.link("eth0") for pod in [it])["mtu"] == 1450 for it in pods)
        gateways = {"10.10.0.1/16", "fd00:10::1/64"}
        if mode == "l3":
            gateways = {"10.10.0.1/29", "fd00:10::1/125", "10.10.0.9/29", "fd00:10::9/125"}
        assert host.addresses("br0") == gateways
        leases, known = remembered(host)
        assert leases == known == {address for result in results for address in addresses(result)}
        for pod, result in zip(pods, results, strict=True):
            item = said(host)[addresses(result)[0]].wanted
            assert item
            assert (item.node, item.container, item.ifname) == (host.name, pod.container, "eth0")
            assert item.mac == pod.link("eth0")["address"]
            host.check(conf, pod, result).ok()
        for address in addresses(results[-1]):  # in another block than the first
            assert pods[0].pings(address)
            assert host.pings(address)
        host.cni("STATUS", conf).ok()
        for number, (pod, result) in enumerate(zip(pods, results, strict=True)):
            host.delete_pod(
                conf | {"prevResult": result} if number % 2 else conf, pod, **({} if number % 3 else {"CNI_NETNS": ""})
            )
            host.delete_pod(conf, pod, CNI_NETNS="")
            if number == 5 and mode == "l3":
                assert host.addresses("br0") == {"10.10.0.9/29", "fd00:10::9/125"}, (
                    "a block's gateway goes with its last pod"
                )
    assert remembered(host) == (set(), set())
    assert len(asked(host, lambda store: store.blocks())) == 4, "the member gives them up, no call does"
    assert host.addresses("br0") == (gateways if mode == "l2" else set())
    assert host.run("nft", "list", "ruleset").stdout == ""


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_a_tunnel_follows_the_member_to_another_address_and_comes_back_when_it_was_deleted(
    host: Host, lab: Lab, mode: str
):
    conf, pod = in_mode(mode), lab.pod()
    folder = host.folder / "net.d"
    folder.mkdir()
    (folder / "10-net.conf").write_text(json.dumps(conf))
    sh("ip", "-n", host.name, "addr", "add", "192.0.2.50/24", "dev", "eth0")
    with Played(host, SPANS):
        result = host.add(conf, pod)
        asked(host, lambda store: store.put_member(me(host, vtep="192.0.2.50")))
        host.run(AGENT_CNI, "refresh", "--conf-dir", folder)
        assert host.ip("link", "show", "vxlan7")[0]["linkinfo"]["info_data"]["local"] == "192.0.2.50"
        host.check(conf, pod, result).ok()
        sh("ip", "-n", host.name, "link", "del", "vxlan7")
        assert "vxlan7 is missing" in host.check(conf, pod, result).failed(104)
        host.run(AGENT_CNI, "refresh", "--conf-dir", folder)
        assert host.ip("link", "show", "vxlan7")[0]["address"] == me(host).mac
        host.check(conf, pod, result).ok()
        asked(host, lambda store: store.forget_member())
        host.run(AGENT_CNI, "refresh", "--conf-dir", folder, check=False)
        assert host.ip("link", "show", "vxlan7")[0]["address"] == me(host).mac, (
            "outside of a cluster nobody knows another"
        )
        host.delete_pod(conf, pod)


PLUGINS: dict[str, dict[str, Any]] = {
    "bridge-vxlan": {"isGateway": True},
    "macvlan": {"master": "eth0"},
    "custom-plugin": {},
    "bridge": {"bridge": "br9", "isGateway": True},
}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_addresses_are_of_the_clusters_blocks_whatever_plugin_has_them(host: Host, lab: Lab, plugin: str):
    ipam = {"type": "agent-ipam", "cluster": True, "blockSize": 8, "subnet": "10.10.0.0/16"}
    conf = {"cniVersion": "1.0.0", "name": "net", "type": plugin, "ipam": ipam, **PLUGINS[plugin]}
    pod = lab.pod()
    with Played(host, ["10.10.5.8/29"]):
        folder = BIN_DIR if plugin != "bridge" else REFERENCE_DIR
        result = host.cni("ADD", conf, pod, bin_dir=folder).ok()
        assert addresses(result) == ["10.10.5.9"]
        leases, known = remembered(host)
        assert leases == {"10.10.5.9"}
        assert known == (leases if plugin != "bridge" else set()), "an IPAM alone knows of no MAC"
        host.cni("CHECK", conf | {"prevResult": result}, pod, bin_dir=folder).ok()
        host.cni("DEL", conf | {"prevResult": result}, pod, bin_dir=folder).ok()
    assert remembered(host) == (set(), set())


SINGLE = {"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.2"}


def test_pods_that_a_lost_state_knew_keep_their_blocks_gateway(host: Host, lab: Lab):
    conf, pods = in_mode("l3"), [lab.pod(), lab.pod()]
    with Played(host, SPANS):
        results = [host.add(conf, pod) for pod in pods]
    host.lose_state()
    host.delete_pod(conf | {"prevResult": results[0]}, pods[0])
    assert pods[1].pings("10.10.0.1")
    assert pods[1].pings("fd00:10::1")
    host.delete_pod(conf | {"prevResult": results[1]}, pods[1])
    assert not [item for item in host.ip("link", "show") if item["ifname"].startswith("veth")]


OTHER = {"cniVersion": "1.1.0", "name": "other", "type": "bridge-vxlan", "bridge": "br1", "ipam": SINGLE}


def ended_while_waiting(host: Host, pods: list[Pod], passing: Pod) -> set[int]:
    """The codes of ADDs that wait for a block while another network's is served, and then are asked to end."""
    calls = [host.started(CONF, pod) for pod in pods]
    assert eventually(lambda: asked(host, lambda store: store.wishes()))
    host.add(OTHER, passing)
    for call in calls:
        call.send_signal(signal.SIGTERM)
    answers = [call.communicate()[0] for call in calls]
    codes = {json.loads(text)["code"] for text in answers if text}  # one may have been no call of ours yet
    assert remembered(host) == ({"10.9.0.2"}, set())
    host.delete_pod(OTHER, passing)
    return codes


def test_who_waits_for_a_block_keeps_nobody_else_waiting_and_can_be_ended(host: Host, lab: Lab):
    waiting, passing = [lab.pod() for _ in range(6)], lab.pod()
    with Played(host, SPANS) as member:
        member.may.clear()
        codes: set[int] = set()
        for _ in range(5):  # a busy machine may take longer for the other one than these wait
            codes |= ended_while_waiting(host, waiting, passing)
            if 108 in codes:
                break
        assert {108} <= codes <= {11, 108}
        refused = host.cni("ADD", CONF, waiting[0]).failed(11)
        assert "no address is free in this host's blocks: its member gave none within 1 s" in refused
        host.cni("DEL", CONF, waiting[0]).ok()
        member.may.set()
        assert eventually(lambda: not asked(host, lambda store: store.wishes()))
        host.add(CONF, waiting[0])
        host.delete_pod(CONF, waiting[0])


def test_a_storm_of_first_pods_is_served_by_blocks_as_they_come(host: Host, lab: Lab):
    pods = [lab.pod() for _ in range(12)]
    with Played(host, [f"10.10.1.{number * 8}/29" for number in range(8)]) as member, ThreadPoolExecutor(12) as many:
        conf = CONF | {"ipam": CONF["ipam"] | {"ranges": [[{"subnet": "10.10.0.0/16"}]]}}
        answers = list(many.map(lambda pod: host.cni("ADD", conf, pod), pods))
        given = [address for answer in answers if not answer.code for address in addresses(answer.json)]
        assert all(answer.code == 0 or answer.failed(11) for answer in answers)
        assert len(given) == len(set(given)) >= 7
        assert set(given) == remembered(host)[0] == remembered(host)[1]
        assert len(member.spans) >= 5, "no more blocks than it takes"
        for pod in pods:
            host.delete_pod(conf, pod)
    assert remembered(host) == (set(), set())


def test_what_cannot_be_given_is_said_by_code(host: Host, lab: Lab):
    pod = lab.pod()
    assert "in none: agent-cni join" in host.cni("ADD", CONF, pod).failed(11)
    assert "in none: agent-cni join" in host.cni("STATUS", CONF).failed(50)
    with Played(host, [], trouble="etcd: no route to host") as member:
        assert "no block is free" in host.cni("ADD", CONF, pod).failed(103)
        assert "etcd: no route to host" in host.cni("STATUS", CONF).failed(50)
        asking = CONF | {"runtimeConfig": {"ips": ["10.10.7.7"]}}
        assert "no block is free" in host.cni("ADD", asking, pod).failed(102)
        for span in SPANS[:2]:
            member.put("net", span)
        host.cni("STATUS", CONF).ok()
        asked(host, lambda store: store.refuse_network("net", "blockSize is 64 there"))
        assert "blockSize is 64 there" in host.cni("ADD", CONF, pod).failed(101)
        assert "blockSize is 64 there" in host.cni("STATUS", CONF).failed(50)
        asked(host, lambda store: store.refuse_network("net", ""))
        result = host.add(CONF, pod)
        member.put("net", SPANS[0], LOST)
        assert SPANS[0] in host.cni("STATUS", CONF).failed(51)
        assert "another host's by now" in host.check(CONF, pod, result).failed(104)
        asked(host, lambda store: store.put_member(me(host, vtep="192.0.2.99")))
        assert "no link of this host holds 192.0.2.99" in host.cni("ADD", CONF, lab.pod()).failed(11)
        assert "192.0.2.99" in host.cni("STATUS", CONF).failed(51)
        host.delete_pod(CONF, pod)
        asked(host, lambda store: store.put_member(me(host, vtep="fd00:99::1", no_tunnel="the program wg is missing")))
        assert "the program wg is missing" in host.cni("ADD", CONF, pod).failed(11)
        assert "the program wg is missing" in host.cni("STATUS", CONF | {"name": "another"}).failed(51)
    before = host.state()
    host.cni("ADD", CONF | {"dataDir": "/run/other"}, pod).failed(7)
    host.cni("ADD", CONF | {"vxlan": {"id": 7, "remotes": ["192.0.2.12"]}}, pod).failed(7)
    assert host.state() == before


def test_every_way_an_attachment_ends_takes_its_endpoints_with_it(host: Host, lab: Lab):
    pods = [lab.pod() for _ in range(4)]
    with Played(host, SPANS):
        for pod in pods:
            host.add(CONF, pod)
        asked(host, lambda store: [store.told("net", item.address, item.wanted) for item in store.said_of("net")])
        keep = [{"containerID": pods[0].container, "ifname": "eth0"}]
        host.cni("GC", CONF | {"cni.dev/valid-attachments": keep}).ok()
        assert sorted(remembered(host)[1]) == ["10.10.0.3", "fd00:10::3"]
        assert {item.wanted for item in asked(host, lambda store: store.unsaid())} == {None}, (
            "the cluster is to be told"
        )
        host.run(AGENT_CNI, "ipam", "10.10.0.3", "--release", "--force")
        assert remembered(host) == ({"fd00:10::3"}, {"fd00:10::3"})
        pods[0].delete()
        host.run(AGENT_CNI, "gc")
        assert remembered(host) == (set(), set())
        failing = lab.pod()
        with subprocess.Popen(["true"], stdin=subprocess.PIPE):
            host.cni("ADD", CONF | {"mtu": 9000}, failing).failed(7)
        assert remembered(host) == (set(), set())


@pytest.mark.sweep
def test_an_add_that_is_killed_anywhere_loses_no_address_and_gives_none_twice(host: Host, lab: Lab):
    """Lease, record and endpoint are there together, or none is; DEL takes them all, and the next pod is served."""
    standing = lab.pod()
    with Played(host, SPANS):
        first = set(addresses(host.add(CONF, standing)))
        whole = lab.pod()
        code, _, seen = cold(host, whole, CONF, "-e", "trace=fdatasync,sendto,pwrite64")
        assert code == 0
        host.delete_pod(CONF, whole)
        killed = 0
        for call, parts in (("fdatasync", 4), ("sendto", 4), ("pwrite64", 4)):
            times = sum(f" {call}(" in line for line in seen.splitlines())
            for number in sorted({max(1, times * part // parts) for part in range(1, parts + 1)}):
                pod = lab.pod()
                code, _, _ = cold(
                    host, pod, CONF, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"
                )
                killed += code != 0
                leases, known = remembered(host)
                attached = {item.attachment.container for item in asked(host, lambda store: store.records())}
                assert (leases > first) == (pod.container in attached) == (leases != first), f"{call} {number}"
                assert leases == known, f"{call} {number}"
                host.delete_pod(CONF, pod, CNI_NETNS="" if number % 2 else pod.path)
                assert remembered(host) == (first, first)
        assert killed > 5
        host.delete_pod(CONF, standing)


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_pods_of_all_hosts_see_each_other_unmasqueraded_through_policies(lab: Lab, mode: str):
    """Whichever block and host they are of; the world sees their host."""
    policy = {"ingress": ["10.10.0.0/16", "fd00:10::/64"]}
    masquerade = {"ipMasq": True, "ipMasqBackend": "nftables"}
    conf = clustered(mode, block=16, policy=policy, **masquerade)
    with Cluster(lab, hosts=2) as cluster, ExitStack() as held:
        cluster.join()
        one, other = cluster.nodes
        first, far = cluster.add(one, conf), cluster.add(other, conf)
        wanted = [str(ip_address(address) + 16) for address in first.addresses]
        near = cluster.add(one, conf | {"runtimeConfig": {"ips": wanted}})
        assert near.addresses == wanted
        cluster.settle()
        cluster.meshed()
        actors = {placed.pod.name: held.enter_context(Actor(placed.pod)) for placed in (first, near, far)}
        for name, actor in actors.items():
            actor.listen(name, 8080)
        for a, b in itertools.permutations((first, near, far), 2):
            for family in (4, 6):
                seen = actors[a.pod.name].connect(b.address(family), 8080)
                assert (seen["who"], seen["peer"][0]) == (b.pod.name, a.address(family))
        world = held.enter_context(Actor(cluster.keepers[0]))
        world.listen("world", 8080)
        for placed in (first, near, far):
            assert actors[placed.pod.name].connect("192.0.2.2", 8080)["peer"][0] == placed.host.underlay()
        assert world.reaches(first.address(4), 8080) != first.pod.name
        for placed in (first, near, far):
            placed.host.check(placed.conf, placed.pod, placed.result).ok()
        for placed in (first, near, far):
            cluster.remove(placed)
        cluster.settle()
