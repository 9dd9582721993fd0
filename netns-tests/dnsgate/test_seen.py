"""What was reached by a name is told by that, and what was denied as well."""

from __future__ import annotations

from contextlib import ExitStack

from lab import Host, Lab, eventually
from recorder import Recorder
from resolver import Gate, Resolver, ask
from town import Town

ZONE = {"api.example.com": [("A", "198.51.100.7", 5)]}
WEB = {"egress": [{"to": [{"domainNames": ["*.example.com"]}], "ports": [{"port": 80}]}]}


def test_a_flow_is_told_by_the_name_it_was_resolved_by(lab: Lab, host: Host):
    with ExitStack() as held:
        town = Town(host, lab, "bridged", held)
        server, pod = town.member(), town.member(WEB)
        host.run("ip", "route", "add", "198.51.100.7/32", "via", server.address(4))
        server.pod.run("ip", "address", "add", "198.51.100.7/32", "dev", "lo")
        held.enter_context(Gate(host))
        recorder = held.enter_context(Recorder(host))
        held.enter_context(Resolver(server.pod, ZONE, address=server.address(4)))
        assert ask(pod.pod, server.address(4), "api.example.com").addresses == ["198.51.100.7"]
        assert pod.actor.connect("198.51.100.7", 80)["who"] == "it"
        assert "error" in pod.actor.connect("198.51.100.7", 81)

        def seen() -> set[tuple[int, str, tuple[str, ...]]]:
            flows = (flow for flow in recorder.asked() if flow["address"] == "198.51.100.7")
            return {(flow["port"], flow["verdict"], tuple(flow["names"])) for flow in flows}

        wanted = {(80, "allowed", ("api.example.com",)), (81, "denied", ("api.example.com",))}
        assert eventually(lambda: seen() == wanted), seen()
