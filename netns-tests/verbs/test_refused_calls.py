"""System calls that are refused once, as strace refuses them: a designed error, and nothing left behind."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from lab import BIN_DIR, Host, Pod, environment

pytestmark = pytest.mark.sweep

NETLINK = re.compile(r"^\d+ +recvfrom\(", re.MULTILINE)


def cold(host: Host, pod: Pod, conf: dict[str, Any], *options: str) -> tuple[int, dict[str, Any], str]:
    """An ADD without the agent under strace: exit code, document, what strace saw."""
    log = host.folder / "strace"
    argv = ("strace", "-f", "-qq", "-o", log, *options, BIN_DIR / conf["type"])
    env = environment("ADD", pod) | {"AGENT_CNI_SOCKET": ""}
    done = host.run(*argv, input=json.dumps(conf), env=env, check=False)
    return done.returncode, json.loads(done.stdout), log.read_text(errors="replace")


@pytest.mark.parametrize("call", ["bind", "setsockopt"])
def test_a_netlink_socket_that_is_refused(settled: Host, pod: Pod, conf: dict[str, Any], call: str):
    code, said, _ = cold(settled, pod, conf, "-e", f"trace={call}", "-e", f"inject={call}:error=EPERM:when=1")
    assert (code, said["code"]) == (1, 100)
    assert said["msg"] == f"netlink: {call}{' 10' if call == 'setsockopt' else ''}: Operation not permitted"
    (settled.folder / "strace").unlink()


@pytest.mark.tried("each netlink answer of an ADD unheard once", "100, and nothing is left")
def test_an_answer_that_is_not_heard_leaves_nothing_whichever_it_is(settled: Host, pod: Pod, conf: dict[str, Any]):
    before = settled.snapshot()
    code, _, seen = cold(settled, pod, conf, "-e", "trace=recvfrom")
    assert code == 0
    settled.delete_pod(conf, pod)
    (settled.folder / "strace").unlink()
    count = len(NETLINK.findall(seen))
    assert count > 5
    refused = 0
    for number in range(1, count + 1):
        code, said, _ = cold(
            settled, pod, conf, "-e", "trace=recvfrom", "-e", f"inject=recvfrom:error=ENOMEM:when={number}"
        )
        (settled.folder / "strace").unlink()
        if code:
            refused += 1
            assert said["code"] == 100, said
            assert settled.snapshot() == before, number
        settled.delete_pod(conf, pod)
        assert settled.snapshot() == before, number
    assert refused > 5, f"of {count}"
