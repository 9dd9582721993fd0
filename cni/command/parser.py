"""What agent-cni understands: its subcommands, their options, and what those may be."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cni import __version__
from cni.cluster import config as cluster
from cni.command.arguments import absolute, address, count, file, some
from cni.installation.place import Place
from cni.kernel.errand import PATH as SOCKET
from cni.state import DEFAULT_FOLDER

Run = Callable[[argparse.Namespace], int]

_EXIT_CODES = (
    "Exit codes: 0 fine; 1 no (a file is invalid, something was found, is missing or could not be done); 2 wrong usage."
)


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Say that help cannot be written, which argparse overlooks."""
        (file or sys.stderr).write(message or "")


def parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of the whole command, or of the one subcommand that words begin with: the modules of the others are not loaded
    then, for which a daemon would pay as long as it runs.
    """
    made = _Parser("agent-cni", description="Look after the agent-cni plugins of this node.", epilog=_EXIT_CODES)
    made.add_argument("--version", action="version", version=f"agent-cni {__version__}")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for name in words[:1] if words and words[0] in _COMMANDS.keys() - {"completion"} else _COMMANDS:
        module, add_options = _COMMANDS[name]
        add_options(_command(commands, getattr(import_module(f"cni.command.{module}"), name)))
    if "completion" in commands.choices:
        commands.choices["completion"].set_defaults(parser=made, commands=commands.choices)
    return made


def _file_options(command: argparse.ArgumentParser) -> None:
    _json_option(command)
    command.add_argument("files", nargs="+", type=file, metavar="file", help="a .conf, .json or .conflist file")


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _state_options(command: argparse.ArgumentParser) -> None:
    _json_option(command)
    command.add_argument("--data-dir", type=file, default=DEFAULT_FOLDER, help="default %(default)s, and all others")
    command.add_argument("--conf-dir", type=Path, default=Place.conf_dir, help="default %(default)s")


def _show_options(command: argparse.ArgumentParser) -> None:
    _state_options(command)
    _config_option(command)
    _list_options(command)
    command.add_argument("pod", nargs="?", default="", metavar="POD", help="namespace/name, or a container's id")
    command.add_argument("--graph", type=file, metavar="SVG", help="draw the node into a file, or - for stdout")


def _list_options(command: argparse.ArgumentParser) -> None:
    """Where CHECK of a whole list finds what it needs."""
    from cni.command.libcni import CACHE

    command.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="default %(default)s")
    command.add_argument("--cache-dir", type=Path, default=CACHE, help="libcni's, default %(default)s")


def _gc_options(command: argparse.ArgumentParser) -> None:
    _state_options(command)
    command.add_argument("--cni-path", default="/opt/cni/bin", help="where IPAM delegates are")


def _trace_options(command: argparse.ArgumentParser) -> None:
    _json_option(command)
    command.add_argument(
        "container", type=some, metavar="POD", help="namespace/name, or a container's or a trace's id, or its beginning"
    )


def _reach_options(command: argparse.ArgumentParser) -> None:
    _state_options(command)
    command.add_argument("source", type=some, metavar="FROM", help="namespace/name, a container's id, or node")
    command.add_argument("to", type=some, metavar="TO", help="likewise, an address, or a name; TO:PORT, TO:PORT/udp")
    command.add_argument("--no-packet", dest="packet", action="store_false", help="send nothing")


def _ipam_options(command: argparse.ArgumentParser) -> None:
    _state_options(command)
    command.add_argument("address", nargs="?", type=address, help="say who holds it")
    command.add_argument("--network", default="", help="only of this network")
    command.add_argument("--release", action="store_true", help="give the address back")
    command.add_argument("--force", action="store_true", help="even if a pod uses it")


def _doctor_options(command: argparse.ArgumentParser) -> None:
    _state_options(command)
    _config_option(command)
    _list_options(command)
    command.add_argument("--socket", type=Path, default=SOCKET, help="default %(default)s")
    command.add_argument("--probe", action="store_true", help="ask the other hosts, and print a row for each")
    command.add_argument(
        "--bundle", type=file, metavar="FILE", help="write all that a report of a fault needs, a tar.gz"
    )
    command.add_argument(
        "--wait", nargs="?", type=count, const=60, metavar="SECONDS", help="until all is well, or so long, default 60"
    )


def _repair_options(command: argparse.ArgumentParser) -> None:
    from cni.command import repair_options

    _state_options(command)
    repair_options.add(command)


def _policy_options(command: argparse.ArgumentParser) -> None:
    from cni.command import drops, policy, why
    from cni.command.cluster import documents

    verbs = command.add_subparsers(required=True, metavar="list|show|why|check|log|apply|delete")
    asked: dict[str, argparse.ArgumentParser] = {}
    answers: dict[str, Run] = {
        "list": policy.listed, "show": policy.shown, "why": why.why, "check": policy.checked, "log": drops.log,
    }  # fmt: skip
    for name, ask in answers.items():
        asked[name] = _command(verbs, ask, name)
        asked[name].set_defaults(run=policy.policy, ask=ask)
        _state_options(asked[name])
    for name, ask in {"apply": documents.apply, "delete": documents.delete}.items():
        verb = _command(verbs, ask, name)
        verb.set_defaults(run=policy.policy, ask=ask)
        _cluster_option(verb)
        verb.add_argument("place", metavar="file", type=file, help="a file or folder of documents")
    asked["show"].add_argument("pod", type=some, metavar="POD", help="namespace/name, a container's id or an address")
    asked["why"].add_argument("source", type=some, metavar="FROM", help="namespace/name, or an address")
    asked["why"].add_argument("to", type=some, metavar="TO:PORT", help="likewise; a port may end in /udp or /sctp")
    asked["check"].add_argument("place", metavar="file", type=file, help="a file or folder of documents")
    asked["check"].add_argument("--remove", action="store_true", help="as if the documents of these names went away")
    asked["log"].add_argument("pod", nargs="?", default="", metavar="POD", help="only of this pod")
    asked["log"].add_argument("--count", type=count, metavar="N", help="end after so many")


def _metrics_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=file, metavar="FILE", help="write them there in one step, default stdout")


def _serve_options(command: argparse.ArgumentParser) -> None:
    from cni.agent import settings
    from cni.agent.pool import DEADLINE, MOST

    command.add_argument("--socket", type=absolute, default=SOCKET, help="default %(default)s")
    command.add_argument("--probe", action="store_true", help="only say whether an agent takes calls there")
    command.add_argument("--workers", type=count, default=MOST, help="most processes at work, default %(default)s")
    command.add_argument(
        "--deadline", type=count, default=DEADLINE, help="seconds a call may take, default %(default)s"
    )
    command.add_argument(
        "--conf-dir", type=absolute, default=Place.conf_dir, help="refresh when it changes, default %(default)s"
    )
    command.add_argument("--config", type=file, default=settings.PATH, metavar="FILE", help="default %(default)s")
    command.add_argument(
        "--repair", type=count, default=0, metavar="SECONDS", help="agent-cni repair --all so often, default never"
    )
    command.add_argument("--trace", action="store_true", help="make each step of a call a span of its trace, too")


def _flows_options(command: argparse.ArgumentParser) -> None:
    from cni.command.flows import options as flow_options

    _state_options(command)
    flow_options.add(command)


def _names_options(command: argparse.ArgumentParser) -> None:
    """It goes by what is in files."""


def _dnsgate_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--probe", action="store_true", help="only say whether a gate works on this host")


def _join_options(command: argparse.ArgumentParser) -> None:
    from cni.command.cluster import join_options

    _cluster_option(command)
    join_options.add(command)


def _leave_options(command: argparse.ArgumentParser) -> None:
    _cluster_option(command)
    command.add_argument("--force", action="store_true", help="with pods that have its addresses, or without the store")


def _node_options(command: argparse.ArgumentParser) -> None:
    _cluster_option(command)
    command.set_defaults(name="")
    verbs = command.add_subparsers(metavar="[remove NODE]")
    remove = verbs.add_parser("remove", help="free the blocks of a host that will not come back")
    remove.add_argument("name", type=some, metavar="NODE", help="its name")
    for option in ("--json", "--verbose"):  # at the end too
        remove.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    remove.add_argument("--config", type=file, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _block_options(command: argparse.ArgumentParser) -> None:
    _cluster_option(command)
    command.add_argument("--network", default="", help="only of this network")
    command.add_argument("--node", default="", help="only of this host")


def _cluster_option(command: argparse.ArgumentParser) -> None:
    _json_option(command)
    _config_option(command)


def _config_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=file, default=cluster.PATH, metavar="FILE", help="default %(default)s")


def _place_options(command: argparse.ArgumentParser) -> None:
    from cni.command import install_options

    _json_option(command)
    install_options.add_place(command)


def _install_options(command: argparse.ArgumentParser) -> None:
    from cni.command import install_options

    _place_options(command)
    install_options.add(command)


def _completion_options(command: argparse.ArgumentParser) -> None:
    from cni.command.completion import SHELLS

    _json_option(command)
    command.add_argument("shell", choices=SHELLS)


def _command(commands: Any, function: Run, name: str = "") -> argparse.ArgumentParser:
    summary = re.split(r"[.](?:\s|$)", str(function.__doc__))[0]
    command: argparse.ArgumentParser = commands.add_parser(
        name or function.__name__, help=summary, description=function.__doc__
    )
    command.add_argument("-v", "--verbose", action="store_true", help="say all there is to an error")
    command.set_defaults(run=function, refuse=command.error)
    return command


#: Each subcommand: the module of its function, and what adds its options.
_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "validate": ("files", _file_options),
    "explain": ("files", _file_options),
    "show": ("show", _show_options),
    "gc": ("node", _gc_options),
    "refresh": ("node", _state_options),
    "repair": ("repair", _repair_options),
    "ipam": ("ipam", _ipam_options),
    "policy": ("policy", _policy_options),
    "trace": ("trace", _trace_options),
    "reach": ("reach.reach", _reach_options),
    "doctor": ("doctor.doctor", _doctor_options),
    "metrics": ("metrics", _metrics_options),
    "serve": ("serve", _serve_options),
    "names": ("names", _names_options),
    "flows": ("flows.flows", _flows_options),
    "dnsgate": ("dnsgate", _dnsgate_options),
    "join": ("cluster.join", _join_options),
    "leave": ("cluster.leave", _leave_options),
    "node": ("cluster.cluster", _node_options),
    "block": ("cluster.cluster", _block_options),
    "install": ("install", _install_options),
    "uninstall": ("install", _place_options),
    "completion": ("completion", _completion_options),
}
