"""The figures of a node, for Prometheus' textfile collector where no member answers it, and for people."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cni.command.output import print_text
from cni.member import census, exposition


def metrics(options: argparse.Namespace) -> int:
    """Print what this node has and how its calls go, as Prometheus reads it. A member says this over HTTP, and how it does itself."""
    text = exposition.text(census.of_node())
    if options.output:
        _written(options.output, text)
    else:
        print_text(text.decode().rstrip("\n"))
    return 0


def _written(path: Path, text: bytes) -> None:
    """Have a file say it, whole for whoever reads it meanwhile: a collector does, whose user is another."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(text)
        new.chmod(0o644)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
