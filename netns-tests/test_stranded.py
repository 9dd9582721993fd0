"""Whoever cannot come home from a pod's namespace does nothing more, in there or anywhere; the next DEL finishes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from lab import BIN_DIR, ROOT, Host, Lab, Pod, environment

PYTHON = ROOT / ".venv/bin/python3"
RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
HEAD = {"cniVersion": "1.1.0", "name": "net", "ipam": {"ranges": RANGES}}
CONFS = {
    "bridged": HEAD | {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True,
                       "policy": {"ingress": []}, "sidecar": {}},
    "routed": HEAD | {"type": "custom-plugin", "ipMasq": True, "policy": {"defaultDeny": True}},
}  # fmt: skip


def stopped_at(host: Host, verb: str, conf: dict[str, Any], pod: Pod, number: int) -> tuple[int, dict[str, Any], int]:
    """A cold call whose setns(2) number `number` fails: exit code, document, and how many there were."""
    trace = host.folder / "trace"
    inject = f"inject=setns:error=EPERM:when={number}"
    argv = ("strace", "-f", "-o", trace, "-e", "trace=setns", "-e", inject, PYTHON, "-I", BIN_DIR / conf["type"])
    done = host.run(*argv, input=json.dumps(conf), env=environment(verb, pod), check=False)
    calls = len(re.findall(r"setns\(", trace.read_text()))
    return done.returncode, json.loads(done.stdout or "{}"), calls


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
    number, code, ended = 1, 1, []
    while code:
        pod = lab.pod()
        if verb == "DEL":
            host.add(conf, pod)
        code, document, _ = stopped_at(host, verb, conf, pod, number)
        if code:
            assert document["code"] == 100 or (verb == "DEL" and document["code"] == 107), document
            ended.append(document["msg"])
        assert "agent_cni" not in pod.run("nft", "list", "tables").stdout
        if code and verb == "ADD":
            assert pod.run("ip", "-o", "link", "show", "type", "bridge").stdout == ""
        host.delete_pod(conf, pod)
        pod.delete()
        assert host.snapshot() == before, f"setns number {number}: {document}"
        host.check(conf, other, held).ok()
        number += 1
    assert any("the way back" in msg for msg in ended)
    assert any(f"setns to {pod.path[:10]}" in msg for msg in ended), "the way in is refused as well"
