"""The tunnels of a host whose cluster is encrypted: its WireGuard device, with the other hosts as its peers.

A packet to an address inside them leaves by the device or not at all: a route that refuses stands behind the device's own, before
the first and until `remove`. Whatever serves the device outlives the member.
"""

from __future__ import annotations

import errno
import ipaddress
import time
from collections.abc import Collection
from typing import NamedTuple

from cni import log
from cni.cluster.model import Node
from cni.errors import CniError, Conflict, KernelRefused, TryAgainLater, Unavailable
from cni.kernel import sysctl, wireguard
from cni.kernel.clock import boottime
from cni.kernel.netlink import Rtnl
from cni.kernel.view import Link
from cni.member.key import Key
from cni.naming import OWNER, interface_of
from cni.overlay import wireguard as tunnels

#: Seconds by which the clock may go back: a handshake whose time is before the last one's is taken for a replay (WireGuard's
#: whitepaper, 5.1), and none is begun more often than every five.
_BACK = 4.0
#: How long a host gives another to begin their session, in seconds.
_TURN = 0.5
#: How long the device may outlive who served it, and how often is looked, in seconds.
_ENDS_WITHIN, _STEP = 2.0, 0.01
_KINDS = ("wireguard", "tun")
_LEAST_MTU = 1280  # of IPv6 (RFC 8200, section 5)


class _Seen(NamedTuple):
    """What `ensure` left: another key, or another device, is to be seen to."""

    key: tuple[int, int]
    link: Link | None


class Encryption:
    """This host's end of the tunnels. A host has one only where its cluster is encrypted.

    `trouble` is why there are no tunnels, for people, empty when there are; `refused` has a line for each host that cannot be a
    peer. It is one thread's, and but for `remove` nothing raises.
    """

    def __init__(self, node: str, port: int, key: Key) -> None:
        self.trouble = "the tunnels of this host are not there yet"
        self.refused: tuple[str, ...] = ()
        self._node, self._port, self._key = node, port, key
        self._vtep = ipaddress.IPv6Address(tunnels.vtep(node))
        self._endpoints: dict[str, str] = {}
        self._seen: _Seen | None = None
        self._waits: dict[str, float] = {}
        self._clock = _clock()
        self._is_silent = False

    def ensure(self, underlay: str, nodes: Collection[Node] | None) -> None:
        """Have the device where this host has an address of the underlay, and exactly these hosts as peers, this one left out; who is
        one already keeps his session. None: nobody knows yet who they are, and peers stay as they are.
        """
        host = Rtnl.kept()
        try:
            host.refuse_route(str(tunnels.PREFIX))
            private, public = self._key.pair()
            shown = self._device(host, private)
            self._set_up(host, underlay)
            self._key.in_use = public
            if nodes is not None:
                self._set_peers(shown, nodes, public)
            self._seen = self._look(host)
            self.trouble = ""
        except CniError as error:
            self.trouble = f"encryption: {error.msg}"
        finally:
            host.give_back()

    def look(self) -> bool:
        """Whether `ensure` is to be called, and a public key that is another by now to be announced: there was trouble, another key
        is wanted, the device is not as it was left, or a session is to begin. It costs two questions to the kernel: ask once a second.
        """
        before, self._clock = self._clock, _clock()
        if self._clock < before - _BACK:
            log.warning(
                "member", "the clock went back, and others would take what this host's key says for old: another key"
            )
            self._key.delete()
        if self.trouble or any(due <= time.monotonic() for due in self._waits.values()):
            return True
        host = Rtnl.kept()
        try:
            seen = self._look(host)
            return seen != self._seen or not seen.link or host.holder_of(self._vtep) != seen.link.index
        except KernelRefused:
            return True
        finally:
            host.give_back()

    def remove(self) -> None:
        """Have no tunnel and no key any more. Raises KernelRefused."""
        host = Rtnl.kept()
        try:
            if (link := host.link_by_name(tunnels.DEVICE)) and link.kind in _KINDS:
                host.delete_link(link)  # wireguard-go ends with it
            host.delete_refused(str(tunnels.PREFIX))
        finally:
            host.give_back()
        self._key.delete()

    # --- the device

    def _device(self, host: Rtnl, private: str) -> wireguard.Shown:
        """The device, made where there is none, with our key and port. What it was before."""
        if not _ours(host):
            _make(host)
        shown = self._shown(host)
        if (shown.private, shown.port) != (private, self._port):
            wireguard.set_device(tunnels.DEVICE, private, self._port)
        return shown

    def _shown(self, host: Rtnl) -> wireguard.Shown:
        """What the device has. Who serves it and says nothing, and a moment later nothing again, is ended, and another begins."""
        try:
            shown = wireguard.show(tunnels.DEVICE)
        except TryAgainLater as error:
            if not self._is_silent or not wireguard.kill(tunnels.DEVICE):
                self._is_silent = True
                raise
            log.warning("member", f"{error.msg}: what serves {tunnels.DEVICE} hangs, and is ended and begun anew")
            self._await_end(host)
            _make(host)
            shown = wireguard.show(tunnels.DEVICE)
        self._is_silent = False
        return shown

    @staticmethod
    def _await_end(host: Rtnl) -> None:
        until = time.monotonic() + _ENDS_WITHIN
        while _ours(host):
            if time.monotonic() > until:
                raise Unavailable(f"{tunnels.DEVICE} is still there, though what served it was ended")
            time.sleep(_STEP)

    def _set_up(self, host: Rtnl, underlay: str) -> None:
        """Up, with its address and what the underlay leaves of an MTU; never before it has its port, or it would take any."""
        link, mtu = _ours(host), _mtu(host, underlay)
        if not link:
            raise Unavailable(f"{tunnels.DEVICE} vanished while it was being made")
        setting = sysctl.of_link(6, link.name, "disable_ipv6")
        if sysctl.read(setting) != "0":
            sysctl.write(setting, "0")
        if (link.up, link.mtu, link.alias) != (True, mtu, OWNER):
            self._set_link(host, link, mtu)
        inside = interface_of(f"{self._vtep}/{tunnels.PREFIX.prefixlen}")
        if all(held.interface != inside for held in host.addresses(link)):
            host.add_address(link, inside, nodad=True)

    def _set_link(self, host: Rtnl, link: Link, mtu: int) -> None:
        try:
            host.set_link(link, up=True, mtu=mtu, ifalias=OWNER)
        except KernelRefused as error:
            if error.errno == errno.EADDRINUSE:  # the kernel's device takes its port when it goes up
                raise wireguard.port_taken(self._port) from None
            raise

    def _set_peers(self, shown: wireguard.Shown, nodes: Collection[Node], own_key: str) -> None:
        others = (node for node in nodes if node.name != self._node)
        wanted, self.refused = tunnels.peers(others, own_key)
        has = {key: tunnel.peer.inside for key, tunnel in shown.tunnels.items()}
        differ = [
            peer
            for key, peer in wanted.items()
            if (has.get(key), self._endpoints.get(key)) != (peer.inside, peer.endpoint)
        ]
        gone = [key for key in has if key not in wanted]
        begun = self._begun(shown, [peer for peer in differ if peer.key not in has])
        if differ or gone or begun:
            wireguard.set_peers(tunnels.DEVICE, gone, differ, begun)
        self._endpoints = {key: peer.endpoint for key, peer in wanted.items()}

    def _begun(self, shown: wireguard.Shown, new: Collection[wireguard.Peer]) -> list[str]:
        """With whom to begin a session now. A host that comes is new to another and that one to it: of two handshakes that cross none
        is done, and for five seconds no other is tried. So one of the two waits, unless only he has lost the session.
        """
        known = {tunnel.peer.inside for tunnel in shown.tunnels.values()}
        at_once = {
            peer.key
            for peer in new
            if peer.key in self._endpoints or peer.inside in known or peer.inside > f"{self._vtep}/128"
        }
        now = time.monotonic()
        late = {key for key, due in self._waits.items() if due <= now}
        self._waits = {key: due for key, due in self._waits.items() if key not in late}
        self._waits |= {peer.key: now + _TURN for peer in new if peer.key not in at_once}
        return [*at_once, *(key for key in late if key in shown.tunnels and not shown.tunnels[key].heard)]

    def _look(self, host: Rtnl) -> _Seen:
        return _Seen(self._key.version, host.link_by_name(tunnels.DEVICE))


def _clock() -> float:
    """What the clock says beyond the time since boot, which nobody sets (clock_gettime(2)); in seconds."""
    return time.time() - boottime()


def _ours(host: Rtnl) -> Link | None:
    """The device, or None. Raises Conflict for a link of somebody else's under its name."""
    link = host.link_by_name(tunnels.DEVICE)
    if link and link.kind not in _KINDS:
        raise Conflict(f"there is a link {link.name} that is not ours; it is left as it is")
    return link


def _make(host: Rtnl) -> None:
    """The kernel's own where it has WireGuard, else wireguard-go's."""
    if not host.create_wireguard(tunnels.DEVICE):
        wireguard.start(tunnels.DEVICE)


def _mtu(host: Rtnl, underlay: str) -> int:
    """What the link that has the underlay's address leaves. Raises Unavailable."""
    under, more = host.link_by_index(host.holding(ipaddress.ip_address(underlay))), tunnels.overhead(underlay)
    if not under:
        raise Unavailable(f"no link of this host has its underlay address {underlay}")
    if under.mtu - more < _LEAST_MTU:
        raise Unavailable(
            f"MTU {under.mtu} of {under.name} is too little for IPv6 in the tunnel: {_LEAST_MTU + more} is needed"
        )
    return under.mtu - more
