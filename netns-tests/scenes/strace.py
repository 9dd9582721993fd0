"""Calls under strace, which sees each of their system calls, refuses one, or sends a signal at one."""

from __future__ import annotations

import json
from typing import Any

from lab import BIN_DIR, Host, Pod, environment


def cold(host: Host, pod: Pod, conf: dict[str, Any], *options: str) -> tuple[int, dict[str, Any], str]:
    """An ADD without the agent under strace: exit code, document (empty if there was none), what strace saw."""
    log = host.folder / "strace"
    argv = ("strace", "-f", "-qq", "-o", log, *options, BIN_DIR / conf["type"])
    env = environment("ADD", pod) | {"AGENT_CNI_SOCKET": ""}
    done = host.run(*argv, input=json.dumps(conf), env=env, check=False)
    seen = log.read_text(errors="replace")
    log.unlink()
    return done.returncode, json.loads(done.stdout or "{}"), seen
