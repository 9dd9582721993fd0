"""Judging what this node's pods ask DNS servers."""

from __future__ import annotations

import argparse

from cni.command.output import complain, say
from cni.kernel import gatedir
from cni.state.daemons import GATE, is_running


def dnsgate(options: argparse.Namespace) -> int:
    """Let pods that may reach names resolve these and no others, and reach what is answered, until SIGTERM or Ctrl-C."""
    if options.probe:
        return _probed()
    from cni.dnsgate.run import run  # and with it what reads messages

    run()
    return 0


def _probed() -> int:
    if is_running(GATE) and gatedir.is_heard():
        say(f"a {GATE} judges what pods of this host ask")
        return 0
    complain(f"agent-cni: no {GATE} judges what pods of this host ask")
    return 1
