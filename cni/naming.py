"""Names, computed from an attachment's identity and never remembered.

The same identity gives the same names on every call, so a DEL finds what an ADD made
even when every other trace of it is lost.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

try:
    from _sha256 import sha256  # type: ignore[import-not-found]  # hashlib loads OpenSSL first; random does likewise
except ImportError:  # since Python 3.12
    from hashlib import sha256

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

#: The alias of links on the host that stay after the pods they were made for (ip-link(8)).
OWNER = "agent-cni"

#: The IPAM that an ``ipam`` section without a type means.
OWN_IPAM = "agent-ipam"

#: The bridge of a network that names none, as the reference plugin has it.
DEFAULT_BRIDGE = "cni0"

#: The UDP port of VXLAN where nobody says another (RFC 7348, section 8).
VXLAN_PORT = 4789

#: The node's nft tables: of policies, of masquerading in each family, and of who may send VXLAN to networks of the cluster.
POLICY_TABLE, MASQUERADE_TABLE, VTEP_TABLE = "inet agent_cni_policy", "agent_cni", "inet agent_cni_vteps"
#: The policies' set of bridges whose filter an earlier release switched on.
SWITCHED = "switched"
#: The feed of policies that the cluster's store is.
CLUSTER = "cluster"
#: The nflog group that hears what policies drop.
DROPS = 4743
#: The table that has pods' questions to DNS servers, and the answers, wait in a queue for the DNS gate.
DNS_TABLE, DNS_QUEUE = "inet agent_cni_dns", 4753
#: Those that cut a host's pods off when nobody has heard of it for long: of what is routed, and of what is bridged.
FENCE_TABLES = ("inet agent_cni_fence", "bridge agent_cni_fence")

#: What MACs of ports begin with: a bridge that nobody gave a MAC takes the lowest of its ports'.
_HIGHEST = "fe"

_HOST_INTERFACE = re.compile(r"veth[0-9a-f]{11}")
_DOMAIN_SET = re.compile(r"d[46]-[0-9a-f]{11}-[0-9a-f]{16}")
_MAC = re.compile(r"(?i)[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}")


class Attachment(NamedTuple):
    """One container interface on one network: the key of everything we keep."""

    network: str
    container: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.network}/{self.container}/{self.ifname}"

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that stand for this attachment."""
        return digest_of("\0".join(self))

    @property
    def host_interface(self) -> str:
        """The host end of its veth: 15 bytes, the kernel's limit (IFNAMSIZ - 1)."""
        return f"veth{self.digest[:11]}"

    @property
    def nameless(self) -> Attachment:
        """What stands for it where no more is known than the host end of its veth."""
        return self._replace(container=self.host_interface)

    def token(self, kind: int) -> str:
        """What its policy's chains are called after. Several plugins of one chain may isolate it, and each takes away
        what it made: `kind` (0, 1, 2) tells them apart.
        """
        return self.digest[11 * kind : 11 * (kind + 1)]

    @property
    def host_mac(self) -> str:
        """A locally administered unicast MAC for the host end."""
        return _mac(_HIGHEST, self.digest)

    @property
    def pod_mac(self) -> str:
        """The pod's MAC where no address exists to derive one from."""
        return _mac("0a", self.digest[20:])


def digest_of(text: str | bytes) -> str:
    """64 hexadecimal digits that stand for a text (SHA-256)."""
    return str(sha256(text.encode() if isinstance(text, str) else text).hexdigest())


@lru_cache(maxsize=32)
def interface_of(text: str) -> IPInterface:
    """An address with its prefix; an ADD asks for the same few a dozen times. ValueError for anything else."""
    return ipaddress.ip_interface(text)


def mac_of_address(address: IPAddress) -> str:
    """A MAC that says which address it serves: equal on every node, distinct in one subnet.

    IPv4 becomes ``0a:58:<the four bytes>``, the form kubenet and OVN use; an IPv6 address
    is hashed, because its sixteen bytes do not fit.
    """
    if address.version == 4:
        return _mac("0a58", address.packed.hex())
    return _mac("0a", digest_of(address.packed))


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The IPv6 link-local address the kernel derives from a MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:])


def is_host_end(name: str, mac: str) -> bool:
    """Whether a link is the host end of some attachment's veth: name and MAC come from one digest."""
    ours = (_mac(first, name[4:]) for first in (_HIGHEST, "0e"))  # the latter is the release before's
    return name.startswith("veth") and len(name) == 15 and mac in ours


def is_host_interface(name: str) -> bool:
    """Whether a link is called as the host end of an attachment's veth."""
    return bool(_HOST_INTERFACE.fullmatch(name))


def is_mac(text: str) -> bool:
    """Whether a text is a unicast Ethernet address that is not all zero."""
    if not _MAC.fullmatch(text):
        return False
    raw = bytes.fromhex(text.replace(":", "").replace("-", ""))
    return not raw[0] & 1 and any(raw)


def peer_set(selection: str, family: int, *, ports: bool) -> str:
    """The set of a selection's addresses of one family, by the selection's spelling; of addresses and ports, with `ports`."""
    return f"{'n' if ports else 'p'}{family}-{digest_of(selection)[:16]}"


def domain_set(token: str, names: Iterable[str], family: int) -> str:
    """The set of the addresses, of one family, that a pod's rule lets it reach because it resolved `names` to them: ``d4-TOKEN-DIGEST``.
    The `token` of the pod's chains stands in it, by which all of its sets are found where no record says which there are.
    """
    return f"{domain_sets(token, family)}{digest_of(' '.join(sorted(names)))[:16]}"


def domain_sets(token: str, family: int) -> str:
    """What those of a pod's chains, of one family, begin with."""
    return f"d{family}-{token}-"


def is_domain_set(name: str) -> bool:
    """Whether a set is called as one that a pod's questions fill."""
    return bool(_DOMAIN_SET.fullmatch(name))


def vxlan_interface(vni: int) -> str:
    """The VXLAN device of a VNI: one per VNI and node."""
    return f"vxlan{vni}"


def vtep_mac(link: str, node: str) -> str:
    """A VXLAN device's MAC: each node, known by its namespace's identity, has another on a bridge they span together."""
    return _mac(_HIGHEST, digest_of(f"{node} {link}"))


def host_shim(master: str) -> str:
    """The host's own macvlan on a master, for host access."""
    name = f"mv-{master}"
    return name if len(name.encode()) <= 15 else f"mv-{digest_of(master)[:12]}"


def shim_mac(master_mac: str) -> str:
    """The shim's MAC: distinct on the wire because its master's is."""
    return _mac("0e", digest_of(master_mac))


def _mac(prefix: str, digits: str) -> str:
    text = (prefix + digits)[:12]
    return ":".join(text[i : i + 2] for i in range(0, 12, 2))
