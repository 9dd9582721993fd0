"""Asking the other hosts themselves: who is there, whose port is open, how large a packet comes through, whether a pod answers, and who
gives from whose addresses.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, NamedTuple

from cni.cluster.config import ClusterConfig
from cni.cluster.engines import store_of
from cni.cluster.model import Alive, Block, Endpoint, Item, Node
from cni.command.doctor.overlays import address_of_mac
from cni.command.node import networks_of
from cni.diagnosis.finding import Finding, Severity
from cni.errors import CniError
from cni.kernel import echo, vteps
from cni.kernel.netlink import Rtnl
from cni.overlay.vxlan import OVERHEAD
from cni.resources import VxlanLink

COLUMNS = ("host", "vtep", "network", "answers", "port", "largest", "wanted", "pods", "slice")
#: How many of a host's pods are asked: one may be gone, or let nobody ask it.
_PODS = 5
_MOST = 200


class Far(NamedTuple):
    """A host at the other end of a network's tunnel: `port` is the tunnel's, `wanted` the largest packet it sends, `pods` are addresses
    behind it, `shares` what others give of its addresses; it is `away` where the cluster has not heard of it.
    """

    host: str
    vtep: str
    network: str
    port: int
    wanted: int
    pods: tuple[str, ...] = ()
    shares: str = ""
    away: bool = False


def probed(options: argparse.Namespace) -> tuple[list[Finding], list[dict[str, Any]]]:
    """What is wrong with the ways to other hosts, and a row for each host and network."""
    far = [*_of_overlays(options), *_of_cluster(options)][:_MOST]
    if not far:
        return [], []
    sizes: dict[str, int] = {}
    for item in far:
        sizes[item.vtep] = max(item.wanted, sizes.get(item.vtep, 0))
    fits = echo.largest(sizes)
    closed = {
        (vtep, port): why
        for port in {item.port for item in far}
        for vtep, why in vteps.unreachable(sorted({item.vtep for item in far if item.port == port}), port).items()
    }
    inside = {item: item.wanted - OVERHEAD[ipaddress.ip_address(item.vtep).version] for item in far}
    pods = echo.largest({pod: inside[item] for item in far for pod in item.pods})
    rows = [_row(item, fits[item.vtep], closed.get((item.vtep, item.port), ""), pods) for item in far]
    return [finding for item, row in zip(far, rows, strict=True) for finding in faults_of(item, row)], rows


def _row(far: Far, fits: int, why: str, pods: Mapping[str, int]) -> dict[str, Any]:
    answering = [pod for pod in far.pods if pods.get(pod)]
    return {
        "host": far.host,
        "vtep": far.vtep,
        "network": far.network,
        "answers": "yes" if fits else why or "no",
        "port": f"{far.port} {'closed' if why and fits else 'open' if answering else 'not known'}",
        "largest": fits,
        "wanted": far.wanted,
        "pods": f"{len(answering)} of {len(far.pods)} answer" if far.pods else "none known",
        "slice": far.shares or "its own",
    }


def faults_of(far: Far, row: Mapping[str, Any]) -> Iterator[Finding]:
    """What a row says that is wrong."""
    who = f"network {far.network}: {far.host}{'' if far.host == far.vtep else f' at {far.vtep}'}"
    if far.shares:
        yield Finding(
            f"{who} gives from {far.shares}",
            "give each host a range of its own: rangeStart and rangeEnd",
            cause="slices",
        )
    if not row["largest"]:
        why = "" if row["answers"] == "no" else f": {row['answers']}"
        known = ", and the cluster has not heard of it" if far.away else ""
        yield Finding(
            f"{who} does not answer{why}{known}", "look at that host, and at the way there", cause="host-silent"
        )
        return
    if row["port"].endswith("closed"):
        mend = f"look at its overlay: agent-cni doctor there; and at what filters UDP port {far.port}"
        yield Finding(f"{who} is there, and nobody listens on UDP port {far.port}", mend, cause="port-closed")
    elif far.pods and row["pods"].startswith("0 "):
        what = f"{who} is there, and no pod behind it answers: UDP port {far.port} may be filtered, or the pods let nobody ask"
        yield Finding(what, f"let UDP port {far.port} through in both directions", Severity.WARNING, "tunnel-silent")
    if row["largest"] < far.wanted:
        over = OVERHEAD[ipaddress.ip_address(far.vtep).version]
        what = f"{who}: packets up to {row['largest']} come through, and the tunnel sends {far.wanted}: larger ones are lost"
        yield Finding(what, f"vxlan.mtu {row['largest'] - over}, or more room on the way there", cause="path-mtu")


def _of_overlays(options: argparse.Namespace) -> Iterator[Far]:
    """The remotes that configurations name, with the pods that were heard behind them."""
    with suppress(CniError):
        for network in networks_of(options):
            tunnel = next((item for item in network.wanted if isinstance(item, VxlanLink) and not item.mac), None)
            with closing(Rtnl()) as host:
                link = host.link_by_name(tunnel.name) if tunnel else None
                if tunnel is None or link is None:
                    continue
                heard: dict[str, list[str]] = {}
                for mac, vtep in host.fdb(link).items():
                    heard.setdefault(vtep, []).extend(filter(None, [str(address_of_mac(mac) or "")]))
                for vtep in sorted(host.flood_targets(link)):
                    wanted = link.mtu + OVERHEAD[ipaddress.ip_address(vtep).version]
                    pods = tuple(sorted(heard.get(vtep, ()))[:_PODS])
                    yield Far(vtep, vtep, network.place.network, tunnel.port, wanted, pods)


def _of_cluster(options: argparse.Namespace) -> Iterator[Far]:
    """All hosts the cluster knows of, alive or not, on each network they have a block of."""
    if not options.config.exists():
        return
    with suppress(CniError):
        config = ClusterConfig.load(options.config)
        items = store_of(config).listing().items
        shared = _shared(items)
        alive = {item.node for item in items if isinstance(item, Alive)}
        tunnels = {network.place.network: tunnel for network in networks_of(options)
                   for tunnel in network.wanted if isinstance(tunnel, VxlanLink) and tunnel.mac}  # fmt: skip
        for node in sorted((item for item in items if isinstance(item, Node)), key=lambda item: item.name):
            theirs = {item.network for item in items if isinstance(item, Block) and item.node == node.name}
            for name in sorted(theirs & tunnels.keys()) if node.name != config.node else ():
                wanted = tunnels[name].mtu + OVERHEAD[ipaddress.ip_address(node.vtep).version]
                pods = _pods_of(items, node.name, name)
                shares = ", ".join(shared.get((node.name, name), ()))
                yield Far(node.name, node.vtep, name, tunnels[name].port, wanted, pods, shares, node.name not in alive)


def _pods_of(items: Iterable[Item], node: str, network: str) -> tuple[str, ...]:
    found = (
        item.address for item in items
        if isinstance(item, Endpoint) and (item.node, item.network) == (node, network) and item.container
    )  # fmt: skip
    return tuple(sorted(found)[:_PODS])


def _shared(items: Iterable[Item]) -> dict[tuple[str, str], list[str]]:
    """By host and network the blocks of others that overlap its own."""
    found: dict[tuple[str, str], list[str]] = {}
    blocks = [item for item in items if isinstance(item, Block)]
    places = [(item.network, item.addresses.version, int(item.addresses[0]), item.span, item) for item in blocks]
    before: Block | None = None
    for *_, block in sorted(places, key=lambda place: place[:4]):
        if before and before.network == block.network and _overlap(before, block):
            if before.node != block.node:
                found.setdefault((before.node, block.network), []).append(f"{block.span}, which {block.node} has")
                found.setdefault((block.node, block.network), []).append(f"{before.span}, which {before.node} has")
            continue  # the larger one may reach further
        before = block
    return found


def _overlap(one: Block, other: Block) -> bool:
    first, second = one.addresses, other.addresses
    return first.version == second.version and int(second[0]) <= int(first[-1])
