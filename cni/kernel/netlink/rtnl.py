"""The door to a namespace's rtnetlink, in plain data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from cni.errors import KernelRefused
from cni.kernel import kept
from cni.kernel.kept import Spare
from cni.kernel.netlink.addresses import Addresses
from cni.kernel.netlink.labels import Labels
from cni.kernel.netlink.links import Links
from cni.kernel.netlink.neighbours import Neighbours
from cni.kernel.netlink.routes import Routes
from cni.kernel.netlink.rules import Rules
from cni.kernel.view import Link, LinkRef, Vxlan
from cni.naming import IPAddress, interface_of

_LOOPBACK, _NOBODYS = LinkRef(1, "lo"), interface_of("100::1/128")


class Rtnl(Links, Addresses, Labels, Routes, Rules, Neighbours):
    """Questions and requests to one namespace: the one this thread is in when it is opened."""

    @classmethod
    def kept(cls) -> Rtnl:
        """The one that was given back in this process, or a new one."""
        return _spare.take(None) or _OfNode()

    def holding(self, address: IPAddress) -> int:
        """The index of the link that has an address of this namespace, up or not; or 0. Mostly a lookup says so, which costs less."""
        return self.holder_of(address) or self.link_holding(address)

    def set_vxlan(self, link: Link | LinkRef, vxlan: Vxlan) -> None:
        """As of any link. Over IPv6 each row keeps the way it found, and with it the source address, until an address of the namespace
        comes or goes (dst_cache in drivers/net/vxlan; rt_genid_bump_ipv6): so one does, of a prefix that nothing is sent to (RFC 6666).
        """
        super().set_vxlan(link, vxlan)
        if ":" in vxlan.local:
            with suppress(KernelRefused):  # of two at once one is enough
                self.add_address(_LOOPBACK, _NOBODYS, nodad=True)
            self.delete_address(_LOOPBACK, _NOBODYS)

    def give_back(self) -> None:
        """Keep the socket for the process's next call, unless somebody left it in the middle of an answer."""
        self.forget_seen()
        if self._channel.at_rest:
            _spare.give_back(None, self)
        else:
            self.close()


class _OfNode(Rtnl):
    """That of the node's namespace."""

    def delete_link(self, link: Link) -> None:
        if kept.serves_many:
            from cni.kernel.netlink import departures  # nobody else loads threads

            departures.delete(link, self, Rtnl)
        super().delete_link(link)  # once more, under the lock the kernel holds until the link is gone for everybody


class OfPod(Rtnl):
    """That of a pod's namespace; `entered` enters it once more."""

    def __init__(self, entered: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self._entered = entered

    def delete_link(self, link: Link) -> None:
        """The same of a pod's: return when it is gone for everybody."""
        if kept.serves_many:
            from cni.kernel.netlink import departures

            departures.delete(link, self, self._one_more, of_node=False)
        super().delete_link(link)  # as above

    def _one_more(self) -> Rtnl:
        with self._entered():
            return Rtnl()


#: A socket to the node's namespace.
_spare = Spare[Rtnl](1)
