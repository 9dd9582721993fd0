"""The tunnels of a host whose cluster is encrypted: its key, its WireGuard device, and the other hosts as its peers.

A packet to an address inside them leaves by the device or not at all: a route that refuses stands behind the device's own, before
the first and until `remove`. Whatever serves the device outlives the member.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Conflict, KernelRefused, Unavailable
from cni.kernel import sysctl, wireguard
from cni.kernel.netlink import Rtnl
from cni.kernel.view import Link
from cni.naming import OWNER, interface_of
from cni.overlay import wireguard as tunnels
from cni.state import DEFAULT_FOLDER
from cni.values import replace

if TYPE_CHECKING:
    from cni.cluster.config import ClusterConfig
    from cni.cluster.model import Node

#: The private key's file in the member's folder: it lives as long as the boot, and whoever replaces or deletes it changes the key.
KEY = "wireguard.key"

_LEAST_MTU = 1280  # of IPv6 (RFC 8200, section 5)
_OTHERS_MAY_READ = 0o077


class _Seen(NamedTuple):
    """What `ensure` left: another key file, or another device, is to be seen to."""

    key: tuple[int, int]
    link: Link | None
    has_address: bool


class Encryption:
    """This host's end of the tunnels. A host makes one only where its cluster is encrypted.

    `trouble` is why there are no tunnels, for people, empty when there are; `refused` has a line for each host that cannot be a
    peer. All of it is the member's one hand's to call, and nothing raises.
    """

    def __init__(self, config: ClusterConfig, address: str, folder: Path = DEFAULT_FOLDER) -> None:
        """`address` is the host's own in the underlay."""
        self.trouble = "the tunnels of this host are not there yet"
        self.refused: tuple[str, ...] = ()
        self.vtep = tunnels.vtep(config.node)
        self.overhead = tunnels.overhead(address)
        self._name, self._address, self._port = config.node, ipaddress.ip_address(address), config.wireguard_port
        self._key_file = folder / KEY
        self._private = self._public = ""
        self._endpoints: dict[str, str] = {}
        self._seen: _Seen | None = None

    def described(self, me: Node) -> Node:
        """This host as others are to know it, by its key of now; without one where none can be made."""
        with suppress(CniError):
            self._read_key()
        underlay = tunnels.underlay(str(self._address), self._port)
        return replace(me, vtep=self.vtep, wireguard=self._public, underlay=underlay)

    def ensure(self, nodes: Collection[Node]) -> None:
        """Have the device, and exactly these hosts as peers, this one left out; who is one already keeps his session."""
        host = Rtnl.kept()
        try:
            host.refuse_route(str(tunnels.PREFIX))
            self._read_key()
            shown = self._device(host)
            self._set_up(host)
            self._set_peers(shown, nodes)
            self._seen = self._look(host)
            self.trouble = ""
        except CniError as error:
            self.trouble = f"encryption: {error.msg}"
        finally:
            host.give_back()

    def look(self) -> bool:
        """Whether `ensure` is to be called, and `described` to be announced if it says something new: there was trouble, another
        key is wanted, or the device is not as it was left. It costs two questions to the kernel: ask once a second.
        """
        if self.trouble:
            return True
        host = Rtnl.kept()
        try:
            return self._look(host) != self._seen
        except KernelRefused:
            return True
        finally:
            host.give_back()

    def remove(self) -> None:
        """Have no tunnel and no key any more. Raises KernelRefused."""
        host = Rtnl.kept()
        try:
            if link := _ours(host):
                host.delete_link(link)  # wireguard-go ends with it
            host.delete_refused(str(tunnels.PREFIX))
        finally:
            host.give_back()
        self._key_file.unlink(missing_ok=True)

    # --- the key

    def _read_key(self) -> None:
        """Have the key of the file, which is made where there is none. Raises Unavailable, ToolFailed."""
        try:
            if not self._key_file.exists():
                self._make_key()
            mode, text = self._key_file.stat().st_mode, self._key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the key file {self._key_file} cannot be read: {error}") from None
        if mode & _OTHERS_MAY_READ:
            raise Unavailable(f"the key file {self._key_file} may be read by others (mode {mode & 0o777:o}, not 600)")
        if text != self._private:
            self._public = wireguard.public_key(text)
            self._private = text

    def _make_key(self) -> None:
        """A new key, in its file by one rename."""
        text, new = wireguard.new_key(), self._key_file.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(0o600, exist_ok=False)
        new.write_text(text + "\n")
        new.rename(self._key_file)

    # --- the device

    def _device(self, host: Rtnl) -> wireguard.Shown:
        """The device, made where there is none, with our key and port. What it was before."""
        if not _ours(host):
            _make(host)
        shown = wireguard.show(tunnels.DEVICE)
        if (shown.private, shown.port) != (self._private, self._port):
            wireguard.set_device(tunnels.DEVICE, self._private, self._port)
        return shown

    def _set_up(self, host: Rtnl) -> None:
        """Up, with its address and what the underlay leaves of an MTU; never before it has its port, or it would take any."""
        link, mtu = _ours(host), self._mtu(host)
        if not link:
            raise Unavailable(f"{tunnels.DEVICE} vanished while it was being made")
        setting = sysctl.of_link(6, link.name, "disable_ipv6")
        if sysctl.read(setting) != "0":
            sysctl.write(setting, "0")
        if not link.up or link.mtu != mtu:
            host.set_link(link, up=True, mtu=mtu)
        inside = interface_of(f"{self.vtep}/{tunnels.PREFIX.prefixlen}")
        if all(held.interface != inside for held in host.addresses(link)):
            host.add_address(link, inside, nodad=True)

    def _mtu(self, host: Rtnl) -> int:
        under = host.link_by_index(host.holding(self._address))
        if not under:
            raise Unavailable(f"no link of this host has its underlay address {self._address}")
        if under.mtu - self.overhead < _LEAST_MTU:
            raise Unavailable(
                f"MTU {under.mtu} of {under.name} is too little for IPv6 in the tunnel: {_LEAST_MTU + self.overhead} is needed"
            )
        return under.mtu - self.overhead

    def _set_peers(self, shown: wireguard.Shown, nodes: Collection[Node]) -> None:
        others = (node for node in nodes if node.name != self._name)
        wanted, self.refused = tunnels.peers(others, self._public)
        has = {key: tunnel.peer.inside for key, tunnel in shown.tunnels.items()}
        differ = [
            peer
            for key, peer in wanted.items()
            if (has.get(key), self._endpoints.get(key)) != (peer.inside, peer.endpoint)
        ]
        gone = [key for key in has if key not in wanted]
        if differ or gone:
            wireguard.set_peers(tunnels.DEVICE, gone, differ, wanted.keys() - has.keys())
        self._endpoints = {key: peer.endpoint for key, peer in wanted.items()}

    def _look(self, host: Rtnl) -> _Seen:
        try:
            status = self._key_file.stat()
            key = status.st_ino, status.st_mtime_ns
        except OSError:
            key = 0, 0
        link, holder = host.link_by_name(tunnels.DEVICE), host.holder_of(ipaddress.ip_address(self.vtep))
        return _Seen(key, link, link is not None and link.index == holder)


def _ours(host: Rtnl) -> Link | None:
    """The device, or None. Raises Conflict for a link of somebody else's under its name."""
    link = host.link_by_name(tunnels.DEVICE)
    if link and link.kind not in ("wireguard", "tun"):
        raise Conflict(f"there is a link {link.name} that is not ours; it is left as it is")
    return link


def _make(host: Rtnl) -> None:
    """The kernel's own where it has WireGuard, else wireguard-go's."""
    if not host.create_wireguard(tunnels.DEVICE):
        wireguard.start(tunnels.DEVICE)
    link = host.link_by_name(tunnels.DEVICE)
    if link:
        host.set_link(link, ifalias=OWNER)
