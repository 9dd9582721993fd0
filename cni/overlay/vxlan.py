"""The ``vxlan`` section: a bridge's network across hosts, as resources.

`peers` is the seam for a controller: with ``remotes`` in the configuration the flood list is exactly
those VTEPs; without, nobody here touches it, and what knows the nodes programs it. In a cluster that is its member, and the
device is as other hosts know it.
"""

from __future__ import annotations

import ipaddress

from cni.errors import InvalidConfig
from cni.naming import VXLAN_PORT, vxlan_interface
from cni.protocol.config import Section
from cni.resources import FloodList, Resource, UplinkQuery, Vtep, VxlanLink
from cni.values import dataclass, replace

#: Bytes VXLAN adds to an inner packet, by the family of the outer one (RFC 7348, section 5).
OVERHEAD = {4: 50, 6: 70}


@dataclass(frozen=True)
class VxlanConfig:
    """`remotes` None means that something else keeps the list of VTEPs. `mtu` 0 means the uplink's
    less the overhead. `mode` is that of a network of the cluster, and `mac` what its other hosts know of this one's devices.
    """

    vni: int
    port: int = VXLAN_PORT
    local: str = ""
    dev: str = ""
    remotes: tuple[str, ...] | None = None
    mtu: int = 0
    learning: bool = True
    mode: str = ""
    mac: str = ""

    @classmethod
    def read(cls, raw: Section, *, clustered: bool = False) -> VxlanConfig:
        """Read a validated section. Raises InvalidConfig for VTEPs of both families, and for what a cluster says, or only it."""
        if not clustered and raw.get("mode"):
            raise InvalidConfig("$.vxlan.mode: belongs to ipam.cluster")
        if raw.get("direct") and raw.get("mode") != "l3":
            raise InvalidConfig("$.vxlan.direct: belongs to mode l3: of one segment all is in the tunnel")
        for key in ("remotes", "local", "learning") if clustered else ():
            if raw.get(key) or raw.get(key) == []:
                raise InvalidConfig(f"$.vxlan.{key}: excludes ipam.cluster, whose hosts know of each other")
        remotes = (
            None if raw.get("remotes") is None else tuple(str(ipaddress.ip_address(item)) for item in raw["remotes"])
        )
        local = str(ipaddress.ip_address(raw["local"])) if raw.get("local") else ""
        if len({ipaddress.ip_address(item).version for item in (*(remotes or ()), *filter(None, [local]))}) > 1:
            raise InvalidConfig("$.vxlan: local and remotes must be of one family")
        if local and local in (remotes or ()):
            remotes = tuple(item for item in remotes or () if item != local)
        learning = raw.get("learning", not clustered)
        return cls(
            int(raw["id"]), int(raw.get("dstport") or VXLAN_PORT), local, raw.get("dev") or "",
            remotes, int(raw.get("mtu") or 0), learning is None or bool(learning), (raw.get("mode") or "l2") if clustered else "",
        )  # fmt: skip

    @property
    def link(self) -> str:
        """The device's name."""
        return vxlan_interface(self.vni)

    @property
    def uplink(self) -> UplinkQuery:
        """How to find the link the tunnel leaves by."""
        return UplinkQuery(self.dev, self.local, self.remotes or (), vtep=bool(self.mode))

    @property
    def routed(self) -> bool:
        """Whether each block of addresses is a subnet, and other hosts' are routed to."""
        return self.mode == "l3"

    @property
    def stretched(self) -> bool:
        """Whether hosts of a cluster share one segment, and its gateway's address."""
        return self.mode == "l2"

    def at(self, vtep: Vtep | None) -> VxlanConfig:
        """The same on this host, as the cluster knows it."""
        return replace(self, local=vtep.address, mac=vtep.mac) if self.mode and vtep else self

    @property
    def overhead(self) -> int:
        """Bytes each packet grows by."""
        return OVERHEAD[6 if self._over_ipv6 else 4]

    @property
    def _over_ipv6(self) -> bool:
        """What is not said is IPv4, the kernel's own default."""
        return any(":" in address for address in (self.local, *(self.remotes or ())))

    def fitting_mtu(self, wanted: int, host_mtu: int) -> int:
        """The largest MTU the tunnel carries whole, or `wanted` if that fits.

        Raises InvalidConfig for one that does not: the kernel would drop such packets silently.
        """
        room = self.mtu or host_mtu - self.overhead
        for where, value, limit in (("$.vxlan.mtu", self.mtu, host_mtu - self.overhead), ("$.mtu", wanted, room)):
            if value > limit:
                raise InvalidConfig(
                    f"{where}: {value} does not fit; with VXLAN's {self.overhead} bytes at most {limit} do"
                )
        return wanted or room

    def peers(self, bridge: str, mtu: int) -> tuple[Resource, ...]:
        """The device on its bridge, and the other hosts."""
        local = self.local or ("::" if self._over_ipv6 else "")
        device = (self.link, self.vni, self.port, local, self.dev, self.mtu or mtu)
        place, behind = ("", bridge) if self.routed else (bridge, "")
        link = VxlanLink(*device, place, self.learning, mac=self.mac, behind=behind)
        return (link,) if self.remotes is None else (link, FloodList(self.link, self.remotes))
