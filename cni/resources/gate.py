"""The two gates at the host end of a pod's veth, out of the pod's reach, and the port that opens when they stand.

They hang below everything else: nft's netdev family, hook ingress for what comes out of the pod, hook egress (Linux 5.16)
for what goes in. Pods are spread over sixteen tables: with a change the kernel looks through all of the table it is in, and for
that table through all there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cni.kernel import netfilter, ruleset
from cni.kernel.ruleset import Chain, Element
from cni.naming import VXLAN_PORT
from cni.resources.antispoof import TABLE as GUARDS
from cni.resources.base import Resource
from cni.resources.chains import line_differences, listed_chains
from cni.resources.links import required
from cni.resources.nft import NftRules
from cni.resources.policy_table import TABLE as POLICIES
from cni.resources.policy_table import TOLD
from cni.resources.world import World
from cni.values import dataclass, replace

_DEVICE = re.compile(r'device "([^"]+)"')
_WAY = {"ingress": "from", "egress": "into"}
#: UDP ports of VXLAN devices of this node, as a set.
_VTEPS = "vteps"
_PREFIX = "netdev agent_cni-"
_TABLE = re.compile(rf"^table ({_PREFIX}\S+)", re.MULTILINE)
_CHAIN = re.compile(r"^\tchain (\S+) {", re.MULTILINE)


@dataclass(frozen=True)
class GateTable(NftRules):
    """A table that pods' gates are in, and which UDP ports are VTEPs'; it goes with the last of them. `token` is its bucket, or
    of the release before, which gave each pod a table, the pod's.
    """

    token: str
    shared = True
    retires = True

    @property
    def declarations(self) -> str:
        return _declared(self.table)

    def script(self) -> str:
        return _known_vtep(self.table, VXLAN_PORT)

    def script_for(self, world: World) -> str:
        """With the ports of the VXLAN devices that are there, whoever made them, and those that nobody is told of again."""
        ports = sorted((_ports(world) | _told()) - {VXLAN_PORT})
        return self.script() + "".join(_known_vtep(self.table, port) for port in ports)

    @property
    def goes_by(self) -> tuple[str, ...]:
        return (f"table {self.table}",)

    def differences(self, world: World) -> Iterator[str]:
        if ruleset.is_dormant(self.table):
            yield f"spoofing guards' table {self.table} is dormant"
        yield from self.besides(world)

    def besides(self, world: World) -> Iterator[str]:
        for port in sorted(_ports(world) | {VXLAN_PORT}):
            if not ruleset.has_element(Element(f"{self.table} {_VTEPS}", port.to_bytes(2, "big"))):
                yield f"spoofing guards do not know that UDP port {port} is a VTEP's"

    def remove(self, world: World) -> None:
        ruleset.delete_idle(self.table)

    def describe(self) -> str:
        return f"spoofing guards' table {self.table}"

    @property
    def place(self) -> object:
        return GateTable, self.token

    @property
    def table(self) -> str:
        """What it is called, with its family."""
        return _PREFIX + self.token


@dataclass(frozen=True)
class Gate(NftRules):
    """What passes the host end `link` of a pod, line by line; the rest is dropped. `hook` is the device's: ingress sees
    what comes out of the pod, egress what goes in.

    `token` names its chain. With `mac` only that leaves, and `pod` is the interface that must have it. `bucket` is its table's;
    without one, as the release before made it, it is in a table of the pod's own.
    """

    link: str
    hook: str
    token: str
    lines: tuple[str, ...]
    pod: str = ""
    mac: str = ""
    bucket: str = ""

    def script(self) -> str:
        hook = f'type filter hook {self.hook} device "{self.link}" priority -500; policy drop;'
        chain = f"chain {self.table} {self.chain}"
        return "\n".join([f"add {chain} {{ {hook} }}", f"flush {chain}", *self._rules(), ""])

    @property
    def declarations(self) -> str:
        return _declared(self.table)

    def differences(self, world: World) -> Iterator[str]:
        there = netfilter.nft_list(f"chain {self.table} {self.chain}")
        if there and f'hook {self.hook} device "{self.link}"' not in there:
            yield f"spoofing guard {self.chain} is not on its device {self.link}"
        if there and "policy drop" not in there:
            yield f"spoofing guard {self.chain} does not drop"
        plain = "\n".join([self.declarations, f"add chain {self.table} {self.chain}", *self._rules(), ""])
        wanted = listed_chains(netfilter.nft_rehearsed(plain, f"chain {self.table} {self.chain}"))
        have = listed_chains(there).get(self.chain)
        yield from line_differences(f"spoofing guard {self.chain} of {self.link}", have, wanted[self.chain])
        yield from self.besides(world)

    @property
    def goes_by(self) -> tuple[str, ...]:
        return (f"chain {self.table} {self.chain}",)

    def besides(self, world: World) -> Iterator[str]:
        # a plugin after us may have changed the MAC, and reported that: the pod is mute all the same
        link = world.pod.link_by_name(self.pod) if self.mac and self.pod and world.netns else None
        if link and link.mac != self.mac:
            yield f"{self.pod} has MAC {link.mac}, but only {self.mac} gets past {self.link}"

    @property
    def beside_rules(self) -> Resource | None:
        return replace(self, lines=()) if self.mac and self.pod else None

    def remove(self, world: World) -> None:
        ruleset.delete_there([Chain(self.table, self.chain)])

    def describe(self) -> str:
        way = "comes out of" if self.hook == "ingress" else "gets into"
        return f"gate {self.chain}: what {way} {self.link}, {len(self.lines)} rules"

    def details(self) -> Iterator[str]:
        yield from self.lines

    @property
    def place(self) -> object:
        return Gate, self.hook, self.token, self.bucket

    @property
    def table(self) -> str:
        """What its table is called, with its family."""
        return _PREFIX + (self.bucket or self.token)

    @property
    def chain(self) -> str:
        """What its chain is called."""
        return f"{_WAY[self.hook]}-{self.token}"

    def _rules(self) -> list[str]:
        return [f"add rule {self.table} {self.chain} {line}" for line in self.lines]


def bucket_of(token: str) -> str:
    """Which of the tables a pod's gates are in: tokens begin with any of sixteen digits."""
    return token[0]


def port_of(token: str) -> str:
    """The device a pod's gates hang on, or nothing where they or it are gone."""
    _, *chains = re.split(r"^\tchain ", netfilter.nft_list("chains netdev"), flags=re.MULTILINE)
    own = (text for text in chains if text.startswith(tuple(f"{way}-{token} " for way in _WAY.values())))
    return next((device for text in own for device in _DEVICE.findall(text)), "")


def guarded_devices() -> list[str]:
    """Every device that a gate, or a guard of the release before, hangs on."""
    ours = (text for table, text in _listed() if table.startswith(_PREFIX) or table == GUARDS)
    return list(dict.fromkeys(device for text in ours for device in _DEVICE.findall(text)))


def tables_of_gates() -> set[str]:
    """The tables that pods' gates are in, each with its family."""
    return set(_TABLE.findall(netfilter.nft_list("tables netdev")))


def chains_of_gates() -> dict[str, set[str]]:
    """What chains each of those tables has."""
    return {table: set(_CHAIN.findall(text)) for table, text in _listed() if table.startswith(_PREFIX)}


def gone_with(tokens: set[str]) -> list[str]:
    """What takes away the gates of pods that are gone, as lines of a script."""
    own, there = {f"{way}-{token}" for token in tokens for way in _WAY.values()}, chains_of_gates()
    alone = sorted(table for table in there if table.removeprefix(_PREFIX) in tokens)
    among = sorted(f"{table} {name}" for table in there.keys() - alone for name in there[table] & own)
    return [*(f"delete table {table}" for table in alone), *(f"delete chain {chain}" for chain in among)]


def _listed() -> Iterator[tuple[str, str]]:
    """Every table of the netdev family, by family and name, and its chains without their rules."""
    _, *parts = re.split(r"^table (\S+ \S+) ", netfilter.nft_list("chains netdev"), flags=re.MULTILINE)
    return zip(parts[::2], parts[1::2], strict=True)


def guard_vtep(port: int, own: str = "") -> None:
    """Tell the gates that stand that a UDP port is a VTEP's: those in the table `own`, and all unless they were told."""
    if port == VXLAN_PORT:
        return
    key, told = port.to_bytes(2, "big"), port in _told()
    tables = [own] if told else [own, *tables_of_gates()]
    ruleset.add_where_there(Element(f"{table} {_VTEPS}", key) for table in filter(None, tables))
    if not told:
        ruleset.add_where_there([Element(f"{POLICIES} {TOLD}", key)])


def _ports(world: World) -> set[int]:
    """The UDP ports of the node's VXLAN devices, whoever made them."""
    return {link.vxlan.port for link in world.host.tunnels() if link.vxlan}


def _told() -> set[int]:
    return {int.from_bytes(key, "big") for key in ruleset.keys(f"{POLICIES} {TOLD}")}


def _declared(table: str) -> str:
    return f"add table {table}\nadd set {table} {_VTEPS} {{ type inet_service; }}\n"


def _known_vtep(table: str, port: int) -> str:
    return f"add element {table} {_VTEPS} {{ {port} }}\n"


@dataclass(frozen=True)
class PortOpening(Resource):
    """The host end of an isolated pod goes up when everything that holds the pod stands; on a bridge it is no port that
    becomes a multicast router's by what the pod sends.

    It goes before its gates: in between, a pod that still runs could send as anybody. A `lent` veth is another plugin's:
    it is up already, and stays. `token` names the gates: a VXLAN device that was made meanwhile is told to them before.
    """

    link: str
    on_bridge: bool
    lent: bool = False
    token: str = ""

    def ensure(self, world: World) -> None:
        own = _PREFIX + bucket_of(self.token) if self.token else ""
        for port in sorted(_ports(world) | _told()):
            guard_vtep(port, own)
        self._open(world)

    def _open(self, world: World) -> None:
        link = required(world.host.cached_link(self.link) if self.lent else world.host.link_ref(self.link), self.link)
        if self.on_bridge:
            world.host.set_port(link, up=not self.lent, multicast_router=0)
        elif not self.lent:
            world.host.set_link(link, up=True)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.link)
        if link and self.on_bridge and link.multicast_router:
            yield f"bridge port {self.link} may become a multicast router's (mcast_router {link.multicast_router})"

    def lacking(self, world: World) -> Iterator[str]:
        """Its veth, too, which says so and waits for this."""
        link = world.host.link_by_name(self.link)
        if link and not (link.up or self.lent):
            yield f"host interface {self.link} is down"
        yield from self.differences(world)

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.link)
        if link and self.lent and link.bridge and self.on_bridge:
            world.host.set_port(link, multicast_router=1)  # as the kernel makes a port: it goes by what it hears
        elif link and not self.lent and link.kind == "veth":
            world.host.delete_link(link)

    def describe(self) -> str:
        quiet = ", no multicast router's port" * self.on_bridge
        return f"{self.link} {'stays' if self.lent else 'goes'} up{quiet}"
