"""Who this host is in its cluster: which machine, which life of it, and where others send to."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cni import uplink
from cni.cluster.config import ClusterConfig, is_a_hosts
from cni.cluster.model import Node
from cni.errors import Unavailable
from cni.kernel.netlink import Rtnl
from cni.kernel.netns import boot
from cni.member.uplinks import way
from cni.naming import vtep_mac
from cni.overlay import wireguard
from cni.resources import UplinkQuery
from cni.state.membership import Member
from cni.values import replace

_MACHINE_ID = Path("/etc/machine-id")
_MACHINE = re.compile(r"[0-9a-f]{32}")
_NO_TUNNEL_YET = "encryption: the tunnels of this host are not there yet"
_NONE_YET = ("", "uninitialized")


def machine_id(path: Path = _MACHINE_ID) -> str:
    """Which machine this is (machine-id(5)). Raises Unavailable where nobody has said so."""
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = f"cannot be read: {error}"
    else:
        if _MACHINE.fullmatch(found) and set(found) != {"0"}:
            return found
        why = "is empty" if found in _NONE_YET else f"says {found[:40]!r}"
    raise Unavailable(f"{path} {why}: a cluster tells machines apart by it (systemd-machine-id-setup makes one)")


def this_host(config: ClusterConfig, machine: str, before: Member | None, said: str = "") -> Member:
    """This host as its configuration has it, and else where it is `said` to be; it goes on with what it was before in this boot. Raises
    Unavailable where nobody could send to it, and KernelRefused.
    """
    address = config.vtep or _by_uplinks(config.uplinks, address_of(before)) or _found(address_of(before), said)
    mac = vtep_mac("", f"{machine} {config.node}")
    if before and (before.node, before.machine) == (config.node, machine) and _is_of_this_boot(before.token):
        return placed(replace(before, mac=mac), config.encryption, address)
    return placed(Member(config.node, machine, new_token(), address, mac), config.encryption, address)


def address_of(before: Member | None) -> str:
    """The address others sent to, outside of tunnels; empty of a host that was not there."""
    return (before.underlay or before.vtep) if before else ""


def node_of(
    member: Member, config: ClusterConfig, key: str = "", guest_of: Iterable[str] = (), uplinks: tuple[str, ...] = ()
) -> Node:
    """What the others are to know of it; `key` is its public one, if any, `guest_of` the networks it has no pod of, `uplinks` its
    addresses.
    """
    node = Node(
        member.node, member.machine, member.vtep, member.mac, fences=config.free_after, guest_of=tuple(guest_of),
        uplinks=uplinks,
    )  # fmt: skip
    if not key:
        return node
    return replace(node, wireguard=key, underlay=wireguard.underlay(member.underlay, config.wireguard_port))


def placed(member: Member, encryption: str, address: str) -> Member:
    """A host whose address is known, in tunnels or not; in one that begin now, nobody has been."""
    if not encryption:
        return replace(member, vtep=address, underlay="", encryption="", no_tunnel="")
    vtep = wireguard.vtep(member.node)
    why = member.no_tunnel if member.encryption == encryption else _NO_TUNNEL_YET
    return replace(member, vtep=vtep, underlay=address, encryption=encryption, no_tunnel=why)


def new_token() -> str:
    """By what a life of this host is known, in this boot."""
    return f"{boot()}:{os.urandom(16).hex()}"


def _is_of_this_boot(token: str) -> bool:
    return token.startswith(f"{boot()}:")


def _by_uplinks(names: Sequence[str], before: str) -> str:
    """The address of one of the links that are to be its uplinks; empty where none are."""
    if not names:
        return ""
    host = Rtnl()  # a thread's own
    try:
        found = way.address(way.ways(host, names, before), before)
    finally:
        host.close()
    if not found:
        raise Unavailable(f"others cannot send to this host: none of its uplinks, {', '.join(names)}, has an address")
    return found


def _found(before: str, said: str) -> str:
    """The address that is said to be this host's, where it has it; else one of the default route's link: the same as before while it is
    there, or IPv4's first.
    """
    host = Rtnl()  # a thread's own
    try:
        if said and is_a_hosts(said) and host.holding(ipaddress.ip_address(said)):
            return said
        link = uplink.find(host, UplinkQuery(addresses=True))
    finally:
        host.close()
    held = [str(ipaddress.ip_interface(text).ip) for text in link.addresses] if link else []
    if not held:
        why = f"{link.name} has no address" if link else "this host has no default route"
        raise Unavailable(f"others cannot send to this host: {why} (vtep of cluster.json says which address it is)")
    return before if before in held else min(held, key=lambda text: ":" in text)
