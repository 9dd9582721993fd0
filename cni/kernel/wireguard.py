"""WireGuard: a device of the kernel's, or of wireguard-go(8) where the kernel has none, asked and set by wg(8)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cni.errors import Conflict, ToolFailed
from cni.kernel import process

#: What a packet grows by, by the family of the outer one: its header, UDP's and the 32 bytes of WireGuard's own.
OVERHEAD = {4: 60, 6: 80}

_SECONDS = 5.0
_AT_ONCE = 500  # peers of one command: an argument list is bounded (execve(2))
_NONE = "(none)"
_SERVER = "wireguard-go"


class Peer(NamedTuple):
    """Another host of a tunnel: its public key, the only address it sends from and is sent to inside (a CIDR), and where it is
    reached, as ``192.0.2.11:51820`` or ``[2001:db8::1]:51820``.
    """

    key: str
    inside: str
    endpoint: str


class Tunnel(NamedTuple):
    """A peer as a device has it; `heard` is when it last proved its key, in seconds since 1970, 0 for never."""

    peer: Peer
    heard: int
    received: int
    sent: int


class Shown(NamedTuple):
    """A device: its private key, empty where it has none, its UDP port, and its peers by key."""

    private: str
    port: int
    tunnels: dict[str, Tunnel]


def refuse_missing() -> None:
    """Raise ToolFailed where there is no wg(8)."""
    _found("wg", "{}")


def new_key() -> str:
    """A private key, base64. Raises ToolFailed."""
    return _wg("genkey").strip()


def public_key(private: str) -> str:
    """What others know a private key by. Raises ToolFailed for what is no key."""
    return _wg("pubkey", stdin=private).strip()


def start(name: str) -> None:
    """Have wireguard-go make a device and serve it: a process of its own that stays when this one ends, in no group of ours, and
    goes with its device. Raises ToolFailed.
    """
    program = _found(_SERVER, f"this kernel has no WireGuard, and {{}}: {name} cannot be made")
    done = process.run_apart([program, name], _SECONDS)
    if done.returncode:
        raise ToolFailed(f"wireguard-go {name}: {_last(done.stderr)}")


def kill(name: str) -> bool:
    """End the wireguard-go that serves a device, which goes with it; whether there was one."""
    return process.kill(_SERVER, name)


def show(name: str) -> Shown:
    """What a device has. Raises ToolFailed where nothing serves it, TryAgainLater where what does says nothing."""
    own, *others = (line.split("\t") for line in _wg("show", name, "dump").splitlines())
    tunnels = map(_tunnel, others)
    return Shown(_said(own[0]), int(own[2]), {item.peer.key: item for item in tunnels})


def set_device(name: str, private: str, port: int) -> None:
    """Give a device its key and its port. Raises Conflict where somebody else has the port."""
    try:
        _wg("set", name, "private-key", "/dev/stdin", "listen-port", str(port), stdin=private)
    except ToolFailed as error:
        if "Address already in use" in error.msg:
            raise port_taken(port) from None
        raise


def port_taken(port: int) -> Conflict:
    """Why there is no tunnel where somebody else has the port."""
    return Conflict(f"UDP port {port} of this host is taken: WireGuard cannot have it")


def set_peers(name: str, gone: Iterable[str], there: Iterable[Peer], begun: Iterable[str]) -> None:
    """Change peers of a device, those of `gone` by key first; who is not named keeps what he has, his session too.

    With those of `begun` a session is begun, where none was for five seconds, though there is nothing to send: setting an interval
    of keepalives sends one (wg_set_device, IpcSet of wireguard-go).
    """
    words = [["peer", key, "remove"] for key in gone]
    words += [["peer", peer.key, "endpoint", peer.endpoint, "allowed-ips", peer.inside] for peer in there]
    words += [["peer", key, "persistent-keepalive", how] for key in begun for how in ("25", "off")]
    for at in range(0, len(words), _AT_ONCE):
        _wg("set", name, *(word for command in words[at : at + _AT_ONCE] for word in command))


def _tunnel(fields: Sequence[str]) -> Tunnel:
    key, _, endpoint, inside, heard, received, sent, _ = fields
    return Tunnel(Peer(key, _said(inside), _said(endpoint)), int(heard), int(received), int(sent))


def _said(text: str) -> str:
    return "" if text == _NONE else text


def _wg(*words: str, stdin: str = "") -> str:
    done = process.run([_found("wg", "{}"), *words], stdin, seconds=_SECONDS)
    if done.returncode:
        raise ToolFailed(f"wg {' '.join(words[:2])}: {_last(done.stderr)}")
    return done.stdout


def _found(program: str, why: str) -> str:
    """A program of the caller's PATH, or of the system's folders. Raises ToolFailed."""
    found = process.find(program, os.environ.get("PATH", ""))
    if found is None:
        raise ToolFailed(why.format(f"the program {program} is missing"))
    return found


def _last(text: str) -> str:
    return text.strip().rpartition("\n")[2]
