"""rtnetlink: the only place that knows pyroute2. One `Rtnl` speaks to one network namespace."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cni.errors import KernelRefused
from cni.kernel.messages import FAMILY, address_of, link_of, route_of
from cni.kernel.view import MAIN_TABLE, HeldAddress, IPInterface, KernelRoute, Link, Under, Vxlan
from cni.naming import IPAddress

_IFF_PROMISC, _IFA_F_NODAD = 0x100, 0x02
_NTF_SELF, _FLOOD_STATE, _ALL_ZERO = 0x02, 0x80 | 0x40, "00:00:00:00:00:00"
_RTNH_F_ONLINK = 4
_SCOPE_NOWHERE = 255  # in a deletion: whatever the scope
_NUD_PERMANENT = 0x80
_NO_NSID = (-1, 0xFFFFFFFF)
_DUMP_TRIES = 5


# pyroute2 0.9.7 knows macvlan's attributes up to IFLA_MACVLAN_MACADDR_COUNT only (linux/if_link.h)
macvlan_data = ifinfmsg.ifinfo.macvlan_data
macvlan_data.nla_map = (*macvlan_data.nla_map, ("IFLA_MACVLAN_BC_QUEUE_LEN", "uint32"))


class Rtnl:
    """Questions and requests to one namespace: the one this thread is in when it is opened."""

    def __init__(self) -> None:
        self._ip = IPRoute(ext_ack=True, strict_check=True)

    def close(self) -> None:
        """Close the socket."""
        self._ip.close()

    # --- links

    def link(self, name: str) -> Link | None:
        """A link by name, or None."""
        return self._one_link(ifname=name)

    def link_at(self, index: int) -> Link | None:
        """A link by index, or None."""
        return self._one_link(index=index)

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        return [link_of(message) for message in self._dump(lambda: self._ip.link("dump"))]

    def create_bridge(self, name: str, mac: str, mtu: int) -> None:
        """Create a bridge that keeps its MAC and MTU, and set it up.

        The kernel keeps an MTU only when it was changed by hand (br_change_mtu in net/bridge); one merely
        created with follows the smallest port's. So it is created with another one first.
        """
        with _asking(f"create bridge {name}"):
            self._ip.link("add", kind="bridge", ifname=name, address=mac, mtu=mtu ^ 1)
        self.set_link(self._made(name), mtu=mtu, state="up")

    def filter_bridge(self, link: Link) -> None:
        """Let what a bridge forwards between its ports meet packet rules, whatever the global setting."""
        with _asking(f"set nf_call_iptables on {link.name}"):
            self._ip.link("set", index=link.index, kind="bridge", br_nf_call_iptables=1, br_nf_call_ip6tables=1)

    def create_veth(self, name: str, mac: str, mtu: int, peer: dict[str, Any]) -> None:
        """Create a veth pair; `peer` has ifname, address, mtu and net_ns_fd of the other end."""
        with _asking(f"create veth {name} with {peer['ifname']} in the pod"):
            self._ip.link("add", kind="veth", ifname=name, address=mac, mtu=mtu, peer=peer)

    def create_vxlan(self, name: str, mtu: int, vxlan: Vxlan) -> None:
        """Create a VXLAN device that learns where remote MACs are; it starts down."""
        local = "vxlan_local6" if ":" in vxlan.local else "vxlan_local"
        placed = {local: vxlan.local, "vxlan_link": vxlan.dev}
        placed = {key: value for key, value in placed.items() if value}
        with _asking(f"create {name} (VNI {vxlan.vni}, UDP port {vxlan.port})"):
            self._ip.link(
                "add", kind="vxlan", ifname=name, mtu=mtu,
                vxlan_id=vxlan.vni, vxlan_port=vxlan.port, vxlan_learning=1, **placed,
            )  # fmt: skip

    def create_macvlan(self, name: str, mac: str, mtu: int, under: Under, settings: dict[str, Any]) -> None:
        """Create a macvlan here, under its final name, on a link that may be in another namespace.

        The request is made in the new link's own namespace, so its name meets only names of that
        namespace on every kernel. `settings` are macvlan_mode and macvlan_bc_queue_len.
        """
        elsewhere = {} if under.netns_fd is None else {"link_netnsid": self._nsid(under.netns_fd)}
        placed = {"link": under.index, **elsewhere, **({"address": mac} if mac else {})}
        with _asking(f"create macvlan {name}"):
            self._ip.link("add", kind="macvlan", ifname=name, mtu=mtu, **placed, **settings)

    def set_link(self, link: Link, **settings: Any) -> None:
        """Change a link: state, mtu, master, address, as pyroute2 names them."""
        with _asking(f"set {_spelled(settings)} on {link.name}"):
            self._ip.link("set", index=link.index, **settings)

    def set_promiscuous(self, link: Link) -> None:
        """Make a link promiscuous."""
        with _asking(f"set promiscuous mode on {link.name}"):
            self._ip.link("set", index=link.index, flags=_IFF_PROMISC, change=_IFF_PROMISC)

    def set_port(self, link: Link, **settings: int) -> None:
        """Change a bridge port: mode (hairpin), isolated, neigh_suppress."""
        with _asking(f"set {_spelled(settings)} on bridge port {link.name}"):
            self._ip.brport("set", index=link.index, **settings)

    def delete_link(self, link: Link) -> None:
        """Delete a link; one that is gone already is deleted."""
        with _asking(f"delete {link.name}", tolerate=errno.ENODEV):
            self._ip.link("del", index=link.index)

    # --- addresses

    def addresses(self, link: Link) -> list[HeldAddress]:
        """The addresses of a link."""
        return [address_of(message) for message in self._dump(lambda: self._ip.addr("dump", index=link.index))]

    def add_address(self, link: Link, interface: IPInterface, nodad: bool = False) -> None:
        """Add an address; `nodad` makes an IPv6 address usable at once."""
        with _asking(f"add {interface} to {link.name}"):
            self._ip.addr("add", **_addressed(link, interface), **({"flags": _IFA_F_NODAD} if nodad else {}))

    def delete_address(self, link: Link, interface: IPInterface) -> None:
        """Remove an address; one that is gone already is removed."""
        with _asking(f"remove {interface} from {link.name}", tolerate=errno.EADDRNOTAVAIL):
            self._ip.addr("del", **_addressed(link, interface))

    # --- routes

    def routes(self, link: Link, family: int) -> list[KernelRoute]:
        """Every route of a family (4 or 6) through a link, whatever its table."""
        dump = self._dump(lambda: self._ip.route("dump", family=FAMILY[family], oif=link.index))
        return [route_of(message, family) for message in dump if message.get("oif") == link.index]

    def add_route(self, link: Link, route: KernelRoute, onlink: bool) -> None:
        """Add a route; `onlink` takes a gateway no address of the link covers."""
        metrics = {key: value for key, value in (("mtu", route.mtu), ("advmss", route.advmss)) if value}
        wanted: dict[str, Any] = {
            "family": FAMILY[ipaddress.ip_network(route.dst).version],
            "dst": route.dst, "oif": link.index, "table": route.table,
            "scope": route.scope, "proto": "boot",
        }  # fmt: skip
        wanted |= {"gateway": route.gateway} if route.gateway else {}
        wanted |= {"prefsrc": route.source} if route.source else {}
        wanted |= {"priority": route.priority} if route.priority else {}
        wanted |= {"metrics": metrics} if metrics else {}
        wanted |= {"flags": _RTNH_F_ONLINK} if onlink else {}
        wanted |= {"type": "local"} if route.local else {}
        via = f" via {route.gateway}" if route.gateway else ""
        with _asking(f"add route {route.dst}{via} dev {link.name}"):
            self._ip.route("add", **wanted)

    def delete_route(self, link: Link, dst: str, table: int = MAIN_TABLE) -> None:
        """Remove a route through a link; one that is gone already is removed."""
        family = FAMILY[ipaddress.ip_network(dst).version]
        with _asking(f"remove route {dst} dev {link.name} table {table}", tolerate=errno.ESRCH):
            self._ip.route("del", family=family, dst=dst, oif=link.index, table=table, scope=_SCOPE_NOWHERE)

    def mark_rules(self, family: int) -> set[tuple[int, int]]:
        """The policy rules of a family (4 or 6) that look a mark up: mark and table."""
        rules = self._dump(lambda: self._ip.rule("dump", family=FAMILY[family]))
        return {(rule.get("fwmark"), rule.get("table") or rule["table"]) for rule in rules if rule.get("fwmark")}

    def add_mark_rule(self, family: int, mark: int, table: int) -> None:
        """Look packets with a mark up in a table. The kernel adds a second one like it without a word."""
        with _asking(f"add rule fwmark {mark} lookup {table}"):
            self._ip.rule("add", family=FAMILY[family], fwmark=mark, table=table)

    def delete_mark_rule(self, family: int, mark: int, table: int) -> None:
        """Remove such a rule; one that is gone already is removed."""
        with _asking(f"remove rule fwmark {mark} lookup {table}", tolerate=errno.ENOENT):
            self._ip.rule("del", family=FAMILY[family], fwmark=mark, table=table)

    def add_neighbour(self, link: Link, address: str, mac: str) -> None:
        """Make a neighbour known for good, replacing what was learned."""
        family = FAMILY[ipaddress.ip_address(address).version]
        with _asking(f"add neighbour {address} {mac} dev {link.name}"):
            self._ip.neigh("replace", family=family, dst=address, lladdr=mac, ifindex=link.index, state="permanent")

    def delete_neighbour(self, link: Link, address: str) -> None:
        """Forget a neighbour; one that is gone already is forgotten."""
        family = FAMILY[ipaddress.ip_address(address).version]
        with _asking(f"remove neighbour {address} dev {link.name}", tolerate=errno.ENOENT):
            self._ip.neigh("del", family=family, dst=address, ifindex=link.index)

    def neighbours(self, link: Link) -> dict[str, str]:
        """The permanent neighbours of a link: MACs by address."""
        entries = self._dump(lambda: self._ip.neigh("dump", ifindex=link.index))
        lasting = [entry for entry in entries if entry["ifindex"] == link.index and entry["state"] & _NUD_PERMANENT]
        return {str(entry.get("dst")): str(entry.get("lladdr")) for entry in lasting}

    def way_to(self, address: IPAddress) -> int:
        """The index of the link packets to an address leave by, or 0."""
        try:
            answer = list(self._ip.route("get", dst=str(address), family=FAMILY[address.version]))
        except NetlinkError:
            return 0
        return int(answer[0].get("oif") or 0)

    def default_ways(self) -> list[int]:
        """The indices of the links with a default route in the main table, best first."""
        return [*self._default_ways(4), *self._default_ways(6)]

    def _default_ways(self, family: int) -> list[int]:
        routes = self._dump(lambda: self._ip.route("dump", family=FAMILY[family], table=MAIN_TABLE))
        ways = [(r.get("priority") or 0, r.get("oif")) for r in routes if r["dst_len"] == 0 and r.get("oif")]
        return [index for _, index in sorted(ways)]

    # --- forwarding database of a VXLAN device

    def flood_targets(self, link: Link) -> set[str]:
        """The VTEPs that get what has no known destination (the all-zero FDB entries)."""
        entries = self._dump(lambda: self._ip.fdb("dump", ifindex=link.index))
        return {
            str(entry.get("dst"))
            for entry in entries
            if entry["ifindex"] == link.index and entry.get("lladdr") == _ALL_ZERO and entry.get("dst")
        }

    def add_flood_target(self, link: Link, vtep: str) -> None:
        """Send broadcast, unknown unicast and multicast to one more VTEP."""
        with _asking(f"add VTEP {vtep} to {link.name}", tolerate=errno.EEXIST):
            self._ip.fdb("append", ifindex=link.index, lladdr=_ALL_ZERO, dst=vtep, flags=_NTF_SELF, state=_FLOOD_STATE)

    def delete_flood_target(self, link: Link, vtep: str) -> None:
        """Stop sending to a VTEP."""
        with _asking(f"remove VTEP {vtep} from {link.name}", tolerate=errno.ENOENT):
            self._ip.fdb("del", ifindex=link.index, lladdr=_ALL_ZERO, dst=vtep, flags=_NTF_SELF)

    # --- how the kernel is asked

    def _made(self, name: str) -> Link:
        link = self.link(name)
        if link is None:
            raise KernelRefused(f"{name} vanished while it was being made", errno.ENODEV)
        return link

    def _nsid(self, fd: int) -> int:
        """The number this namespace knows another by; rtnetlink gives it one at the first use."""
        known = self._ip.get_netnsid(fd=fd)["nsid"]
        if known in _NO_NSID:
            with _asking("number a namespace", tolerate=errno.EEXIST):
                self._ip.set_netnsid(fd=fd)
            known = self._ip.get_netnsid(fd=fd)["nsid"]
        return int(known)

    def _one_link(self, **which: Any) -> Link | None:
        try:
            return link_of(next(iter(self._ip.link("get", **which))))
        except NetlinkError as error:
            if error.code in (errno.ENODEV, errno.EINVAL):
                return None
            raise KernelRefused(f"look up link {which}: {_reason(error)}", error.code) from None

    def _dump(self, ask: Callable[[], Any]) -> list[Any]:
        """A dump that a concurrent change interrupted is taken again (rtnetlink NLM_F_DUMP_INTR)."""
        for _ in range(_DUMP_TRIES):
            try:
                return list(ask())
            except NetlinkDumpInterrupted:
                continue
            except NetlinkError as error:
                raise KernelRefused(f"rtnetlink dump: {_reason(error)}", error.code) from None
        raise KernelRefused(f"rtnetlink dump interrupted {_DUMP_TRIES} times", errno.EINTR)


@contextmanager
def _asking(what: str, tolerate: int | None = None) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != tolerate:
            raise KernelRefused(f"{what}: {_reason(error)}", error.code) from None


def _reason(error: NetlinkError) -> str:
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def _spelled(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _addressed(link: Link, interface: IPInterface) -> dict[str, Any]:
    return {
        "index": link.index,
        "family": FAMILY[interface.version],
        "address": str(interface.ip),
        "prefixlen": interface.network.prefixlen,
    }
