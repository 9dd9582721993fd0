"""How a VXLAN device of ours goes, for another in its place, and comes back when the call that took it away fails."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from cni.errors import KernelRefused
from cni.kernel.view import MEMBER, Link, Vxlan
from cni.resources.base import Resource
from cni.resources.links import FORWARDING_PORT, TUNNEL_PORT, required
from cni.resources.world import World
from cni.values import replace


def remade(world: World, resource: Resource, name: str, local: str) -> Link:
    """A tunnel of ours as it was, but for its address, which may say another family."""
    link = required(world.host.link_by_name(name), name)
    assert link.vxlan
    rows = delete_tunnel(world, resource, link)
    _make_like(world, link, replace(link.vxlan, local=local), rows)
    made = required(world.host.link_by_name(name), name)
    world.changed(resource, lambda: world.host.delete_link(made))
    return made


def delete_tunnel(world: World, resource: Resource, link: Link) -> list[tuple[str, str]]:
    """Delete a tunnel of ours, to be made again if the call fails; what somebody gave it to know."""
    assert link.vxlan
    rows = world.host.given_rows(link)
    world.host.delete_link(link)
    unsaid = "::" if any(":" in vtep for _, vtep in rows) else ""
    settings = replace(link.vxlan, local=link.vxlan.local or unsaid)
    world.changed(resource, lambda: _make_like(world, link, settings, rows))
    return rows


def move_tunnel(world: World, resource: Resource, link: Link, bridge: int) -> None:
    """Have a tunnel of ours on another bridge, or on none. What the cluster's member reached by it alone it reaches by the bridge
    from now on: beside pods on that it would lead past them.
    """
    world.host.set_link(link, master=bridge)
    world.changed(resource, partial(world.host.set_link, link, master=link.bridge))
    for route in (route for family in (4, 6) for route in world.host.routes(link, family)):
        if route.protocol == MEMBER:
            world.host.delete_route(link, route.dst, protocol=MEMBER)
    for held in world.host.addresses(link):
        if held.protocol == MEMBER:
            world.host.delete_address(link, held.interface)
    for address in world.host.neighbours_by(link, MEMBER):
        world.host.delete_neighbour(link, address)


def _make_like(world: World, gone: Link, settings: Vxlan, rows: list[tuple[str, str]]) -> None:
    """Make a tunnel where another was."""
    world.host.create_vxlan(gone.name, gone.mac, gone.mtu, settings)
    link = required(world.host.link_by_name(gone.name), gone.name)
    if gone.bridge:
        world.host.set_link(link, master=gone.bridge)
        learning = int("learning" not in gone.switched_off)
        world.host.set_port(link, **(FORWARDING_PORT if settings.learning else {**TUNNEL_PORT, "learning": learning}))
    world.host.set_link(link, up=gone.up)
    give_rows(world, link, rows)


def give_rows(world: World, link: Link, rows: list[tuple[str, str]]) -> None:
    """Let a device know what another knew, as far as it is of its family."""
    for mac, vtep in rows:
        with suppress(KernelRefused):
            world.host.add_given_row(link, mac, vtep)
