"""`agent-cni reach` says what packets do: whatever is attached, whatever is broken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from lab import AGENT_CNI, Host, Lab, Pod
from reaching import CALLED, CLOSED, OPEN, Overlay, Traffic, World

#: How many worlds are tried, of which seed; the same every time, unless `make reach-sweep` says so.
EXAMPLES, SEED = int(os.environ.get("EXAMPLES") or 6), int(os.environ.get("SEED") or 24)
QUESTIONS = 40


@pytest.mark.tried(
    "pods of every plugin under random policies, up to three of twenty things broken, and 40 questions each: TCP, UDP, ICMP, both families; `make reach-sweep` tries more",
    "`agent-cni reach` says what packets do",
)
@pytest.mark.sweep(most=3)
@pytest.mark.parametrize("number", range(EXAMPLES))
def test_reach_says_what_packets_do(lab: Lab, number: int):
    with World(lab, Random(f"{SEED} {number}")) as world:
        _compared(world, f"SEED={SEED} {number}")


@pytest.mark.tried(
    "the same from a host of a cluster to pods of another, bridged and routed tunnels, rows and neighbours lost",
    "the same",
)
@pytest.mark.sweep
@pytest.mark.parametrize("number", range(max(1, EXAMPLES // 6)))
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_to_another_host_too(lab: Lab, mode: str, number: int):
    with Overlay(lab, Random(f"{SEED} {mode} {number}"), mode) as world:
        _compared(world, f"SEED={SEED} {mode} {number}")


def _compared(world: World, called: str) -> None:
    world.spoil()
    agree, unknown, differ = world.compare(QUESTIONS)
    print(f"\n{called}: {world.broken}: {agree} agree, {unknown} unknown, {len(differ)} differ")
    print(*sorted(set(world.unknown)), sep="\n")
    sections = {name: member.conf.get("policy", "") for name, member in world.members.items()}
    assert not differ, "\n".join([called, str(world.broken), str(sections), *map(str, differ)])


NET = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge-vxlan",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]]},
}
ROUTED = {
    "cniVersion": "1.1.0",
    "name": "routed",
    "type": "custom-plugin",
    "ipam": {"ranges": [[{"subnet": "10.3.0.0/24"}]]},
}
SHUT = {"policy": {"ingress": [{"ports": [{"port": OPEN}]}]}}


class Town(NamedTuple):
    host: Host
    outside: Host
    pods: dict[str, Pod]

    def asked(self, *words: str) -> tuple[int, str]:
        """The exit code, and the last line."""
        done = self.host.run(AGENT_CNI, "reach", *words, check=False)
        return done.returncode, (done.stdout or done.stderr).rstrip("\n").rpartition("\n")[2]


@pytest.fixture
def town(lab: Lab) -> Iterator[Town]:
    """web on the bridge, db on a link of its own that lets in one port, and a machine outside."""
    site = lab.site()
    with Traffic() as traffic:
        pods = {}
        for name, conf in (("web", NET), ("db", ROUTED | SHUT)):
            pods[name] = pod = lab.pod()
            site.host.add(conf, pod, CNI_ARGS=CALLED.format(name))
        traffic.join("db", pods["db"], ["10.3.0.2"])
        yield Town(site.host, site.outside, pods)
        for name, conf in (("web", NET), ("db", ROUTED | SHUT)):
            site.host.delete_pod(conf, pods[name], CNI_ARGS=CALLED.format(name))


def test_the_verdict_is_the_exit_code(town: Town):
    assert town.asked("shop/web", f"shop/db:{OPEN}") == (0, "reached")
    code, line = town.asked("shop/web", f"shop/db:{CLOSED}")
    assert (code, line.split(":")[0]) == (1, "denied")
    assert line.startswith("denied: into shop/db by the configuration: no rule allows it")
    assert "by chain in-" in line
    assert town.asked("shop/web", "192.0.2.12", "--no-packet")[0] == 2
    assert town.asked("shop/web", "192.0.2.12") == (0, "reached")
    assert town.asked("node", "shop/web:9/udp") == (0, "reached, nobody listens at udp 9")
    assert town.asked(town.pods["web"].container, "node") == (0, "reached")
    assert town.asked("shop/web", "shop/db:99999")[0] == 2
    assert town.asked("shop/web", "nobody.invalid")[0] == 1


def test_a_break_is_named_with_its_mend(town: Town):
    town.host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    said = "lost: at node: it does not forward IPv4; mend: sysctl -w net.ipv4.ip_forward=1"
    assert town.asked("shop/web", f"shop/db:{OPEN}") == (1, said)
    town.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    town.host.run("nft", "flush", "ruleset")
    done = town.host.run(AGENT_CNI, "reach", "shop/web", f"shop/db:{CLOSED}")
    assert "note: documents deny it, and the kernel's rules let it through: agent-cni refresh" in done.stdout
    town.host.run(AGENT_CNI, "refresh")
    assert town.asked("shop/web", f"shop/db:{CLOSED}", "--no-packet")[0] == 1


@pytest.mark.parametrize(
    "broken", [("route", "del", "default"), ("link", "set", "eth0", "down"), ("addr", "flush", "dev", "eth0")]
)
def test_its_mend_mends(town: Town, broken: tuple[str, ...]):
    town.pods["web"].run("ip", *broken)
    code, line = town.asked("shop/web", f"shop/db:{OPEN}", "--no-packet")
    assert (code, line.rpartition("; mend: ")[2]) == (1, "agent-cni repair shop/web"), line
    town.host.run(AGENT_CNI, "repair", "shop/web")
    assert town.asked("shop/web", f"shop/db:{OPEN}") == (0, "reached")


def test_the_document_that_denies_is_named(town: Town, lab: Lab, tmp_path: Path):
    rule = {"ports": [{"port": OPEN}]}
    shut = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]}
    meta = {"name": "shut", "namespace": "shop"}
    document = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": shut}
    (tmp_path / "shut.json").write_text(json.dumps(document))
    conf, pod = NET | {"policy": {"policyDir": str(tmp_path)}}, lab.pod()
    town.host.add(conf, pod, CNI_ARGS=CALLED.format("fed"))
    assert town.asked("shop/web", f"shop/fed:{OPEN}") == (0, f"reached, nobody listens at tcp {OPEN}")
    code, line = town.asked("shop/web", f"shop/fed:{CLOSED}")
    said = "denied: into shop/fed by NetworkPolicy shop/shut: no rule allows it (tier networkpolicy); at node: drop at forward"
    assert (code, line[: len(said)]) == (1, said)
    town.host.delete_pod(conf, pod, CNI_ARGS=CALLED.format("fed"))


def test_a_pod_is_found_by_our_names(town: Town, lab: Lab):
    conf, pod = (
        NET | {"name": "named", "bridge": "br1", "names": {}, "ipam": {"ranges": [[{"subnet": "10.2.0.0/24"}]]}},
        lab.pod(),
    )
    town.host.add(conf, pod, CNI_ARGS=CALLED.format("called"))
    done = town.host.run(AGENT_CNI, "reach", "shop/web", "called.shop.named")
    assert "name: called.shop.named is 10.2.0.2 by the names of network named" in done.stdout
    assert done.stdout.endswith("\nreached\n")
    town.host.delete_pod(conf, pod, CNI_ARGS=CALLED.format("called"))


@pytest.mark.parametrize("kind", ["iptables", "nftables"])
def test_a_services_address_leads_to_its_endpoints(town: Town, kind: str):
    """As kube-proxy makes it: one of two, of which one does not listen."""
    if kind == "iptables":
        town.host.run("iptables-nft", "-t", "nat", "-N", "SVC")
        rule = ("-m", "statistic", "--mode", "random", "--probability", "0.5", "-j", "DNAT", "--to-destination")
        town.host.run("iptables-nft", "-t", "nat", "-A", "SVC", *rule[:6], "-p", "tcp", *rule[6:], f"10.3.0.2:{OPEN}")
        town.host.run(
            "iptables-nft", "-t", "nat", "-A", "SVC", "-p", "tcp", "-j", "DNAT", "--to-destination", f"10.3.0.2:{OPEN}"
        )
        town.host.run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-d", "10.96.0.10", "-j", "SVC")
    else:
        script = f"""
            add table ip kube-proxy
            add chain ip kube-proxy one
            add rule ip kube-proxy one meta l4proto tcp dnat to 10.3.0.2:{OPEN}
            add chain ip kube-proxy two
            add rule ip kube-proxy two meta l4proto tcp dnat to 10.3.0.2:{OPEN}
            add chain ip kube-proxy prerouting {{ type nat hook prerouting priority -100; }}
            add rule ip kube-proxy prerouting ip daddr 10.96.0.10 numgen random mod 2 vmap {{ 0 : goto one, 1 : goto two }}
        """
        town.host.run("nft", "-f", "-", input=script)
    done = town.host.run(AGENT_CNI, "reach", "shop/web", f"10.96.0.10:{OPEN}")
    assert "chance: it is one of 10.3.0.2:80 (reached)" in done.stdout
    assert "packet: answered\nreached" in done.stdout
    town.host.run("nft", "delete", "table", "ip", {"iptables": "nat", "nftables": "kube-proxy"}[kind])
