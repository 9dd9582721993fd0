"""Whoever cannot come home from a pod's namespace does nothing more, in there or anywhere; the next DEL finishes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, call
from barred import Scene, doctor, each_setns, is_traced, outline, refreshed, same, seen, stopped_at, stopped_call
from interception import REFERENCE, chained
from lab import AGENT_CNI, BIN_DIR, Host, Lab, environment, eventually

pytestmark = pytest.mark.sweep(most=2)

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
HEAD = {"cniVersion": "1.1.0", "name": "net", "ipam": {"ranges": RANGES}}
CONFS = {
    "bridged": HEAD | {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True,
                       "policy": {"ingress": []}, "sidecar": {}},
    "routed": HEAD | {"type": "custom-plugin", "ipMasq": True, "policy": {"defaultDeny": True}},
}  # fmt: skip


@pytest.mark.tried(
    "each setns(2) of ADD and DEL fails once, also the way home",
    "the call ends (100), works on nowhere, and the next DEL leaves nothing",
)
@pytest.mark.parametrize("kind", CONFS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_way_back_that_is_barred_ends_the_call_and_leaves_all_to_the_next(lab: Lab, host: Host, kind: str, verb: str):
    conf = CONFS[kind]
    first, other = lab.pod(), lab.pod()
    held = host.add(conf, other)
    host.add(conf, first)
    host.delete_pod(conf, first)
    before = host.snapshot()
    number, hit, ended = 1, True, []
    while hit:
        pod = lab.pod()
        if verb == "DEL":
            host.add(conf, pod)
        document, hit = stopped_call(host, verb, conf, pod, number)
        if hit:
            ended.append(document["msg"])
        assert "agent_cni" not in pod.run("nft", "list", "tables").stdout
        if hit and verb == "ADD":
            assert pod.run("ip", "-o", "link", "show", "type", "bridge").stdout == ""
        host.delete_pod(conf, pod)
        pod.delete()
        assert host.snapshot() == before, f"setns number {number}: {document}"
        host.check(conf, other, held).ok()
        number += 1
    assert any("the way back" in msg for msg in ended)
    assert any(f"setns to {pod.path[:10]}" in msg for msg in ended), "the way in is refused as well"


# --- other plugins, and the verbs that change nothing or are about no single pod


@pytest.fixture
def scene(lab: Lab, kind: str, dual: dict[str, Any]) -> Iterator[Scene]:
    """Nothing is left of it when it ends."""
    host = lab.site().host if kind == "macvlan" else lab.host()
    bare = dual | {"hostAccess": True, "policy": {"ingress": []}}
    if kind != "macvlan":
        keys: dict[str, Any] = {"policy": {"defaultDeny": True}} if kind == "custom-plugin" else {}
        bare = chained(REFERENCE | {"cniVersion": "1.1.0"}, **keys) | {"type": kind}
        host.run("ip", "link", "add", REFERENCE["bridge"], "type", "bridge")
    made = Scene(host, bare, lab.pod(), lab.pod(), kind != "macvlan")
    rules = host.run("nft", "list", "ruleset").stdout
    links = outline(host)
    made.begin()
    yield made
    made.end()
    assert eventually(lambda: outline(host) == links)
    assert host.run("nft", "list", "ruleset").stdout == rules == ""
    assert host.state() == {"attachments": [], "leases": []}


@pytest.mark.tried(
    "the same of ADD, DEL and GC in macvlan pods with hostAccess, and chained after another's bridge",
    "nothing is made in the wrong namespace, other pods keep what they have, and the next DEL leaves nothing",
)
@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        *((kind, verb) for kind in ("macvlan", "custom-plugin") for verb in ("ADD", "DEL", "GC")),
        *(("sidecar-redirect", verb) for verb in ("ADD", "DEL")),
    ],
)
def test_wherever_a_pod_is_attached_a_barred_way_back_leaves_all_to_the_next_del(scene: Scene, verb: str):
    host, pod, before, ended = scene.host, scene.pod, seen(scene.host), []
    around, in_pod = outline(host), outline(scene.other)
    for number in each_setns():
        given = scene.conf if verb == "ADD" else scene.attached()
        asked = scene.valid(scene.other) if verb == "GC" else given
        document, hit = stopped_call(host, verb, asked, pod, number)
        what = f"setns number {number}: {document}"
        assert outline(host) == around, what
        assert outline(pod) <= in_pod, what
        assert same(scene.other, scene.seen[scene.other.name]), what
        scene.next(number)
        host.delete_pod(given if number // 2 % 2 else scene.bare, pod)
        assert same(host, before), what
        assert same(pod, scene.seen[pod.name]), what
        if not hit:
            break
        ended.append(document["msg"])
    assert any("the way back" in msg for msg in ended)
    assert any(f"setns to {pod.path}" in msg for msg in ended), "the way in is refused as well"


@pytest.mark.tried("the same of CHECK", "it changes nothing, and the next one finds all as it was")
@pytest.mark.parametrize("kind", ["macvlan", "custom-plugin", "sidecar-redirect"])
def test_a_check_that_cannot_come_home_has_changed_nothing(scene: Scene):
    host, pod, conf, ended = scene.host, scene.pod, scene.attached(), []
    before, there = seen(host), seen(pod)
    for number in each_setns():
        document, hit = stopped_call(host, "CHECK", conf, pod, number)
        assert same(host, before), f"setns number {number}: {document}"
        assert same(pod, there), f"setns number {number}: {document}"
        host.check(conf, pod, conf["prevResult"]).ok()
        if not hit:
            break
        ended.append(document["msg"])
    assert any("the way back" in msg for msg in ended)
    host.delete_pod(conf, pod)


@pytest.mark.tried("the same of agent-cni refresh, when rules are gone", "it says so, and the next one mends them")
@pytest.mark.parametrize("kind", ["macvlan", "custom-plugin"])
def test_a_refresh_that_cannot_come_home_leaves_the_rules_to_the_next(scene: Scene, kind: str):
    host, pod, conf, ended = scene.host, scene.pod, scene.attached(), []
    place = pod if kind == "macvlan" else host
    place.run("nft", "flush", "ruleset")
    assert refreshed(host) > 0
    before, there, around, in_pod = seen(host), seen(pod), outline(host), outline(pod)
    for number in each_setns():
        place.run("nft", "flush", "ruleset")
        done, hit = stopped_at(host, number, AGENT_CNI, "refresh")
        what = f"setns number {number}: {done.stdout}{done.stderr}"
        # who may not enter when it only looks whether all is as it was looks in full
        assert hit or not done.returncode, what
        assert outline(host) <= around, what
        assert outline(pod) <= in_pod, what
        assert same(scene.other, scene.seen[scene.other.name]), what
        refreshed(host)
        assert same(host, before), what
        assert same(pod, there), what
        if not hit:
            break
        ended.append(done.stderr)
    assert any("the way back" in line for line in ended)
    host.check(conf, pod, conf["prevResult"]).ok()
    host.delete_pod(scene.bare, pod)


@pytest.mark.tried(
    "the last way home of ADD is barred, and its record lost besides",
    "the doctor names what is left, and a DEL takes it by its names",
)
@pytest.mark.parametrize("given", [True, False], ids=["with prevResult", "without"])
def test_doctor_names_what_a_barred_add_left_that_nobody_owns(lab: Lab, host: Host, given: bool):
    conf, pod = CONFS["routed"], lab.pod()
    env = environment("ADD", pod)
    done, _ = stopped_at(host, 999, BIN_DIR / conf["type"], input=json.dumps(conf), env=env)
    last = len(re.findall(r"setns\(", (host.folder / "trace").read_text()))
    host.delete_pod(conf, pod)
    before, empty = outline(host), seen(pod)
    document, _ = stopped_call(host, "ADD", conf, pod, last)
    assert "the way back" in document["msg"]
    found = doctor(host)
    assert ["its ADD or DEL never ended" in what for what in found["attachments"]] == [True]
    assert found["leftovers"] == []
    host.lose_state()
    named = " ".join(doctor(host)["leftovers"])
    assert all(word in named for word in ("host end", "policy chain", "spoofing guard", "masquerading")), named
    host.delete_pod(conf | ({"prevResult": json.loads(done.stdout)} if given else {}), pod)
    assert doctor(host)["leftovers"] == []
    assert eventually(lambda: outline(host) == before)
    assert host.run("nft", "list", "ruleset").stdout == ""
    assert same(pod, empty)


@pytest.mark.tried("the same in a worker of the node agent", "the worker ends, and another takes the next call")
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_a_worker_that_cannot_come_home_serves_nobody_else(lab: Lab, agent: Agent, verb: str):
    conf, pod, host = CONFS["routed"], lab.pod(), agent.host
    empty = seen(pod)
    asked = conf if verb == "ADD" else conf | {"prevResult": host.add(conf, pod)}
    workers = agent.workers()
    inject = ("-f", "-o", host.folder / "trace", "-e", "trace=setns", "-e", "inject=setns:error=EPERM:when=2")
    held = [option for pid in workers for option in ("-p", pid)]
    with subprocess.Popen(list(map(str, ("strace", *inject, *held))), stderr=subprocess.DEVNULL) as strace:
        assert eventually(lambda: all(is_traced(pid) for pid in workers))
        answer = call(agent, verb, asked, pod)
        strace.terminate()
    assert answer.returncode == 1
    assert "the way back" in json.loads(answer.stdout)["msg"]
    (stranded,) = {int(line.split()[0]) for line in (host.folder / "trace").read_text().splitlines() if "INJEC" in line}
    assert eventually(lambda: stranded not in agent.processes())
    for _ in workers:
        assert call(agent, "DEL", conf, pod).returncode == 0
    assert same(pod, empty)
    assert host.run("nft", "list", "ruleset").stdout == ""
    assert host.state() == {"attachments": [], "leases": []}
