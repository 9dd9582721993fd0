"""A signal while an ADD waits, and at each message it sends to the kernel: it takes everything back, or the next DEL does."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from agents import begun, waiting_ipam
from lab import Host, Lab, Pod
from strace import cold

MESSAGES = "sendto,sendmsg"
POLITE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def struck(host: Host, pod: Pod, conf: dict[str, Any], number: signal.Signals, message: int) -> tuple[int, Any]:
    """An ADD that gets a signal as it sends its n-th message: exit code and document; 0 if it sent no more than that."""
    inject = f"inject={MESSAGES}:signal={number.name}:when={message}"
    return cold(host, pod, conf, "-e", f"trace={MESSAGES}", "-e", inject)[:2]


@pytest.mark.parametrize("number", POLITE, ids=lambda number: number.name)
def test_a_signal_takes_everything_back_and_says_so_once(
    settled: Host, pod: Pod, conf: dict, tmp_path: Path, number: signal.Signals
):
    before = settled.snapshot()
    process = begun(settled, conf, pod, waiting_ipam(tmp_path))
    process.send_signal(number)
    assert process.stdout
    assert json.loads(process.stdout.read())["code"] == 108
    assert process.wait() == 1
    assert settled.snapshot() == before
    assert process.stderr
    logged = json.loads(process.stderr.read())
    assert (logged["code"], "traceback" in logged) == (108, False)


@pytest.mark.tried("SIGTERM, SIGINT and SIGHUP at each message of an ADD to the kernel", "108, and nothing is left")
@pytest.mark.parametrize("number", POLITE, ids=lambda number: number.name)
def test_a_signal_at_a_message_takes_everything_back(settled: Host, lab: Lab, conf: dict, number: signal.Signals):
    """Each comes at every third message, so that together they come at all."""
    before, ended = settled.snapshot(), 0
    for message in itertools.count(1 + POLITE.index(number), len(POLITE)):
        pod = lab.pod()
        code, said = struck(settled, pod, conf, number, message)
        if code == 0:
            settled.delete_pod(conf, pod)
            break
        assert said["code"] == 108, said
        assert settled.snapshot() == before, f"message {message}"
        ended += 1
    assert ended > 8


@pytest.mark.sweep
@pytest.mark.tried("SIGKILL at each message of an ADD to the kernel", "the next DEL leaves nothing")
def test_del_after_a_kill_at_a_message_leaves_nothing(settled: Host, lab: Lab, conf: dict):
    before, killed = settled.snapshot(), 0
    for message in itertools.count(1):
        pod = lab.pod()
        code, _ = struck(settled, pod, conf, signal.SIGKILL, message)
        settled.cni("DEL", conf, pod, CNI_NETNS=pod.path if message % 2 else "").ok()
        pod.delete()
        assert settled.snapshot() == before, f"message {message}"
        if code == 0:
            break
        killed += 1
    assert killed > 20
