"""agent-cni repair beside what goes on: connections, other calls, and what is not its own to mend."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, Host, Lab, Pod, eventually, sh

CLOSED = {"policy": {"ingress": ["10.1.0.0/24", "fd00:1::/64"]}, "mtu": 1400}


def repair(host: Host, *words: str, code: int = 0) -> str:
    done = host.run(AGENT_CNI, "repair", *words, "--conf-dir", "/nowhere", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_connections_go_on_over_a_link_that_is_made_anew(host: Host, lab: Lab, conf: dict, tmp_path: Path):
    one, other = lab.pod(), lab.pod()
    result = host.add(conf | CLOSED, one)
    host.add(conf, other)
    address = result["ips"][0]["address"].split("/")[0]
    script = "import socket, sys; s = socket.create_server(('', 7000)); s.settimeout(60); print('up', flush=True); c, _ = s.accept(); c.settimeout(60); print('in', flush=True)\nwhile data := c.recv(99): c.send(data)"
    with one.start("python3", "-c", script) as serving:
        assert serving.stdout
        assert serving.stdout.readline() == "up\n"
        client = (
            f"import socket, time; s = socket.create_connection(('{address}', 7000)); s.send(b'x'); s.recv(1); print('in', flush=True)\n"
            "input(); s.settimeout(30); s.send(b'y'); print(s.recv(1).decode(), flush=True)"
        )
        with other.start("python3", "-c", client) as talking:
            assert talking.stdout
            assert talking.stdin
            assert talking.stdout.readline() == "in\n"
            sh("ip", "-n", one.name, "link", "del", "eth0")
            assert "is made anew" in repair(host, one.container)
            talking.stdin.write("\n")
            talking.stdin.flush()
            assert talking.stdout.readline() == "y\n"
    host.check(conf | CLOSED, one, result).ok()
    host.delete_pod(conf | CLOSED, one)
    host.delete_pod(conf, other)


def test_a_node_with_everything_broken_at_once(host: Host, lab: Lab, conf: dict):
    pods = [lab.pod() for _ in range(4)]
    results = [host.add(conf | (CLOSED if number % 2 else {"mtu": 1400}), pod) for number, pod in enumerate(pods)]
    host.run("nft", "flush", "ruleset")
    sh("ip", "-n", host.name, "link", "del", "br0")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    sh("ip", "-n", pods[1].name, "link", "del", "eth0")
    sh("ip", "-n", pods[2].name, "addr", "flush", "dev", "eth0")
    several = host.run(AGENT_CNI, "repair", "container-", check=False)
    assert (several.returncode, "several containers" in several.stderr) == (1, True), several
    began = time.monotonic()
    assert "mended 4 of 4 attachments" in repair(host, "--all")
    print(f"{time.monotonic() - began:.2f} s")
    for number, (pod, result) in enumerate(zip(pods, results, strict=True)):
        wanted = conf | (CLOSED if number % 2 else {"mtu": 1400})
        host.check(wanted, pod, result).ok()
        assert pods[0].pings(result["ips"][0]["address"].split("/")[0])
    assert "mended 0 of 4" in repair(host, "--all")
    for pod in pods:
        host.delete_pod(conf, pod)


def test_a_look_touches_nothing(host: Host, pod: Pod, conf: dict):
    host.add(conf | CLOSED, pod)
    assert "would mend 0 of 1" in repair(host, "--all", "--dry-run")
    host.run("nft", "flush", "ruleset")
    sh("ip", "-n", pod.name, "link", "set", "eth0", "down")
    before = host.snapshot()
    assert "eth0 is down in the pod" in repair(host, pod.container, "--dry-run", code=1)
    assert host.snapshot() == before
    repair(host, pod.container)
    assert "would mend 0 of 1" in repair(host, "--all", "--dry-run")
    host.delete_pod(conf, pod)


def test_somebody_elses_link_is_left_as_it_is(host: Host, pod: Pod, conf: dict):
    host.add(conf, pod)
    sh("ip", "-n", pod.name, "link", "del", "eth0")
    sh("ip", "-n", pod.name, "link", "add", "eth0", "type", "bridge")
    said = repair(host, "--all", code=1)
    assert "is not the other end of veth" in said
    assert "put that out of the way, then agent-cni repair" in said
    assert pod.link("eth0")["linkinfo"]["info_kind"] == "bridge"
    sh("ip", "-n", pod.name, "link", "del", "eth0")
    repair(host, "--all")
    host.delete_pod(conf, pod)


def test_a_pod_that_is_gone_is_for_gc(host: Host, lab: Lab, conf: dict):
    pod = lab.pod()
    host.add(conf, pod)
    host.bury(pod)
    assert "its pod is gone, what it had is not; agent-cni gc" in repair(host, "--all", code=1)
    host.delete_pod(conf, pod)


def test_who_is_not_there_is_said(host: Host, pod: Pod, conf: dict):
    host.add(conf, pod)
    assert "no attachment of 'nobody' is on this node" in repair(host, "nobody", code=1)
    assert repair(host, code=2)
    host.delete_pod(conf, pod)


def test_an_edited_list_of_remotes(host: Host, lab: Lab, pod: Pod, conf: dict, tmp_path: Path):
    lab.underlay(host)
    overlay = conf | {"vxlan": {"id": 7, "remotes": ["192.0.2.12"]}}
    host.add(overlay, pod)
    file = tmp_path / "10-net.conflist"
    edited = overlay | {"vxlan": {"id": 7, "remotes": ["192.0.2.13"]}}
    rest = {key: value for key, value in edited.items() if key not in ("name", "cniVersion")}
    file.write_text(json.dumps({"cniVersion": "1.1.0", "name": "net", "plugins": [rest]}))
    assert "network net: mended" in repair(host, "--all", "--conf", str(file))
    rows = sh("bridge", "-n", host.name, "fdb", "show", "dev", "vxlan7").stdout
    assert "dst 192.0.2.13" in rows
    assert "dst 192.0.2.12" not in rows
    host.delete_pod(overlay, pod)


@pytest.mark.tried(
    "repair --all again and again beside ADDs and DELs of the same node", "all end well, and nothing is left"
)
def test_beside_adds_and_dels(host: Host, lab: Lab, conf: dict):
    over = threading.Event()
    said: list[Any] = []

    def repairing() -> None:
        while not over.is_set():
            done = host.run(AGENT_CNI, "repair", "--all", "--conf-dir", "/nowhere", check=False)
            said.append((done.returncode, done.stdout, done.stderr))

    thread = threading.Thread(target=repairing)
    thread.start()
    try:
        for _ in range(6):
            pod = lab.pod()
            result = host.add(conf | CLOSED, pod)
            host.check(conf | CLOSED, pod, result).ok()
            host.delete_pod(conf | CLOSED, pod)
    finally:
        over.set()
        thread.join()
    assert not [item for item in said if "Traceback" in item[2] or "a bug" in item[2]]
    assert host.kept() == {"attachment": [], "lease": []}
    assert host.run("nft", "list", "ruleset").stdout == ""
    assert eventually(lambda: not [item for item in host.ip("link", "show") if item["ifname"].startswith("veth")])


def test_a_lease_that_is_anothers_by_now_is_said(host: Host, lab: Lab, conf: dict):
    first, second = lab.pod(), lab.pod()
    host.add(conf, first)
    host.add(conf, second)
    script = (
        "import sqlite3; d = sqlite3.connect('/run/agent-cni/state.db');"
        f"d.execute(\"DELETE FROM lease WHERE container = '{first.container}'\");"
        f"d.execute(\"INSERT INTO lease SELECT network, family, x'0a010002', container, ifname, plugin FROM lease WHERE family = 4\"); d.commit()"
    )
    host.run("python3", "-c", script)
    said = repair(host, first.container, code=1)
    assert "10.1.0.2 is leased to" in said
    for pod in (first, second):
        host.delete_pod(conf, pod)


def test_what_others_of_the_chain_made_is_named(host: Host, pod: Pod, conf: dict, tmp_path: Path):
    result = host.add(conf, pod)
    rest = {key: value for key, value in conf.items() if key not in ("name", "cniVersion")}
    plugins = [rest, {"type": "bandwidth", "capabilities": {"bandwidth": True}}]
    (tmp_path / "10-net.conflist").write_text(json.dumps({"cniVersion": "1.1.0", "name": "net", "plugins": plugins}))
    sh("ip", "-n", pod.name, "link", "del", "eth0")
    done = host.run(AGENT_CNI, "repair", "--all", "--conf-dir", tmp_path)
    assert "what bandwidth made on eth0 is theirs and is not made again" in done.stderr
    host.check(conf, pod, result).ok()
    host.delete_pod(conf, pod)
