"""Routers' advertisements: the node keeps what it has of them, and a bridge of ours hears none (RFC 4861, 6.2)."""

from __future__ import annotations

from collections.abc import Iterator

from cni.kernel import sysctl
from cni.naming import OWNER
from cni.resources.addressing import HostSysctl, set_as_far_as_needed
from cni.resources.base import Resource
from cni.resources.world import World
from cni.values import dataclass

#: Values of accept_ra (ip-sysctl.rst): hear no router, one while not forwarding, one whatever is forwarded.
_NEVER, _AS_HOST, _ALWAYS = "0", "1", "2"


class Ipv6Forwarding(HostSysctl):
    """The node forwards IPv6. Without a word the kernel would take the routes away that it has of routers' advertisements, and
    hear no more of them (rt6_purge_dflt_routers in net/ipv6): on their links they are heard for good first.
    """

    def ensure(self, world: World) -> None:
        if sysctl.read(self.key) in (None, self.value):
            return
        for link in filter(None, map(world.host.link_by_index, world.host.advertised())):
            if sysctl.read(_accepting(link.name)) == _AS_HOST:
                sysctl.write(_accepting(link.name), _ALWAYS)
        super().ensure(world)


@dataclass(frozen=True)
class NoAdvertisements(Resource):
    """A bridge of ours, or a tunnel, hears no router, because any of its pods may say that it is one. An administrator's is his."""

    bridge: str
    shared = True

    def ensure(self, world: World) -> None:
        link = world.host.cached_link(self.bridge)
        if link and link.alias == OWNER:
            set_as_far_as_needed(_accepting(self.bridge), _NEVER)

    def differences(self, world: World) -> Iterator[str]:
        link, now = world.host.link_by_name(self.bridge), sysctl.read(_accepting(self.bridge))
        if link and link.alias == OWNER and now not in (None, _NEVER) and sysctl.is_writable(_accepting(self.bridge)):
            yield f"sysctl {_accepting(self.bridge)} is {now}, not {_NEVER}"

    def describe(self) -> str:
        return f"sysctl {_accepting(self.bridge)}={_NEVER} on the host, if the link is ours"


def _accepting(link: str) -> str:
    return sysctl.of_link(6, link, "accept_ra")
