"""What an encrypted cluster's hosts are to each other: addresses inside the tunnel, computed from names, and peers."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable

from cni.cluster.fields import Malformed
from cni.cluster.model import Node
from cni.kernel.wireguard import OVERHEAD, Peer
from cni.naming import digest_of

#: The device of a host, and the addresses inside the tunnels of all: a local prefix (RFC 4193) that is everywhere the same.
DEVICE = "agent-cni-wg"
PREFIX = ipaddress.IPv6Network((bytes.fromhex("fd" + digest_of("agent-cni wireguard")[:10]).ljust(16, b"\0"), 48))

_KEY_BYTES = 32


def vtep(node: str) -> str:
    """The address of a host inside the tunnel. It goes by the name, so that no host can say that it has another's."""
    return str(PREFIX[int(digest_of(node)[:20], 16)])


def underlay(address: str, port: int) -> str:
    """Where a host is reached by others, as `Node.underlay` says it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def overhead(address: str) -> int:
    """What a packet grows by in the tunnel of a host with an underlay address."""
    return OVERHEAD[ipaddress.ip_address(address).version]


def peers(nodes: Iterable[Node], own_key: str) -> tuple[dict[str, Peer], tuple[str, ...]]:
    """The peers that hosts are, by key, and a line for each that is none and to whom nothing is sent."""
    found: dict[str, Peer] = {}
    refused = []
    whose = {own_key: "this host"}
    for node in sorted(nodes, key=lambda node: node.name):
        try:
            peer = _peer(node)
        except Malformed as error:
            refused.append(str(error))
            continue
        if peer.key in whose:
            refused.append(f"{node.name} has the WireGuard key of {whose[peer.key]}")
            continue
        whose[peer.key], found[peer.key] = node.name, peer
    return found, tuple(refused)


def _peer(node: Node) -> Peer:
    return Peer(_key(node), f"{vtep(node.name)}/128", _endpoint(node))


def _key(node: Node) -> str:
    """A host's public key, as wg(8) shows it."""
    if not node.wireguard:
        raise Malformed(f"{node.name} has no WireGuard key")
    try:
        key = base64.b64decode(node.wireguard, validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise Malformed(f"{node.name} has {node.wireguard!r}, which is no WireGuard key")
    return base64.b64encode(key).decode()


def _endpoint(node: Node) -> str:
    address, _, port = node.underlay.rpartition(":")
    try:
        parsed = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        # a scope may be any text, and one endpoint that wg(8) refuses is all of them
        if "%" not in address and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16:
            return underlay(str(parsed), int(port))
    except ValueError:
        pass
    raise Malformed(f"{node.name} is reached at {node.underlay!r}, which is no address and port")
