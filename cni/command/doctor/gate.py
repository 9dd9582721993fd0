"""The DNS gate: whether one works where pods are held to names, and whether packets were lost on the way to it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from cni.diagnosis.finding import Finding, Severity
from cni.errors import CniError
from cni.kernel import gatedir, nfqueue
from cni.naming import DNS_QUEUE
from cni.state.daemons import GATE, is_running

_UNIT = "agent-cni-dnsgate.service"
_START, _ANEW = f"systemctl start {_UNIT}, or agent-cni dnsgate", f"systemctl restart {_UNIT}"
_WHY = "why: journalctl -u agent-cni-dnsgate, or /var/log/agent-cni/dnsgate.log"


def gate_faults(options: argparse.Namespace) -> Iterator[Finding]:
    """Whoever is held to names resolves none while nobody judges what is asked; what he was let to reach before he still does."""
    try:
        entries = [*gatedir.entries()]
        runs = is_running(GATE)
    except CniError as error:
        yield Finding(error.msg, "agent-cni refresh", cause="gate")
        return
    if not entries:
        return
    pods = tuple(entry.pod for entry in entries)
    listening = nfqueue.listening(DNS_QUEUE)
    if not runs:
        yield Finding(
            "no DNS gate runs: names that a policy allows are not resolved", _START, cause="gate-absent", pods=pods
        )
    elif not gatedir.is_heard():
        yield Finding(
            "the DNS gate hangs: names that a policy allows are not resolved", _ANEW, cause="gate-hangs", pods=pods
        )
    elif listening is None and (deaf := tuple(entry.pod for entry in entries if not entry.netns)):
        what = f"the DNS gate runs, and does not listen to netfilter queue {DNS_QUEUE}"
        yield Finding(what, _WHY, cause="gate-deaf", pods=deaf)
    if listening and listening.dropped:
        what = (
            f"{listening.dropped} packets of DNS were dropped since the DNS gate began: more came than it could judge"
        )
        yield Finding(what, "who asks that much: resolveRate bounds each pod", Severity.WARNING, "gate-lost")
