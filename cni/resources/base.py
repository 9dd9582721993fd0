"""What every resource is, and how it is kept in the node's state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from cni.protocol.result import Result
from cni.resources.world import World
from cni.values import dataclass, fields, replace

#: What the other modules of this package offer.
ROOMS = {
    "addressing": ("BlockGateway", "GatewayAddress", "HostSysctl", "PodAddress", "PodSysctl"),
    "advertisements": ("Ipv6Forwarding", "NoAdvertisements"),
    "antispoof": ("AntiSpoof", "GuardTable"),
    "asking": ("Asking", "AskingPod", "AskingTable"),
    "bridge": ("Bridge",),
    "bridge_filter": ("BridgeFilter",),
    "domains": ("DomainSet",),
    "fresh": ("FreshAddress",),
    "gate": ("Gate", "GateTable", "PortOpening"),
    "interception": ("PodLoopback", "PodRules", "ProxyAddress", "SourceLabels", "WayBack"),
    "links": ("LostPort", "PodLink", "VethPair"),
    "macvlan": ("HostShim", "Macvlan"),
    "masquerade": ("Masquerade", "NftMasquerade", "NftMasqueradeRules"),
    "masquerade_iptables": ("IptablesMasquerade", "IptablesMasqueradeRules"),
    "names": ("NameServer", "PodNames"),
    "neighbours": ("HostNeighbour", "PodNeighbour"),
    "nft": ("NftRules",),
    "peer_set": ("PeerEntries", "PeerSet"),
    "peers": ("FloodList",),
    "plan": ("Host", "HostPort", "Plan", "Uplink", "UplinkQuery", "Vtep"),
    "policy": ("PodPolicy",),
    "policy_table": ("PolicyTable",),
    "readiness": ("Announcement", "Forwarding", "Settled", "Vacant"),
    "remote": ("PeerAddress", "PeerNeighbour", "PeerRefusal", "PeerRoute", "PeerRow"),
    "routes": ("DeadEnd", "GatewayRoute", "HostRoute", "PodRoute"),
    "vtep_filter": ("VtepFilter",),
    "vxlan": ("VxlanLink",),
    "world": ("Said", "World"),
}

#: The classes that a recorded kind may stand for; the first that `reads` the record does.
_KINDS: dict[str, list[type[Resource]]] = {}
#: What a field of a resource may be, besides a tuple of texts.
_PLAIN = {"str": str, "int": int, "bool": bool}


R_contra = TypeVar("R_contra", bound="Resource", contravariant=True)


class Batch(Protocol[R_contra]):
    """Neighbours in a plan that are made in one step; equal ones are one."""

    def ensure(self, items: Sequence[R_contra], world: World) -> None:
        """Make them all so, and tell `world.created` what had to be."""


#: What mends a difference: the operator's command that makes rules again, or another pod.
REFRESH = "agent-cni refresh"
REATTACH = "delete the pod: what comes in its place is attached anew"


class Difference(NamedTuple):
    """Where what exists is not what was made, in one line: of which resource, if it is one's, and what mends it."""

    line: str
    mend: str = REATTACH
    resource: Resource | None = None


class Resource:
    """One thing that must exist for an attachment; a frozen dataclass of plain values.

    `ensure` makes it so and tells `world.created` what it had to create; already so is success.
    `differences` names, one line each, where the kernel is not as `ensure` left it.
    `repair` makes it so again in place; `mend` says who does.
    `remove` takes it away again; removing nothing is success.
    `describe` is one line for people.

    A `configured` one serves all attachments of its network that have what it `mentions` as the configuration says now: CHECK
    goes by what the network's latest ADD or a refresh made of it, whatever an older record says.

    A `shared` resource serves several attachments: DEL leaves it alone, and a failed ADD takes back
    what it created only while no other call runs. One that also `retires` goes with the last
    attachment that uses it; `identity` names the fields by which two of a kind are the same thing, where not all tell them apart.
    """

    mend: ClassVar[str] = REATTACH
    shared: ClassVar[bool] = False
    retires: ClassVar[bool] = False
    configured: ClassVar[bool] = False
    #: Whether a repair that fails leaves what it made: what holds a pod is never taken back.
    stays: ClassVar[bool] = False
    #: Whether it is a pod's link, or an address there; and whether it has no differences, but is made again where one of those has.
    of_link: ClassVar[bool] = False
    follows: ClassVar[bool] = False
    #: Whether traffic passes from here on.
    opens: ClassVar[bool] = False
    identity: ClassVar[tuple[str, ...] | None] = None
    #: The name records know it by.
    kind: ClassVar[str]

    def __init_subclass__(cls, *, recorded_as: str = "", abstract: bool = False) -> None:
        """Let records know it by its name or `recorded_as`; an `abstract` one is what several kinds have in common."""
        if not abstract:
            cls.kind = recorded_as or cls.__name__
            _KINDS.setdefault(cls.kind, []).append(cls)

    @classmethod
    def reads(cls, raw: Mapping[str, Any]) -> bool:
        """Whether it is what a record of its kind holds, where several classes are recorded under one name."""
        return True

    def ensure(self, world: World) -> None:
        """Make it so."""
        raise NotImplementedError

    def differences(self, world: World) -> Iterator[str]:
        """Name what is not so."""
        yield from ()

    @property
    def goes_by(self) -> tuple[str, ...]:
        """What of the node's rules `differences` looks at, by the names that `kernel/inventory.py` knows: as long as all of that is
        what it was, there are the differences that there were, and those that it finds `besides`.
        """
        return ()

    def besides(self, world: World) -> Iterator[str]:
        """Those of its `differences` that have nothing to do with what it `goes_by`."""
        return iter(()) if self.goes_by else self.differences(world)

    @property
    def beside_rules(self) -> Resource | None:
        """What is asked for those `besides` alone; None where there never are any."""
        return None if self.goes_by and type(self).besides is Resource.besides else self

    def lacking(self, world: World) -> Iterator[str]:
        """What a repair goes by, line by line: its differences, and those of others that it alone may mend."""
        return self.differences(world)

    def is_lost(self, world: World) -> bool:
        """Whether it is a pod's link that is to be made anew, with what follows it in the plan. Raises Conflict for what is in its way."""
        return False

    def repair(self, world: World) -> None:
        """Make it so again where it is, beside what else is there; raises Conflict for what that cannot be done with."""
        self.ensure(world)

    def remove(self, world: World) -> None:
        """Take it away; the default is for what vanishes with its link."""

    def describe(self) -> str:
        """Say what it is in one line."""
        raise NotImplementedError

    @property
    def place(self) -> object:
        """What it occupies: of two resources with one place, the later `ensure` replaces the other."""
        return self

    @property
    def mentions(self) -> tuple[str, ...]:
        """What other attachments may ask about: an address, a namespace, a link that it has or lives on."""
        return ()

    @property
    def batch(self) -> Batch[Any] | None:
        """How it is made together with its neighbours in a plan that say the same; None for what is a step of its own."""
        return None

    def details(self) -> Iterator[str]:
        """What else to print of it for people, line by line."""
        yield from ()

    def accepting(self, reported: Result) -> Resource | None:
        """This resource as the chain's final result reports it, where later plugins may change it; None where they took it away."""
        return self


@dataclass(frozen=True)
class Unknown(Resource):
    """What a record of another release holds and this one cannot read: it is told, and cannot be taken away.

    `texts` are its values, of which one may be the name of a link that is there. `raw` is the JSON object it was read from, which
    a record keeps; `part` says that a resource was read from that too.
    """

    what: str
    texts: tuple[str, ...] = ()
    raw: str = ""
    part: bool = False

    def differences(self, world: World) -> Iterator[str]:
        yield f"{self.what}, which another release recorded, is not known to this one"

    def describe(self) -> str:
        return f"{self.what}, of another release"


@cache
def named(name: str) -> Any:
    """What a name in ROOMS stands for; its module is loaded for that (PEP 562)."""
    for room, names in ROOMS.items():
        if name in names:
            return getattr(import_module(f"cni.resources.{room}"), name)
    raise AttributeError(f"module 'cni.resources' has no attribute {name!r}")


def load() -> None:
    """Load every kind, for records of whatever plugin."""
    for room in ROOMS:
        import_module(f"cni.resources.{room}")


def encoded(resources: Iterable[Resource]) -> list[dict[str, Any]]:
    """What a record keeps of resources, as JSON objects that `decoded` reads back: another release's are as it wrote them, and
    ours with its fields as long as they are what it was about.
    """
    items = list(resources)
    wholes = [json.loads(item.raw) for item in items if isinstance(item, Unknown) and item.part]
    richer = {next(_decode(whole)): whole for whole in wholes}
    kept = (item for item in items if not (isinstance(item, Unknown) and item.part))
    return [richer.get(item) or _encode(item) for item in kept]


def _encode(resource: Resource) -> dict[str, Any]:
    if isinstance(resource, Unknown) and resource.raw:
        found: dict[str, Any] = json.loads(resource.raw)
        return found
    return {"kind": resource.kind, **vars(resource)}


def _decode(raw: Mapping[str, Any]) -> Iterator[Resource]:
    """The resource an object of `encoded` stands for, and Unknown for what this release has no name for."""
    kind = _kind_of(raw)
    types = {field.name: str(field.type) for field in fields(kind)} if kind else {}  # type: ignore[arg-type]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items() if key in types}
    odd = [key for key, value in given.items() if not _is_of(types[key], value)]
    try:
        if odd:
            yield _unknown(f"a {raw['kind']} with {', '.join(odd)} of another type", raw)
        else:
            yield kind(**given) if kind else _unknown(f"a resource of kind {raw.get('kind')}", raw)
    except TypeError:
        yield _unknown(f"a {raw['kind']} without {', '.join(sorted(types.keys() - given.keys()))}", raw)
    for key in raw if kind else ():
        if key not in types.keys() | {"kind"}:
            yield replace(_unknown(f"{key} of a {raw['kind']}", raw), texts=_texts([raw[key]]), part=True)


def _unknown(what: str, raw: Mapping[str, Any]) -> Unknown:
    return Unknown(what, _texts(raw.values()), json.dumps(raw))


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str))


def _kind_of(raw: Mapping[str, Any]) -> type[Resource] | None:
    """The class that reads an object of `encoded`; where none that is loaded does, any may."""
    found = _loaded_kind_of(raw)
    if found is None:
        load()
    return found or _loaded_kind_of(raw)


def _loaded_kind_of(raw: Mapping[str, Any]) -> type[Resource] | None:
    return next((kind for kind in _KINDS.get(str(raw.get("kind")), ()) if kind.reads(raw)), None)


def _is_of(annotation: str, value: object) -> bool:
    """Whether a value out of JSON is what a field holds; who acts on another would fail in every verb, and DEL for ever."""
    if annotation == "tuple[str, ...]":
        return isinstance(value, tuple) and all(type(item) is str for item in value)
    return type(value) is _PLAIN[annotation]


def decoded(raws: Iterable[Mapping[str, Any]]) -> tuple[Resource, ...]:
    """The resources a record holds; what cannot be read of them is Unknown."""
    return tuple(item for raw in raws for item in _decode(raw))


def key_of(resource: Resource, lasting: Callable[[object], str]) -> str:
    """What a shared resource is, for a table of who uses what: its kind and `identity`."""
    names = vars(resource) if resource.identity is None else resource.identity
    return " ".join([resource.kind, *(lasting(getattr(resource, name)) for name in names)])


def uses_of(resources: Iterable[Resource], lasting: Callable[[object], str]) -> Iterator[str]:
    """Everything others may have too or ask about; `lasting` spells a value by what stays true of it."""
    for resource in resources:
        if resource.retires:
            yield key_of(resource, lasting)
        yield from map(lasting, resource.mentions)
