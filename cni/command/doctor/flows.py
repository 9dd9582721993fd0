"""The recorder of flows: whether one runs where one is to, and whether it keeps up."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from cni.agent import settings
from cni.agent.settings import Settings
from cni.diagnosis.finding import Finding, Severity
from cni.errors import CniError
from cni.installation import systemd
from cni.state.daemons import FLOWS, is_running
from cni.state.recorded import recorded

#: For so many seconds it is told that something was lost.
_LATELY = 3600


def flow_faults(options: argparse.Namespace) -> Iterator[Finding]:
    """A node without a recorder is fine, unless somebody enabled one or said how it is to be."""
    try:
        wanted = Settings.load().records or systemd.wants_flows()
        runs, counts = is_running(FLOWS), recorded()
    except CniError as error:
        yield Finding(error.msg, f"edit {settings.PATH}", Severity.WARNING, "flows")
        return
    if wanted and not runs:
        what = "no recorder of flows runs: whom pods talk to is not written down"
        yield Finding(what, "systemctl enable --now agent-cni-flows.service", Severity.WARNING, "flows-absent")
    if not counts or time.time() - counts.lost_at > _LATELY:
        return
    if counts.unwritten:
        what = f"{counts.unwritten} flows were not written since this node's boot, some within the last hour"
        yield Finding(
            what, "make room on the disk, see /var/log/agent-cni/flows.log", Severity.WARNING, "flows-unwritten"
        )
    if counts.shed:
        what = f"the recorder of flows did not take {counts.shed} events in time since this node's boot, some within the last hour"
        yield Finding(what, "leave it some of the processor", Severity.NOTE, "flows-shed")
