"""The log lines of one pod, from every plugin that had to do with it, in order."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from cni import log
from cni.command.output import complain, print_json, print_table
from cni.errors import CniError
from cni.state import DEFAULT_FOLDER, Store

_COLUMNS = ("time", "plugin", "verb", "network", "ifname", "seconds", "error")


def trace(options: argparse.Namespace) -> int:
    """Print what the log says of a pod, by namespace/name, of a container, or of a trace; the first characters of an id are enough."""
    lines = sorted(_lines(options.container), key=lambda line: str(line.get("time")))
    lines += _unsaid(options.container)
    if options.json:
        print_json(lines)
    elif lines:
        several = len({line.get("container") for line in lines}) > 1
        columns = (_COLUMNS[0], "container", *_COLUMNS[1:]) if several else _COLUMNS
        print_table("", columns, [{column: line.get(column, "") for column in columns} for line in lines])
    else:
        complain(f"agent-cni: no line in {log.FOLDER} is of pod, container or trace {options.container}")
    return 0 if lines else 1


def _lines(container: str) -> Iterator[dict[str, Any]]:
    for file in filter(Path.is_file, sorted(log.FOLDER.glob("*.log"))):  # a pipe would not end
        yield from (line for line in _read(file) if _is_of(line, container))


def _is_of(line: dict[str, Any], begins: str) -> bool:
    return line.get("pod") == begins or any(
        str(line.get(name, "")).startswith(begins) for name in ("container", "trace_id")
    )


def _unsaid(container: str) -> Iterator[dict[str, Any]]:
    """What the cluster is still to be told of it, and why it was not."""
    with suppress(CniError):
        if store := Store.reading(DEFAULT_FOLDER):
            with closing(store):
                member = store.member()
                why = f": {member.trouble}" if member and member.trouble else ""
                for item in store.unsaid():
                    pod = item.wanted or item.published
                    if pod and pod.container and (pod.container.startswith(container) or pod.pod == container):
                        verb = "publish" if item.wanted else "withdraw"
                        who = {"network": pod.network, "container": pod.container, "ifname": pod.ifname, "pod": pod.pod}
                        said = {"address": pod.address, "error": f"{pod.address} is not told to the cluster yet{why}"}
                        yield {"time": "", "plugin": "member", "verb": verb, **who, **said}


def _read(file: Path) -> Iterator[dict[str, Any]]:
    """Its JSON objects; a line that was cut off says nothing."""
    for text in file.read_text(errors="replace").splitlines():
        with suppress(ValueError):
            line = json.loads(text, parse_constant=_refuse_constant)
            if isinstance(line, dict):
                yield line


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
