"""What is missing or drifting on this node, and the command that mends it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from itertools import groupby
from pathlib import Path

from cni import plugin
from cni.agent import settings
from cni.agent.listener import is_listened_on, takes_calls
from cni.agent.settings import Settings
from cni.command import named
from cni.command.attached import attachment_faults
from cni.command.certificates import certificate_faults
from cni.command.leftovers import leftovers
from cni.command.membership import cluster_faults, is_in_cluster
from cni.command.node import folders_of, reading, records_of
from cni.command.output import print_json, say
from cni.command.overlays import overlay_faults, shared_gateway
from cni.command.remains import remains
from cni.conflist.file import called_in, configurations, data_dirs, judged, judgement, plugins_of
from cni.errors import CniError
from cni.installation.item import MARK
from cni.kernel import netfilter, process
from cni.node import refuse_unwritable
from cni.state import Record, Store, uses
from cni.state.leases import ANOTHER_NETWORK
from cni.values import dataclass


@dataclass(frozen=True)
class Finding:
    """Something wrong, and what mends it."""

    what: str
    mend: str


def doctor(options: argparse.Namespace) -> int:
    """Look for what is missing, wrong or left over on this node, and say what mends it."""
    found = {check.__name__.strip("_"): list(dict.fromkeys(check(options))) for check in CHECKS}
    if options.json:
        print_json({area: [vars(item) for item in items] for area, items in found.items()})
    for area, items in () if options.json else found.items():
        say(f"{area}: {_fine(area, options) if not items else ''}".rstrip())
        for mend, group in groupby(items, lambda item: item.mend):
            say(*(f"  {item.what}" for item in group), f"    mend: {mend}")
    return 1 if any(found.values()) else 0


def _fine(area: str, options: argparse.Namespace) -> str:
    """What to say of an area in which nothing is wrong."""
    if area == "agent" and not options.socket.exists():
        return _without_agent(options)
    return "none" if area == "cluster" and not is_in_cluster(options) else "ok"


def _programs(options: argparse.Namespace) -> Iterator[Finding]:
    try:
        netfilter.choose()
        netfilter.choose(netfilter.NFTABLES)
    except CniError as error:
        yield Finding(error.msg, "apt-get install nftables iptables")
    for name in ("iptables-nft-restore", "ip6tables-nft-restore"):
        if not process.find(name):
            yield Finding(f"{name} is not installed: nothing can be intercepted", "apt-get install iptables")
    if not importlib.util.find_spec("iptc"):
        yield Finding(
            "python-iptables is not installed: pods with legacy tables cannot be intercepted", "agent-cni install"
        )


def _executables(options: argparse.Namespace) -> Iterator[Finding]:
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
        yield Finding(
            what, f"apt-get install containernetworking-plugins, and copy /usr/lib/cni/loopback to {options.bin_dir}"
        )


def _called(options: argparse.Namespace) -> set[str]:
    """Our executables that a runtime calls here, or will; all, where there is nothing yet that it would call any for."""
    called = called_in(options.conf_dir) | {record.plugin for record in _records(options)}
    return called & {*plugin.names()} or {*plugin.names()}


def _configurations(options: argparse.Namespace) -> Iterator[Finding]:
    """The files a runtime reads, and whether the plugins they name are there."""
    files = configurations(options.conf_dir)
    if not files:
        what = (
            f"{options.conf_dir} has no network configuration: a runtime that reads it says that the node is not ready"
        )
        yield Finding(what, "agent-cni install --conf NAME")
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


def _agent(options: argparse.Namespace) -> Iterator[Finding]:
    """Where there is a socket somebody must listen; a node without an agent is a slower one and not a sick one."""
    if not options.socket.exists():
        return
    if not is_listened_on(options.socket):
        what = f"nobody listens on {options.socket}: every call starts Python"
        yield Finding(what, "systemctl restart agent-cni.socket, or agent-cni serve")
    elif not takes_calls(options.socket):
        what = f"the agent that listens on {options.socket} takes no calls, stopped or busy: each waits a second and starts Python"
        yield Finding(what, "systemctl restart agent-cni.service, or end that agent and start another")
    try:
        otlp = Settings.load().otlp
    except CniError as error:
        yield Finding(error.msg, f"edit {settings.PATH}, then systemctl restart agent-cni.service")
        return
    if otlp and not importlib.util.find_spec("opentelemetry"):
        what = f"{settings.PATH} wants spans sent, and OpenTelemetry's library is not installed: none are"
        yield Finding(what, "make install EXTRAS=otlp, or pip install agent-cni[otlp] and agent-cni install")


def _without_agent(options: argparse.Namespace) -> str:
    """What a call costs on a node without one, by one that changes nothing."""
    conf = '{"cniVersion": "1.1.0", "name": "doctor", "type": "custom-plugin", "ipam": {"type": "static"}}'
    environ = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(options.bin_dir), "AGENT_CNI_SOCKET": ""}
    began = time.monotonic()
    try:
        process.run([str(options.bin_dir / "custom-plugin")], conf, environ)
    except CniError:
        return "none"
    took = round((time.monotonic() - began) * 1000)
    return f"none, so each call starts Python, in {took} ms here (make install with systemd, or agent-cni serve)"


def _state(options: argparse.Namespace) -> Iterator[Finding]:
    try:
        folders = folders_of(options.data_dir, options.conf_dir)
    except CniError as error:
        yield Finding(error.msg, "agent-cni doctor, as root on the node")
        folders = [options.data_dir]
    for folder in folders:
        yield from _in_folder(folder, "" if folder == options.data_dir else f" --data-dir {folder}")


def _in_folder(folder: Path, named: str) -> Iterator[Finding]:
    try:
        refuse_unwritable(folder)
        store = reading(folder)
        with closing(store) if store else nullcontext():
            recorded = {(record.attachment, record.plugin) for record in store.records()} if store else set()
            leases = store.all_leases() if store else []
    except CniError as error:
        mend = f"rm {folder}/state.db*, then restart this node's pods"
        yield Finding(error.msg, mend if folder.is_dir() else "name a dataDir of this node")
        return
    for address, attachment, holder in leases:
        if holder == ANOTHER_NETWORK:
            said = f"{address} of network {attachment.network} is a pod's of another network, behind {attachment.container}"
            yield Finding(said, "delete that pod; it is made anew by ours")
        elif (attachment, holder) not in recorded:
            mend = f"agent-cni ipam {address} --release --network {attachment.network}{named}"
            yield Finding(f"{address} of network {attachment.network} is leased to nobody that is attached", mend)


def _attachments(options: argparse.Namespace) -> Iterator[Finding]:
    """Every attachment, by the CHECK its plugin would be asked for and by what a refresh would mend."""
    yield from (Finding(item.line, item.mend) for item in attachment_faults(options))


def _overlays(options: argparse.Namespace) -> Iterator[Finding]:
    """The tunnel of each network, by what its configuration says now, and whether the other hosts know of this one."""
    try:
        yield from (Finding(item.line, item.mend) for item in overlay_faults(options))
    except CniError:
        return  # the state's own check says why


def _names(options: argparse.Namespace) -> Iterator[Finding]:
    """Who answers for names, where there are any."""
    try:
        yield from (Finding(item.line, item.mend) for item in named.faults())
    except CniError as error:
        yield Finding(error.msg, "agent-cni refresh")


def _cluster(options: argparse.Namespace) -> Iterator[Finding]:
    """This host's part in its cluster."""
    try:
        yield from (Finding(item.line, item.mend) for item in cluster_faults(options))
    except CniError:
        return  # the state's own check says why


def _certificates(options: argparse.Namespace) -> Iterator[Finding]:
    """Those by which this host is known, and knows others."""
    yield from (Finding(item.line, item.mend) for item in certificate_faults(options))


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
        found = list(leftovers(every_record)) + ([] if is_in_cluster(options) else list(remains(uses.DEFAULT_FOLDER)))
        yield from (Finding(item.what, item.command) for item in found)
    except CniError:
        return


def _records(options: argparse.Namespace) -> list[Record]:
    """What the state says; its own check says why that may not be all of it."""
    try:
        return records_of(options.data_dir, options.conf_dir)[0]
    except CniError:
        return []


CHECKS: tuple[Callable[[argparse.Namespace], Iterator[Finding]], ...] = (
    _programs, _executables, _configurations, _agent, _state, _attachments, _overlays, _names, _cluster, _certificates, _leftovers,
)  # fmt: skip
