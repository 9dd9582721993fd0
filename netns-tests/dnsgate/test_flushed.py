"""Whoever flushes the node's rules opens and shuts nothing for long: what a pod had resolved is let through again."""

from __future__ import annotations

from agents import serving
from lab import Host, Lab, eventually
from resolver import Gate, Resolver, ask
from traffic import Actor

ZONE = {"api.example.com": [("A", "198.51.100.7", 300)], "evil.example": [("A", "198.51.100.8", 300)]}
WEB = {"egress": [{"to": [{"domainNames": ["*.example.com"]}], "ports": [{"port": 80}]}]}


def test_what_was_resolved_is_let_through_again_and_nothing_else(node: Host, lab: Lab, conf: dict):
    agent = serving(node)
    server, pod = lab.pod(), lab.pod()
    address = node.add(conf, server)["ips"][0]["address"].split("/")[0]
    result = node.add(conf | {"policy": WEB}, pod)
    server.run("ip", "address", "add", "198.51.100.7/32", "dev", "lo")
    server.run("ip", "address", "add", "198.51.100.8/32", "dev", "lo")
    node.run("ip", "route", "add", "198.51.100.0/24", "via", address)
    with Gate(node), Resolver(server, ZONE, address=address), Actor(server) as serves, Actor(pod) as asks:
        serves.listen("it", 80)
        assert ask(pod, address, "api.example.com").addresses
        assert asks.connect("198.51.100.7", 80)["who"] == "it"
        for _ in range(2):
            node.run("nft", "flush", "ruleset")
            assert eventually(lambda: "error" in asks.connect("198.51.100.8", 80))
            assert eventually(lambda: "error" not in asks.connect("198.51.100.7", 80), 3)
            assert ask(pod, address, "evil.example").code == "REFUSED"
            node.check(conf | {"policy": WEB}, pod, result).ok()
    node.delete_pod(conf | {"policy": WEB}, pod)
    node.delete_pod(conf, server)
    agent.process.terminate()
    _, said = agent.process.communicate(timeout=60)
    assert said.count("were put back") == 2
