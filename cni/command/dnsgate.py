"""Judging what this node's pods ask DNS servers."""

from __future__ import annotations

import argparse

from cni.dnsgate.run import run


def dnsgate(options: argparse.Namespace) -> int:
    """Let pods that may reach names resolve these and no others, and reach what is answered, until SIGTERM or Ctrl-C."""
    run()
    return 0
