"""Answering for the names of this node's pods."""

from __future__ import annotations

import argparse

from cni.discovery.run import run


def names(options: argparse.Namespace) -> int:
    """Answer for the names of this node's pods, and probe those that are to be, until SIGTERM or Ctrl-C."""
    run()
    return 0
