"""Pods that are held to names beside a cache of DNS on each node, as NodeLocal DNSCache is: link-local, and past conntrack."""

from __future__ import annotations

import time
from typing import Any

import domains
from addressing import DNS
from asked import Asked
from beyond import DNSMASQ, beyond
from node import Node
from resolving import REFUSED, WELL, code

CACHE = "169.254.20.10"
#: What node-local-dns has of iptables, in nft's words.
_PAST = f"""table ip node_local {{
    chain coming {{ type filter hook prerouting priority -300; ip daddr {CACHE} meta l4proto {{ udp, tcp }} th dport 53 notrack; }}
    chain going {{ type filter hook output priority -300; ip saddr {CACHE} meta l4proto {{ udp, tcp }} th sport 53 notrack; }}
}}
"""


def node_local(ask: Asked) -> None:
    """After domains: the same by the nodes' own caches."""
    with beyond(ask.cluster):
        for node in ask.cluster.nodes:
            _cache(node, DNS[ask.cluster.families[0]])
        config: dict[str, Any] = {"nameservers": [CACHE], "searches": ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"],
                                  "options": [{"name": "ndots", "value": "5"}]}  # fmt: skip
        ask.api(
            "POST",
            "/apis/apps/v1/namespaces/default/daemonsets",
            domains.held_everywhere("local", dnsPolicy="None", dnsConfig=config),
        )
        held = {pod["spec"]["nodeName"]: pod for pod in ask.wait("local", len(ask.cluster.nodes))}
        for rules in (False, True):
            for node in ask.cluster.nodes * rules:
                node.run("nft", "-f", "-", input=_PAST)
            if not rules:
                ask.api(
                    "POST", domains.KIND, domains.document(ask, domains.NAMES, "local", [{"networks": [f"{CACHE}/32"]}])
                )
                time.sleep(2)
            for name, pod in held.items():
                domains.reaches(ask, f"{name} by its cache{', past conntrack' * rules}", pod)
                said = {one: code(ask, pod, one, CACHE) for one in ("evil.example", "api.example.com", "n.example.org")}
                ask.report(
                    f"its cache answers on {name}{', past conntrack' * rules}",
                    list(said.values()) == [REFUSED, WELL, WELL],
                    f"{said}",
                )


def _cache(node: Node, upstream: str) -> None:
    node.run("ip", "addr", "add", f"{CACHE}/32", "dev", "lo")
    options = (
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
        "--user=root",
        "--bind-interfaces",
    )
    node.start("node-local", DNSMASQ, *options, f"--listen-address={CACHE}", f"--server={upstream}")
