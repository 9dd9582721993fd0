"""A packet's way through namespaces: routes as the kernel looks them up, and the rules of each hook."""

from __future__ import annotations

from typing import NamedTuple

from cni.kernel.netlink.lookups import Asked
from cni.kernel.view import Link
from cni.reach.hops import End, Hop, lost, repaired, stopped
from cni.reach.packet import Packet
from cni.reach.place import At, Map, Place, holds
from cni.reach.rules import Dice, Meeting, Ruling
from cni.reach.wire import Wire
from cni.values import replace

#: More links than a node has between two pods: what goes round ends.
_MOST_ARRIVALS = 16


class _Routed(NamedTuple):
    """A packet and the way it leaves by; `is_own` if that is the loopback."""

    packet: Packet
    link: Link
    gateway: str = ""
    is_own: bool = False

    @property
    def spelled(self) -> str:
        return f"{self.link.name} via {self.gateway}" if self.gateway else self.link.name


class Walk:
    """One connection's packets; its translations are undone for what comes back."""

    def __init__(self, of: Map, dice: Dice) -> None:
        self._dice = dice
        self.hops: list[Hop] = []
        #: The address that the first packet was sent from.
        self.source = ""
        #: The packet as rules have changed it by now.
        self.last: Packet | None = None
        self.doubts: list[str] = []
        self._arrivals = 0
        self._wire = Wire(of, self.hops, self.doubts, self._both_undone)
        self._translated: list[tuple[Place, Packet, Packet]] = []

    def sent(self, place: Place, packet: Packet) -> End:
        """The end of a packet that a program in a namespace sends."""
        found = self._routed(place, packet)
        if isinstance(found, End):
            return found
        self.source = self.source or found.packet.source
        ruling = self._hook(place, "output", found.packet, out=found.link)
        if isinstance(ruling, End):
            return ruling
        packet = self._redirected(place, ruling)
        if packet != found.packet:  # the kernel looks up anew what rules have changed (ip_route_me_harder)
            self._note(place, found.packet, packet)
            found = self._routed(place, packet)
        if isinstance(found, End):
            return found
        if found.is_own:
            return self._to_itself(place, found)
        self._say(place, f"route by {found.spelled}, from {found.packet.source}")
        return self._leaves(place, found)

    def came(self, at: At, packet: Packet) -> End:
        """The end of one that comes back from beyond by a link."""
        found = self._wire.came(at, packet)
        return found if isinstance(found, End) else self._arrived(*found)

    # --- steps

    def _routed(self, place: Place, packet: Packet) -> _Routed | End:
        """By which way something leaves that is sent here, and with which source."""
        way = place.way(Asked(packet.target, packet.source, mark=packet.mark, protocol=packet.protocol))
        link = place.links.get(way.link)
        source = packet.source or way.source
        if way.kind not in ("unicast", "local") or link is None:
            return self._no_way(place, packet, way.why)
        if not source:
            return lost(place.name, f"it has no address to send from to {packet.target}", repaired(place))
        return _Routed(replace(packet, source=source), link, way.gateway, is_own=way.kind == "local")

    def _arrived(self, at: At, packet: Packet) -> End:
        """What becomes of a packet that a link brought."""
        place, link = at
        self._arrivals += 1
        if self._arrivals > _MOST_ARRIVALS:
            return lost(place.name, "it goes round and round")
        ruling = self._hook(place, "prerouting", packet, into=link)
        if isinstance(ruling, End):
            return ruling
        changed = self._redirected(place, ruling)
        self._note(place, packet, changed)
        packet = self._undone(place, changed)
        way = place.way(Asked(packet.target, packet.source, link.index, 0, packet.mark, packet.protocol))
        out = place.links.get(way.link)
        if way.kind == "local":
            ruling = self._hook(place, "input", packet, into=link)
            return ruling if isinstance(ruling, End) else _delivered(at, self._named_back(place, ruling.packet))
        if way.kind != "unicast" or out is None or self._forwards_not(place, packet):
            return self._not_forwarded(at, packet, way.why)
        return self._forwarded(at, _Routed(packet, out, way.gateway))

    def _forwarded(self, at: At, found: _Routed) -> End:
        ruling = self._hook(at.place, "forward", found.packet, into=at.link, out=found.link)
        if isinstance(ruling, End):
            return ruling
        self._say(at.place, f"forwards from {at.link.name} to {found.spelled}")
        return self._leaves(at.place, found._replace(packet=ruling.packet), at.link)

    def _leaves(self, place: Place, found: _Routed, into: Link | None = None) -> End:
        ruling = self._hook(place, "postrouting", found.packet, into=into, out=found.link)
        if isinstance(ruling, End):
            return ruling
        changed, next_hop = self._named_back(place, ruling.packet), found.gateway or found.packet.target
        if ruling.verb in ("masquerade", "snat"):
            source = ruling.value.split(" ")[0] or _source(place, found.link, next_hop)
            changed = replace(changed, source=source)
            self._say(place, f"{ruling.verb}: from {source} ({ruling.by})")
            self._note(place, found.packet, changed)
        there = self._wire.sent(At(place, found.link), next_hop, changed)
        return there if isinstance(there, End) else self._arrived(*there)

    def _to_itself(self, place: Place, found: _Routed) -> End:
        """By the loopback, where every hook is asked too."""
        loop = next((item for item in place.links.values() if item.loopback), found.link)
        if not loop.up:
            return lost(place.name, f"{loop.name} is down", f"ip link set {loop.name} up")
        packet = found.packet
        for hook, into, out in (("postrouting", None, loop), ("prerouting", loop, None), ("input", loop, None)):
            ruling = self._hook(place, hook, packet, into=into, out=out)
            if isinstance(ruling, End):
                return ruling
            packet = replace(ruling.packet, settled=True)
        return _delivered(At(place, loop), packet)

    # --- translations

    def _redirected(self, place: Place, ruling: Ruling) -> Packet:
        """A packet with the destination that rules gave it."""
        packet = ruling.packet
        if ruling.verb != "dnat":
            return packet
        address, _, port = ruling.value.partition(" ")
        led = replace(packet, target=address or packet.target, port=int(port or packet.port))
        packet = replace(led, translated=True, meant=packet.called)
        self._say(place, f"destination becomes {packet.target} port {packet.port} ({ruling.by})")
        return packet

    def _note(self, place: Place, before: Packet, after: Packet) -> None:
        if not before.reply and (before.source, before.target) != (after.source, after.target):
            self._translated.append((place, before, after))

    def _undone(self, place: Place, packet: Packet) -> Packet:
        """What comes back for a connection whose source was changed here, to whom it began with: before it is routed."""
        for where, before, after in reversed(self._translated if packet.reply else []):
            back = (packet.source, packet.target) == (after.target, after.source)
            if where is place and back and before.source != after.source:
                packet = replace(packet, target=before.source)
        return packet

    def _named_back(self, place: Place, packet: Packet) -> Packet:
        """The same of one whose destination was changed, from whom it was sent to: after it is routed, and before it leaves."""
        for where, before, after in reversed(self._translated if packet.reply else []):
            back = (packet.source, packet.target) == (after.target, after.source)
            if where is place and back and before.target != after.target:
                packet = replace(packet, source=before.target)
        return packet

    def _both_undone(self, place: Place, packet: Packet) -> Packet:
        return self._named_back(place, self._undone(place, packet))

    # --- why not

    def _no_way(self, place: Place, packet: Packet, why: str) -> End:
        said = (
            f"no route to {packet.target}" if not packet.source else f"no route from {packet.source} to {packet.target}"
        )
        if packet.source and not holds(place, packet.source):
            said = f"address {packet.source} is not there"
        return lost(place.name, f"{said} ({why})", "" if place.is_node else repaired(place))

    def _forwards_not(self, place: Place, packet: Packet) -> bool:
        return packet.family == 6 and place.setting("net.ipv6.conf.all.forwarding") != "1"

    def _not_forwarded(self, at: At, packet: Packet, why: str) -> End:
        place, link = at
        key = f"net.ipv{packet.family}.conf.{{}}.forwarding"
        forwards = "all" if packet.family == 6 else link.name.replace(".", "%")
        if place.setting(key.format(forwards)) != "1" and not holds(place, packet.target):
            if not place.is_node:
                return lost(place.name, f"it has no address {packet.target}", repaired(place))
            mend = (
                "sysctl -w net.ipv4.ip_forward=1" if packet.family == 4 else "sysctl -w net.ipv6.conf.all.forwarding=1"
            )
            return lost(place.name, f"it does not forward IPv{packet.family}", mend)
        strict = max(place.setting(f"net.ipv4.conf.{name}.rp_filter") or "0" for name in ("all", link.name))
        if why in ("EXDEV", "EINVAL") and packet.family == 4:
            says = f"{packet.source} is not taken from {link.name} (rp_filter {strict})"
            return lost(place.name, says, f"ip route get {packet.source}: the way back is another")
        return lost(place.name, f"no route to {packet.target} ({why})", f"ip route get {packet.target}")

    # --- rules

    def _hook(
        self, place: Place, hook: str, packet: Packet, *, into: Link | None = None, out: Link | None = None
    ) -> Ruling | End:
        """What rules make of a packet; its end, where they stop it, or have a program of this place take it."""
        names = into.name if into else "", out.name if out else ""
        self.last = packet
        ruling = place.rules.ruling(
            hook, Meeting(packet, *names, is_local=lambda asked: holds(place, asked), dice=self._dice)
        )
        self.doubts.extend(ruling.doubts)
        if ruling.stops:
            return stopped(
                place.name, f"{hook}{f' from {names[0]}' * bool(names[0])}{f' to {names[1]}' * bool(names[1])}", ruling
            )
        if ruling.verb not in ("redirect", "tproxy"):
            return ruling
        port = int(ruling.value.split(" ")[-1] or packet.port)
        why = f"it is redirected to port {port} of its own ({ruling.by})"
        at = At(place, into or next(iter(place.links.values())))
        return End("intercepted", place.name, why, packet=replace(ruling.packet, port=port), at=at, ruling=ruling)

    def _say(self, place: Place, what: str) -> None:
        self.hops.append(Hop(place.name, what))


def _source(place: Place, out: Link, target: str) -> str:
    """The address that masquerading gives: the one the kernel prefers towards the next hop."""
    way = place.way(Asked(target, out=out.index))
    return way.source or next(iter(place.addresses.get(out.index, ())), "")


def _delivered(at: At, packet: Packet) -> End:
    return End("delivered", at.place.name, f"arrives by {at.link.name}", packet=packet, at=at)
