"""How the kernel's objects look from here: plain data, so that planning needs no kernel."""

from __future__ import annotations

from typing import NamedTuple

from cni.naming import IPInterface
from cni.values import dataclass, field

#: The routing tables and scopes of rtnetlink(7).
MAIN_TABLE, LOCAL_TABLE, SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST = 254, 255, 0, 253, 254

#: What routes, neighbours and addresses that agent-cni's member made say of who made them (rtm_protocol, NDA_PROTOCOL, IFA_PROTO):
#: "ac", which neither rtnetlink.h nor iproute2's rt_protos gives to anybody. As a metric it has its routes stand behind others'.
MEMBER = 0xAC

#: The same of routes by which an uplink is preferred: the others are compared with what pods elsewhere are to have.
UPLINK = 0xAD

#: The same of what the kernel makes by itself (RTPROT_KERNEL), and the metric it gives that in IPv6.
_KERNEL, _KERNELS_METRIC = 2, 256

#: Every destination, by family.
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


#: How a neighbour is known: he answers, or did once; he was asked, and has not yet; somebody said for good where he is; or nobody knows.
ANSWERS, ASKED, FIXED, SILENT = "answers", "asked", "fixed", "silent"


@dataclass(frozen=True)
class LinkRef:
    """A link, for requests: what nobody changes of it."""

    index: int
    name: str


@dataclass(frozen=True)
class Vxlan:
    """A VXLAN device's own settings; `local` is empty where the kernel chooses, and says the family of the tunnel: to make
    one of IPv6 whose address the kernel chooses it is ``::``, which the kernel does not repeat. `dev` is an index, or 0.
    """

    vni: int
    port: int
    local: str
    dev: int
    learning: bool = True


class VethEnd(NamedTuple):
    """One end of a new veth pair; `netns_fd` None means the namespace it is asked for in."""

    name: str
    mac: str
    mtu: int
    netns_fd: int | None = None


class MacvlanSettings(NamedTuple):
    """What a new macvlan is to be; `netns_fd` is its parent's namespace, None where that is its own."""

    mode: str
    parent: int
    netns_fd: int | None = None
    queue: int = 0


@dataclass(frozen=True)
class Link:
    """A network device as the kernel shows it now.

    `bridge` is the index of the bridge it is a port of, `parent` that of the link under it (`parent_elsewhere`:
    in another namespace), 0 for none. `multicast_router` is 1 for a port that may become one by what it sends (ip-link(8)).
    `switched_off` names what a port does not do that a new one does: learning, flood, mcast_flood, bcast_flood.
    """

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    state: str
    bridge: int
    promiscuous: bool
    hairpin: bool
    isolated: bool
    neigh_suppress: bool
    vxlan: Vxlan | None
    parent: int = 0
    parent_elsewhere: bool = False
    alias: str = ""
    macvlan_mode: str = ""
    filtered: bool = False
    multicast_router: int = 0
    loopback: bool = False
    switched_off: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeldAddress:
    """An address on a link; `tentative` while duplicate address detection runs."""

    interface: IPInterface
    tentative: bool
    duplicate: bool
    protocol: int = field(default=0, compare=False)
    scope: int = SCOPE_UNIVERSE


@dataclass(frozen=True)
class KernelRoute:
    """A route as rtnetlink(7) has it: `gateway` empty for what is on the link, `local` for one that delivers here.

    One that is the way by one of `several` next hops shows the metrics of the first, whatever IPv6 has for it. `protocol` is who
    made it, 0 in a wish for somebody at boot.
    """

    dst: str
    gateway: str
    table: int
    priority: int
    mtu: int
    advmss: int
    scope: int
    source: str = ""
    local: bool = False
    several: bool = False
    protocol: int = field(default=0, compare=False)

    @classmethod
    def connected(cls, own: IPInterface) -> KernelRoute:
        """What the kernel makes with an address, to the others of its subnet."""
        is_ipv4 = own.version == 4
        priority, scope, source = (0, SCOPE_LINK, str(own.ip)) if is_ipv4 else (_KERNELS_METRIC, SCOPE_UNIVERSE, "")
        return cls(str(own.network), "", MAIN_TABLE, priority, 0, 0, scope, source, protocol=_KERNEL)
