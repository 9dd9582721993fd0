"""System calls that are refused once, as strace refuses them: a designed error, and nothing left behind."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lab import Host, Pod
from strace import cold

pytestmark = pytest.mark.sweep

NETLINK = re.compile(r"^\d+ +recvfrom\(", re.MULTILINE)


@pytest.mark.parametrize("call", ["bind", "setsockopt"])
def test_a_netlink_socket_that_is_refused(settled: Host, pod: Pod, conf: dict[str, Any], call: str):
    code, said, _ = cold(settled, pod, conf, "-e", f"trace={call}", "-e", f"inject={call}:error=EPERM:when=1")
    assert (code, said["code"]) == (1, 100)
    assert said["msg"] == f"netlink: {call}{' 10' if call == 'setsockopt' else ''}: Operation not permitted"


@pytest.mark.tried("each netlink answer of an ADD unheard once", "100, and nothing is left")
def test_an_answer_that_is_not_heard_leaves_nothing_whichever_it_is(settled: Host, pod: Pod, conf: dict[str, Any]):
    before = settled.snapshot()
    code, _, seen = cold(settled, pod, conf, "-e", "trace=recvfrom")
    assert code == 0
    settled.delete_pod(conf, pod)
    count = len(NETLINK.findall(seen))
    assert count > 5
    refused = 0
    for number in range(1, count + 1):
        code, said, _ = cold(
            settled, pod, conf, "-e", "trace=recvfrom", "-e", f"inject=recvfrom:error=ENOMEM:when={number}"
        )
        if code:
            refused += 1
            assert said["code"] == 100, said
            assert settled.snapshot() == before, number
        settled.delete_pod(conf, pod)
        assert settled.snapshot() == before, number
    assert refused > 5, f"of {count}"


@pytest.mark.tried("each socket of an ADD with a policy refused once", "a designed code, and nothing is left")
def test_a_socket_that_is_refused_is_said_whoever_asks_for_it(settled: Host, pod: Pod, conf: dict[str, Any]):
    """strace counts in each thread by itself: the first is libnftables' in those it is asked in, and nobody misses it in the main one."""
    isolated, before, told = conf | {"policy": {"defaultDeny": True}}, settled.snapshot(), {}
    for number in (1, *range(3, 30)):
        inject = ("-e", "trace=socket", "-e", f"inject=socket:error=EMFILE:when={number}")
        code, said, _ = cold(settled, pod, isolated, *inject)
        told[number] = said.get("code")
        if code:
            assert settled.snapshot() == before, said
        settled.delete_pod(isolated, pod)
        assert settled.snapshot() == before, said
        if not code:
            break
    assert told.pop(1) == 11
    assert {*told.values()} == {100, None}


@pytest.mark.tried(
    "no file can be opened any more, from some moment of an ADD on", "a designed code, whatever was loaded by then"
)
def test_who_can_open_no_file_any_more_says_so(settled: Host, pod: Pod, conf: dict[str, Any]):
    _, _, seen = cold(settled, pod, conf, "-e", "trace=openat")
    settled.delete_pod(conf, pod)
    begun = max(at for at, line in enumerate(seen.splitlines(), 1) if "protocol/" in line and "versions" in line)
    for number in range(begun + 1, begun + 120, 20):
        code, said, _ = cold(
            settled, pod, conf, "-e", "trace=openat", "-e", f"inject=openat:error=ENFILE:when={number}+"
        )
        assert (code, said["code"]) == (1, 11), number
    settled.delete_pod(conf, pod)
