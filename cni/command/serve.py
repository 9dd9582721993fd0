"""Being the node agent."""

from __future__ import annotations

import argparse

from cni.agent.exporter import Exporter
from cni.agent.listener import is_listened_on, takes_calls
from cni.agent.settings import Settings
from cni.command.output import complain, say


def serve(options: argparse.Namespace) -> int:
    """Be the node agent: answer the plugins' calls warm, until SIGTERM or Ctrl-C."""
    if options.probe:
        return _probed(options)
    otlp = Settings.load(options.config).otlp
    from cni.agent.serve import Upkeep  # and with it all that a call may need
    from cni.agent.serve import serve as answering

    exporter = Exporter(options.config, steps=options.trace) if otlp else None
    answering(options.socket, options.workers, options.deadline, Upkeep(options.conf_dir, options.repair), exporter)
    return 0


def _probed(options: argparse.Namespace) -> int:
    if is_listened_on(options.socket) and takes_calls(options.socket):
        say(f"an agent takes calls at {options.socket}")
        return 0
    complain(f"agent-cni: no agent takes calls at {options.socket}")
    return 1
