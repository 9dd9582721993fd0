"""What holds pods is put back by the agent itself when somebody takes it away, and the gap is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, serving, watches_rules
from lab import Host, Lab, Pod, eventually

CLOSED = {"policy": {"ingress": []}, "hairpinMode": False}


@contextmanager
def knocking(source: Pod, address: str) -> Iterator[Path]:
    """One that tries fifty times a second; the file has a line, with the time, for each that got through."""
    file = Path("/tmp") / f"{source.name}.knocks"
    with (
        file.open("w") as out,
        subprocess.Popen(
            ["nsenter", f"--net={source.path}", "ping", "-D", "-i", "0.02", "-n", address], stdout=out, text=True
        ) as process,
    ):
        yield file
        process.terminate()
    file.unlink()


def times(file: Path) -> list[float]:
    return [float(found) for found in re.findall(r"\[([0-9.]+)\] \d+ bytes from", file.read_text())]


def warnings(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What an agent that has ended said."""
    _, said = process.communicate(timeout=60)
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


@pytest.fixture
def served(node: Host) -> Iterator[Agent]:
    agent = serving(node)
    yield agent
    if agent.process.poll() is None:
        agent.process.terminate()
        agent.process.communicate(timeout=60)


@pytest.fixture
def pods(served: Agent, lab: Lab, conf: dict) -> Iterator[tuple[Pod, Pod, str]]:
    """One that is closed, another on the same bridge, and the address of the first."""
    host, closed, other = served.host, lab.pod(), lab.pod()
    result = host.add(conf | CLOSED, closed)
    host.add(conf, other)
    yield closed, other, result["ips"][0]["address"].split("/")[0]
    host.delete_pod(conf, other)
    host.delete_pod(conf | CLOSED, closed)


def is_closed(host: Host, pod: Pod) -> bool:
    listed = host.run("nft", "list", "table", "inet", "agent_cni_policy", check=False).stdout
    return "chain forward" in listed and "drop" in listed


def test_a_flush_is_closed_again_within_a_moment(served: Agent, pods: tuple[Pod, Pod, str]):
    host, (closed, other, address) = served.host, pods
    time.sleep(1)
    with knocking(other, address) as file:
        time.sleep(1)
        assert times(file) == []
        began = time.time()
        host.run("nft", "flush", "ruleset")
        assert eventually(lambda: is_closed(host, closed), 20)
        time.sleep(2)
        through = times(file)
    gap = max(through, default=began) - began
    print(f"open for {gap:.3f} s, {len(through)} got through")
    assert gap < 5
    served.process.terminate()
    told = [line for line in warnings(served.process) if "put back" in line.get("warning", "")]
    assert told, "nothing was said"
    assert "taken away or changed by nft (process " in told[0]["warning"]
    assert told[0]["since"]
    assert told[0]["seconds"] < 5
    assert any(closed.container in name for name in told[0]["pods"])


def test_our_own_changes_and_others_tables_are_nobodys_business(served: Agent, lab: Lab, conf: dict):
    host = served.host
    host.run("nft", "add table inet other; add chain inet other c")
    for _ in range(3):
        pod = lab.pod()
        host.add(conf | CLOSED, pod)
        host.delete_pod(conf | CLOSED, pod)
    host.run("nft", "delete table inet other")
    time.sleep(1)
    served.process.terminate()
    assert [line for line in warnings(served.process) if line["plugin"] == "guard"] == []


@pytest.mark.parametrize(
    "taking",
    [
        "delete table inet agent_cni_policy", "flush chain inet agent_cni_policy forward", "flush map inet agent_cni_policy in4",
        "add table inet agent_cni_policy { flags dormant; }",
    ],
)  # fmt: skip
def test_a_part_is_put_back(served: Agent, pods: tuple[Pod, Pod, str], taking: str):
    host, (_, other, address) = served.host, pods
    assert not other.pings(address, 1)
    host.run("nft", taking)
    assert eventually(lambda: not other.pings(address, 1), 20)
    assert not other.pings(address, 1)
    assert host.run("nft", "list", "ruleset").stdout.count("dormant") == 0


def test_what_went_while_nobody_watched_is_put_back_first(node: Host, lab: Lab, conf: dict):
    closed, other = lab.pod(), lab.pod()
    address = node.add(conf | CLOSED, closed)["ips"][0]["address"].split("/")[0]
    node.add(conf, other)
    node.run("nft", "flush", "ruleset")
    assert other.pings(address)
    agent = serving(node)
    assert eventually(lambda: is_closed(node, closed), 20)
    assert not other.pings(address, 1)
    for pod in (closed, other):
        node.delete_pod(conf, pod)
    agent.process.terminate()
    agent.process.communicate(timeout=60)


def test_who_takes_them_away_again_and_again_is_waited_for(served: Agent, pods: tuple[Pod, Pod, str]):
    host = served.host
    time.sleep(1)
    for _ in range(30):
        host.run("nft", "flush", "chain", "inet", "agent_cni_policy", "forward", check=False)
        time.sleep(0.2)
    served.process.terminate()
    told = [line["warning"] for line in warnings(served.process) if "put back" in line.get("warning", "")]
    print(len(told), "times")
    assert len(told) < 12
    assert any("again and again" in line for line in told)


@pytest.mark.long  # an agent of its own beside the test run's
def test_rules_in_a_pod_are_put_back(lab: Lab):
    site = lab.site()
    host = site.host
    pod = lab.pod()  # before the agent, whose mounts of its own would not have it else
    agent = serving(host)
    span = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "eth0", "ipam": span} | {
        "policy": {"ingress": []},
        "sidecar": {},
    }
    result = host.add(conf, pod)
    time.sleep(7)
    pod.run("nft", "flush", "ruleset")
    assert host.check(conf, pod, result).code
    assert eventually(lambda: host.check(conf, pod, result).code == 0, 40)
    host.check(conf, pod, result).ok()
    host.delete_pod(conf, pod)
    agent.process.terminate()
    told = [line["warning"] for line in warnings(agent.process) if "inside" in line.get("warning", "")]
    assert any("were put back" in line for line in told)


def test_the_guard_is_started_again_and_ends_with_the_agent(served: Agent):
    def guards() -> list[int]:
        return [pid for pid in served.processes()[1:] if watches_rules(pid)]

    assert eventually(guards)
    first = guards()[0]
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: guards() and guards()[0] != first)
    last = guards()[0]
    served.process.kill()
    assert eventually(
        lambda: not Path(f"/proc/{last}/stat").exists() or " Z " in Path(f"/proc/{last}/stat").read_text()
    )


def test_what_is_amiss_is_repaired_where_an_agent_is_told_to(node: Host, lab: Lab, conf: dict):
    pod = lab.pod()
    result = node.add(conf, pod)
    agent = serving(node, "--repair", "2", "--conf-dir", "/nowhere")
    for _ in range(2):
        pod.run("ip", "addr", "flush", "dev", "eth0")
        assert eventually(lambda: node.check(conf, pod, result).code == 0, 40)
    time.sleep(4)  # until it has told of the last
    node.delete_pod(conf, pod)
    agent.process.terminate()
    told = warnings(agent.process)
    assert any("was repaired" in line["warning"] and pod.container in line["warning"] for line in told)
    assert any("is undone again" in line["warning"] for line in told)
