"""What keeps packets of pods from their way though all of ours is as it was made: another's route, another's address, another's rules.

Asked of the node alone, and of every pod; nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cni.kernel.netlink.lookups import Asked, Way
from cni.kernel.view import Link
from cni.reach.hops import End
from cni.reach.packet import Packet, asked
from cni.reach.place import At, Map, Place
from cni.reach.rules import Dice
from cni.reach.walk import Walk

#: Someone of the world outside by family, and what he may be asked: who is to leave a node can send to him.
_OUTSIDE = {4: "1.1.1.1", 6: "2606:4700:4700::1111"}
_TCP, _PORT = "tcp", 443
_ENDS = ("denied", "refused")
#: What our tables begin with, after their family.
_OURS = " agent_cni"


class Stand(NamedTuple):
    """Where a pod's address is on its node: by which link it is sent to, and by which what it sends comes in."""

    address: str
    link: str
    port: str


class Astray(NamedTuple):
    """What is wrong, and what mends that; rules of somebody else may be `meant`."""

    line: str
    mend: str
    meant: bool = False


def astray(node: Place, stand: Stand) -> Iterator[Astray]:
    """What becomes of packets to and from one address of a pod, if it is not what is to."""
    by_name = {link.name: link for link in node.links.values()}
    link, port = by_name.get(stand.link), by_name.get(stand.port)
    if link is None or port is None:
        return
    past = list(_there(node, stand.address, link))
    yield from past
    if past:  # what the kernel says against the other direction follows from it
        return
    outside = _OUTSIDE[6 if ":" in stand.address else 4]
    if node.way(Asked(outside)).kind != "unicast":
        return
    way = node.way(Asked(outside, stand.address, link.index))
    if way.kind == "unicast":
        end = Walk(Map([node]), Dice()).came(At(node, port), asked(stand.address, outside, _TCP, _PORT))
        yield from _barred(end, "what pods send out")
    else:
        yield _not_taken(stand.address, link, outside, way)


def closed(node: Place, vtep: str, port: int) -> Iterator[Astray]:
    """What rules of the node make of a tunnel's packets from and to another host."""
    way = node.way(Asked(vtep))
    link = node.links.get(way.link)
    if way.kind != "unicast" or link is None or not way.source:
        return
    into, out = asked(vtep, way.source, "udp", port), asked(way.source, vtep, "udp", port)
    came = Walk(Map([node]), Dice()).came(At(node, link), into)
    yield from _barred(came, f"what other hosts' tunnels send (UDP port {port})")
    yield from _barred(_sent(node, out), f"what the tunnel sends to other hosts (UDP port {port})")


def _sent(node: Place, packet: Packet) -> End:
    return Walk(Map([node]), Dice()).sent(node, packet)


def _there(node: Place, address: str, link: Link) -> Iterator[Astray]:
    """By which way the node sends to a pod: a longer or an older route of somebody else may lead past it."""
    way = node.way(Asked(address))
    if way.kind == "local":
        holder = next((node.links[index].name for index, held in node.addresses.items() if address in held), "lo")
        line = f"the node itself has {address}, on {holder}, and takes what is sent to the pod"
        yield Astray(line, f"ip address show to {address}; delete it from {holder}")
    elif way.kind != "unicast" or way.link != link.index:
        other = node.links.get(way.link)
        leads = f"by {other.name}{f' via {way.gateway}' if way.gateway else ''}" if other else f"nowhere ({way.why})"
        kind = "-6 " if ":" in address else ""
        line = f"a route of somebody else leads what is sent to pods on {link.name} {leads}"
        yield Astray(line, f"ip {kind}route show match {address} says which; delete that, or choose another subnet")


def _not_taken(address: str, link: Link, outside: str, way: Way) -> Astray:
    line = f"the node forwards nothing that comes from {address} by {link.name} ({way.why})"
    return Astray(line, f"ip rule show; ip route get {outside} from {address} iif {link.name}")


def _barred(end: End, what: str) -> Iterator[Astray]:
    """Rules that are not ours, which drop it."""
    if end.kind in _ENDS and end.ruling and end.ruling.chain and _OURS not in end.ruling.chain.table:
        line = f"rules of somebody else drop {what}: {end.ruling.by}"
        yield Astray(
            line, "let it through there, if that is not meant; agent-cni reach POD ADDRESS says each step", meant=True
        )
