"""Two pods on two nodes whose applications speak plain TCP, each with an Envoy as a native sidecar: what is on the wire, and what happens
before a proxy runs. For a cluster whose pods are intercepted by annotation (deploy/mesh).
"""

from __future__ import annotations

import base64
import json
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import images
from asked import Asked, addresses
from guarded import overhearing
from shell import ROOT, eventually

sys.path.append(str(ROOT / "netns-tests/scenes"))
from mesh import Authority, mutual_tls

ANNOTATION, PROXY, PORT = "sidecar.agent-cni.dev/inject", 1337, 8080
PODS = "/api/v1/namespaces/default/pods"
SECRET = "swordfish"
SERVE = f"mkdir -p /www && echo {SECRET} >/www/index.html && exec httpd -f -p {PORT} -h /www"


def mesh(ask: Asked) -> None:
    """Mutual TLS between pods of two nodes, and the order of what runs in a pod."""
    here, there = ask.cluster.nodes[:2]
    authority = Authority(_folder(ask))
    server = _made(ask, "meshed-b", there.name, authority, _script("app", SERVE))
    address = addresses(server)[0]
    url = f"http://{f'[{address}]' if ':' in address else address}:{PORT}/"
    curl = f"curl -sm 5 {url}"
    unmeshed = f"curl -sm 5 http://{_kept(ask, there.name)}:{PORT}/"
    before = (
        _script("early", f"{curl} >/dev/null; echo curl $?"),
        _script("early-as-the-proxy", f"{unmeshed} || echo curl $?", runAsUser=PROXY),
        _script("late", f"{curl} || echo curl $?"),
    )
    with overhearing(here) as frames:
        _made(ask, "meshed-a", here.name, authority, *before, _script("app", "sleep 10000"))
        said = ask.cluster.kubectl("exec", "meshed-a", "-c", "app", "--", "sh", "-c", curl).stdout.strip()
        time.sleep(1)
    ask.report("an application asks another through two proxies", said == SECRET, said or "nobody")
    between = [frame for frame in frames if ip_address(address).packed in frame]
    clear, tls = (sum(what in frame for frame in between) for what in (SECRET.encode(), b"\x17\x03\x03"))
    seen = f"{len(between)} frames, {tls} with TLS records, {clear} with what they say"
    ask.report("between nodes there is TLS and not what they say", tls > 0 and not clear, seen)
    log = {
        name: ask.cluster.kubectl("logs", "meshed-a", "-c", name).stdout.strip()
        for name in ("early", "early-as-the-proxy", "late")
    }
    ask.report("an init container before the proxy is refused", log["early"] == "curl 7", log["early"])
    ask.report(
        "one that runs as the proxy's user goes past it", log["early-as-the-proxy"] == SECRET, log["early-as-the-proxy"]
    )
    ask.report("one after the proxy goes through it", log["late"] == SECRET, log["late"])
    outside = ask.on(here)(f"{curl} || echo curl $?").strip()
    ask.report("who has no certificate gets nothing", SECRET not in outside, outside)


def _kept(ask: Asked, node: str) -> str:
    """Where a pod without a proxy answers."""
    container = {"name": "app", "image": images.SHELL, "imagePullPolicy": "Never", "command": ["sh", "-c", SERVE]}
    return addresses(
        _run(ask, {"metadata": {"name": "unmeshed"}, "spec": {"nodeName": node, "containers": [container]}})
    )[0]


def _script(name: str, script: str, **context: Any) -> dict[str, Any]:
    made = {"name": name, "image": images.SHELL, "imagePullPolicy": "Never", "command": ["sh", "-c", script]}
    return made | ({"securityContext": context} if context else {})


def _made(ask: Asked, name: str, node: str, authority: Authority, *containers: dict[str, Any]) -> dict[str, Any]:
    """A pod with an Envoy. The last container is its application; others run before: named for the proxy's start, those that are `late` after it."""
    config = json.dumps(mutual_tls(authority, name)).encode()
    files = {file.name: file.read_bytes() for file in authority.folder.iterdir() if file.is_file()} | {
        "envoy.json": config
    }
    data = {file: base64.b64encode(content).decode() for file, content in files.items()}
    ask.api("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": name}, "data": data})
    proxy = {
        "name": "proxy", "image": images.ENVOY, "imagePullPolicy": "Never", "restartPolicy": "Always",
        "command": ["/envoy", "-c", f"{authority.folder}/envoy.json", "--disable-hot-restart", "--concurrency", "1", "-l", "warning"],
        "securityContext": {"runAsUser": PROXY, "runAsGroup": PROXY},
        # until it listens at 15001
        "startupProbe": {"exec": {"command": ["grep", "-q", ":3A99 .* 0A ", "/proc/net/tcp"]}, "periodSeconds": 1, "failureThreshold": 60},
        "volumeMounts": [{"name": "identity", "mountPath": str(authority.folder)}],
    }  # fmt: skip
    *before, application = containers
    ordered = sorted([*before, proxy], key=lambda one: ("early", "proxy", "late").index(one["name"].split("-")[0]))
    spec = {
        "nodeName": node, "terminationGracePeriodSeconds": 1, "volumes": [{"name": "identity", "secret": {"secretName": name}}],
        "initContainers": ordered, "containers": [application],
    }  # fmt: skip
    return _run(ask, {"metadata": {"name": name, "annotations": {ANNOTATION: "true"}}, "spec": spec})


def _run(ask: Asked, pod: dict[str, Any]) -> dict[str, Any]:
    name = pod["metadata"]["name"]
    ask.api("POST", PODS, {"apiVersion": "v1", "kind": "Pod"} | pod)
    found = eventually(lambda: (it := ask.api("GET", f"{PODS}/{name}"))["status"].get("phase") == "Running" and it, 120)
    assert found, json.dumps(ask.api("GET", f"{PODS}/{name}")["status"])[:1500]
    return dict(found)


def _folder(ask: Asked) -> Path:
    folder = ask.cluster.folder / "mesh"
    folder.mkdir()
    return folder
