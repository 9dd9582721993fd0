"""Killed, repeated and parallel calls: nothing is left, nothing is given twice."""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import BIN_DIR, PATIENCE, Host, Lab, Pod


def started(host: Host, conf: dict, pod: Pod, **options: object) -> subprocess.Popen:
    """An ADD that has its configuration and runs."""
    assert host.transcript
    host.transcript.drop()
    env = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": pod.container, "CNI_NETNS": pod.path,
        "CNI_IFNAME": "eth0", "CNI_PATH": str(BIN_DIR), "PATH": os.environ["PATH"],
    }  # fmt: skip
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    process = subprocess.Popen([*host.prefix(), str(BIN_DIR / conf["type"])], env=env, text=True, **pipes)
    process.stdin.write(json.dumps(conf))
    process.stdin.close()
    return process


def wait_for(seen, process: subprocess.Popen) -> None:
    """Poll, with a bound, until something is visible; it is so still if the call was over before we looked."""
    deadline = time.monotonic() + PATIENCE
    while not seen() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert seen()


EVENTS = {
    "the record is written": lambda host, pod: host.state()["attachments"],
    "the veth is there": lambda host, pod: any(link["ifname"].startswith("veth") for link in host.ip("link", "show")),
    "the address is set": lambda host, pod: pod.addresses("eth0"),
    "the route is set": lambda host, pod: pod.routes(),
    "the rules are set": lambda host, pod: host.run("nft", "list", "tables").stdout,
}


@pytest.mark.parametrize("netns", ["kept", "gone"])
@pytest.mark.parametrize("event", EVENTS)
def test_del_after_a_kill_at_an_event_leaves_nothing(settled: Host, lab: Lab, conf: dict, event: str, netns: str):
    pod = lab.pod()
    process = started(settled, conf, pod)
    wait_for(lambda: EVENTS[event](settled, pod), process)
    process.kill()
    process.wait()
    if netns == "gone":
        pod.delete()
    settled.delete_pod(conf, pod)


def test_del_after_a_kill_at_any_instant_leaves_nothing(settled: Host, lab: Lab, conf: dict):
    before = settled.snapshot()
    for step in range(25):
        pod = lab.pod()
        process = started(settled, conf, pod)
        time.sleep(step * 0.025)
        process.kill()
        process.wait()
        settled.cni("DEL", conf, pod, CNI_NETNS=pod.path if step % 2 else "").ok()
        assert settled.snapshot() == before, f"killed after {step * 25} ms"
        pod.delete()


def test_gc_finds_a_killed_add(settled: Host, lab: Lab, conf: dict):
    pod = lab.pod()
    process = started(settled, conf, pod)
    wait_for(lambda: settled.state()["attachments"], process)
    process.kill()
    process.wait()
    settled.cni("GC", conf | {"cni.dev/valid-attachments": []}).ok()


def test_a_second_add_takes_over_a_killed_one(settled: Host, lab: Lab, conf: dict):
    assert any(taken_over(settled, lab.pod(), conf) for _ in range(20))


def taken_over(settled: Host, pod: Pod, conf: dict) -> bool:
    """Kill an ADD and repeat it; False if the first was complete when the kill came, and so stands."""
    process = started(settled, conf, pod)
    wait_for(lambda: EVENTS["the veth is there"](settled, pod), process)
    process.kill()
    process.wait()
    again = settled.cni("ADD", conf, pod)
    assert again.code == 0 or again.failed(105)
    assert pod.pings("10.1.0.1")
    assert len(settled.state()["leases"]) == 2
    settled.delete_pod(conf, pod)
    return again.code == 0


def test_a_second_add_of_a_complete_attachment_is_refused_and_harms_nothing(settled: Host, pod: Pod, conf: dict):
    settled.add(conf, pod)
    assert pod.container in settled.cni("ADD", conf, pod).failed(105)
    assert pod.pings("10.1.0.1")
    settled.delete_pod(conf, pod)


def test_a_result_nobody_reads_is_taken_back(settled: Host, pod: Pod, conf: dict):
    reader, writer = os.pipe()
    os.close(reader)
    process = started(settled, conf, pod, stdout=writer)
    os.close(writer)
    assert process.wait() == 1
    assert "Broken pipe" in process.stderr.read()


def test_a_closed_stdout_is_refused_before_anything_is_made(settled: Host, pod: Pod, conf: dict):
    log = settled.run("sh", "-c", f"CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_NETNS={pod.path} CNI_IFNAME=eth0 "
                      f"CNI_PATH=/x {BIN_DIR}/bridge-vxlan >&-", input=json.dumps(conf), check=False)  # fmt: skip
    assert log.returncode == 1
    assert settled.state()["attachments"] == []


def test_forty_parallel_adds_succeed_with_addresses_of_their_own(settled: Host, lab: Lab, conf: dict):
    pods = [lab.pod() for _ in range(40)]
    with ThreadPoolExecutor(40) as pool:
        results = list(pool.map(lambda pod: settled.add(conf, pod), pods))
    addresses = [ip["address"] for result in results for ip in result["ips"]]
    assert len(set(addresses)) == 80
    assert all(pod.pings("10.1.0.1") for pod in pods[::8])
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda pod: settled.delete_pod(conf, pod), pods))


def test_parallel_add_and_del_of_one_attachment_end_in_one_of_both(settled: Host, lab: Lab, conf: dict):
    for _ in range(4):
        pod = lab.pod()
        with ThreadPoolExecutor(2) as pool:
            adding = pool.submit(settled.cni, "ADD", conf, pod)
            pool.submit(settled.cni, "DEL", conf, pod).result().ok()
        assert adding.result().code == 0
        attached = bool(settled.state()["attachments"])
        assert attached == bool(pod.link("eth0"))
        settled.delete_pod(conf, pod)


def test_a_failed_first_add_takes_back_the_bridge_it_made(host: Host, pod: Pod, conf: dict):
    before = host.snapshot()
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    message = host.cni("ADD", conf | {"vxlan": {"id": 9, "remotes": []}}, pod).failed(101)
    assert "eth0 exists already" in message
    assert host.snapshot() == before
    host.delete_pod(conf, pod)
    assert pod.link("eth0")["linkinfo"]["info_kind"] == "bridge"
