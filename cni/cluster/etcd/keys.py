"""How items are named in etcd: a path for each, by which whatever is of a block, or of a room, is one range.

``addresses/NETWORK/4-0a0a0547``, ``alive/NODE``, ``blocks/NETWORK/4-0a0a0540-26``, ``documents/KIND/NAMESPACE/NAME``,
``networks/NETWORK``, ``nodes/NODE``, ``turn/WHAT`` and ``voices/NODE``, below a prefix. What there is most of comes first, so that all
the rest is one range, too. Addresses are hexadecimal, so that their order is that of the keys.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from cni.cluster.document import Document
from cni.cluster.fields import Malformed
from cni.cluster.model import Alive, Block, Endpoint, IPNetwork, Key, Network, Node
from cni.naming import IPAddress

#: Which lease-bound rights of all hosts there are; see ClusterStore.turn.
TURN = "turn"
#: Which process of a host spoke last; see ClusterStore.speak. Nobody listens to either room, so they are the last of all.
VOICE = "voices"
_NAMED = (Node.room, Alive.room, Network.room, TURN, VOICE)
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
_BITS = {"4": 32, "6": 128}
#: The most addresses a block has, as a power of two: none is within a larger one.
_LARGEST = 12


class Range(NamedTuple):
    """All keys from `first` until before `end`."""

    first: bytes
    end: bytes


class Keys:
    """The keys below a prefix, as ``/agent-cni``."""

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix.rstrip('/')}/".encode()

    def of(self, key: Key) -> bytes:
        """Where an item is."""
        room, *names = key
        if room == Block.room:
            return self._below(room, _quoted(names[0]), _span(ipaddress.ip_network(names[1])))
        if room == Endpoint.room:
            return self._below(room, _quoted(names[0]), _place(ipaddress.ip_address(names[1])))
        return self._below(room, *map(_quoted, names))

    def key(self, at: bytes) -> Key:
        """What is there. Raises Malformed."""
        if not at.startswith(self._prefix):
            raise Malformed(f"{at!r} in the store: it is not ours")
        path = at[len(self._prefix) :].decode(errors="replace")
        room, *parts = path.split("/")
        try:
            if room in _NAMED:
                (part,) = parts
                return room, _unquoted(part)
            if room in (Block.room, Endpoint.room):
                network, place = parts
                return room, _unquoted(network), _address_of(place, room)
            if room == Document.room:
                kind, namespace, name = parts
                return room, _unquoted(kind), _unquoted(namespace), _unquoted(name)
        except (ValueError, KeyError):
            raise Malformed(f"{path} in the store: no key is such") from None
        return room, *parts

    def all(self) -> Range:
        """Everything that is an item of the cluster."""
        return Range(self._prefix, self._below(TURN))

    def all_but_endpoints(self) -> Range:
        """Everything else."""
        return Range(_under(self._below(Endpoint.room, "")).end, self.all().end)

    def blocks(self, network: str = "") -> Range:
        """The blocks of a network, or of all."""
        return _under(self._below(Block.room, *([_quoted(network)] if network else []), ""))

    def overlapping(self, block: Block) -> tuple[Range, list[bytes]]:
        """Where blocks are that have addresses of one: those that begin in it, and the single keys of larger ones around it."""
        span = block.addresses
        start, end = (self._below(Block.room, _quoted(block.network), _place(at)) for at in (span[0], span[-1]))
        widest = max(span.max_prefixlen - _LARGEST, 0)
        around = [span.supernet(new_prefix=length) for length in range(widest, span.prefixlen)]
        return Range(start, end + b"."), [self.of((Block.room, block.network, str(larger))) for larger in around]

    def endpoints(self, block: Block) -> Range:
        """The endpoints in a block."""
        span = block.addresses
        first, last = (self.of((Endpoint.room, block.network, str(at))) for at in (span[0], span[-1]))
        return Range(first, last + b"\0")

    def _below(self, *parts: str) -> bytes:
        return self._prefix + "/".join(parts).encode()


def _under(prefix: bytes) -> Range:
    return Range(prefix, prefix[:-1] + bytes([prefix[-1] + 1]))


def _place(address: IPAddress) -> str:
    return f"{address.version}-{address.packed.hex()}"


def _span(network: IPNetwork) -> str:
    return f"{_place(network[0])}-{network.prefixlen}"


def _address_of(place: str, room: str) -> str:
    """The address or the CIDR a key spells, which is spelled in one way only."""
    family, digits, *length = place.split("-")
    if len(digits) * 4 != _BITS[family] or len(length) != (room == Block.room):
        raise ValueError(place)
    address = ipaddress.ip_address(bytes.fromhex(digits))
    spelled = _span(ipaddress.ip_network(f"{address}/{length[0]}")) if length else _place(address)
    if spelled != place:
        raise ValueError(place)
    return f"{address}/{length[0]}" if length else str(address)


def _quoted(name: str) -> str:
    """A name in which nothing is left that means something in a path."""
    raw = name.encode(errors="surrogatepass")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)


def _unquoted(text: str) -> str:
    first, *rest = text.split("%")
    raw = first.encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)
    name = raw.decode(errors="surrogatepass")
    if not name or _quoted(name) != text:
        raise ValueError(text)
    return name
