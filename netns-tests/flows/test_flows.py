"""Who talked to whom, by real connections: what conntrack tells, what policies drop, and what becomes of it when somebody dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from collector import Running
from lab import AGENT_CNI, PATIENCE, Host, Lab, eventually
from recorder import Recorder
from traffic import TIMED_OUT, Actor

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
CONF = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "ipam": {"ranges": RANGES}}
SHUT = CONF | {"policy": {"ingress": [{"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]}], "log": True}}
ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="


class Shop:
    """Two pods, `web` and `db`, of which the second is reached at port 80 alone."""

    def __init__(self, host: Host, lab: Lab, held: ExitStack) -> None:
        self.host = host
        self.pods = {name: lab.pod() for name in ("web", "db")}
        self.results = {name: host.add(SHUT, pod, CNI_ARGS=ARGS + name) for name, pod in self.pods.items()}
        self.actors = {name: held.enter_context(Actor(pod)) for name, pod in self.pods.items()}
        self.actors["db"].listen("db", 80)
        # what is over for a pod is over for conntrack two minutes later, unless somebody says otherwise
        for timeout in ("tcp_timeout_time_wait", "tcp_timeout_close", "udp_timeout", "icmp_timeout"):
            host.run("sysctl", "-qw", f"net.netfilter.nf_conntrack_{timeout}=1")

    def address(self, name: str, family: int = 4) -> str:
        return next(
            ip["address"].split("/")[0] for ip in self.results[name]["ips"] if (":" in ip["address"]) == (family == 6)
        )

    def connect(self, family: int = 4, port: int = 80) -> Any:
        return self.actors["web"].connect(self.address("db", family), port)

    def close(self) -> None:
        for pod in self.pods.values():
            self.host.delete_pod(SHUT, pod)


@pytest.fixture
def shop(lab: Lab) -> Iterator[Shop]:
    with ExitStack() as held:
        town = Shop(lab.host(), lab, held)
        yield town
    town.close()


def over(recorder: Recorder, *words: object) -> list[dict[str, Any]]:
    """The flows that are over, once there are some."""
    found: list[dict[str, Any]] = eventually(lambda: those_over(recorder, *words))
    assert found, (recorder.asked(), recorder.host.run(AGENT_CNI, "metrics").stdout, recorder.log.read_text())
    return found


def those_over(recorder: Recorder, *words: object) -> list[dict[str, Any]]:
    return [flow for flow in recorder.asked(*words) if flow["state"] == "over"]


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_is_seen_from_both_ends_with_what_passed(shop: Shop, family: int):
    with Recorder(shop.host) as recorder:
        assert shop.connect(family)["who"] == "db"
        (flow,) = over(recorder)
        assert (flow["pod"], flow["direction"], flow["peer"]) == ("shop/web", "egress", "shop/db")
        assert (flow["address"], flow["protocol"], flow["port"]) == (shop.address("db", family), "tcp", 80)
        assert (flow["verdict"], flow["service"]) == ("allowed", "")
        assert flow["sent_packets"] >= 4
        assert flow["received_bytes"] > 100
        assert 0 < flow["end"] - flow["start"] < PATIENCE
        (other,) = over(recorder, "shop/db")
        assert (other["pod"], other["direction"], other["peer"]) == ("shop/db", "ingress", "shop/web")
        assert (other["sent_bytes"], other["received_bytes"]) == (flow["received_bytes"], flow["sent_bytes"])
        assert other["documents"] == ["the configuration"]
        assert recorder.asked("shop/nobody") == []
        assert recorder.asked(shop.pods["web"].container) == [flow | {"documents": [], "tier": "", "rule": ""}]


def test_of_many_connections_each_is_seen_once_and_every_byte_of_them(shop: Shop):
    """Against what the ends themselves counted: headers come on top."""
    many, sizes = 300, [1, 1000, 100_000]
    server = (
        "import socket\n"
        "server = socket.create_server(('', 80), backlog=1024, reuse_port=False)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    client, _ = server.accept()\n"
        "    client.sendall(b'x' * int(client.makefile().readline()))\n"
        "    client.close()\n"
    )
    client = (
        "import socket, sys\n"
        "sizes = list(map(int, sys.argv[3:]))\n"
        "for number in range(int(sys.argv[2])):\n"
        "    made = socket.create_connection((sys.argv[1], 80))\n"
        "    made.sendall(b'%d\\n' % sizes[number % len(sizes)])\n"
        "    assert len(made.makefile('rb').read()) == sizes[number % len(sizes)]\n"
        "    made.close()\n"
    )
    shop.actors["db"].close()
    with shop.pods["db"].start(sys.executable, "-c", server) as serving, Recorder(shop.host) as recorder:
        assert serving.stdout
        assert serving.stdout.readline() == "ready\n"
        shop.pods["web"].run(sys.executable, "-c", client, shop.address("db"), many, *sizes)
        assert eventually(lambda: len(those_over(recorder)) == many), recorder.said()
        found = recorder.asked()
        serving.kill()
    assert len({flow["source_port"] for flow in found}) == many
    received = sorted(flow["received_bytes"] for flow in found)
    for number, flow_bytes in enumerate(received):
        size = sizes[number * len(sizes) // many]
        assert size < flow_bytes < size * 1.1 + 600, (size, flow_bytes)


def test_what_a_policy_drops_is_seen_with_the_document(shop: Shop):
    with Recorder(shop.host) as recorder:
        assert shop.connect(port=81) == TIMED_OUT
        (flow,) = eventually(lambda: recorder.asked("--denied"))
        assert (flow["pod"], flow["direction"], flow["peer"]) == ("shop/db", "ingress", "shop/web")
        assert (flow["address"], flow["port"], flow["verdict"]) == (shop.address("web"), 81, "denied")
        assert (flow["documents"], flow["tier"]) == (["the configuration"], "networkpolicy")
        said = recorder.said("--denied")
        assert "shop/db" in said
        assert "81/tcp" in said
        assert shop.connect()["who"] == "db"
        assert over(recorder)
        assert [item["port"] for item in recorder.asked("--denied")] == [81]  # however often it was tried again


def test_who_looks_for_drops_hears_of_them_from_the_recorder(shop: Shop):
    config = shop.host.folder.with_suffix(".json")
    with Recorder(shop.host) as recorder:
        config.write_text(json.dumps({"flows": {"folder": str(recorder.folder)}}))
        bind = 'mkdir -p /etc/agent-cni && mount -t tmpfs none /etc/agent-cni && cp "$0" /etc/agent-cni/agent.json && exec "$@"'
        words = [
            *shop.host.within(),
            "unshare",
            "-m",
            "sh",
            "-c",
            bind,
            config,
            AGENT_CNI,
            "policy",
            "log",
            "--count",
            1,
            "--json",
        ]
        with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True) as log:
            for port in range(1000, 1020):  # nobody hears of what was dropped before he listened
                assert shop.connect(port=port) == TIMED_OUT
                if log.poll() is not None:
                    break
            found = json.loads(log.communicate(timeout=PATIENCE)[0])
        assert (found["pod"], found["direction"], found["address"]) == ("shop/db", "ingress", shop.address("web"))
        assert found["documents"] == ["the configuration"]


def test_where_a_connection_was_led_is_said_with_what_it_asked_for(shop: Shop):
    led = f"ip daddr 10.96.0.1 tcp dport 8080 dnat to {shop.address('db')}:80"
    hook = "type nat hook prerouting priority -100;"
    rules = f"add table ip nat\nadd chain ip nat led {{ {hook} }}\nadd rule ip nat led {led}\n"
    shop.host.run("nft", "-f", "-", input=rules)
    with Recorder(shop.host) as recorder:
        assert shop.actors["web"].connect("10.96.0.1", 8080)["who"] == "db"
        (flow,) = over(recorder, "shop/web")
        assert (flow["peer"], flow["address"], flow["port"]) == ("shop/db", shop.address("db"), 80)
        assert flow["service"] == "10.96.0.1:8080"
        assert f"shop/db ({shop.address('db')}) by 10.96.0.1:8080" in recorder.said()
    shop.host.run("nft", "delete", "table", "ip", "nat")


def test_a_recorder_that_is_killed_goes_on_where_it_was(shop: Shop):
    with Recorder(shop.host) as recorder:
        shop.actors["db"].listen("kept", 8080)
        assert shop.connect()["who"] == "db"
        assert over(recorder)
        recorder.kill()
        assert not recorder.listens  # its table went with it
        with recorder.segments[-1].open("ab") as ring:
            ring.write(b'{"what":"begun","at":17')  # he was at it
        assert shop.connect(6)["who"] == "db"
        recorder.start()
        assert shop.connect()["who"] == "db"
        four = shop.address("db")
        assert eventually(lambda: [flow["address"] for flow in those_over(recorder)].count(four) == 2)
        assert len(recorder.segments) == 1


def test_a_connection_that_goes_on_is_told_with_what_passed_so_far(shop: Shop):
    with Recorder(shop.host) as recorder:
        assert shop.actors["web"].connect(shop.address("db"), 80, keep="kept")["who"] == "db"
        (flow,) = eventually(recorder.asked)
        assert (flow["state"], flow["sent_packets"] > 0) == ("open", True)


def test_who_follows_sees_it_begin_and_end(shop: Shop):
    with Recorder(shop.host) as recorder:
        for words in ("--json",), ():
            with recorder.followed("--count", 2, *words) as following:
                for _ in range(10):
                    assert shop.connect()["who"] == "db"
                    if following.poll() is not None:
                        break
                out = following.communicate(timeout=PATIENCE)[0].splitlines()
            assert len(out) == 2
            if words:
                assert {json.loads(line)["peer"] for line in out} == {"shop/db"}
            else:
                assert all(f" shop/web out: shop/db ({shop.address('db')}), 80/tcp: " in line for line in out)


def test_the_ring_takes_no_more_of_the_disk_than_it_may(shop: Shop):
    with Recorder(shop.host, "--size", 1) as recorder:
        for _ in range(3):
            flood(shop, 2000)
            assert sum(file.stat().st_size for file in recorder.segments) <= 1 << 20
        assert eventually(lambda: recorder.segments[0].name > "000000000001.jsonl")
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in recorder.segments)
        assert recorder.folder.stat().st_mode & 0o777 == 0o700
        assert len(recorder.asked()) > 100


def test_a_flood_is_shed_and_nothing_waits_for_the_recorder(shop: Shop):
    with Recorder(shop.host) as recorder:
        os.kill(recorder.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        flood(shop, 60000)
        took = time.monotonic() - began
        assert shop.connect()["who"] == "db"
        os.kill(recorder.process.pid, signal.SIGCONT)
        shed = eventually(lambda: shed_on(shop.host))
        assert shed > 0
        assert eventually(lambda: shop.connect(6)["who"] == "db" and those_over(recorder, shop.address("web", 6)))
        print(f"{took:.1f} s, {shed} shed")


def test_a_collector_is_told_of_each(shop: Shop, tmp_path: Path):
    (tmp_path / "agent.json").write_text(json.dumps({"otlp": {"endpoint": "http://127.0.0.1:4318"}}))
    with Running(shop.host.within(), 4318, tmp_path / "logs") as collector:
        with Recorder(shop.host, "--config", tmp_path / "agent.json") as recorder:
            assert shop.connect()["who"] == "db"
            assert over(recorder)
            told = eventually(lambda: len(collector.spans) >= 2 and collector.spans)
        assert sorted(record["attributes"]["agent_cni.flow.what"] for record in told) == ["begun", "ended"]


def flood(shop: Shop, many: int, first: int = 0) -> None:
    """So many flows, each of one datagram from a port of its own."""
    script = (
        "import socket, sys\n"
        "for number in range(int(sys.argv[2]), int(sys.argv[3])):\n"
        "    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    made.bind(('', 1024 + number % 60000))\n"
        "    made.sendto(b'x', (sys.argv[1], 80 + number // 60000))\n"
        "    made.close()\n"
    )
    shop.pods["web"].run(sys.executable, "-c", script, shop.address("db"), first, first + many)


def shed_on(host: Host) -> int:
    metrics = host.run(AGENT_CNI, "metrics").stdout
    return sum(int(line.split()[1]) for line in metrics.splitlines() if line.startswith("agent_cni_flows_shed_total"))
