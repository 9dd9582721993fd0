"""The log: one JSON object a line, to /var/log/agent-cni where that can be written.

stderr belongs to the runtime's log, so only failures go there too; stdout is the protocol's.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

FOLDER = Path("/var/log/agent-cni")

_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


def event(plugin: str, verb: str, error: BaseException | None = None, **facts: Any) -> None:
    """Write what a call did: `facts` such as container, network, seconds; never raises."""
    line: dict[str, Any] = {"time": _now(), "plugin": plugin, "verb": verb, **facts}
    if error is not None:
        line |= {"error": str(error), "code": getattr(error, "code", 999)}
        line |= {"notes": notes} if (notes := getattr(error, "__notes__", None)) else {}
        if line["code"] == 999:
            line["traceback"] = "".join(traceback.format_exception(error))
        _write_stderr(line)
    _append(plugin, line)


def warning(plugin: str, msg: str, **facts: Any) -> None:
    """Say what a call left undone though it ended well; never raises."""
    line = {"time": _now(), "plugin": plugin, **facts, "warning": msg}
    _write_stderr(line)
    _append(plugin, line)


def _append(plugin: str, line: dict[str, Any]) -> None:
    """One write per line: O_APPEND keeps lines of parallel calls whole."""
    try:
        fd = _opened(f"{FOLDER}/{plugin}.log")
        try:
            os.write(fd, json.dumps(line).encode() + b"\n")
        finally:
            os.close(fd)
    except OSError:
        return


def _opened(file: str) -> int:
    try:
        return os.open(file, _APPENDING, 0o640)
    except FileNotFoundError:
        FOLDER.mkdir(parents=True, exist_ok=True, mode=0o750)
        return os.open(file, _APPENDING, 0o640)


def _write_stderr(line: dict[str, Any]) -> None:
    try:
        sys.stderr.write(json.dumps(line) + "\n")
    except (OSError, ValueError, AttributeError):
        return


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
