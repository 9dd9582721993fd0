"""make bench, interception: what a proxy in the way costs traffic, and what the rules cost an ADD."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench_modes import PORT, ROUNDS, Ways
from interception import APP_UID, BACKENDS, address_of, chained, network
from lab import Host, Lab, Pod
from measure import Sample, Server, sample
from mesh import Envoy, plain
from traffic import PROXY


def proxies(lab: Lab, held: ExitStack) -> Ways:
    """A pod that calls another one: directly, past rules that do not capture it, and through a proxy."""
    return dict(_ways(lab, held))


def _ways(lab: Lab, held: ExitStack) -> Iterator[tuple[str, Callable[[], Sample]]]:
    host, server = lab.host(), lab.pod()
    target = address_of(host.add(network(), server), 4)
    held.enter_context(Server(_in(server), PORT))
    folder = Path(held.enter_context(tempfile.TemporaryDirectory(dir="/run")))
    folder.chmod(0o755)
    for name in ("none", "rules only", "null proxy", "Envoy"):
        pod = lab.pod()
        keys: dict[str, Any] = {"excludeOutboundPorts": [PORT]} if name == "rules only" else {}
        result = host.add(network(None if name == "none" else keys), pod)
        if name == "Envoy":
            held.enter_context(Envoy(pod, plain([address_of(result, 4)]), folder))
        elif name == "null proxy":
            held.enter_context(_null_proxy(pod, target))
        yield name, lambda pod=pod: sample(_in(pod, APP_UID), target, PORT)  # type: ignore[misc]


@contextmanager
def _null_proxy(pod: Pod, target: str) -> Iterator[None]:
    """socat, which copies bytes and does nothing else."""
    listen = "TCP-LISTEN:15001,fork,reuseaddr,nodelay,backlog=128"
    process = pod.start(*_as(PROXY), "socat", "-b", "262144", listen, f"TCP:{target}:{PORT},nodelay")
    time.sleep(0.3)
    try:
        yield
    finally:
        process.terminate()
        process.communicate()


def rules(lab: Lab) -> dict[str, tuple[list[float], list[float]]]:
    """A chained ADD with rules against one that makes none, in each backend, paired (ms)."""
    return {f"{backend}: chained ADD with rules / without": _paired(lab, backend) for backend in BACKENDS}


def _paired(lab: Lab, backend: str) -> tuple[list[float], list[float]]:
    host, conf = lab.host(), network()
    nothing = {"includeInboundPorts": [], "includeOutboundCIDRs": []}
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS + 1):
        for ruled in (True, False) if number % 2 else (False, True):
            pod = lab.pod()
            call = chained(conf, backend=backend, prevResult=host.add(conf, pod), **({} if ruled else nothing))
            began = time.perf_counter()
            host.add(call, pod)
            times[ruled] += [(time.perf_counter() - began) * 1000] if number else []
            host.delete_pod(call, pod)
            host.delete_pod(conf, pod)
            pod.delete()
    return times[True], times[False]


def _in(pod: Pod | Host, uid: int = 0) -> list[str]:
    return ["nsenter", f"--net={pod.path}", *(_as(uid) if uid else [])]


def _as(uid: int) -> list[str]:
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
