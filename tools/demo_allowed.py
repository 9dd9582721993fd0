"""A step of make demo: an agent that may reach one name, what becomes of the next one, and what its node says of both afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from cluster import Node  # noqa: E402
from lab import Lab, Namespace, Pod, eventually  # noqa: E402
from names import Web  # noqa: E402
from recorder import Recorder  # noqa: E402
from resolver import Gate, Resolver  # noqa: E402

RESOLVER = "192.0.2.2"
ALLOWED, OTHER = "api.example.com", "evil.example"
ZONE = {ALLOWED: [("A", "198.51.100.7", 60)], OTHER: [("A", "198.51.100.66", 60)]}
CONF = {
    "cniVersion": "1.1.0", "name": "agents", "type": "bridge-vxlan", "bridge": "br2", "isDefaultGateway": True, "ipMasq": True,
    "ipam": {"type": "agent-ipam", "subnet": "10.246.0.0/24"}, "dns": {"nameservers": [RESOLVER]},
    "policy": {"egress": [{"to": [{"domainNames": [ALLOWED]}], "ports": [{"port": 8080}]}], "log": True},
}  # fmt: skip


def shown(
    lab: Lab, host: Node, world: Namespace, line: Callable[[str], None], tick: Callable[[bool, str], bool]
) -> bool:
    """All of it, on a host, whose neighbour `world` resolves names and has what they stand for."""
    for records in ZONE.values():
        world.run("ip", "address", "add", f"{records[0][1]}/32", "dev", "lo")
        host.run("ip", "route", "add", f"{records[0][1]}/32", "via", RESOLVER)
    pod = lab.add(Pod("agent"))
    with ExitStack() as held:
        web = held.enter_context(Web(world, Path("/run/demo-world")))
        web.say("200 OK", ZONE[ALLOWED][0][1])
        resolver = held.enter_context(Resolver(world, ZONE, address=RESOLVER))
        held.enter_context(Gate(host))
        recorder = held.enter_context(Recorder(host))
        host.add(CONF, pod, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=agent;K8S_POD_NAMESPACE=demo")
        line(f'"to": [{{"domainNames": ["{ALLOWED}"]}}], "ports": [{{"port": 8080}}]')
        good = tick(
            _curl(pod, ALLOWED) == "200",
            f"curl http://{ALLOWED}:8080 is answered: its address was let through before it was told",
        )
        good = (
            tick(
                _curl(pod, OTHER) == "resolve" and {name for name, *_ in resolver.asked()} == {ALLOWED},
                f"curl http://{OTHER}:8080: could not resolve, {RESOLVER} was not even asked",
            )
            and good
        )
        known = ZONE[OTHER][0][1]
        good = tick(_curl(pod, known) == "nothing", f"curl http://{known}:8080, its address: dropped") and good
        done = eventually(lambda: {flow["verdict"] for flow in recorder.asked()} == {"allowed", "denied"}, 10)
        for row in recorder.said().splitlines():
            line(row)
        host.delete_pod(CONF, pod)
        host.run("ip", "link", "delete", CONF["bridge"])
    for records in ZONE.values():
        host.run("ip", "route", "del", f"{records[0][1]}/32")
    return bool(done) and good


def _curl(pod: Pod, host: str) -> str:
    """The status a request is answered with, or why there is none."""
    asking = (
        f"mount --bind $0 /etc/resolv.conf && exec curl -s -o /dev/null -m 3 -w '%{{http_code}}' http://{host}:8080/"
    )
    file = Path("/run/demo-world/resolv.conf")
    file.write_text(f"nameserver {RESOLVER}\n")
    done = pod.run("unshare", "--mount", "sh", "-c", asking, file, check=False)
    return {0: done.stdout, 6: "resolve", 28: "nothing"}.get(done.returncode, f"curl {done.returncode}")
