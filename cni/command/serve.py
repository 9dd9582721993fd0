"""Being the node agent."""

from __future__ import annotations

import argparse

from cni.agent.listener import is_listened_on, takes_calls
from cni.command.output import complain, say


def serve(options: argparse.Namespace) -> int:
    """Be the node agent: answer the plugins' calls warm, until SIGTERM or Ctrl-C."""
    if options.probe:
        return _probed(options)
    from cni.agent.serve import serve as answering  # and with it all that a call may need

    answering(options.socket, options.workers, options.deadline, options.conf_dir)
    return 0


def _probed(options: argparse.Namespace) -> int:
    if is_listened_on(options.socket) and takes_calls(options.socket):
        say(f"an agent takes calls at {options.socket}")
        return 0
    complain(f"agent-cni: no agent takes calls at {options.socket}")
    return 1
