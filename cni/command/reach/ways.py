"""Whether packets of pods find their way, where all of ours is as it was made: routes, addresses and rules of somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from cni.command.reach.ends import addresses_of
from cni.diagnosis.finding import Finding, Severity
from cni.errors import CniError
from cni.kernel.view import Vxlan
from cni.naming import interface_of
from cni.reach.astray import Astray, Stand, astray, closed
from cni.reach.seen import Seen
from cni.resources import GatewayAddress, HostRoute, VethPair, VxlanLink
from cni.state import Record


def way_faults(called: Iterable[tuple[str, Record]]) -> list[Finding]:
    """One for each thing somebody did, about the pods it befalls; `called` are attachments that are well, each with what people call it.

    Where the kernel cannot be asked nothing is said.
    """
    about: dict[Astray, list[str]] = {}
    try:
        with closing(Seen("node")) as node:
            every = list(called)
            for name, record in every:
                for stand in stands(record):
                    for item in astray(node, stand):
                        about.setdefault(item, []).append(name)
            for vtep, tunnel in _tunnels(node, [record for _, record in every]):
                for item in closed(node, vtep, tunnel.port):
                    about.setdefault(item, [])
    except CniError:
        return []
    return [*_findings(about)]


def stands(record: Record) -> Iterator[Stand]:
    """Where each address of an attachment is on the node; none of one whose traffic passes it by, as a macvlan's does."""
    pair = next((item for item in record.resources if isinstance(item, VethPair)), None)
    if pair is None:
        return
    routed = {item.dst.partition("/")[0]: item.link for item in record.resources if isinstance(item, HostRoute)}
    gateways = {
        interface_of(item.address).version
        for item in record.resources
        if isinstance(item, GatewayAddress) and item.link == pair.bridge
    }
    for address in addresses_of([record]):
        if address in routed:
            yield Stand(address, routed[address], pair.host)
        elif (6 if ":" in address else 4) in gateways:
            yield Stand(address, pair.bridge, pair.host)


def _tunnels(node: Seen, records: list[Record]) -> Iterator[tuple[str, Vxlan]]:
    """Another host for each of these attachments' tunnels, as its rows say."""
    names = {item.name for record in records for item in record.resources if isinstance(item, VxlanLink)}
    for link in node.links.values():
        vteps = {row.address for row in node.rows if row.link == link.index and row.address}
        if link.name in names and link.vxlan and vteps:
            yield min(vteps), link.vxlan


def _findings(about: dict[Astray, list[str]]) -> Iterator[Finding]:
    """Those that say the same of several pods are one, and name the first one's address in what mends it."""
    lines: dict[str, list[Astray]] = {}
    for item in about:
        lines.setdefault(item.line, []).append(item)
    for line, same in lines.items():
        pods = dict.fromkeys(name for item in same for name in about[item])
        severity = Severity.WARNING if same[0].meant else Severity.BROKEN
        yield Finding(line, same[0].mend, severity, "astray", tuple(pods))
