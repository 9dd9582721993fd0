"""The options of `agent-cni flows`."""

from __future__ import annotations

import argparse
import re

from cni.agent.settings import PATH
from cni.command.arguments import count, file

#: In what `--suggest` writes rules.
CONFIGURATION, NETWORK_POLICY = "configuration", "networkpolicy"
SUGGESTIONS = (CONFIGURATION, NETWORK_POLICY)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add(command: argparse.ArgumentParser) -> None:
    """Which flows, how they are told, and what a recorder is to know."""
    command.add_argument(
        "pod",
        nargs="?",
        default="",
        metavar="POD",
        help="only of this pod: namespace/name, a container's id, or an address",
    )
    command.add_argument(
        "--since", type=seconds, default=3600, metavar="TIME", help="such as 90s, 30m, 1h, 7d; default 1h"
    )
    command.add_argument("--follow", action="store_true", help="print each from now on, as it happens")
    command.add_argument("--count", type=count, metavar="N", help="with --follow: end after so many")
    command.add_argument("--denied", action="store_true", help="only what policies did not let through")
    command.add_argument(
        "--graph", type=file, metavar="SVG", help="draw who talked to whom into a file, or - for stdout"
    )
    command.add_argument(
        "--suggest",
        nargs="?",
        const=CONFIGURATION,
        default="",
        metavar=f"{CONFIGURATION}|{NETWORK_POLICY}",
        help="write the rules that would have let through just what was seen",
    )
    command.add_argument("--record", action="store_true", help="be the recorder, until SIGTERM or Ctrl-C")
    command.add_argument(
        "--folder",
        type=file,
        metavar="FOLDER",
        help="where flows are kept, default /var/log/agent-cni/flows, or as agent.json says",
    )
    command.add_argument(
        "--size", type=count, metavar="MIB", help="with --record: how much is kept, default 64, or as agent.json says"
    )
    command.add_argument("--config", type=file, default=PATH, metavar="FILE", help="default %(default)s")


def seconds(text: str) -> int:
    """A time as people say it, in seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 1h, 7d")
    return int(found[1]) * _SECONDS[found[2]]
