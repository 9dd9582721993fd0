"""The figures of a node, for Prometheus' textfile collector where no member answers it, and for people."""

from __future__ import annotations

import argparse

from cni.command.output import print_text
from cni.kernel.writing import put_asked
from cni.member import census, exposition


def metrics(options: argparse.Namespace) -> int:
    """Print what this node has and how its calls go, as Prometheus reads it. A member says this over HTTP, and how it does itself."""
    text = exposition.text(census.of_node())
    if options.output:
        put_asked(options.output, text, 0o644)  # a collector reads it, whose user is another
    else:
        print_text(text.decode().rstrip("\n"))
    return 0
