"""The numbers by which a namespace knows others (linux/net_namespace.h)."""

from __future__ import annotations

import errno
import struct

from cni.kernel.netlink.handle import Handle
from cni.kernel.netlink.wire import HEADER, attribute, attributes, number_of, request, u32, understood

_NEW, _GET = 88, 90
_PLACE = struct.Struct("=B3x").pack(0)  # struct rtgenmsg, padded
_NSID, _FD = 1, 3
_NONE = 0xFFFFFFFF  # in a request: whichever is free


class Namespaces(Handle):
    """Numbers for other namespaces."""

    def _nsid(self, fd: int) -> int:
        """The number this namespace knows another by, given one at the first use."""
        known = self._known_nsid(fd)
        if known == _NONE:
            new = request(_NEW, 0, _PLACE, attribute(_FD, u32(fd)), attribute(_NSID, u32(_NONE)))
            self._change(new, "number a namespace", errno.EEXIST)
            known = self._known_nsid(fd)
        return known

    @understood
    def _known_nsid(self, fd: int) -> int:
        answer = self._question(request(_GET, 0, _PLACE, attribute(_FD, u32(fd))), "look up a namespace's number")
        return number_of(attributes(answer, HEADER.size + len(_PLACE))[_NSID])
