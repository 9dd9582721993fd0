"""rtnetlink: one `Rtnl` speaks to one network namespace, in plain data."""

from __future__ import annotations

import errno
from contextlib import suppress
from ipaddress import IPv6Network
from typing import Any

from cni.errors import KernelRefused, Unfinished
from cni.kernel import packing, requests
from cni.kernel.codec import NEIGHBOUR, NSID, ROUTE, RULE, decoded, is_default_route
from cni.kernel.conversation import Conversation
from cni.kernel.messages import address_of, default_way_of, label_of, link_of, route_of
from cni.kernel.view import MAIN_TABLE, HeldAddress, KernelRoute, Link, Named, Under, Vxlan
from cni.naming import OWNER, IPAddress, IPInterface

_NUD_PERMANENT, _ALL_ZERO = 0x80, "00:00:00:00:00:00"
_NO_NSID = (-1, 0xFFFFFFFF)


class Rtnl(Conversation):
    """Questions and requests to one namespace: the one this thread is in when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, Link] = {}

    @classmethod
    def kept(cls) -> Rtnl:
        """The one that was given back in this process, or a new one."""
        return _kept.pop() if _kept else cls()

    def give_back(self) -> None:
        """Keep the socket for the process's next call, unless somebody left it in the middle of an answer."""
        self._known.clear()
        _kept.append(self) if self._channel.at_rest else self.close()

    # --- links

    def link(self, name: str) -> Link | None:
        """A link by name, or None."""
        link = self._one_link(packing.link(name), name)
        if link:
            self._known[name] = link
        return link

    def known(self, name: str) -> Link | None:
        """A link as it was seen last, if it is the same one still: for whatever nobody changes meanwhile."""
        seen = self._known.get(name)
        return seen if seen and seen.index == self._channel.link_index(name) else self.link(name)

    def named(self, name: str) -> Named | None:
        """A link to ask something for, or None: its index costs a tenth of all there is to say of it.

        It is asked for each time, because a link goes with its other end, or with a call of somebody else's.
        """
        index = self._channel.link_index(name)
        return Named(index, name) if index else None

    def link_at(self, index: int) -> Link | None:
        """A link by index, or None."""
        return self._one_link(packing.link(index=index), str(index))

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        return [link_of(answer) for answer in self._answers(requests.links)]

    def vxlan_ports(self) -> set[int]:
        """The UDP port of every VXLAN device, whoever made it."""
        links = (link_of(answer) for answer in self._answers(requests.links_of, "vxlan"))
        return {link.vxlan.port for link in links if link.vxlan}

    def create_bridge(self, name: str, mac: str, mtu: int) -> None:
        """Create a bridge that keeps its MAC and MTU, and set it up.

        The kernel keeps an MTU only when it was changed by hand (br_change_mtu in net/bridge); one merely
        created with follows the smallest port's. So it is created with another one first.
        """
        self._change(requests.bridge(name, mac, mtu ^ 1), f"create bridge {name}")
        self._finish(name, mtu=mtu, ifalias=OWNER, up=True)

    def filter_bridge(self, link: Link, on: bool = True) -> None:
        """Let what a bridge forwards between its ports meet packet rules, or not, whatever the global setting."""
        self._change(requests.bridge_filter(link.index, on), f"set nf_call_iptables on {link.name}")

    def create_veth(self, name: str, mac: str, mtu: int, bridge: int, peer: dict[str, Any]) -> None:
        """Create a veth pair in one step: this end up, and a port of a bridge unless that index is 0.

        `peer` has ifname, address, mtu and net_ns_fd of the other end, which is down.
        """
        self._change(packing.veth(name, mac, mtu, bridge, peer), f"create veth {name} with {peer['ifname']} in the pod")

    def create_closed_veth(self, name: str, mac: str, mtu: int, bridge: int, peer: dict[str, Any]) -> None:
        """The same with this end down: nothing passes yet, whatever is done in the pod."""
        request = packing.closed_veth(name, mac, mtu, bridge, peer)
        self._change(request, f"create veth {name} with {peer['ifname']} in the pod")

    def create_vxlan(self, name: str, mtu: int, vxlan: Vxlan) -> None:
        """Create a VXLAN device that learns where remote MACs are; it starts down."""
        self._change(requests.vxlan(name, mtu, vxlan), f"create {name} (VNI {vxlan.vni}, UDP port {vxlan.port})")
        self._finish(name, ifalias=OWNER)

    def create_macvlan(self, name: str, mac: str, mtu: int, under: Under, settings: dict[str, Any]) -> None:
        """Create a macvlan here, under its final name, on a link that may be in another namespace.

        The request is made in the new link's own namespace, so its name meets only names of that
        namespace on every kernel. `settings` are macvlan_mode and macvlan_bc_queue_len.
        """
        nsid = None if under.netns_fd is None else self._nsid(under.netns_fd)
        placed = {"link": under.index, "link_netnsid": nsid, "address": mac or None}
        self._change(requests.macvlan(name, mtu, placed, settings), f"create macvlan {name}")

    def set_link(self, link: Link | Named, *, up: bool = False, **settings: Any) -> None:
        """Set a link up, and change its mtu, master or address."""
        self._change(
            packing.link_change(link.index, up, settings),
            f"set {_spelled(settings | ({'state': 'up'} if up else {}))} on {link.name}",
        )

    def set_promiscuous(self, link: Link) -> None:
        """Make a link promiscuous."""
        self._change(requests.promiscuous(link.index), f"set promiscuous mode on {link.name}")

    def set_port(self, link: Link | Named, *, up: bool = False, **settings: int) -> None:
        """Change a bridge port: mode (hairpin), isolated, neigh_suppress, multicast_router; and set it up."""
        request = requests.port_change(link.index, settings, up)
        self._change(request, f"set {_spelled(settings)} on bridge port {link.name}")

    def delete_link(self, link: Link) -> None:
        """Delete a link; one that is gone already is deleted."""
        self._known.pop(link.name, None)
        self._change(requests.link_deletion(link.index), f"delete {link.name}", errno.ENODEV)

    # --- addresses

    def addresses(self, link: Link | Named) -> list[HeldAddress]:
        """The addresses of a link."""
        return [address_of(answer) for answer in self._answers(requests.addresses, link.index)]

    def add_address(
        self, link: Link | Named, interface: IPInterface, nodad: bool = False, deprecated: bool = False
    ) -> None:
        """Add an address; `nodad` makes an IPv6 address usable at once, `deprecated` only for who asks for it."""
        spelled = requests.deprecated_address if deprecated else packing.new_address
        self._change(spelled(link.index, interface, nodad), f"add {interface} to {link.name}")

    def delete_address(self, link: Link, interface: IPInterface) -> None:
        """Remove an address; one that is gone already is removed."""
        self._change(
            requests.address_deletion(link.index, interface),
            f"remove {interface} from {link.name}",
            errno.EADDRNOTAVAIL,
        )

    def labels(self) -> dict[str, int]:
        """The label of each IPv6 prefix, by which the kernel chooses source addresses (RFC 6724, rule 6)."""
        return dict(map(label_of, self._answers(packing.labels)))

    def add_label(self, prefix: IPv6Network, label: int, perhaps_there: bool = False) -> None:
        """Label a prefix that has no label of its own."""
        tolerated = errno.EEXIST if perhaps_there else None
        self._change(packing.new_label(prefix, label), f"label IPv6 prefixes {label}", tolerated)

    def delete_label(self, prefix: IPv6Network, label: int) -> None:
        """Take a prefix's label away; one that is gone already is taken away."""
        self._change(packing.label_deletion(prefix, label), f"remove label {label} of {prefix}", errno.ESRCH)

    # --- routes

    def routes(self, link: Link | Named, family: int) -> list[KernelRoute]:
        """Every route of a family (4 or 6) through a link, whatever its table."""
        dump = self._dump(ROUTE, requests.routes, family, "RTA_OIF", link.index)
        return [route_of(message, family) for message in dump if message.get("oif") == link.index]

    def add_route(self, link: Link | Named, route: KernelRoute, onlink: bool) -> None:
        """Add a route; `onlink` takes a gateway no address of the link covers."""
        via = f" via {route.gateway}" if route.gateway else ""
        self._change(requests.new_route(link.index, route, onlink), f"add route {route.dst}{via} dev {link.name}")

    def delete_route(self, link: Link | Named, dst: str, table: int = MAIN_TABLE) -> None:
        """Remove a route through a link; one that is gone already is removed."""
        self._change(
            requests.route_deletion(link.index, dst, table),
            f"remove route {dst} dev {link.name} table {table}",
            errno.ESRCH,
        )

    def mark_rules(self, family: int) -> set[tuple[int, int]]:
        """The policy rules of a family (4 or 6) that look a mark up: mark and table."""
        rules = self._dump(RULE, requests.rules, family)
        return {(rule.get("fwmark"), rule.get("table") or rule["table"]) for rule in rules if rule.get("fwmark")}

    def add_mark_rule(self, family: int, mark: int, table: int) -> None:
        """Look packets with a mark up in a table. The kernel adds a second one like it without a word."""
        self._change(requests.new_mark_rule(family, mark, table), f"add rule fwmark {mark} lookup {table}")

    def delete_mark_rule(self, family: int, mark: int, table: int) -> None:
        """Remove such a rule; one that is gone already is removed."""
        self._change(
            requests.mark_rule_deletion(family, mark, table), f"remove rule fwmark {mark} lookup {table}", errno.ENOENT
        )

    def way_to(self, address: IPAddress) -> int:
        """The index of the link packets to an address leave by, or 0."""
        with suppress(KernelRefused):
            answer = self._channel.question(requests.way(f"{address}/{address.max_prefixlen}"))
            return int(decoded(ROUTE, answer).get("oif") or 0)
        return 0

    def default_way(self) -> int:
        """The index of the link with the best default route of the main table, IPv4's before IPv6's; or 0."""
        return self._default_way(4) or self._default_way(6)

    def _default_way(self, family: int) -> int:
        """What a lookup says, else what all routes do: a full node has one for each pod."""
        with suppress(KernelRefused):
            if found := default_way_of(self._channel.question(requests.usual_way(family))):
                return found
        return self._best_default(family)

    def _best_default(self, family: int) -> int:
        routes = self._dump(ROUTE, requests.routes, family, "RTA_TABLE", MAIN_TABLE, taken=is_default_route)
        ways = [(route.get("priority") or 0, route.get("oif")) for route in routes if route.get("oif")]
        return min(ways, default=(0, 0))[1]

    # --- neighbours, and the forwarding database of a VXLAN device

    def add_neighbour(self, link: Link, address: str, mac: str) -> None:
        """Make a neighbour known for good, replacing what was learned."""
        self._change(requests.new_neighbour(link.index, address, mac), f"add neighbour {address} {mac} dev {link.name}")

    def delete_neighbour(self, link: Link, address: str) -> None:
        """Forget a neighbour; one that is gone already is forgotten."""
        self._change(
            requests.neighbour_deletion(link.index, address),
            f"remove neighbour {address} dev {link.name}",
            errno.ENOENT,
        )

    def neighbours(self, link: Link) -> dict[str, str]:
        """The permanent neighbours of a link: MACs by address."""
        entries = self._dump(NEIGHBOUR, requests.neighbours, link.index)
        lasting = [entry for entry in entries if entry["ifindex"] == link.index and entry["state"] & _NUD_PERMANENT]
        return {str(entry.get("dst")): str(entry.get("lladdr")) for entry in lasting}

    def flood_targets(self, link: Link) -> set[str]:
        """The VTEPs that get what has no known destination (the all-zero FDB entries)."""
        entries = self._dump(NEIGHBOUR, requests.neighbours, link.index, True)
        ours = [entry for entry in entries if entry["ifindex"] == link.index and entry.get("lladdr") == _ALL_ZERO]
        return {str(entry.get("dst")) for entry in ours if entry.get("dst")}

    def add_flood_target(self, link: Link, vtep: str) -> None:
        """Send broadcast, unknown unicast and multicast to one more VTEP."""
        self._change(requests.new_flood_target(link.index, vtep), f"add VTEP {vtep} to {link.name}", errno.EEXIST)

    def delete_flood_target(self, link: Link, vtep: str) -> None:
        """Stop sending to a VTEP."""
        self._change(
            requests.flood_target_deletion(link.index, vtep), f"remove VTEP {vtep} from {link.name}", errno.ENOENT
        )

    # --- what others here ask with

    def _finish(self, name: str, **settings: Any) -> None:
        """Set what a link cannot be created with. Raises Unfinished."""
        try:
            if link := self.link(name):
                self.set_link(link, **settings)
                return
        except KernelRefused as error:
            raise Unfinished(error.msg, error.errno) from None
        raise Unfinished(f"{name} vanished while it was being made", errno.ENODEV)

    def _nsid(self, fd: int) -> int:
        """The number this namespace knows another by; rtnetlink gives it one at the first use."""
        known = self._known_nsid(fd)
        if known in _NO_NSID:
            self._change(requests.new_nsid(fd), "number a namespace", errno.EEXIST)
            known = self._known_nsid(fd)
        return known

    def _known_nsid(self, fd: int) -> int:
        answer = self._question(requests.nsid(fd), "look up a namespace's number")
        return int(decoded(NSID, answer).get_attr("NETNSA_NSID"))

    def _one_link(self, question: bytes, which: str) -> Link | None:
        try:
            return link_of(self._channel.question(question))
        except KernelRefused as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ERANGE):
                return None
            raise KernelRefused(f"look up link {which}: {error.msg}", error.errno) from None


_kept: list[Rtnl] = []


def _spelled(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())
