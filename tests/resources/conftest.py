"""A host and a pod whose kernel is a few dataclasses; requests are noted as the kernel would be asked."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cni.errors import KernelRefused
from cni.kernel.files import LockFile
from cni.kernel.view import HeldAddress, KernelRoute, Link, VethEnd, Vxlan
from cni.naming import IPInterface
from cni.resources import World


class FakeRtnl:
    """One namespace. `asked` lists what was changed; `refusals` maps a request to an errno."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refusals: dict[str, int] = {}
        self.all: dict[str, Link] = {}
        self.held: dict[str, list[IPInterface]] = {}
        self.ways: list[KernelRoute] = []
        self.vteps: set[str] = set()

    def add(self, name: str, kind: str = "", **facts: Any) -> Link:
        """Let a link exist."""
        link = Link(
            len(self.all) + 1, name, kind, "0a:00:00:00:00:01", 1500, True, "UP", 0, False, False, False, False, None
        )
        self.all[name] = replace(link, **facts)
        return self.all[name]

    def _ask(self, text: str) -> None:
        self.asked.append(text)
        if (word := text.split(maxsplit=1)[0]) in self.refusals:
            raise KernelRefused(text, self.refusals[word])

    def link_by_name(self, name: str) -> Link | None:
        return self.all.get(name)

    cached_link = link_ref = link_by_name
    batch = nullcontext

    def links(self) -> list[Link]:
        return list(self.all.values())

    def addresses(self, link: Link) -> list[HeldAddress]:
        return [HeldAddress(item, False, False) for item in self.held.get(link.name, [])]

    def routes(self, link: Link, family: int) -> list[KernelRoute]:
        return self.ways

    def flood_targets(self, link: Link) -> set[str]:
        return set(self.vteps)

    def create_bridge(self, name: str, mac: str, mtu: int) -> None:
        self._ask(f"create_bridge {name} {mac} {mtu}")
        self.add(name, "bridge", mac=mac, mtu=mtu)

    def create_veth(self, own: VethEnd, peer: VethEnd, *, bridge: int = 0, up: bool = True) -> None:
        self._ask(f"create_veth {own.name} {own.mac} {own.mtu} {bridge} {peer.name} {peer.mac} {peer.mtu}")
        if own.name in self.all:
            raise KernelRefused(own.name, errno.EEXIST)
        self.add(own.name, "veth", mac=own.mac, mtu=own.mtu, bridge=bridge, up=up)

    def create_vxlan(self, name: str, mtu: int, vxlan: Vxlan) -> None:
        self._ask(f"create_vxlan {name} {mtu}")
        self.add(name, "vxlan", mtu=mtu, up=False, vxlan=vxlan)

    def set_link(self, link: Link, **settings: Any) -> None:
        self._ask(" ".join(["set_link", link.name, *(f"{key}={value}" for key, value in settings.items())]))
        facts = {key: value for key, value in settings.items() if key == "mtu"}
        facts |= {"up": True} if settings.get("up") else {}
        facts |= {"bridge": settings["master"]} if "master" in settings else {}
        self.all[link.name] = replace(self.all[link.name], **facts)

    def set_promiscuous(self, link: Link) -> None:
        self._ask(f"set_promiscuous {link.name}")
        self.all[link.name] = replace(self.all[link.name], promiscuous=True)

    def set_port(self, link: Link, **settings: int) -> None:
        self._ask(" ".join(["set_port", link.name, *(f"{key}={value}" for key, value in settings.items())]))
        names = {"mode": "hairpin"}
        facts = {names.get(key, key): bool(value) for key, value in settings.items()}
        self.all[link.name] = replace(self.all[link.name], **facts)

    def delete_link(self, link: Link) -> None:
        self._ask(f"delete_link {link.name}")
        del self.all[link.name]

    def add_address(self, link: Link, interface: IPInterface, nodad: bool = False) -> None:
        self._ask(f"add_address {link.name} {interface}{' nodad' * nodad}")
        self.held.setdefault(link.name, []).append(interface)

    def delete_address(self, link: Link, interface: IPInterface) -> None:
        self._ask(f"delete_address {link.name} {interface}")
        self.held[link.name] = [item for item in self.held.get(link.name, []) if item != interface]

    def add_route(self, link: Link, route: KernelRoute, onlink: bool) -> None:
        self._ask(f"add_route {route.dst}{' onlink' * onlink}")
        self.ways.append(route)

    def add_flood_target(self, link: Link, vtep: str) -> None:
        self._ask(f"add_flood_target {vtep}")
        self.vteps.add(vtep)

    def delete_flood_target(self, link: Link, vtep: str) -> None:
        self._ask(f"delete_flood_target {vtep}")
        self.vteps.discard(vtep)


@pytest.fixture
def host() -> FakeRtnl:
    return FakeRtnl()


@pytest.fixture
def pod() -> FakeRtnl:
    return FakeRtnl()


@pytest.fixture
def world(tmp_path: Path, host: FakeRtnl, pod: FakeRtnl) -> Iterator[World]:
    lock = LockFile(tmp_path / "lock")
    made = World(SimpleNamespace(fd=9, path="/run/netns/c1"), lock)
    made.__dict__ |= {"host": host, "pod": pod}
    yield made
    lock.close()


@pytest.fixture
def undone(world: World, host: FakeRtnl) -> Callable[[], list[str]]:
    """Take back what was created; returns what that asked of the host."""

    def undo() -> list[str]:
        before = len(host.asked)
        world.undo.close()
        return host.asked[before:]

    return undo
