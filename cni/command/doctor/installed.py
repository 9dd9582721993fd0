"""What of an installation is missing or not as it must be: programs, executables, and the configurations a runtime reads."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni import plugin
from cni.command.doctor.overlays import shared_gateway
from cni.command.node import records_of
from cni.conflist.file import called_in, configurations, judged, judgement, plugins_of
from cni.diagnosis.finding import Finding, Severity
from cni.errors import CniError
from cni.installation.item import MARK
from cni.kernel import netfilter, process
from cni.state import Record

#: Where runtimes listen that are told of networks by the folder alone, and go by its first file.
_RUNTIMES = (Path("/run/containerd/containerd.sock"), Path("/run/crio/crio.sock"), Path("/var/run/crio/crio.sock"))
#: What runs without any of this release's.
_LATER = Severity.WARNING


def program_faults(options: argparse.Namespace) -> Iterator[Finding]:
    """Programs by which rules are made."""
    try:
        netfilter.choose()
        netfilter.choose(netfilter.NFTABLES)
    except CniError as error:
        yield Finding(error.msg, "apt-get install nftables iptables")
    for name in ("iptables-nft-restore", "ip6tables-nft-restore"):
        if not process.find(name):
            yield Finding(f"{name} is not installed: nothing can be intercepted", "apt-get install iptables", _LATER)
    if not importlib.util.find_spec("iptc"):
        yield Finding(
            "python-iptables is not installed: pods with legacy tables cannot be intercepted",
            "agent-cni install",
            _LATER,
        )


def executable_faults(options: argparse.Namespace) -> Iterator[Finding]:
    """Our plugins that a runtime calls here, and loopback, which is a note where no runtime is that would call it."""
    for name in sorted(_called(options)):
        file = options.bin_dir / name
        if not file.exists():
            yield Finding(f"{file} is missing", f"agent-cni install --bin-dir {options.bin_dir}")
        elif MARK not in file.read_text(errors="replace")[:4096]:
            yield Finding(
                f"{file} is somebody else's plugin", f"move it away, then agent-cni install --bin-dir {options.bin_dir}"
            )
        elif not os.access(file, os.X_OK):
            yield Finding(f"{file} cannot be executed", f"chmod 755 {file}")
    if not (options.bin_dir / "loopback").exists():
        what = f"{options.bin_dir} has no loopback, which containerd and CRI-O call for every pod"
        mend = f"apt-get install containernetworking-plugins, and copy /usr/lib/cni/loopback to {options.bin_dir}"
        yield Finding(what, mend, Severity.BROKEN if _has_runtime() else Severity.NOTE)


def _called(options: argparse.Namespace) -> set[str]:
    """Our executables that a runtime calls here, or will; all, where there is nothing yet that it would call any for."""
    called = called_in(options.conf_dir) | {record.plugin for record in _records(options)}
    return called & {*plugin.names()} or {*plugin.names()}


def configuration_faults(options: argparse.Namespace) -> Iterator[Finding]:
    """The files a runtime reads, and whether the plugins they name are there."""
    files = configurations(options.conf_dir)
    if not files:
        what = (
            f"{options.conf_dir} has no network configuration: a runtime that reads it says that the node is not ready"
        )
        yield Finding(what, "agent-cni install --conf NAME")
    yield from _of_order(files)
    yield from _of_names(files)
    for file in files:
        try:
            yield from _faults_of(file, options.bin_dir)
        except (CniError, OSError) as error:
            yield Finding(f"{file}: {getattr(error, 'msg', '') or getattr(error, 'strerror', '')}", f"edit {file}")


def _faults_of(file: Path, bin_dir: Path) -> Iterator[Finding]:
    for item in judged(file):
        where = f"{file}: {item['where']}"
        yield from (Finding(f"{where}: {fault}", f"edit {file}") for fault in item["faults"])
        for name in filter(None, (item["type"], item["ipam"])) if not item["faults"] else ():
            if name not in plugin.names() and not (bin_dir / name).exists():
                yield Finding(f"{where}: {bin_dir} has no plugin {name}", f"put {name} into {bin_dir}")
    for where, netconf in plugins_of(file):
        if netconf.get("vxlan") and not judgement(netconf)["faults"] and (line := shared_gateway(netconf)):
            mend = "give each host a gateway of its own range, as conf.d/10 and 11 have it"
            yield Finding(f"{file}: {where}: {line}", mend)


def _of_order(files: list[Path]) -> Iterator[Finding]:
    """Somebody else's configuration before ours: a runtime that is told of networks by the folder goes by the first alone."""
    ours = [bool(called_by_name(file) & {*plugin.names()}) for file in files]
    if True in ours and not ours[0] and called_by_name(files[0]):  # of one that cannot be read that is said
        first, own = files[0], files[ours.index(True)]
        what = f"{first} is not ours and sorts before {own.name}: containerd and CRI-O attach pods by it alone"
        yield Finding(what, f"mv {first} {first}.off", _LATER if _has_runtime() else Severity.NOTE, "conflist-order")


def _of_names(files: list[Path]) -> Iterator[Finding]:
    """One network in several files that say different things of it: of an edited one a copy was left, or a stale one of a template."""
    said: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for file in files:
        with suppress(CniError, OSError, json.JSONDecodeError):
            for _, netconf in plugins_of(file):
                key = str(netconf.get("name")), str(netconf.get("type"))
                first, other = said.setdefault(key, (file, netconf))
                if first != file and other != netconf and key[1] in plugin.names():
                    what = (
                        f"{file} says otherwise of network {key[0]} than {first.name}, by which refresh and repair go"
                    )
                    yield Finding(what, f"mv {file} {file}.off, or give it another name", _LATER, "conflist-twice")


def called_by_name(file: Path) -> set[str]:
    """The plugins a file names, valid or not; none of one that cannot be read."""
    with suppress(CniError, OSError, json.JSONDecodeError):
        return {str(netconf.get("type")) for _, netconf in plugins_of(file)}
    return set()


def _has_runtime() -> bool:
    return any(path.exists() for path in _RUNTIMES)


def _records(options: argparse.Namespace) -> list[Record]:
    """What the state says; its own check says why that may not be all of it."""
    try:
        return records_of(options.data_dir, options.conf_dir)[0]
    except CniError:
        return []
