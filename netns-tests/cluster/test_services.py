"""What kube-proxy makes of a Service on a host: its address becomes a pod's, and who asks is behind the host (MASQUERADE)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from answers import heard
from cluster import Cluster, Node, Placed, conf
from lab import Lab, Namespace, eventually
from reconcilers import rows

SERVICE = {4: "10.96.0.7", 6: "fd00:96::7"}
NFT = """
table {table} services {{
    chain out {{ type nat hook output priority -100; {table} daddr {service} dnat to {pod}; }}
    chain in {{ type nat hook prerouting priority -100; {table} daddr {service} dnat to {pod}; }}
    chain post {{ type nat hook postrouting priority 100; ct original {table} daddr {service} masquerade; }}
}}
"""


def serve(node: Node, placed: Placed, by: str) -> None:
    """Have a host lead the Service's addresses to a pod."""
    for family, service in SERVICE.items():
        if by == "nft":
            table = "ip" if family == 4 else "ip6"
            node.run("nft", "-f", "-", input=NFT.format(table=table, service=service, pod=placed.address(family)))
            continue
        tables = ("iptables-nft" if family == 4 else "ip6tables-nft", "-w", "-t", "nat", "-A")
        for chain in ("OUTPUT", "PREROUTING"):
            node.run(*tables, chain, "-d", service, "-j", "DNAT", "--to-destination", placed.address(family))
        node.run(*tables, "POSTROUTING", "-m", "conntrack", "--ctorigdst", service, "-j", "MASQUERADE")


@pytest.mark.parametrize(("mode", "by"), [("l2", "nft"), ("l2", "iptables"), ("l3", "nft")])
def test_a_service_leads_to_a_pod_of_another_host_and_the_answer_comes_back(lab: Lab, mode: str, by: str):
    """For the host itself, its pods, and who comes by the host from elsewhere (a NodePort's way)."""
    with Cluster(lab, 2) as cluster:
        cluster.join()
        net = conf(mode, block=16)
        placed = [cluster.add(node, net) for node in (*cluster.nodes, cluster.nodes[0])]
        cluster.meshed()
        (one, _), (outsider,) = cluster.nodes, cluster.keepers
        for where, address in ((one, "1"), (outsider, "b")):
            where.run("ip", "route", "add", "fd00:96::/64", "via", f"fd00:2::{address}")
        outsider.run("ip", "route", "add", "10.96.0.0/16", "via", "192.0.2.11")
        for target in (placed[1], placed[2]):
            serve(one, target, by)
            wanted = dict.fromkeys(SERVICE.values(), target.pod.name)
            for where in (one, placed[0].pod, outsider):
                said = eventually(lambda where=where, wanted=wanted: wanted == heard(where, wanted), 20)
                assert said, (where.name, target.host.name, heard(where, wanted))
            one.run("nft", "flush", "ruleset")


def test_a_gateway_that_stands_as_a_hosts_own_address_is_narrowed_by_the_next_add(lab: Lab):
    """As earlier releases made it. Nothing that leads to pods goes with it."""
    with Cluster(lab, 2) as cluster:
        cluster.join()
        net = conf("l2", block=16)
        first, far = (cluster.add(node, net) for node in cluster.nodes)
        cluster.meshed()
        one = first.host
        for words in ("del 10.10.0.1/16", "add 10.10.0.1/16 broadcast 10.10.255.255"):
            one.run("ip", "addr", *words.split(), "dev", "br0")
        said = one.check(net, first.pod, first.result).failed(104)
        assert "gateway address 10.10.0.1/16 on br0 is not of scope link" in said
        cluster.meshed()
        one.pause()
        before = rows(one)
        with Namespace(one.name).start("ip", "monitor", "neigh", "route") as seen:
            assert seen.stdout
            one.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
            said = seen.stdout.readline()
            with ThreadPoolExecutor(4) as pool:  # of calls beside each other one does it
                list(pool.map(lambda _: cluster.add(one, net), range(4)))
            seen.terminate()
            said += seen.stdout.read()
        assert rows(one) == before
        gone = [line for line in said.splitlines() if line.startswith("Deleted")]
        assert gone
        assert [line for line in gone if not line.startswith(("Deleted 10.10.0.0/16", "Deleted broadcast"))] == []
        one.go_on()
        one.check(net, first.pod, first.result).ok()
        assert "10.10.0.1/16" in one.addresses("br0")
        cluster.sound()
        serve(one, far, "nft")
        assert eventually(lambda: SERVICE[4] in heard(one, [SERVICE[4]]))
