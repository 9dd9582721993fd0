"""Being the node agent."""

from __future__ import annotations

import argparse

from cni.agent.serve import serve as answering


def serve(options: argparse.Namespace) -> int:
    """Be the node agent: answer the plugins' calls warm, until SIGTERM or Ctrl-C."""
    answering(options.socket, options.workers, options.deadline, options.conf_dir)
    return 0
