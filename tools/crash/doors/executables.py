"""The executables themselves, without the node agent and with it, and the agent's socket by whoever connects to it: a sample, because each is a process."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

from crash.doors import calls, wires
from crash.doors.door import Door

ROOT = Path(__file__).resolve().parents[3]
BIN, COMMAND = ROOT / ".venv/cni-bin", ROOT / ".venv/bin/agent-cni"
_SOCKET = Path("/run/agent-cni/agent.sock")
#: Seconds of the clock that one call may take on a machine that is busy; of a processor's it is judged by its own.
_PATIENCE = 60
_MARK = f"agent-cni {wires.__version__} follow\n".encode()


@cache
def _agent() -> subprocess.Popen[bytes]:
    """A node agent in this namespace."""
    with Path("/run/agent.log").open("wb") as log:
        agent = subprocess.Popen([COMMAND, "serve"], stderr=log, stdout=log)
    atexit.register(agent.kill)
    while not _SOCKET.exists():
        time.sleep(0.02)
    return agent


def _kernel() -> str:
    """What the namespace has."""
    asked = "ip -o link; ip -o addr; ip route show table all; ip rule; nft list ruleset"
    return subprocess.run(["sh", "-c", asked], capture_output=True, text=True, check=False).stdout


def _said(done: subprocess.CompletedProcess[bytes], verb: str) -> str:
    """What is wrong with what a process printed and how it ended."""
    if b"Traceback" in done.stderr:
        return f"stderr: {done.stderr[-300:]!r}"
    if not done.stdout:
        return f"{verb}: exit {done.returncode} and no document" if done.returncode and verb else ""
    try:
        calls.only(done.returncode, verb, [(done.returncode, done.stdout)])
    except (calls.Refused, ValueError) as error:
        return f"{error}: {done.stdout[:200]!r}"
    return ""


def _called(data: bytes, *, warm: bool) -> str:
    head, _, stdin = data.partition(b"\n")
    asked = json.loads(head)
    if warm:
        _agent()
    env = {key: value for key, value in asked["environ"].items() if "\0" not in value} | {"PATH": os.environ["PATH"]}
    env |= {} if warm else {"AGENT_CNI_SOCKET": ""}
    before, began = _kernel(), os.times()
    try:
        done = subprocess.run(
            [BIN / asked["plugin"]], input=stdin, env=env, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:  # the kernel takes no environment of any size
        return f"no answer within {_PATIENCE} s" if isinstance(error, subprocess.TimeoutExpired) else ""
    took = os.times().children_user + os.times().children_system - began.children_user - began.children_system
    if took > 2:
        return f"takes {took:.1f} s of a processor"
    if warm and b"worker ended" in Path("/run/agent.log").read_bytes():
        return f"a worker of the agent ended: {Path('/run/agent.log').read_bytes()[-300:]!r}"
    if wrong := _said(done, env.get("CNI_COMMAND", "")):
        return wrong
    after = _kernel()
    return f"the kernel has {set(after.splitlines()) ^ set(before.splitlines())}" if after != before else ""


def _made(random: Random) -> bytes:
    return random.choice(calls.DOORS).made(random)


# --- the socket


def _connected(data: bytes) -> str:
    """Say something to the agent in packets, hang up, and see whether it serves."""
    agent = _agent()
    before = agent.pid
    lines = [bytes.fromhex(line) for line in json.loads(data)["packets"]]
    many = json.loads(data)["many"]
    made = []
    for _ in range(many):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(5)
        made.append(connection)
        with suppress(OSError):
            connection.connect(str(_SOCKET))
            for line in lines:
                if json.loads(data)["fds"]:
                    socket.send_fds(connection, [line], [0] * json.loads(data)["fds"])
                else:
                    connection.send(line)
    if json.loads(data)["waits"]:
        time.sleep(0.05)
    for connection in made:
        connection.close()
    if agent.poll() is not None:
        return "the agent ended"
    said = Path("/run/agent.log").read_bytes()
    if b"Traceback" in said or b"worker ended" in said:
        Path("/run/agent.log").write_bytes(b"")
        return f"the agent says {said[-600:].decode(errors='replace')}"
    call = calls.packed("agent-ipam", calls.ENVIRON | {"CNI_COMMAND": "STATUS"}, json.dumps(_STATUS).encode())
    return _called(call, warm=True) or ("" if agent.pid == before else "another agent")


_STATUS: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "agent-ipam",
    "ipam": {"type": "agent-ipam", "subnet": "10.9.0.0/24"},
}


def _packets(random: Random) -> bytes:
    packets = []
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        what, _, said = wires.to_agent(random).partition(b"\n")
        packets.append(
            (_MARK if what != b"request" else b"") + said
            if random.random() < 0.9
            else random.randbytes(random.randrange(300))
        )
    whole = {"packets": [item[:150_000].hex() for item in packets], "many": random.choice((1, 1, 1, 9, 60)), "fds": random.choice((0, 0, 1, 4, 200)), "waits": random.random() < 0.2}  # fmt: skip
    return json.dumps(whole).encode()


DOORS = (
    Door("cold", _made, partial(_called, warm=False), 150, apart=True),
    Door("warm", _made, partial(_called, warm=True), 300, apart=True),
    Door("socket", _packets, _connected, 150, apart=True),
)
