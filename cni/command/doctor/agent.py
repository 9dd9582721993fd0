"""The node agent: whether somebody takes calls where there is a socket, and what a call costs where there is none."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Iterator

from cni.agent import settings
from cni.agent.listener import is_listened_on, takes_calls
from cni.agent.settings import Settings
from cni.diagnosis.finding import Finding, Severity
from cni.errors import CniError
from cni.kernel import process


def agent_faults(options: argparse.Namespace) -> Iterator[Finding]:
    """Where there is a socket somebody must listen; a node without an agent is a slower one and not a sick one."""
    if not options.socket.exists():
        return
    if not is_listened_on(options.socket):
        what = f"nobody listens on {options.socket}: every call starts Python"
        yield Finding(what, "systemctl restart agent-cni.socket, or agent-cni serve", Severity.WARNING, "agent-absent")
    elif not takes_calls(options.socket):
        what = f"the agent that listens on {options.socket} takes no calls, stopped or busy: each waits a second and starts Python"
        yield Finding(
            what,
            "systemctl restart agent-cni.service, or end that agent and start another",
            Severity.WARNING,
            "agent-hung",
        )
    try:
        otlp = Settings.load().otlp
    except CniError as error:
        yield Finding(error.msg, f"edit {settings.PATH}, then systemctl restart agent-cni.service")
        return
    if otlp and not importlib.util.find_spec("opentelemetry"):
        what = f"{settings.PATH} wants spans sent, and OpenTelemetry's library is not installed: none are"
        yield Finding(
            what, "make install EXTRAS=otlp, or pip install agent-cni[otlp] and agent-cni install", Severity.WARNING
        )


def without_agent(options: argparse.Namespace) -> str:
    """What a call costs on a node without one, by one that changes nothing."""
    conf = '{"cniVersion": "1.1.0", "name": "doctor", "type": "custom-plugin", "ipam": {"type": "static"}}'
    environ = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(options.bin_dir), "AGENT_CNI_SOCKET": ""}
    began = time.monotonic()
    try:
        process.run([str(options.bin_dir / "custom-plugin")], conf, environ)
    except CniError:
        return "none"
    took = round((time.monotonic() - began) * 1000)
    return f"none, so each call starts Python, in {took} ms here (make install with systemd, or agent-cni serve)"
