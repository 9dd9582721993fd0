"""Daemons of one release beside the executables of another: each is needed once, and does what it does for its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cluster
from cluster import Cluster
from earlier import installed
from lab import AGENT_CNI, BIN_DIR, PATIENCE, REFERENCE_DIR, Host, Lab, Pod, eventually
from names import Names, asked
from recorder import Recorder
from resolver import Gate, Resolver, ask
from traffic import Actor

from crash.exchanging import left

THIS = ""
_HEAD = {"cniVersion": "1.1.0", "name": "net"}
_SPAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199"}
_RANGES = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
_NAMED = _HEAD | {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipam": _RANGES, "names": {}}
_HELD = _NAMED | {"policy": {"ingress": ["10.1.0.0/24"], "log": True}}
_WIRE = {"cniVersion": "1.1.0", "name": "wire", "type": "macvlan", "master": "eth0", "ipam": {"ranges": [[_SPAN]]}}
_TO_NAMES = {"policy": {"egress": [{"to": [{"domainNames": ["api.example.com"]}], "ports": [{"port": 80}]}]}}
_ZONE = {"api.example.com": [("A", "198.51.100.7", 5)], "evil.example": [("A", "198.51.100.66", 5)]}
_FAR = "198.51.100.7"
_ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="


@dataclass(frozen=True)
class Suite:
    """A release: a commit's, or this one."""

    commit: str

    @property
    def command(self) -> Path:
        return installed(self.commit) / "opt/bin/agent-cni" if self.commit else AGENT_CNI

    @property
    def way(self) -> dict[str, Any]:
        """How its executables are called."""
        folder = installed(self.commit) / "bin" if self.commit else BIN_DIR
        return {"bin_dir": folder, "CNI_PATH": f"{folder}:{REFERENCE_DIR}"}


def beside(lab: Lab, daemons: Suite, images: Suite) -> Iterator[str]:
    """Agent with its guard, names, gate and flows of one, on a node whose pods are another's."""
    site = lab.site()
    host, (web, db, far, held) = site.host, (lab.pod() for _ in range(4))
    made: list[tuple[dict[str, Any], Pod, dict[str, Any]]] = []

    def add(conf: dict[str, Any], pod: Pod, name: str) -> str:
        made.append((conf, pod, host.add(conf, pod, CNI_ARGS=_ARGS + name, **images.way)))
        return made[-1][2]["ips"][0]["address"].split("/")[0]

    with ExitStack() as running:
        agent = subprocess.Popen([*host.within(), str(daemons.command), "serve"], stdin=subprocess.DEVNULL)
        running.callback(agent.wait, PATIENCE)
        running.callback(agent.terminate)
        for daemon in (Names, Gate):
            running.enter_context(daemon(host, program=daemons.command))
        recorder = running.enter_context(Recorder(host, program=daemons.command))
        at, _ = add(_HELD, db, "db"), add(_NAMED, web, "web")
        if not eventually(lambda: _heard(web, "db.shop.net") == [at]):
            yield f"names: {_heard(web, 'db.shop.net')}"
        with Actor(web) as asks, Actor(db) as serves:
            serves.listen("it", 80)
            asks.connect(at, 80)
            if not eventually(lambda: at in host.run(images.command, "flows", "--folder", recorder.folder).stdout):
                yield f"flows: {recorder.said()}"
        outside = add(_WIRE, far, "far")
        add(_WIRE | _TO_NAMES, held, "held")
        yield from _gated(held, far, outside)
        host.run("nft", "delete", "table", "bridge", "agent_cni", check=False)
        host.run("nft", "flush", "ruleset")
        if not eventually(lambda: not list(_checked(host, made, images))):
            yield from (f"the guard: {line}" for line in _checked(host, made, images))
        yield from _checked(host, made, Suite(THIS))
        for conf, pod, result in reversed(made):
            if (said := host.cni("DEL", conf | {"prevResult": result}, pod, **images.way)).code:
                yield f"DEL: {said.stdout}"
    yield from left(host)


def _heard(pod: Pod, name: str) -> list[str]:
    try:
        return asked(pod, "10.1.0.1", name)
    except TimeoutError:
        return []


def _gated(held: Pod, far: Pod, server: str) -> Iterator[str]:
    """A pod that is held to names, and one that has them and serves."""
    far.run("ip", "address", "add", f"{_FAR}/32", "dev", "lo")
    held.run("ip", "route", "add", "198.51.100.0/24", "via", server)
    with Resolver(far, _ZONE), Actor(far) as serves, Actor(held) as asks:
        serves.listen("it", 80)
        if "error" not in asks.connect(_FAR, 80):
            yield "the gate: it is reached before it was asked for"
        if not (told := ask(held, server, "api.example.com")) or told.addresses != [_FAR]:
            yield f"the gate: {told}"
        if not (told := ask(held, server, "evil.example")) or told.code != "REFUSED":
            yield f"the gate lets through: {told}"
        if "error" in (said := asks.connect(_FAR, 80)):
            yield f"the gate: what it stands for is not reached: {said}"


def _checked(host: Host, made: list[tuple[dict[str, Any], Pod, dict[str, Any]]], suite: Suite) -> Iterator[str]:
    for conf, pod, result in made:
        if (said := host.check(conf, pod, result, **suite.way)).code:
            yield f"CHECK of {conf['type']}: {said.stdout}"


def clustered(lab: Lab, other: Suite) -> Iterator[str]:
    """Two hosts: members of one release beside executables of another, either way round; then both are this one's, and one goes back."""
    net, this = cluster.conf("l2", policy={"ingress": ["10.0.0.0/8", "fd00::/8"]}), Suite(THIS)
    with Cluster(lab, hosts=2) as made:
        one, two = made.nodes
        images = dict.fromkeys((one.name, two.name), other)

        def become(node: cluster.Node, member: Suite, executables: Suite) -> Iterator[str]:
            node.stop()
            node.program, images[node.name] = member.command, executables
            node.start()
            assert eventually(lambda: made.joined(node)), node.said()
            made.add(node, net, **executables.way)
            made.meshed()
            for it in made.placed:
                if (said := it.host.check(net, it.pod, it.result, **images[it.host.name].way)).code:
                    yield f"CHECK of {it.pod.name}: {said.stdout}"

        for node in made.nodes:
            node.program = other.command
        made.join()
        for node in made.nodes:
            made.add(node, net, **other.way)
        yield from become(one, this, other)
        yield from become(two, other, this)
        yield from become(one, this, this)
        yield from become(two, this, this)
        if (done := two.run(AGENT_CNI, "refresh", check=False)).returncode:
            yield f"refresh: {done.stdout}{done.stderr}"
        yield from become(one, other, other)
        made.sound()
        made.leave()
