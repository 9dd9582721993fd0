"""Whether a neighbour answers: the kernel asks, as it does for its own packets (RFC 4861, section 7.3; arp(7); net/core/neighbour.c)."""

from __future__ import annotations

import errno
import ipaddress
import struct

from cni.errors import KernelRefused
from cni.kernel.netlink.neighbours import row_of
from cni.kernel.netlink.rtnl import Rtnl
from cni.kernel.netlink.wire import CREATE, FAMILY, REPLACE, attribute, request
from cni.kernel.view import ANSWERS, ASKED, FIXED, SILENT, Link, LinkRef

_NEW, _DELETE, _GET = 28, 29, 30
#: struct ndmsg: family, index, state, flags, kind.
_NDMSG = struct.Struct("=BxxxiHBB")
_DST, _USE = 1, 0x01  # NDA_DST, NTF_USE
#: NUD_*; those with which nobody is asked, those by which somebody answered, and those in which an answer is waited for.
_STALE, _PROBE, _FAILED = 0x04, 0x10, 0x20
_FIXED, _ANSWERED, _WAITING = 0x40 | 0x80, 0x02 | 0x04 | 0x08, 0x01 | 0x10

#: Why it is no fault that nobody is asked: the link went, or is down; or the kernel has forgotten meanwhile what it knew.
_GONE = (errno.ENODEV, errno.ENETDOWN, errno.ENOENT, errno.EINVAL)


class Asking(Rtnl):
    """An Rtnl for who wants to know whether neighbours answer; no call does."""

    def reachability(self, link: Link | LinkRef, address: str) -> str:
        """What the kernel knows of a neighbour: ANSWERS, also if he did so long ago; ASKED, and has not answered yet; FIXED by somebody,
        so that nobody asks; else SILENT, or never asked.
        """
        try:
            state = row_of(self._channel.question(request(_GET, 0, *_of(link, address)))).state
        except KernelRefused as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL):  # of a link that went, the latter
                return SILENT
            raise
        found = ((FIXED, _FIXED), (ANSWERS, _ANSWERED), (ASKED, _WAITING))
        return next((what for what, states in found if state & states), SILENT)

    def ask_again(self, link: Link | LinkRef, address: str) -> None:
        """Have a neighbour who answered, or was asked, be asked at once, and him alone: the kernel begins only with one it doubts."""
        for state in (_STALE, _PROBE):
            new = request(_NEW, REPLACE, *_of(link, address, state))
            self._change(new, f"ask neighbour {address} dev {link.name}", *_GONE)

    def ask_all(self, link: Link | LinkRef, address: str) -> None:
        """Have everybody on a link asked for an address, whoever answered so far, as the kernel does that has a packet for it: three
        times, once a second.
        """
        for new in (
            request(_NEW, REPLACE, *_of(link, address, _FAILED)),
            request(_NEW, CREATE, *_of(link, address, flags=_USE)),
        ):
            self._change(new, f"ask for neighbour {address} dev {link.name}", *_GONE)

    def announce(self, link: Link | LinkRef, address: str) -> None:
        """Have everybody on a link hear that an IPv4 address of this namespace is here: who asks for his own announces it (RFC 5227,
        section 3). The kernel is not to ask again, for nobody answers.
        """
        self.ask_all(link, address)
        gone = request(_DELETE, 0, *_of(link, address))
        self._change(gone, f"forget neighbour {address} dev {link.name}", *_GONE)


def _of(link: Link | LinkRef, address: str, state: int = 0, flags: int = 0) -> tuple[bytes, bytes]:
    parsed = ipaddress.ip_address(address)
    return _NDMSG.pack(FAMILY[parsed.version], link.index, state, flags, 0), attribute(_DST, parsed.packed)
