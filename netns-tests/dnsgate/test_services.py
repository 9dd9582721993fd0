"""A pod asks a Service, as under Kubernetes: the server's address is another's by the time the question gets there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab import Host, Lab, Namespace, eventually
from resolver import Gate, Resolver, ask
from town import KINDS, Town

SERVICE, CACHE = "10.96.0.10", "169.254.20.10"
PAST_CONNTRACK = f"""
    table ip node_local {{
        chain coming {{ type filter hook prerouting priority raw; ip daddr {CACHE} meta l4proto {{ udp, tcp }} th dport 53 notrack; }}
        chain going {{ type filter hook output priority raw; ip saddr {CACHE} meta l4proto {{ udp, tcp }} th sport 53 notrack; }}
    }}
"""
ZONE = {
    "api.example.com": [("A", "198.51.100.7", 5)],
    "db.shop.svc.cluster.local": [("A", "10.96.0.77", 5)],
    "evil.example": [("A", "198.51.100.66", 5)],
}
WEB = {"egress": [{"to": [{"domainNames": ["api.example.com"]}], "ports": [{"port": 80}]}]}
CONF = f"nameserver {SERVICE}\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5 timeout:2 attempts:1\n"


@pytest.fixture(params=KINDS)
def town(request: pytest.FixtureRequest, lab: Lab, host: Host) -> Iterator[Town]:
    with ExitStack() as held:
        yield Town(host, lab, request.param, held)


def led(host: Namespace, address: str, port: int = 53) -> None:
    """As kube-proxy does it."""
    rules = f"""
        table ip services {{
            chain pre {{
                type nat hook prerouting priority dstnat; policy accept;
                ip daddr {SERVICE} udp dport 53 dnat to {address}:{port}
                ip daddr {SERVICE} tcp dport 53 dnat to {address}:{port}
            }}
        }}
    """
    host.run("nft", "-f", "-", input=rules)


def resolved(pod: Namespace, name: str, folder: Path) -> str:
    """What the C library makes of a name, by a pod's resolv.conf; the addresses, or nothing."""
    file = folder / "resolv.conf"
    file.write_text(CONF)
    asking = f"mount --bind {file} /etc/resolv.conf && exec getent -s dns ahostsv4 {name}"
    done = pod.run("unshare", "--mount", "sh", "-c", asking, check=False)
    return " ".join(dict.fromkeys(line.split()[0] for line in done.stdout.splitlines()))


def test_a_service_is_asked_and_answers_and_search_domains_lead_on(town: Town, tmp_path: Path):
    server, pod = town.member(), town.member(WEB)
    led(town.host, server.address(4))
    with Gate(town.host) as gate, Resolver(server.pod, ZONE, address=server.address(4)) as resolver:
        for tcp in (False, True):
            assert ask(pod.pod, SERVICE, "api.example.com", tcp=tcp).addresses == ["198.51.100.7"]
            assert ask(pod.pod, SERVICE, "evil.example", tcp=tcp).code == "REFUSED"
        assert resolved(pod.pod, "api.example.com", tmp_path) == "198.51.100.7"
        assert resolved(pod.pod, "db", tmp_path) == "10.96.0.77", "the cluster's own names resolve"
        assert resolved(pod.pod, "evil.example", tmp_path) == ""
        asked = {name for name, *_ in resolver.asked()}
        assert "api.example.com.shop.svc.cluster.local" in asked, "the cluster's domain may be asked"
        assert {name for name in asked if not name.endswith("cluster.local")} == {"api.example.com"}
        assert eventually(lambda: gate.counted().get("nowhere")), "corp.example was not asked"
    town.host.run("nft", "delete", "table", "ip", "services")


@pytest.mark.parametrize("port", [53, 5353])
def test_a_pods_nameserver_may_be_a_service_and_then_it_is_the_only_one(town: Town, port: int):
    server, other = town.member(), town.member()
    pod = town.member(WEB, dns={"nameservers": [SERVICE]})
    led(town.host, server.address(4), port)
    with (
        Gate(town.host),
        Resolver(server.pod, ZONE, port=port, address=server.address(4)),
        Resolver(other.pod, ZONE, address=other.address(4)) as accomplice,
    ):
        for tcp in (False, True):
            assert ask(pod.pod, SERVICE, "api.example.com", tcp=tcp).addresses == ["198.51.100.7"]
            assert ask(pod.pod, SERVICE, "evil.example", tcp=tcp).code == "REFUSED"
            assert ask(pod.pod, other.address(4), "api.example.com", tcp=tcp, seconds=0.5) is None
        assert accomplice.asked() == []


@pytest.mark.parametrize("nameservers", [[], [CACHE]], ids=["any", "named"])
def test_a_cache_of_the_node_is_asked_past_conntrack(town: Town, nameservers: list[str]):
    """As NodeLocal DNSCache is, by a pod that only its node reaches."""
    pod = town.member(WEB | {"ingress": [], "hostAccess": True}, dns={"nameservers": nameservers})
    town.host.run("ip", "address", "add", f"{CACHE}/32", "dev", "lo")
    town.host.run("nft", "-f", "-", input=PAST_CONNTRACK)
    with Gate(town.host), Resolver(town.host, ZONE, address=CACHE):
        for tcp in (False, True):
            assert ask(pod.pod, CACHE, "api.example.com", tcp=tcp).addresses == ["198.51.100.7"]
            assert ask(pod.pod, CACHE, "evil.example", tcp=tcp).code == "REFUSED"
