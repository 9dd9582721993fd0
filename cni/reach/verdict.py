"""Whether one end reaches another: there, and back with the answer."""

from __future__ import annotations

from typing import NamedTuple

from cni.reach.hops import End, Hop
from cni.reach.packet import Packet
from cni.reach.place import At, Map, Place
from cni.reach.rules import Dice
from cni.reach.walk import Walk

REACHED, DENIED, LOST, UNKNOWN = "reached", "denied", "lost", "unknown"
_WORSE = (REACHED, UNKNOWN, LOST, DENIED)
#: Endpoints of a Service beyond which nobody reads on.
_MOST_CHOICES = 32


class Verdict(NamedTuple):
    """What becomes of a connection: `state` is reached, denied, lost or unknown, and `why` says it in a line. `listens` says whether
    somebody takes it, if it arrives; `hops` are those of the way there, `back` those of the answer's, `end` is the last of either,
    and `mend` what would change it. `intercepted` names the port of a proxy that takes it first, and `source` is the address it is sent from.
    """

    state: str
    why: str
    packet: Packet
    hops: tuple[Hop, ...] = ()
    back: tuple[Hop, ...] = ()
    end: End | None = None
    mend: str = ""
    listens: bool | None = None
    doubts: tuple[str, ...] = ()
    intercepted: int = 0
    source: str = ""


def verdict(of: Map, source: Place, target: Place | None, packet: Packet) -> Verdict:
    """What becomes of a packet that is sent at `source`, and of the answer; `target` is where it is to arrive, None if not here. Of
    several that chance decides between, as of a Service's endpoints, each is tried: all have to be reached.
    """
    dice = Dice()
    every = [_fallen(of, source, target, packet, dice)]
    while dice.pick + 1 < min(dice.sides, _MOST_CHOICES):
        dice = Dice(dice.pick + 1)
        every.append(_fallen(of, source, target, packet, dice))
    worst = max(every, key=lambda found: _WORSE.index(found.state))
    if len(every) == 1:
        return worst
    places = [f"{found.packet.target}:{found.packet.port} ({found.state})" for found in every]
    chosen = Hop("chance", f"it is one of {', '.join(dict.fromkeys(places))}")
    return worst._replace(hops=(chosen, *worst.hops), why=f"of {len(every)} choices one: {worst.why}")


def _fallen(of: Map, source: Place, target: Place | None, packet: Packet, dice: Dice) -> Verdict:
    walk = Walk(of, dice)
    end = walk.sent(source, packet)
    found = _judged(end, packet)._replace(packet=walk.last or packet, hops=tuple(walk.hops))
    if end.kind in ("delivered", "beyond", "intercepted"):
        walk.hops.clear()
        found = _arrived(walk, end, source, target, found._replace(packet=end.packet or packet))
        found = found._replace(back=tuple(walk.hops) if found.state != UNKNOWN else ())
    found = found._replace(doubts=tuple(walk.doubts), source=walk.source)
    if walk.doubts and found.state != UNKNOWN:
        return found._replace(state=UNKNOWN, why=f"{found.why}, unless {walk.doubts[0]}")
    return found


def _judged(end: End, packet: Packet) -> Verdict:
    state = {"denied": DENIED, "refused": DENIED, "lost": LOST, "beyond": UNKNOWN}.get(end.kind, REACHED)
    return Verdict(state, f"at {end.where}: {end.why}", packet, end=end, mend=end.mend)


def _arrived(walk: Walk, end: End, source: Place, target: Place | None, found: Verdict) -> Verdict:
    """What becomes of the answer to what got somewhere."""
    packet, at = end.packet, end.at
    assert packet
    assert at
    if end.kind == "beyond":
        return _beyond(walk, end, source, found)
    listens = packet.protocol == "icmp" or at.place.listens(packet.protocol, packet.port, packet.target)
    found = found._replace(listens=listens)
    if end.kind == "intercepted":
        return _intercepted(found, end, packet)
    if target is not None and at.place is not target:
        why = f"{packet.target} is {at.place.name}'s, where it arrives instead"
        return found._replace(state=LOST, why=why, mend="agent-cni doctor")
    if packet.protocol == "icmp" and _is_silent(at, packet):
        return found._replace(state=LOST, why=f"{at.place.name} answers no echo (sysctl icmp_echo_ignore_all)")
    answer = packet.answer(error=packet.protocol == "udp" and not listens)
    back = End("delivered", source.name, at=at) if at.place is source else walk.sent(at.place, answer)
    if back.packet and packet.translated and back.packet.source == packet.target:
        why = f"the answer comes from {packet.target}, past where the destination was changed"
        return found._replace(
            state=LOST, why=why, mend="sysctl net.bridge.bridge-nf-call-iptables=1, or hairpin masquerading"
        )
    return _answered(found, back, source)


def _answered(found: Verdict, back: End, source: Place) -> Verdict:
    if back.kind == "delivered" and back.at and back.at.place is source:
        nobody = f", nobody listens at {found.packet.protocol} {found.packet.port}"
        return found._replace(why=found.why + nobody * (found.listens is False), end=back)
    state = DENIED if back.kind in ("denied", "refused") else LOST
    why = f"it arrives, and the answer does not: at {back.where}: {back.why}"
    return found._replace(state=state, why=why, end=back, mend=back.mend)


def _intercepted(found: Verdict, end: End, packet: Packet) -> Verdict:
    found = found._replace(intercepted=packet.port)
    if found.listens:
        return found._replace(state=UNKNOWN, why=f"{found.why}: what follows is the proxy's")
    return found._replace(state=LOST, why=f"{found.why}, and nobody listens there", mend="start the proxy")


def _beyond(walk: Walk, end: End, source: Place, found: Verdict) -> Verdict:
    """What an answer would meet here: it comes back by the same link."""
    assert end.packet
    assert end.at
    back = walk.came(end.at, end.packet.answer())
    if back.kind in ("denied", "refused", "lost"):
        return _answered(found, back, source)
    return found._replace(why=f"{found.why}; what becomes of it there is not known here")


def _is_silent(at: At, packet: Packet) -> bool:
    key = "net.ipv4.icmp_echo_ignore_all" if packet.family == 4 else "net.ipv6.icmp.echo_ignore_all"
    return at.place.setting(key) == "1"
