"""Labels of IPv6 prefixes, by which the kernel chooses source addresses (RFC 6724, linux/if_addrlabel.h)."""

from __future__ import annotations

import errno
import struct
from ipaddress import IPv6Network

from cni.kernel.netlink.handle import Handle
from cni.kernel.netlink.wire import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    FAMILY,
    HEADER,
    attribute,
    attributes,
    number_of,
    request,
    u32,
    understood,
)

_NEW, _DELETE, _GET = 72, 73, 74
_IFADDRLBL = struct.Struct("=BxBxII")  # struct ifaddrlblmsg: family, prefix length, index, sequence
_ADDRESS, _LABEL = 1, 2


class Labels(Handle):
    """The label of each IPv6 prefix in a namespace."""

    def labels(self) -> dict[str, int]:
        """The labels by prefix."""
        return dict(map(label_of, self._dump(request(_GET, DUMP, _IFADDRLBL.pack(FAMILY[6], 0, 0, 0)))))

    def add_label(self, prefix: IPv6Network, label: int, perhaps_there: bool = False) -> None:
        """Label a prefix that has no label of its own."""
        new = request(_NEW, CREATE | EXCLUSIVE, *_label(prefix, label))
        self._change(new, f"label IPv6 prefixes {label}", *[errno.EEXIST] * perhaps_there)

    def delete_label(self, prefix: IPv6Network, label: int) -> None:
        """Take a prefix's label away; one that is gone already is taken away."""
        self._change(request(_DELETE, 0, *_label(prefix, label)), f"remove label {label} of {prefix}", errno.ESRCH)


@understood
def label_of(message: bytes) -> tuple[str, int]:
    """A prefix and its label of an RTM_NEWADDRLABEL message."""
    _, length, _, _ = _IFADDRLBL.unpack_from(message, HEADER.size)
    said = attributes(message, HEADER.size + _IFADDRLBL.size)
    return str(IPv6Network((said[_ADDRESS], length))), number_of(said[_LABEL])


def _label(prefix: IPv6Network, label: int) -> tuple[bytes, ...]:
    place = _IFADDRLBL.pack(FAMILY[6], prefix.prefixlen, 0, 0)
    return place, attribute(_ADDRESS, prefix.network_address.packed), attribute(_LABEL, u32(label))
