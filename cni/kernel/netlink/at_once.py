"""A namespace's rtnetlink for who asks about much of it, and changes nothing: one dump each, whatever number of questions."""

from __future__ import annotations

from functools import cached_property

from cni.kernel.netlink.rtnl import Rtnl
from cni.kernel.view import KernelRoute, Link, LinkRef


class AtOnce(Rtnl):
    """Links, routes and neighbours as they were when one of them was asked for first."""

    def link_by_name(self, name: str) -> Link | None:
        """A link, or None."""
        return self._links_by_name.get(name)

    def link_ref(self, name: str) -> LinkRef | None:
        """The same, by its index and name."""
        link = self.link_by_name(name)
        return LinkRef(link.index, link.name) if link else None

    def routes(self, link: Link | LinkRef, family: int) -> list[KernelRoute]:
        """See Routes."""
        known = self._routes_by_link
        if family not in known:
            known[family] = self._every_route(family)
        return known[family].get(link.index, [])

    def neighbours(self, link: Link | LinkRef) -> dict[str, str]:
        """See Neighbours."""
        return self._neighbours_by_link.get(link.index, {})

    @cached_property
    def _links_by_name(self) -> dict[str, Link]:
        return {link.name: link for link in self.links()}

    @cached_property
    def _routes_by_link(self) -> dict[int, dict[int, list[KernelRoute]]]:
        return {}

    @cached_property
    def _neighbours_by_link(self) -> dict[int, dict[str, str]]:
        return self._every_neighbour()
