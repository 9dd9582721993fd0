"""What is missing or drifting on this node, and the command that mends it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from cni.command.doctor import named
from cni.command.doctor.agent import agent_faults, without_agent
from cni.command.doctor.attached import attachment_faults
from cni.command.doctor.bundle import bundle
from cni.command.doctor.certificates import certificate_faults
from cni.command.doctor.flows import flow_faults
from cni.command.doctor.gate import gate_faults
from cni.command.doctor.gate_leftovers import gate_leftovers
from cni.command.doctor.installed import configuration_faults, executable_faults, program_faults
from cni.command.doctor.leftovers import leftovers
from cni.command.doctor.membership import cluster_faults, is_in_cluster
from cni.command.doctor.overlays import overlay_faults
from cni.command.doctor.probing import COLUMNS as MATRIX
from cni.command.doctor.probing import probed
from cni.command.doctor.remains import remains
from cni.command.doctor.state import state_faults
from cni.command.node import records_of
from cni.command.output import PLAIN, Tint, print_json, print_table, say, say_tinted
from cni.conflist.file import data_dirs
from cni.diagnosis.finding import Finding, Severity, worst
from cni.errors import CniError
from cni.state import Record, Store, uses

#: How often `--wait` looks again; seconds.
_STEP = 1.0
_TINTS = {Severity.NOTE: Tint.FAINT, Severity.WARNING: Tint.YELLOW, Severity.BROKEN: Tint.RED, Severity.OPEN: Tint.RED}


def doctor(options: argparse.Namespace) -> int:
    """Look for what is missing, wrong or left over on this node, and say what mends it.

    Exit codes: 0 all is well, notes at most; 1 warnings; 3 something is broken; 4 something is open that is to be shut.
    """
    found, matrix = _looked(options), _asked_far(options)
    until = time.monotonic() + (options.wait or 0)
    while _status(found | {"probe": matrix[0]}) and (left := until - time.monotonic()) > 0:
        time.sleep(min(_STEP, left))
        found, matrix = _looked(options), _asked_far(options)
    found |= {"probe": matrix[0]} if options.probe else {}
    if options.bundle:
        bundle(options, found)
    if options.json:
        said: dict[str, Any] = {area: [item.said() for item in items] for area, items in found.items()}
        print_json(said | ({"matrix": matrix[1]} if options.probe else {}))
    else:
        _tell(options, found)
        if options.probe:
            print_table("no other host is known here", MATRIX, matrix[1])
        say(*[f"{options.bundle} has all of it, without keys, tokens and passwords"] * bool(options.bundle))
    return _status(found)


def _looked(options: argparse.Namespace) -> dict[str, list[Finding]]:
    return {area: list(dict.fromkeys(check(options))) for area, check in CHECKS.items()}


def _asked_far(options: argparse.Namespace) -> tuple[list[Finding], list[dict[str, Any]]]:
    return probed(options) if options.probe else ([], [])


def _status(found: dict[str, list[Finding]]) -> int:
    return worst(item for items in found.values() for item in items).status


def _tell(options: argparse.Namespace, found: dict[str, list[Finding]]) -> None:
    for area, items in found.items():
        fine = _fine(area, options) if not items else ""
        say_tinted((f"{area}:", PLAIN), (f" {fine}" if fine else "", Tint.GREEN if fine == "ok" else PLAIN))
        ranked = sorted(items, key=lambda item: -item.severity)
        for mend, group in groupby(ranked, lambda item: item.mend):
            for item in group:
                say_tinted(("  ", PLAIN), (item.severity.word, _TINTS[item.severity]), (f": {item.text}", PLAIN))
                say(*(f"      {line}" for line in item.symptoms if options.verbose))
            say(f"    mend: {mend}")
    _tell_sum(options, [item for items in found.values() for item in items])


def _tell_sum(options: argparse.Namespace, found: Sequence[Finding]) -> None:
    """All of it in one line, the worst first."""
    counts = [(kind, sum(item.severity is kind for item in found)) for kind in reversed(Severity)]
    parts = [part for kind, many in counts if many for part in ((f"{many} {kind.word}", _TINTS[kind]), (", ", PLAIN))][
        :-1
    ]
    attached = len(_records(options))
    looked = f"; {attached} attachment{'s' * (attached != 1)} looked at"
    say_tinted(*(parts or [("all is well", Tint.GREEN)]), (looked, PLAIN))


def _fine(area: str, options: argparse.Namespace) -> str:
    """What to say of an area in which nothing is wrong."""
    if area == "agent" and not options.socket.exists():
        return without_agent(options)
    return "none" if area == "cluster" and not is_in_cluster(options) else "ok"


def _overlays(options: argparse.Namespace) -> Iterator[Finding]:
    """The tunnel of each network, by what its configuration says now, and whether the other hosts know of this one."""
    try:
        yield from (Finding(item.line, item.mend, cause="overlay") for item in overlay_faults(options))
    except CniError:
        return  # the state's own check says why


def _names(options: argparse.Namespace) -> Iterator[Finding]:
    """Who answers for names, where there are any."""
    try:
        yield from (Finding(item.line, item.mend, cause="names") for item in named.faults())
    except CniError as error:
        yield Finding(error.msg, "agent-cni refresh")


def _cluster(options: argparse.Namespace) -> Iterator[Finding]:
    """This host's part in its cluster."""
    try:
        yield from (Finding(item.line, item.mend, cause="cluster") for item in cluster_faults(options))
    except CniError:
        return  # the state's own check says why


def _certificates(options: argparse.Namespace) -> Iterator[Finding]:
    """Those by which this host is known, and knows others."""
    for item in certificate_faults(options):
        ended = not item.line.endswith(" days")
        yield Finding(item.line, item.mend, Severity.BROKEN if ended else Severity.WARNING, "certificate")


def _leftovers(options: argparse.Namespace) -> Iterator[Finding]:
    """What of ours no attachment of the node has, whatever folder its state is in, and no cluster; where one cannot be read nobody
    can say that.
    """
    others = uses.other_folders(uses.DEFAULT_FOLDER, data_dirs(options.conf_dir))
    folders = dict.fromkeys((options.data_dir, uses.DEFAULT_FOLDER, *others))

    def every_record() -> Iterator[Record]:
        for folder in folders:
            store = Store.reading(folder)
            yield from store.records() if store else ()

    try:
        found = [*leftovers(every_record), *gate_leftovers(every_record)] + (
            [] if is_in_cluster(options) else list(remains(uses.DEFAULT_FOLDER))
        )
        yield from (Finding(item.what, item.command, Severity.WARNING, "leftover") for item in found)
    except CniError:
        return


def _records(options: argparse.Namespace) -> list[Record]:
    """What the state says; its own check says why that may not be all of it."""
    try:
        return records_of(options.data_dir, options.conf_dir)[0]
    except CniError:
        return []


#: Each area that is looked at, in the order in which it is told.
CHECKS: Mapping[str, Callable[[argparse.Namespace], Iterable[Finding]]] = {
    "programs": program_faults,
    "executables": executable_faults,
    "configurations": configuration_faults,
    "agent": agent_faults,
    "state": state_faults,
    "attachments": attachment_faults,
    "overlays": _overlays,
    "names": _names,
    "dnsgate": gate_faults,
    "flows": flow_faults,
    "cluster": _cluster,
    "certificates": _certificates,
    "leftovers": _leftovers,
}
