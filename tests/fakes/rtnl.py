"""A namespace whose rtnetlink is a few dataclasses. It keeps `rtnl_contract`, as the kernel does."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network
from itertools import count
from typing import Any, Unpack

from cni.errors import KernelRefused
from cni.kernel.netlink.addresses import AddressSettings
from cni.kernel.netlink.linkinfo import PortSettings
from cni.kernel.netlink.links import LinkSettings
from cni.kernel.view import (
    ANSWERS,
    ASKED,
    FIXED,
    MAIN_TABLE,
    SILENT,
    UPLINK,
    HeldAddress,
    KernelRoute,
    Link,
    LinkRef,
    MacvlanSettings,
    VethEnd,
    Vxlan,
)
from cni.naming import OWNER, IPAddress, IPInterface
from cni.values import replace

_FACTS = {"mtu": "mtu", "master": "bridge", "address": "mac", "ifalias": "alias"}
_SWITCHES = ("learning", "flood", "mcast_flood", "bcast_flood")
_NO_PORT: dict[str, Any] = {
    "hairpin": False,
    "isolated": False,
    "neigh_suppress": False,
    "multicast_router": 0,
    "switched_off": (),
}


class FakeRtnl:
    """One namespace. `asked` lists what was changed; `refusals` maps a request to an errno.

    Unlike the kernel it gives nobody addresses or routes of its own accord.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refusals: dict[str, int] = {}
        self.all: dict[str, Link] = {}
        self.held: dict[str, list[IPInterface]] = defaultdict(list)
        self.ways: dict[str, list[KernelRoute]] = defaultdict(list)
        self.heard: set[str] = set()
        self.known: dict[str, dict[str, str]] = defaultdict(dict)
        self.behind: dict[str, dict[str, str]] = defaultdict(dict)
        self.flooded: dict[str, set[str]] = defaultdict(set)
        #: How a neighbour is known, by link and address.
        self.reach: dict[tuple[str, str], str] = {}
        self.refused: set[str] = set()
        self._refusals: set[tuple[str, int]] = set()
        self._version: dict[str, int] = defaultdict(lambda: 4)
        self._makers: dict[tuple[str, object], int] = {}
        self._scopes: dict[tuple[str, IPInterface], int] = {}
        self._elsewhere: set[tuple[str, str]] = set()
        self._labels = {"::/0": 1}
        self._marks: dict[int, set[tuple[int, int]]] = defaultdict(set)
        self._indices = count(1)
        self._seen: dict[str, Link] = {}
        self._batch: list[Callable[[], None]] | None = None
        self.add("lo", mac="00:00:00:00:00:00", mtu=65536, up=False, state="DOWN", loopback=True)

    def add(self, name: str, kind: str = "", **facts: Any) -> Link:
        """Let a link exist."""
        index = next(self._indices)
        link = Link(index, name, kind, "0a:00:00:00:00:01", 1500, True, "UP", 0, False, False, False, False, None)
        self.all[name] = replace(link, **facts)
        return self.all[name]

    def close(self) -> None: ...

    @contextmanager
    def batch(self) -> Iterator[None]:
        changes: list[Callable[[], None]] = []
        self._batch = changes
        try:
            yield
        finally:
            self._batch = None
        first: KernelRefused | None = None
        for change in changes:
            try:
                change()
            except KernelRefused as error:
                first = first or error
        if first:
            raise first

    def _change(self, text: str, make: Callable[[], None]) -> None:
        def change() -> None:
            self.asked.append(text)
            if (word := text.split(maxsplit=1)[0]) in self.refusals:
                raise KernelRefused(text, self.refusals[word])
            make()

        change() if self._batch is None else self._batch.append(change)

    def _at(self, link: Link | LinkRef | int) -> Link:
        """The link as it is now."""
        index = link if isinstance(link, int) else link.index
        found = self.link_by_index(index)
        _need(found is not None, errno.ENODEV)
        assert found
        return found

    def _set(self, link: Link | LinkRef, **facts: Any) -> None:
        now = self._at(link)
        self.all[now.name] = replace(now, **facts)

    def forget_seen(self) -> None:
        self._seen.clear()

    # --- links

    def link_by_name(self, name: str) -> Link | None:
        found = self.all.get(name)
        if found:
            self._seen[name] = found
        return found

    def link_by_index(self, index: int) -> Link | None:
        return next((link for link in self.all.values() if link.index == index), None)

    def cached_link(self, name: str) -> Link | None:
        seen, now = self._seen.get(name), self.all.get(name)
        return seen if seen and now and seen.index == now.index else self.link_by_name(name)

    def link_ref(self, name: str) -> LinkRef | None:
        found = self.all.get(name)
        return LinkRef(found.index, name) if found else None

    def links(self) -> list[Link]:
        return list(self.all.values())

    def ports(self, bridge: Link | LinkRef) -> list[Link]:
        return [link for link in self.all.values() if link.bridge == bridge.index]

    def tunnels(self) -> list[Link]:
        return [link for link in self.all.values() if link.vxlan]

    def create_bridge(self, name: str, mac: str, mtu: int) -> None:
        def make() -> None:
            self._free(name)
            self.add(name, "bridge", mac=mac, mtu=mtu, alias=OWNER)

        self._change(f"create_bridge {name} {mac} {mtu}", make)

    def filter_bridge(self, link: Link, on: bool = True) -> None:
        self._change(f"filter_bridge {link.name} {on}", lambda: self._set(link, filtered=on))

    def create_veth(self, own: VethEnd, peer: VethEnd, *, bridge: int = 0, up: bool = True) -> None:
        def make() -> None:
            elsewhere = peer.netns_fd is not None
            self._free(own.name, *(() if elsewhere else (peer.name,)))
            _need(not bridge or self.link_by_index(bridge) is not None, errno.EINVAL)
            facts = {"mac": own.mac, "mtu": own.mtu, "up": up, "parent_elsewhere": elsewhere}
            near = self.add(own.name, "veth", **facts, **_port(bridge))
            if not elsewhere:
                far = self.add(peer.name, "veth", mac=peer.mac, mtu=peer.mtu, up=False, parent=near.index)
                self._set(near, parent=far.index)

        text = f"create_veth {own.name} {own.mac} {own.mtu} {bridge} {peer.name} {peer.mac} {peer.mtu}"
        self._change(text, make)

    def create_vxlan(self, name: str, mac: str, mtu: int, vxlan: Vxlan) -> None:
        def make() -> None:
            self._free(name)
            _need(not vxlan.dev or self.link_by_index(vxlan.dev) is not None, errno.ENODEV)
            taken = {(link.vxlan.vni, link.vxlan.port) for link in self.all.values() if link.vxlan}
            _need((vxlan.vni, vxlan.port) not in taken, errno.EEXIST)
            shown = replace(vxlan, local="" if vxlan.local == "::" else vxlan.local)
            self.add(name, "vxlan", mac=mac, mtu=mtu, up=False, vxlan=shown, alias=OWNER)
            self._version[name] = 6 if ":" in vxlan.local else 4

        self._change(f"create_vxlan {name} {mtu}", make)

    def set_vxlan(self, link: Link | LinkRef, vxlan: Vxlan) -> None:
        def make() -> None:
            now = self._at(link)
            assert now.vxlan
            _need(self._version[now.name] == (6 if ":" in vxlan.local else 4), errno.EOPNOTSUPP)
            _need(not vxlan.dev or self.link_by_index(vxlan.dev) is not None, errno.ENODEV)
            shown = "" if vxlan.local == "::" else vxlan.local
            same = replace(now.vxlan, local=shown, learning=vxlan.learning, dev=vxlan.dev or now.vxlan.dev)
            self._set(link, vxlan=same)

        self._change(f"set_vxlan {link.name}", make)

    def create_macvlan(self, name: str, mac: str, mtu: int, settings: MacvlanSettings) -> None:
        def make() -> None:
            self._free(name)
            elsewhere = settings.netns_fd is not None
            parent = None if elsewhere else self._at(settings.parent)
            others = [link for link in self._macvlans_on(settings.parent) if not elsewhere]
            alone = settings.mode == "passthru" or any(link.macvlan_mode == "passthru" for link in others)
            _need(not (others and alone), errno.EINVAL)
            own = parent.mac if parent and settings.mode == "passthru" else mac or "0a:00:00:00:00:05"
            facts = {"parent": settings.parent, "parent_elsewhere": elsewhere, "macvlan_mode": settings.mode}
            self.add(name, "macvlan", mac=own, mtu=mtu, up=False, **facts)

        self._change(f"create_macvlan {name} {mac} {mtu} {settings.mode} {settings.parent}", make)

    def create_wireguard(self, name: str) -> bool:
        self._change(f"create_wireguard {name}", lambda: self._free(name))
        return False

    def set_link(self, link: Link | LinkRef, *, up: bool = False, **settings: Unpack[LinkSettings]) -> None:
        def make() -> None:
            facts: dict[str, Any] = {_FACTS[key]: value for key, value in settings.items()}
            joined = _port(settings["master"]) if "master" in settings else {}
            self._set(link, **facts | joined | ({"up": True} if up else {}))

        self._change(_spelled("set_link", link, up, settings), make)

    def set_down(self, link: Link | LinkRef) -> None:
        self._change(f"set_down {link.name}", lambda: self._set(link, up=False) if link.name in self.all else None)

    def set_promiscuous(self, link: Link) -> None:
        self._change(f"set_promiscuous {link.name}", lambda: self._set(link, promiscuous=True))

    def set_port(self, link: Link | LinkRef, *, up: bool = False, **settings: Unpack[PortSettings]) -> None:
        def make() -> None:
            _need(self._at(link).bridge != 0, errno.EOPNOTSUPP)
            off = set(self._at(link).switched_off) | {
                key for key, value in settings.items() if key in _SWITCHES and not value
            }
            off -= {key for key, value in settings.items() if value}
            facts: dict[str, Any] = {key: bool(value) for key, value in settings.items() if key not in _SWITCHES}
            facts["switched_off"] = tuple(name for name in _SWITCHES if name in off)
            facts |= {"hairpin": facts.pop("mode")} if "mode" in facts else {}
            facts |= {"multicast_router": settings["multicast_router"]} if "multicast_router" in settings else {}
            self._set(link, **facts, **({"up": True} if up else {}))

        self._change(_spelled("set_port", link, up, settings), make)

    def delete_link(self, link: Link) -> None:
        def make() -> None:
            if (now := self.link_by_index(link.index)) is None:
                return
            self._forget(now)
            peer = self.link_by_index(now.parent) if now.kind == "veth" and not now.parent_elsewhere else None
            for other in [*([peer] if peer else []), *self._macvlans_on(now.index)]:
                self._forget(other)
            for port in [port for port in self.all.values() if port.bridge == now.index]:
                self._set(port, **_port(0))

        self._seen.pop(link.name, None)
        self._change(f"delete_link {link.name}", make)

    def _macvlans_on(self, index: int) -> list[Link]:
        links = self.all.values()
        return [
            link for link in links if link.kind == "macvlan" and (link.parent, link.parent_elsewhere) == (index, False)
        ]

    def _forget(self, link: Link) -> None:
        for of_links in (self.all, self.held, self.ways, self.known, self.behind, self.flooded):
            of_links.pop(link.name, None)

    def _free(self, *names: str) -> None:
        _need(not self.all.keys() & set(names), errno.EEXIST)

    # --- addresses and their labels

    def other_end(self, link: Link) -> tuple[int, Link] | None:
        return None  # there is no other namespace

    def addresses(self, link: Link | LinkRef, namespace: int | None = None) -> list[HeldAddress]:
        name = self._at(link).name
        return [
            HeldAddress(item, False, False, self._makers.get((name, item), 0), self._scopes.get((name, item), 0))
            for item in self.held[name]
        ]

    def add_address(self, link: Link | LinkRef, interface: IPInterface, **settings: Unpack[AddressSettings]) -> None:
        def make() -> None:
            name = self._at(link).name
            _need(interface not in self.held[name], errno.EEXIST)
            self.held[name].append(interface)
            self._makers[name, interface] = settings.get("protocol", 0)
            self._scopes[name, interface] = settings.get("scope", 0)

        how = "".join(f" {what}" for what in ("nodad", "deprecated") if settings.get(what))
        scope = f" scope {settings['scope']}" if settings.get("scope") else ""
        self._change(f"add_address {link.name} {interface}{how}{scope}", make)

    def delete_address(self, link: Link | LinkRef, interface: IPInterface) -> None:
        def make() -> None:
            held = self.held.get(link.name, [])
            self.held[link.name] = [item for item in held if item != interface]

        self._change(f"delete_address {link.name} {interface}", make)

    def labels(self) -> dict[str, int]:
        return dict(self._labels)

    def add_label(self, prefix: IPv6Network, label: int, perhaps_there: bool = False) -> None:
        def make() -> None:
            _need(perhaps_there or str(prefix) not in self._labels, errno.EEXIST)
            self._labels.setdefault(str(prefix), label)

        self._change(f"add_label {prefix} {label}", make)

    def delete_label(self, prefix: IPv6Network, label: int) -> None:
        self._change(f"delete_label {prefix} {label}", lambda: self._labels.pop(str(prefix), None) and None)

    # --- routes and policy rules

    def routes(self, link: Link | LinkRef, family: int) -> list[KernelRoute]:
        return [item for item in self.ways[link.name] if _network(item).version == family]

    def add_route(self, link: Link | LinkRef, route: KernelRoute, onlink: bool, beside: bool = False) -> None:
        def make() -> None:
            now = self._at(link)
            _need(now.up, errno.ENETDOWN)
            near = [item.network for item in self.held[now.name]]
            reached = not route.gateway or any(ipaddress.ip_address(route.gateway) in network for network in near)
            _need(onlink or reached, errno.ENETUNREACH)
            there = {(item.dst, item.table, item.priority) for ways in self.ways.values() for item in ways}
            taken = route in self.ways[now.name] if beside else (route.dst, route.table, route.priority) in there
            _need(not taken, errno.EEXIST)
            self.ways[now.name].append(route)

        self._change(f"add_route {route.dst}{' onlink' * onlink}{' beside' * beside}", make)

    def replace_route(self, link: Link | LinkRef, route: KernelRoute, onlink: bool) -> None:
        place = (route.dst, route.table, route.priority)
        for name, ways in self.ways.items():
            self.ways[name] = [item for item in ways if (item.dst, item.table, item.priority) != place]
        self.add_route(link, route, onlink)

    def delete_route(self, link: Link | LinkRef, dst: str, table: int = MAIN_TABLE, protocol: int = 0) -> None:
        def make() -> None:
            gone = [item for item in self.ways[link.name] if (item.dst, item.table) == (dst, table)]
            self.ways[link.name] = [
                item for item in self.ways[link.name] if item not in gone or (protocol and item.protocol != protocol)
            ]

        self._change(f"delete_route {dst} {table}", make)

    def routes_by(self, protocol: int) -> list[tuple[int, KernelRoute]]:
        return [(index, item) for item, index in self._main() if item.protocol == protocol]

    def refuse_route(self, dst: str) -> bool:
        before = dst in self.refused
        self._change(f"refuse_route {dst}", lambda: self.refused.add(dst))
        return not before

    def refuses(self, dst: str) -> bool:
        return dst in self.refused

    def keep_refused(self, dst: str, protocol: int) -> None:
        self._change(f"keep_refused {dst}", lambda: self._refusals.add((dst, protocol)))

    def refused_by(self, protocol: int) -> list[str]:
        return [dst for dst, maker in self._refusals if maker == protocol]

    def delete_refused(self, dst: str, protocol: int = 0) -> None:
        def make() -> None:
            self._refusals.discard((dst, protocol)) if protocol else self.refused.discard(dst)

        self._change(f"delete_refused {dst}", make)

    def route_to(self, address: IPAddress) -> tuple[int, ...]:
        every = {*self.refused, *(dst for dst, _ in self._refusals)}
        refused = [ipaddress.ip_network(dst).prefixlen for dst in every if address in ipaddress.ip_network(dst)]
        return self._best(
            lambda item: address in _network(item) and _network(item).prefixlen >= max(refused, default=0)
        )

    def holder_of(self, address: IPAddress) -> int:
        return self.link_holding(address)

    def holding(self, address: IPAddress) -> int:
        return self.link_holding(address)

    def own_addresses(self) -> list[IPAddress]:
        return [item.ip for held in self.held.values() for item in held]

    def link_holding(self, address: IPAddress) -> int:
        holders = (name for name, held in self.held.items() if address in (item.ip for item in held))
        return next((self.all[name].index for name in holders), 0)

    def default_route(self) -> tuple[int, ...]:
        default = (self._best(lambda item, family=family: _is_default(item, family)) for family in (4, 6))
        return tuple(dict.fromkeys(next(filter(None, default), ())))  # once for two halves

    def advertised(self) -> set[int]:
        return {self.all[name].index for name in self.heard}

    def _best(self, leads: Callable[[KernelRoute], bool]) -> tuple[int, ...]:
        """The links of the narrowest routes of the least priority: of several they are one with several next hops."""
        rank = [((-_network(item).prefixlen, item.priority), index) for item, index in self._main() if leads(item)]
        return tuple(index for place, index in rank if place == min(rank)[0])

    def _main(self) -> Iterator[tuple[KernelRoute, int]]:
        for name, ways in self.ways.items():
            yield from ((item, self.all[name].index) for item in ways if item.table == MAIN_TABLE)

    def mark_rules(self, family: int) -> set[tuple[int, int]]:
        return set(self._marks[family])

    def add_mark_rule(self, family: int, mark: int, table: int) -> None:
        def make() -> None:
            _need((mark, table) not in self._marks[family], errno.EEXIST)
            self._marks[family].add((mark, table))

        self._change(f"add_mark_rule {family} {mark} {table}", make)

    def delete_mark_rule(self, family: int, mark: int, table: int) -> None:
        self._change(f"delete_mark_rule {family} {mark} {table}", lambda: self._marks[family].discard((mark, table)))

    # --- neighbours and the forwarding database

    def neighbours(self, link: Link | LinkRef) -> dict[str, str]:
        return dict(self.known[link.name])

    def neighbours_by(self, link: Link | LinkRef, protocol: int) -> dict[str, str]:
        known = self.known[link.name].items()
        return {address: mac for address, mac in known if self._makers.get((link.name, address)) == protocol}

    def add_neighbour(self, link: Link | LinkRef, address: str, mac: str, protocol: int = 0) -> None:
        def make() -> None:
            self.known[self._at(link).name][address] = mac
            self._makers[link.name, address] = protocol or self._makers.get((link.name, address), 0)

        self._change(f"add_neighbour {address} {mac}", make)

    def delete_neighbour(self, link: Link | LinkRef, address: str) -> None:
        self._change(f"delete_neighbour {address}", lambda: self.known[link.name].pop(address, None) and None)

    def reachability(self, link: Link | LinkRef, address: str) -> str:
        return FIXED if address in self.known[link.name] else self.reach.get((link.name, address), SILENT)

    def ask_again(self, link: Link | LinkRef, address: str) -> None:
        def make() -> None:
            if self.reach.get((link.name, address)) in (ANSWERS, ASKED):
                self.reach[link.name, address] = ASKED

        self._change(f"ask_again {link.name} {address}", make)

    def ask_all(self, link: Link | LinkRef, address: str) -> None:
        def make() -> None:
            if self.link_by_index(link.index):
                self.reach[link.name, address] = ASKED

        self._change(f"ask_all {link.name} {address}", make)

    def announce(self, link: Link | LinkRef, address: str) -> None:
        self._change(f"announce {link.name} {address}", lambda: None)

    def fdb(self, link: Link | LinkRef) -> dict[str, str]:
        return dict(self.behind[link.name])

    def given_rows(self, link: Link | LinkRef) -> list[tuple[str, str]]:
        flooded = [("00:00:00:00:00:00", vtep) for vtep in self.flooded[link.name]]
        return [*self.behind[link.name].items(), *flooded]

    def add_given_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        if mac == "00:00:00:00:00:00":
            self.add_flood_target(link, vtep)
        else:
            self.add_fdb_row(link, mac, vtep)

    def add_fdb_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        def make() -> None:
            self.behind[self._at(link).name][mac] = vtep

        self._change(f"add_fdb_row {mac} {vtep}", make)

    def delete_fdb_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        def make() -> None:
            if self.behind[link.name].get(mac) == vtep:
                del self.behind[link.name][mac]

        self._change(f"delete_fdb_row {mac} {vtep}", make)

    def peer_rows(self, link: Link) -> dict[str, str]:
        rows = self.behind[link.name].items()
        return {mac: vtep for mac, vtep in rows if (link.name, mac) in self._elsewhere}

    def strange_rows(self, link: Link | LinkRef) -> set[str]:
        return {mac for mac in self.behind[link.name] if (link.name, mac) not in self._elsewhere}

    def add_peer_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        self.add_fdb_row(link, mac, vtep)
        self._elsewhere.add((link.name, mac))

    def delete_peer_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        self.delete_fdb_row(link, mac, vtep)

    def flood_targets(self, link: Link | LinkRef) -> set[str]:
        return set(self.flooded[link.name])

    def add_flood_target(self, link: Link | LinkRef, vtep: str) -> None:
        def make() -> None:
            name = self._at(link).name
            _need(self._version[name] == (6 if ":" in vtep else 4), errno.EAFNOSUPPORT)
            self.flooded[name].add(vtep)

        self._change(f"add_flood_target {vtep}", make)

    def delete_flood_target(self, link: Link | LinkRef, vtep: str) -> None:
        self._change(f"delete_flood_target {vtep}", lambda: self.flooded[link.name].discard(vtep))


def _need(true: bool, number: int) -> None:
    if not true:
        raise KernelRefused(os.strerror(number), number)


def _port(bridge: int) -> dict[str, Any]:
    """What a link has as a new port, or has no more."""
    return _NO_PORT | {"bridge": bridge, "multicast_router": int(bool(bridge))}


def _network(route: KernelRoute) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(route.dst)


def _is_default(route: KernelRoute, family: int) -> bool:
    network = _network(route)
    is_half = network.prefixlen == 1 and route.protocol == UPLINK
    return network.version == family and (network.prefixlen == 0 or is_half)


def _spelled(what: str, link: Link | LinkRef, up: bool, settings: LinkSettings | PortSettings) -> str:
    said = {**({"up": True} if up else {}), **settings}
    return " ".join([what, link.name, *(f"{key}={value}" for key, value in said.items())])
