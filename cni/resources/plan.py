"""A plan: what must exist for one attachment, in order, and the result that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cni.naming import Attachment
from cni.protocol.result import Result
from cni.resources.base import Resource
from cni.values import dataclass


@dataclass(frozen=True)
class Plan:
    """What a plugin's `plan` returns. It is pure data: printing it is `agent-cni explain`."""

    resources: tuple[Resource, ...]
    result: Result


@dataclass(frozen=True)
class Uplink:
    """The link an attachment's traffic leaves by; `mtu` in bytes. `addresses` are those it has now, with their prefixes,
    where they were asked for. `up`: administratively.
    """

    name: str
    mtu: int
    mac: str = ""
    addresses: tuple[str, ...] = ()
    up: bool = True


@dataclass(frozen=True)
class HostPort:
    """The host end of a pod's link, and the bridge it is on, if any; `lent` by a plugin before this one."""

    name: str
    bridge: str = ""
    lent: bool = False


@dataclass(frozen=True)
class UplinkQuery:
    """How to find the uplink: by `dev`, else by who holds `local`, if that is no loopback, else by the way to the first of
    `remotes` that is not this host itself, else the default route; `in_pod` looks in the pod's namespace. `where` is the JSON
    path of `dev`. With `addresses` those it has are read too. `master`: it is that link alone that carries the pod's packets,
    whatever other ways a route has. `vtep`: the address is the one by which other hosts of the cluster know this one.
    """

    dev: str = ""
    local: str = ""
    remotes: tuple[str, ...] = ()
    where: str = "$.vxlan.dev"
    in_pod: bool = False
    addresses: bool = False
    master: bool = False
    vtep: bool = False


@dataclass(frozen=True)
class Vtep:
    """Where other hosts of the cluster send to, and the MAC of this one's VXLAN devices; `exposed` is why nobody may be attached
    to them now.
    """

    address: str
    mac: str
    exposed: str = ""


def _nobody(*values: str) -> Iterable[tuple[Attachment, Resource]]:
    return ()


def _no_gateways(link: str, address: str) -> Iterable[tuple[str, str, Attachment]]:
    return ()


@dataclass(frozen=True)
class Host:
    """What a plan may know of the node. The kernel was asked before, so that planning waits for nobody; what others have is
    looked up while planning, within the transaction that records the plan: of two calls that want the same, one sees the other.

    `netns` is the pod's namespace path, `pod` its Kubernetes name or nothing, `rules` and `pod_rules` the rule backends in use on the host and in
    the pod (see kernel/netfilter), `pod_families` the IP versions (4, 6) the pod speaks. `others` says what other
    attachments on this node have that mention one of some values (an address, a namespace's path, a link's name).
    `port` is the host end that plugins before this one in a chain have made. `gateways` says which gateway (with prefix, link and
    an attachment) the node's networks have, where one on a link is new. `lost` means that there is no record
    and no lease: the plan tells what a removal can find by name. `chained` says that the pod's interface is of those plugins, `unleased` that
    the link alone is to be told: who gives its addresses is asked when it is there.
    `vtep` is how the cluster knows this host, where it does.
    `bridge_mtu` is that of the bridge it comes to where that is somebody else's, and nobody but him changes it.
    """

    netns: str = ""
    uplink: Uplink | None = None
    rules: str = ""
    pod_rules: str = ""
    pod_families: tuple[int, ...] = ()
    others: Callable[..., Iterable[tuple[Attachment, Resource]]] = _nobody
    pod: str = ""
    port: HostPort | None = None
    gateways: Callable[[str, str], Iterable[tuple[str, str, Attachment]]] = _no_gateways
    lost: bool = False
    chained: bool = False
    bridge_mtu: int = 0
    unleased: bool = False
    vtep: Vtep | None = None

    @property
    def mtu(self) -> int:
        """The uplink's MTU, or Ethernet's 1500 on a host that has none."""
        return self.uplink.mtu if self.uplink else 1500
