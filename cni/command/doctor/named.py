"""What this node's pods are called and how they are, and what keeps their names from being answered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from cni.errors import CniError
from cni.kernel import hostsdir, process
from cni.kernel.hostsdir import NOT_PROBED, Entry
from cni.state.daemons import NAMES, is_running

COLUMNS = ("network", "names", "addresses", "health", "why")
_START = "systemctl start agent-cni-names.service, or agent-cni names"
_WHY = "why: journalctl -u agent-cni-names, or /var/log/agent-cni/names.log"


class Fault(NamedTuple):
    """What is wrong, and what mends it."""

    line: str
    mend: str


def rows() -> list[dict[str, Any]]:
    """Each pod of this node that has names; nothing of a network whose files cannot be read."""
    found: list[dict[str, Any]] = []
    for network in hostsdir.networks():
        try:
            found += [_row(entry) for entry in hostsdir.entries(network)]
        except CniError:
            continue  # doctor says why
    return found


def _row(entry: Entry) -> dict[str, Any]:
    said = {"addresses": [*entry.addresses], "names": [*entry.names], "pod": entry.pod}
    return {**entry.attachment._asdict(), **said, "health": _health(entry), "why": entry.unhealthy}


def _health(entry: Entry) -> str:
    if not entry.health:
        return "not probed"
    if not entry.unhealthy:
        return "healthy"
    return "not yet" if entry.unhealthy.endswith(NOT_PROBED) else "unhealthy"


def faults() -> Iterator[Fault]:
    """Names that are configured, and nobody answers; a pod that is not well is none of them. Raises Unavailable."""
    served = {network: said for network in hostsdir.networks() if (said := hostsdir.served(network))}
    if not served:
        return
    from cni.discovery import consul  # asyncio takes longer to import than the rest of the command
    from cni.discovery.servers import PACKAGE, PROGRAM, word

    runs = is_running(NAMES)
    down = [network for network in served if not (runs and any(process.running(PROGRAM, word(network))))]
    if down and not process.find(PROGRAM, before=os.environ.get("PATH", "")):
        yield Fault(
            f"{PROGRAM} is not installed: nobody answers names of {', '.join(down)}", f"apt-get install {PACKAGE}"
        )
    elif not runs:
        yield Fault(f"nobody keeps a server for names of {', '.join(down)}, or probes their pods", _START)
    elif down:
        yield Fault(f"no {PROGRAM} answers names of {', '.join(down)}", _WHY)
    for url in dict.fromkeys(said.consul for said in served.values() if said.consul):
        try:
            consul.reached(url)
        except CniError as error:
            yield Fault(
                f"pods are not registered with Consul: {error.msg}", "start its agent, or name another: names.consul"
            )
