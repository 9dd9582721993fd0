"""agent-cni, the operator's command.

Exit codes: 0 fine; 1 the answer is no (an invalid file, something that could not be removed or refreshed); 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cni import __version__, plugin
from cni.agent.listener import PATH
from cni.agent.pool import DEADLINE, MOST
from cni.agent.serve import serve as answering
from cni.errors import CniError, InvalidConfig
from cni.kernel import netfilter
from cni.naming import Attachment
from cni.protocol import config
from cni.protocol.call import Call
from cni.protocol.config import Config
from cni.protocol.result import Result
from cni.protocol.versions import SUPPORTED
from cni.refresh import is_fed
from cni.refresh import refresh as refreshed
from cni.resources import Host, HostPort, Plan, Uplink
from cni.state import DEFAULT_FOLDER, Record, Store
from cni.verbs import sweep

_SAMPLE = Call("ADD", "CONTAINER", "NETNS", "eth0")
#: What somebody else's plugin may have made before one of ours in a chain.
_MADE = {
    "interfaces": [{"name": "HOSTEND"}, {"name": "eth0", "mac": "0a:58:0a:00:00:02", "sandbox": "NETNS"}],
    "ips": [{"address": "10.0.0.2/24", "interface": 1}],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; anything wrong is one clear line on stderr."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except CniError as error:
        where = f"{options.file}: " if "file" in options else ""
        print(f"agent-cni: {where}{error.msg}{f' ({error.details})' if error.details else ''}", file=sys.stderr)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        print(f"agent-cni: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def validate(options: argparse.Namespace) -> int:
    """Judge a configuration or list; every error with its JSON path."""
    faults = 0
    for where, conf in _plugins_of(options.file):
        try:
            said = "ok" if _judged(conf) else "not a plugin of this suite; not judged"
            print(f"{options.file}: {where}: {conf.get('type')}: {said}")
        except CniError as error:
            faults += 1
            for line in error.msg.split("; "):
                print(f"{options.file}: {where}: {line}", file=sys.stderr)
    return 1 if faults else 0


def explain(options: argparse.Namespace) -> int:
    """Print the plan of an ADD on an empty node. The kernel is neither changed nor asked."""
    before: dict[str, Any] = {}
    for where, conf in _plugins_of(options.file):
        plan = _planned(conf | before)
        before = {"prevResult": plan.result.render() if plan and plan.result != Result() else _MADE}
        print(f"{conf['type']} ({where})" + ("" if plan else ": not a plugin of this suite"))
        for resource in plan.resources if plan else ():
            print(f"  {'shared ' if resource.shared else '       '}{resource.describe()}")
            for line in resource.details():
                print(f"           {line}")
        if plan:
            version = config.version_of(conf)
            print(f"  result {json.dumps(plan.result.render(version), indent=2)}".replace("\n", "\n  "))
    return 0


def show(options: argparse.Namespace) -> int:
    """Print attachments and leases."""
    store = Store.reading(options.data_dir)
    attachments = [_shown(record) for record in store.records()] if store else []
    leases = [_lease_shown(*row) for row in store.all_leases()] if store else []
    if options.json:
        print(json.dumps({"attachments": attachments, "leases": leases}, indent=2))
        return 0
    _print_table(
        "no attachments", ("network", "container", "ifname", "plugin", "state", "addresses", "pod"), attachments
    )
    _print_table("no leases", ("network", "address", "container", "ifname"), leases)
    return 0


def gc(options: argparse.Namespace) -> int:
    """Remove every attachment whose network namespace is gone."""
    store = Store.reading(options.data_dir)
    stale = [record for record in store.records() if not _is_alive(record)] if store else []
    call = Call("DEL", path=tuple(options.cni_path.split(":")))
    failed = list(filter(None, (_collected(record, call) for record in stale)))
    for line in failed:
        print(f"agent-cni: {line}", file=sys.stderr)
    print(f"removed {len(stale) - len(failed)} of {len(stale)} stale attachments")
    return 1 if failed else 0


def refresh(options: argparse.Namespace) -> int:
    """Hold every attachment with a policyDir to what the folder says now."""
    store = Store.reading(options.data_dir)
    fed = [record for record in store.records() if is_fed(record) and _is_alive(record)] if store else []
    changed, failed = 0, 0
    for record in fed:
        try:
            changed += refreshed(plugin.load(record.plugin), record, Call("ADD"))
        except CniError as error:
            failed += 1
            print(f"agent-cni: {record.attachment}: {error.msg}", file=sys.stderr)
    print(f"changed {changed} of {len(fed)} attachments with a policyDir")
    return 1 if failed else 0


def serve(options: argparse.Namespace) -> int:
    """Be the node agent: answer the plugins' calls warm, until SIGTERM or Ctrl-C."""
    answering(options.socket, options.workers, options.deadline)
    return 0


def _collected(record: Record, call: Call) -> str:
    """Remove one attachment; the line of what failed, or nothing."""
    if record.plugin not in plugin.names():
        return f"{record.attachment}: this release has no plugin {record.plugin}"
    try:
        sweep(plugin.load(record.plugin), record, call)
    except CniError as error:
        return f"{record.attachment}: {error.msg}"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("agent-cni", description="Look after the agent-cni plugins of this node.")
    parser.add_argument("--version", action="version", version=f"agent-cni {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (validate, explain):
        command = _command(commands, function)
        command.add_argument("file", type=Path, help="a .conf, .json or .conflist file")
    for function in (show, gc, refresh):
        command = _command(commands, function)
        command.add_argument("--data-dir", type=Path, default=DEFAULT_FOLDER, help="default %(default)s")
    _agent_options(_command(commands, serve))
    commands.choices["show"].add_argument("--json", action="store_true", help="print JSON")
    commands.choices["gc"].add_argument("--cni-path", default="/opt/cni/bin", help="where IPAM delegates are")
    return parser


def _agent_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--socket", type=Path, default=PATH, help="default %(default)s")
    command.add_argument("--workers", type=int, default=MOST, help="most processes at work, default %(default)s")
    command.add_argument("--deadline", type=int, default=DEADLINE, help="seconds a call may take, default %(default)s")


def _command(commands: Any, function: Any) -> argparse.ArgumentParser:
    summary = str(function.__doc__).split(".")[0]
    command: argparse.ArgumentParser = commands.add_parser(
        function.__name__, help=summary, description=function.__doc__
    )
    command.set_defaults(run=function)
    return command


def _plugins_of(file: Path) -> Iterator[tuple[str, Config]]:
    """Each plugin's configuration as libcni would send it, and where it stands in the file."""
    conf = config.parse(file.read_bytes(), "$")
    if "plugins" not in conf:
        yield "$", conf
        return
    plugins = conf["plugins"]
    if not isinstance(plugins, list) or not plugins or not all(isinstance(item, dict) for item in plugins):
        raise InvalidConfig("$.plugins: not a list of objects, or empty")
    header = {"cniVersion": _newest_version(conf), "name": conf.get("name")}
    for number, item in enumerate(conf["plugins"]):
        yield f"$.plugins[{number}]", item | header


def _newest_version(conf: Config) -> str:
    """The highest we know, as libcni chooses, of cniVersion and cniVersions."""
    listed = conf.get("cniVersions") or []
    if not isinstance(listed, list):
        raise InvalidConfig("$.cniVersions: not a list")
    versions = [item for item in (conf.get("cniVersion"), *listed) if item]
    known = [item for item in SUPPORTED if item in versions]
    return known[-1] if known else str(conf.get("cniVersion") or "")


def _judged(conf: Config) -> bool:
    config.refuse_wrong_header(conf, "ADD")
    return _planned(conf) is not None


def _planned(conf: Config) -> Plan | None:
    name = conf.get("type")
    if name not in plugin.names():
        return None
    config.refuse_wrong_header(conf, "ADD")
    config.validate(conf, name)
    nouns = plugin.load(name)
    read = nouns.Config.read(conf, _SAMPLE)
    uplink = Uplink(read.uplink.dev or "UPLINK", 1500) if read.uplink else None
    rules = (read.rules or netfilter.NFTABLES) if read.rules is not None else ""
    pod_rules = (read.sidecar.backend or netfilter.IPTABLES_NFT) if read.sidecar else ""
    port = HostPort(read.ports[-1]) if read.ports else None
    host = Host(_SAMPLE.netns, uplink, rules, pod_rules, (4, 6), port=port)
    return nouns.plan(read, Attachment(conf["name"], _SAMPLE.container, _SAMPLE.ifname), read.ipam.preview(), host)


def _is_alive(record: Record) -> bool:
    return Path(record.netns).exists()


def _shown(record: Record) -> dict[str, Any]:
    return {
        **record.attachment._asdict(),
        "plugin": record.plugin,
        "state": ("attached" if _is_alive(record) else "stale") if record.complete else "incomplete",
        "addresses": [ip["address"] for ip in (record.result or {}).get("ips", [])],
        "pod": record.pod,
        "netns": record.netns,
    }


def _lease_shown(address: object, attachment: Attachment, holder: str) -> dict[str, Any]:
    return {"address": str(address), **attachment._asdict(), "plugin": holder}


def _print_table(nothing: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        print(nothing)
        return
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print()


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main())
