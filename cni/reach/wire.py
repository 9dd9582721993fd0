"""A frame's way from a link to whoever takes it: veths, bridges, macvlans and tunnels."""

from __future__ import annotations

from collections.abc import Callable

from cni.kernel.netlink.lookups import Asked
from cni.kernel.view import Link
from cni.reach.hops import End, Hop, lost, repaired, stopped
from cni.reach.neighbourhood import UNKNOWN, Neighbourhood
from cni.reach.packet import Packet
from cni.reach.place import At, Map, Place, holds, ports
from cni.reach.rules import Meeting, Ruling
from cni.values import dataclass, replace

_NO_CARRIER = ("DOWN", "LOWERLAYERDOWN", "NOTPRESENT")
_SELF, _LOCAL, _FIXED = 0x02, 0x80, 0x40 | 0x10  # NTF_SELF; NUD_PERMANENT; NUD_NOARP, NTF_EXT_LEARNED
_EVERYBODY = "00:00:00:00:00:00"


@dataclass(frozen=True)
class Frame:
    """A packet with the MACs it is carried by."""

    packet: Packet
    target: str
    source: str


class Wire:
    """Carries frames over a map; what happens on the way is told to `hops`, and what could not be judged to `doubts`. `undone` takes translations
    back from an answer.
    """

    def __init__(self, of: Map, hops: list[Hop], doubts: list[str], undone: Callable[[Place, Packet], Packet]) -> None:
        self._map, self._hops, self.doubts, self._undone = of, hops, doubts, undone
        self._near = Neighbourhood(of)

    def sent(self, at: At, next_hop: str, packet: Packet) -> tuple[At, Packet] | End:
        """Where a packet comes in that leaves by a link for a next hop, or its end."""
        if end := _down(at):
            return end
        mac = self._near.mac(at, next_hop)
        if isinstance(mac, End):
            return mac
        frame = Frame(packet, mac, at.link.mac)
        return self._ruled("egress", at, frame) or self._out(at, frame)

    def came(self, at: At, packet: Packet) -> tuple[At, Packet] | End:
        """The same of one that comes back from beyond by a link: to whom the other side sends it is as here."""
        bridge = at.place.links.get(at.link.bridge)
        if bridge is None:
            return _down(at) or (at, packet)
        owner = self._near.owner(At(at.place, bridge), packet.target)
        mac = owner if owner and owner != UNKNOWN else bridge.mac
        return self._bridged(At(at.place, bridge), at.link, Frame(packet, mac, ""))

    # --- out of a link

    def _out(self, at: At, frame: Frame) -> tuple[At, Packet] | End:
        kind = at.link.kind
        if kind == "bridge":
            return self._bridged(at, None, frame)
        if kind == "macvlan":
            return self._beside(at, frame)
        if kind == "vxlan":
            return self._tunnelled(at, frame)
        other = self._map.other_end(at) if kind == "veth" else None
        if other:
            return self._in(other, frame)
        if self._near.is_pods(at):
            return lost(at.place.name, f"the other end of {at.link.name} is not on this node", repaired(at.place))
        why = f"leaves by {at.link.name}"
        if owner := self._map.macvlan_on(at, frame.packet.target):
            why += f", on which {owner.place.name} is a macvlan: a node does not reach those (hostAccess), but by a switch that sends frames back"
        return End("beyond", at.place.name, why, packet=frame.packet, at=at)

    def _in(self, at: At, frame: Frame) -> tuple[At, Packet] | End:
        """Into a link from its other end."""
        if end := _down(at) or self._ruled("ingress", at, frame):
            return end
        if at.link.bridge:
            bridge = at.place.links.get(at.link.bridge)
            return self._bridged(At(at.place, bridge), at.link, frame) if bridge else lost(at.place.name, "no bridge")
        if frame.target not in ("", at.link.mac):
            why = f"{at.link.name} has MAC {at.link.mac}, and it was sent to {frame.target}"
            return lost(at.place.name, why, "agent-cni doctor says which neighbour is wrong")
        return at, frame.packet

    # --- a bridge

    def _bridged(self, bridge: At, source: Link | None, frame: Frame) -> tuple[At, Packet] | End:
        place = bridge.place
        if not bridge.link.up:
            return lost(place.name, f"bridge {bridge.link.name} is down", repaired(place))
        rows = [row for row in place.rows if row.mac == frame.target and not row.flags & _SELF]
        own = {link.index for link in ports(place, bridge.link)} | {bridge.link.index}
        rows = [row for row in rows if row.link in own]
        if frame.target == bridge.link.mac or any(row.state & _LOCAL for row in rows):
            if source is None:
                return lost(place.name, f"{frame.target} is {bridge.link.name}'s own MAC")
            return bridge, frame.packet
        if end := self._filtered(bridge, source, frame):
            return end
        fixed = next((row.link for row in rows if row.state & 0x40 or row.flags & 0x10), 0)
        target = place.links.get(fixed) or self._near.port_of(bridge, source, frame.target)
        if target is None:
            return lost(place.name, f"no port of {bridge.link.name} leads to {frame.target}")
        return self._to_port(bridge, source, target, frame)

    def _to_port(self, bridge: At, source: Link | None, target: Link, frame: Frame) -> tuple[At, Packet] | End:
        name, place = bridge.link.name, bridge.place
        if source and source.index == target.index and not source.hairpin:
            return lost(place.name, f"{name} sends nothing back to {source.name} (hairpinMode)")
        if source and source.isolated and target.isolated:
            return lost(place.name, f"{source.name} and {target.name} are isolated ports of {name} (portIsolation)")
        at = At(place, target)
        if source and _asks(bridge, frame.packet):
            frame = replace(frame, packet=self._undone(place, frame.packet))
        if end := _down(at) or self._ruled("egress", at, frame):
            return end
        self._hops.append(Hop(place.name, f"bridge {name}: to {target.name}, MAC {frame.target or 'unknown'}"))
        return self._out(at, frame)

    def _filtered(self, bridge: At, source: Link | None, frame: Frame) -> End | None:
        """What packet rules say of frames between ports: those of family bridge, and those of IP where the bridge asks them."""
        place, link = bridge.place, bridge.link
        if source is None:
            return None
        met = self._met(place, link.name, link.name, frame)
        for hook in ("bridge prerouting", "bridge forward", "bridge postrouting"):
            ruling = self._judged(place, hook, met)
            if ruling.stops:
                return stopped(place.name, hook, ruling)
        for hook in ("prerouting", "forward", "postrouting") if _asks(bridge, frame.packet) else ():
            ruling = self._judged(place, hook, met)
            if ruling.stops:
                return stopped(place.name, f"{hook} of bridge {link.name}", ruling)
            if ruling.verb in ("masquerade", "snat", "dnat", "redirect"):
                self.doubts.append(f"{ruling.verb} of what {link.name} bridges, by {ruling.by}")
        return None

    # --- a macvlan, a tunnel

    def _beside(self, at: At, frame: Frame) -> tuple[At, Packet] | End:
        parent = self._map.parent(at)
        if parent is None:
            return lost(at.place.name, f"what {at.link.name} is on is not on this node")
        if end := _down(parent):  # a macvlan's own state follows within a second
            return end
        for sibling in self._map.siblings(at) if at.link.macvlan_mode == "bridge" else ():
            if sibling.link.mac == frame.target and sibling.link.macvlan_mode == "bridge":
                return self._in(sibling, frame)
        if end := self._ruled("egress", parent, frame):
            return end
        if frame.target == parent.link.mac:
            why = f"{parent.link.name} does not take what a macvlan on it sends"
            return lost(parent.place.name, why, "hostAccess of the macvlan plugin gives pods a way to their node")
        says = f"leaves by {parent.link.name}, as macvlan ({at.link.macvlan_mode})"
        return End("beyond", at.place.name, says, packet=frame.packet, at=at)

    def _tunnelled(self, at: At, frame: Frame) -> tuple[At, Packet] | End:
        place, link = at.place, at.link
        if end := _down(at):
            return end
        rows = [row for row in place.rows if row.link == link.index and row.address]
        vteps = [row.address for row in rows if row.mac == frame.target] or [
            row.address for row in rows if row.mac == _EVERYBODY
        ]
        if not vteps:
            why = f"no row of {link.name} says behind which VTEP {frame.target} is"
            return lost(place.name, why, "agent-cni refresh, or the member puts it back")
        way = place.way(Asked(vteps[0]))
        under = place.links.get(way.link)
        if way.kind != "unicast" or under is None:
            return lost(place.name, f"no route leads to VTEP {vteps[0]} ({way.why})", f"ip route get {vteps[0]}")
        if end := _down(At(place, under)):
            return end
        says = (
            f"tunnel {link.name} (VNI {link.vxlan.vni if link.vxlan else 0}) to VTEP {', '.join(vteps)} by {under.name}"
        )
        says += " (WireGuard)" if under.kind == "wireguard" or "wg" in under.name else ""
        self._hops.append(Hop(place.name, f"{says}, MTU {link.mtu} in {under.mtu}"))
        return End("beyond", place.name, f"is in the tunnel to VTEP {vteps[0]}", packet=frame.packet, at=at)

    # --- rules

    def _ruled(self, hook: str, at: At, frame: Frame) -> End | None:
        """What rules of a device say."""
        into, out = (at.link.name, "") if hook == "ingress" else ("", at.link.name)
        ruling = self._judged(at.place, hook, self._met(at.place, into, out, frame), at.link.name)
        return stopped(at.place.name, f"{hook} of {at.link.name}", ruling) if ruling.stops else None

    def _judged(self, place: Place, hook: str, met: Meeting, device: str = "") -> Ruling:
        ruling = place.rules.ruling(hook, met, device)
        self.doubts.extend(ruling.doubts)
        return ruling

    def _met(self, place: Place, into: str, out: str, frame: Frame) -> Meeting:
        return Meeting(frame.packet, into, out, frame.source, frame.target, lambda address: holds(place, address))


def _asks(bridge: At, packet: Packet) -> bool:
    """Whether a bridge has rules of IP asked about what it forwards."""
    family = {4: "iptables", 6: "ip6tables"}[packet.family]
    return bridge.link.filtered or bridge.place.setting(f"net.bridge.bridge-nf-call-{family}") == "1"


def _down(at: At) -> End | None:
    """Why nothing passes a link."""
    name = at.link.name
    if not at.link.up:
        mend = f"ip link set {name} up" if at.place.is_node else repaired(at.place)
        return lost(at.place.name, f"{name} is down", mend)
    if at.link.state in _NO_CARRIER and at.link.kind != "bridge":
        return lost(at.place.name, f"{name} has no carrier: its other end is down")
    return None
