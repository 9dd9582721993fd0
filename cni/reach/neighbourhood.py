"""Who answers for an address on a link, and by which port of a bridge a MAC is reached (arp(7), RFC 4861)."""

from __future__ import annotations

from cni.kernel.netlink.lookups import Asked
from cni.kernel.view import Link
from cni.reach.hops import End, lost
from cni.reach.place import At, Map, holds, ports

#: Somebody who is not on this node may answer.
UNKNOWN = "?"
_FIXED, _FAILED, _KNOWN = 0x80 | 0x40, 0x20 | 0x01, 0x02 | 0x04 | 0x08 | 0x10
_SELF, _PERMANENT = 0x02, 0x80
_EVERYBODY = "00:00:00:00:00:00"
_WITHOUT = ("wireguard", "tun", "ipip", "sit")


class Neighbourhood:
    """The neighbours of a map's links."""

    def __init__(self, of: Map) -> None:
        self._map = of

    def mac(self, at: At, address: str) -> str | End:
        """To which MAC a packet for a next hop is sent; empty where none is known and somebody beyond may say one."""
        if at.link.kind in _WITHOUT or at.link.loopback:
            return ""
        row = at.place.neighbour(at.link, address)
        if row and row.state & _FIXED and row.mac:
            return row.mac
        owner = self.owner(at, address)
        if owner in (UNKNOWN, None) and row and row.state & _KNOWN:
            return row.mac
        if owner == UNKNOWN:
            return ""
        if owner is None:
            return lost(at.place.name, f"nobody answers for {address} on {at.link.name}")
        return owner

    def owner(self, at: At, address: str) -> str | None:
        """The MAC that answers for an address on a link; None for nobody."""
        kind = at.link.kind
        if kind == "bridge":
            return self._on_bridge(at, None, address)
        if kind == "macvlan":
            return self._beside(at, address)
        other = self._map.other_end(at) if kind == "veth" else None
        if other is None:
            return None if self.is_pods(at) else UNKNOWN
        if not other.link.up:
            return None
        bridge = other.place.links.get(other.link.bridge)
        if bridge:
            return self._on_bridge(At(other.place, bridge), other.link, address)
        return self._answer(other, address)

    def is_pods(self, at: At) -> bool:
        """Whether a link's other end ought to be here."""
        return at.link.kind == "veth" and not at.place.is_node

    def port_of(self, bridge: At, source: Link | None, mac: str) -> Link | None:
        """The port behind which a MAC is that the bridge has not been told of: what it floods gets there."""
        tunnel = None
        for port in ports(bridge.place, bridge.link):
            other = self._map.other_end(At(bridge.place, port))
            if other and other.link.mac == mac:
                return port
            if port.kind == "vxlan" and port is not source:
                tunnel = port
        return tunnel

    def _answer(self, at: At, address: str) -> str | None:
        """What a namespace answers that is asked by a link: of IPv4 for each address it has, of IPv6 for the link's."""
        place, link = at.place, at.link
        if ":" in address or _strict(at):
            return link.mac if holds(place, address, link) else None
        if holds(place, address):
            return link.mac
        proxies = place.setting(f"net.ipv4.conf.{link.name.replace('.', '%')}.proxy_arp") == "1"
        way = place.way(Asked(address)) if proxies else None
        return link.mac if way and way.kind == "unicast" and way.link != link.index else None

    def _on_bridge(self, bridge: At, source: Link | None, address: str) -> str | None:
        place = bridge.place
        if not bridge.link.up:
            return None
        if source and (own := self._answer(bridge, address)):
            return own
        tunnel = None
        for port in ports(place, bridge.link):
            if port is source or not port.up or (source and source.isolated and port.isolated):
                continue
            other = self._map.other_end(At(place, port))
            if other and other.link.up and (mac := self._answer(other, address)):
                return mac
            tunnel = port if port.kind == "vxlan" else tunnel
        return self._through(bridge, tunnel, address) if tunnel else self._strangers(bridge)

    def _through(self, bridge: At, tunnel: Link, address: str) -> str | None:
        """What is said of an address beyond a tunnel: by the bridge itself of those it was told of (neigh_suppress)."""
        row = bridge.place.neighbour(bridge.link, address)
        if row and row.state & _PERMANENT:
            told = (item.link for item in bridge.place.rows if item.mac == row.mac and not item.flags & _SELF)
            if tunnel.index in told or not tunnel.neigh_suppress:
                return row.mac
        flooded = any(item.link == tunnel.index and item.mac == _EVERYBODY for item in bridge.place.rows)
        return UNKNOWN if flooded else None

    def _strangers(self, bridge: At) -> str | None:
        """Behind a port that is a wire there may be anybody."""
        wires = (port for port in ports(bridge.place, bridge.link) if port.kind not in {"veth", "vxlan"})
        return UNKNOWN if next(wires, None) else None

    def _beside(self, at: At, address: str) -> str | None:
        parent = self._map.parent(at)
        if at.link.macvlan_mode == "bridge":
            for sibling in self._map.siblings(at):
                if sibling.link.up and (mac := self._answer(sibling, address)):
                    return mac
        if parent and holds(parent.place, address, parent.link):
            return None
        return UNKNOWN


def _strict(at: At) -> bool:
    """Whether a link answers for its own addresses alone."""
    keys = (f"net.ipv4.conf.{name}.arp_ignore" for name in ("all", at.link.name.replace(".", "%")))
    return any(at.place.setting(key) not in ("", "0") for key in keys)
