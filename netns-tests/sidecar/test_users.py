"""Interception of a pod in a user namespace of its own (hostUsers: false): owners are its users, not the host's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from agents import call, serving
from interception import APP_UID, BACKENDS, IN, NOTHING, OUT, WEB, address_of, chained, network, remains
from lab import PATIENCE, ROOT, Host, Lab, Pod, eventually, sh
from traffic import PROXY, Actor

FAMILIES = (4, 6)
WHOLE = "0 100000 65536"


class Home:
    """A pod whose network namespace belongs to a user namespace with a map."""

    def __init__(self, lab: Lab, ids: str) -> None:
        self.process = subprocess.Popen(["unshare", "--user", "--net", "sleep", "600"])
        self.users = Path(f"/proc/{self.process.pid}/ns/user")
        own = Path("/proc/self/ns/user").readlink()
        assert eventually(lambda: self.users.readlink() != own)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{self.process.pid}/{name}").write_text(ids)
        self.pod = Pod(lab.name("pod"))
        path = Path(self.pod.path)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        net = f"/proc/{self.process.pid}/ns/net"
        assert eventually(lambda: Path(net).readlink() != Path("/proc/self/ns/net").readlink())
        sh("mount", "--bind", net, path)
        lab.made.append(self.pod)

    def actor(self, uid: int) -> Actor:
        return Actor(self.pod, uid, users=str(self.users))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def homed(lab: Lab, held: ExitStack, ids: str = WHOLE) -> Home:
    home = Home(lab, ids)
    held.callback(home.close)
    return home


def all_is_captured(host: Host, home: Home, far: tuple[Pod, dict[str, Any]], own: dict[str, Any], transparent: bool):
    with home.actor(APP_UID) as app, home.actor(PROXY) as proxy, Actor(far[0]) as outside:
        app.listen("app", WEB)
        proxy.listen("outbound", OUT)
        proxy.listen("inbound", IN, transparent=transparent)
        outside.listen("outside", 80)
        for family in FAMILIES:
            target, address = address_of(far[1], family), address_of(own, family)
            assert app.connect(target, 80)["original"] == [target, 80]
            assert proxy.reaches(target, 80) == "outside"
            assert outside.reaches(address, WEB) == "inbound"
            assert proxy.reaches(address, WEB, source=[{4: "127.0.0.6", 6: "::6"}[family], 0]) == "app"


@pytest.mark.tried("a pod in a user namespace of its own", "intercepted")
@pytest.mark.parametrize(
    "more", [{}, {"mode": "tproxy", "denyUncaptured": True, "captureDNS": True}], ids=["plain", "all"]
)
def test_a_pod_with_its_own_users(lab: Lab, host: Host, held: ExitStack, backend: str, more: dict[str, Any]):
    home, far = homed(lab, held), lab.pod()
    far_result = host.add(network(), far)
    conf = network({"backend": backend, **more})
    result = host.add(conf, home.pod)
    all_is_captured(host, home, (far, far_result), result, transparent="mode" in more)
    host.check(conf, home.pod, result).ok()
    tables = ["env", "XTABLES_LOCKFILE=/dev/null", "nsenter", f"--net={home.pod.path}", f"--user={home.users}", backend]
    sh(*tables, "-t", "nat", "-D", "ACNI_OUTPUT", "-m", "owner", "--uid-owner", "1337", "-j", "RETURN")
    words = "-A ACNI_OUTPUT -m owner --uid-owner 1337 -j RETURN is missing"
    assert words in host.check(conf, home.pod, result).failed(104)
    host.delete_pod(conf, home.pod)
    assert remains(home.pod) == NOTHING


def test_chained_and_again_and_gone(lab: Lab, host: Host, held: ExitStack, backend: str):
    home, far = homed(lab, held), lab.pod()
    far_result, result = host.add(network(), far), host.add(network(), home.pod)
    conf = chained(network(), backend=backend, inboundPort=IN, prevResult=result)
    host.add(conf | {"excludeOutboundPorts": [80]}, home.pod)
    host.add(conf, home.pod)
    all_is_captured(host, home, (far, far_result), result, transparent=False)
    host.check(conf, home.pod, result).ok()
    host.delete_pod(conf, home.pod)
    assert remains(home.pod) == NOTHING


def test_ids_the_pod_does_not_have(lab: Lab, host: Host, held: ExitStack, backend: str):
    """As `unshare --map-root-user` makes it: nobody there can be 1337."""
    home = homed(lab, held, "0 0 1")
    message = host.cni("ADD", network({"backend": backend}), home.pod).failed(106)
    assert "hostUsers: false" in message
    assert remains(home.pod) == NOTHING
    assert host.state()["attachments"] == []
    conf = network({"backend": backend, "proxyUIDs": [0], "proxyGIDs": []})
    result = host.add(conf, home.pod)
    host.check(conf, home.pod, result).ok()
    host.delete_pod(conf, home.pod)
    assert remains(home.pod) == NOTHING


def test_an_agent_may_do_it_under_its_unit(lab: Lab, node: Host, held: ExitStack, backend: str):
    unit = ROOT / "tools/systemd/system/agent-cni.service"
    agent, home, conf = serving(node, unit=unit), homed(lab, held), network({"backend": backend})
    done = call(agent, "ADD", conf, home.pod)
    assert done.returncode == 0, done.stdout
    for verb in ("CHECK", "DEL"):
        done = call(agent, verb, conf | {"prevResult": json.loads(done.stdout or "{}")}, home.pod)
        assert done.returncode == 0, done.stdout
    assert remains(home.pod) == NOTHING
    agent.process.terminate()
    agent.process.communicate(timeout=PATIENCE)
