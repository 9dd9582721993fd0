"""What pods of a network are called, and how its DNS server is started: files, which who serves names reads (kernel/hostsdir.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cni.errors import Conflict
from cni.kernel import hostsdir
from cni.kernel.hostsdir import Entry
from cni.naming import Attachment
from cni.resources.base import REFRESH, Resource
from cni.resources.world import World
from cni.values import dataclass, replace


@dataclass(frozen=True)
class NameServer(Resource):
    """How dnsmasq answers for a network: to who asks at the bridge, of the domain and of reverse names in its zones nobody else.

    `upstream` empty asks the node's own resolvers. `consul` is where pods are registered, too. It is started by who sees the file
    (`agent-cni names`), and goes with the network's last pod of this node.
    """

    network: str
    bridge: str
    domain: str
    zones: tuple[str, ...]
    upstream: tuple[str, ...] = ()
    consul: str = ""
    shared = True
    retires = True
    configured = True
    identity = ("network",)
    mend = REFRESH

    def ensure(self, world: World) -> None:
        before = hostsdir.read(self._path)
        if before != self._text:
            with world.turn(f"names on {self.bridge}"):
                self._refuse_second()
                hostsdir.put(self._path, self._text)
            if before:
                world.changed(self, lambda: hostsdir.put(self._path, before))
            else:
                world.created(self)

    def differences(self, world: World) -> Iterator[str]:
        now = hostsdir.read(self._path)
        if now != self._text:
            yield f"{self._path}, by which names of {self.network} are served, is {'another' if now else 'missing'}"

    def remove(self, world: World) -> None:
        """Of pods that a lost state does not know of their files say that they are there."""
        if not any(hostsdir.entries(self.network)):
            hostsdir.drop([self._path])

    def describe(self) -> str:
        asked = f", else by {', '.join(self.upstream)}" * bool(self.upstream)
        return f"names of {self.domain} answered on {self.bridge}{asked}" + f", told to {self.consul}" * bool(
            self.consul
        )

    def _refuse_second(self) -> None:
        """A server answers what arrives by its bridge: of two there none could."""
        for network in hostsdir.networks():
            served = hostsdir.served(network) if network != self.network else None
            if served and f"interface={self.bridge}" in served.text.splitlines():
                raise Conflict(
                    f"$.names: network {network} has its names on {self.bridge}: each wants a bridge of its own"
                )

    @property
    def mentions(self) -> tuple[str, ...]:
        return (f"names {self.network}",)

    @property
    def _path(self) -> Path:
        return hostsdir.FOLDER / self.network / hostsdir.CONF

    @property
    def _text(self) -> str:
        folder = hostsdir.FOLDER / self.network
        said = [f"#domain {self.domain}"] + [f"#consul {self.consul}"] * bool(self.consul)
        said += [f"interface={self.bridge}", "bind-dynamic", "except-interface=lo"]
        said += [f"hostsdir={folder / part}" for part in (hostsdir.HERE, hostsdir.THERE)]
        said += [f"local=/{zone}/" for zone in (self.domain, *self.zones)]
        said += ["no-resolv", *(f"server={address}" for address in self.upstream)] if self.upstream else []
        said += ["no-hosts", "domain-needed", "cache-size=1000", "user=nobody", "pid-file="]
        return "".join(f"{line}\n" for line in said)


@dataclass(frozen=True)
class PodNames(Resource):
    """The names that a pod's addresses are answered under; with `health` (JSON) not before it was probed, and as long as that says so."""

    network: str
    container: str
    ifname: str
    addresses: tuple[str, ...]
    names: tuple[str, ...]
    pod: str = ""
    health: str = ""
    mend = REFRESH

    def ensure(self, world: World) -> None:
        known = self._known()
        if known is None or replace(known, unhealthy="") != self._entry:
            hostsdir.put(
                self._entry.path, replace(self._entry, unhealthy=hostsdir.NOT_PROBED if self.health else "").text
            )
            world.created(self)

    def differences(self, world: World) -> Iterator[str]:
        known = self._known()
        if known is None:
            yield f"{self.names[0]} is not answered: {self._entry.path} is missing"
        elif replace(known, unhealthy="") != self._entry or (known.unhealthy and not self.health):
            yield f"{self.names[0]} is answered otherwise than it was told: {self._entry.path}"

    def remove(self, world: World) -> None:
        hostsdir.drop([self._entry.path])

    def describe(self) -> str:
        probed = f", probed: {self.health}" * bool(self.health)
        return f"{', '.join(self.names)} at {', '.join(self.addresses)}{probed}"

    @property
    def place(self) -> object:
        return type(self), self._entry.path

    def _known(self) -> Entry | None:
        return Entry.read(self.network, hostsdir.read(self._entry.path))

    @property
    def _entry(self) -> Entry:
        attachment = Attachment(self.network, self.container, self.ifname)
        return Entry(attachment, self.addresses, self.names, self.pod, self.health)
