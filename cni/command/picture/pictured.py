"""What there is to draw of a node: its networks, what pods are on, how they are, and what is at the other ends of tunnels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from cni.naming import Attachment
from cni.resources import (
    Bridge,
    FloodList,
    GatewayAddress,
    Macvlan,
    Masquerade,
    PodPolicy,
    PodRules,
    Resource,
    VethPair,
    VxlanLink,
)
from cni.resources.base import Unknown
from cni.state import Record
from cni.values import dataclass, field


@dataclass
class Pod:
    """One interface of a pod; `badges` are what is done to its traffic, `ports` those of the host that lead to it, `faults` what is not as it
    was made.
    """

    name: str
    ifname: str
    addresses: list[str] = field(default_factory=list)
    badges: dict[str, None] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Far(NamedTuple):
    """A host at the other end of a network's tunnels: where it is sent to, how many pods it has there, and by what it is encrypted."""

    name: str
    address: str
    pods: int
    alive: bool
    encryption: str = ""


class Uplink(NamedTuple):
    """A link by which the node is reached; `fault` is why it is not."""

    name: str
    mtu: int
    addresses: tuple[str, ...]
    fault: str = ""


@dataclass
class Network:
    """What pods are on: a bridge, a physical link, the host itself, or what we do not know; `called` are the networks that have it, `far`
    the other hosts, where a cluster knows them, `faults` what is not as it was made.
    """

    title: str
    gateways: dict[str, None] = field(default_factory=dict)
    tunnels: dict[str, None] = field(default_factory=dict)
    pods: dict[tuple[str, str], Pod] = field(default_factory=dict)
    far: dict[Far, None] = field(default_factory=dict)
    called: dict[str, None] = field(default_factory=dict)
    faults: dict[str, None] = field(default_factory=dict)


class Health(NamedTuple):
    """What is not as it was made, of attachments and of networks, and which ports of the host lead to an attachment."""

    attachments: Mapping[Attachment, list[str]] = MappingProxyType({})
    networks: Mapping[str, list[str]] = MappingProxyType({})
    ports: Mapping[Attachment, list[str]] = MappingProxyType({})


_NONE: Mapping[Any, Any] = MappingProxyType({})
_WELL = Health()


def networks(
    records: Iterable[Record],
    others: Mapping[int, Iterable[Far]] = _NONE,
    guests: Mapping[str, int] = _NONE,
    health: Health = _WELL,
) -> list[Network]:
    """What the records of a node say, pods in the order of their attachments; `others` are a cluster's hosts by VNI, `guests` the VNIs of
    networks whose pods this node only reaches.

    A plugin that is chained adds to a pod that another one attached. What nobody here knows has a box of its own.
    """
    found: dict[str, Network] = {}
    known = tuple(records)
    for record in known:
        for title in filter(None, map(_title, record.resources)):
            _put(found.setdefault(title, Network(title)), record, others)
    drawn = {place for network in found.values() for place in network.pods}
    for record in known:
        if _place(record) not in drawn:
            title = f"another's link, by {record.plugin}"
            _put(found.setdefault(title, Network(title)), record, others)
    for record in known:
        for network in found.values():
            pod = network.pods.get(_place(record))
            if pod:
                _add(pod, record, health)
                network.faults |= dict.fromkeys(health.networks.get(record.attachment.network, ()))
    for name, vni in guests.items():
        far = dict.fromkeys(others.get(vni, ()))
        found[name] = Network(f"{name}: a guest, no pods here", tunnels={f"VNI {vni}": None}, far=far)
    return list(found.values())


def _place(record: Record) -> tuple[str, str]:
    return record.netns, record.attachment.ifname


def _put(network: Network, record: Record, others: Mapping[int, Iterable[Far]]) -> None:
    network.called[record.attachment.network] = None
    network.pods[_place(record)] = _pod(record)
    _describe(network, record.resources, others)


def _add(pod: Pod, record: Record, health: Health) -> None:
    """What each plugin of a chain has to say of one pod."""
    pod.badges |= dict.fromkeys(filter(None, map(_badge, record.resources)))
    pod.faults += [line for line in health.attachments.get(record.attachment, ()) if line not in pod.faults]
    pod.ports += [port for port in health.ports.get(record.attachment, ()) if port not in pod.ports]


def _title(resource: Resource) -> str:
    if isinstance(resource, VethPair):
        return f"bridge {resource.bridge}" if resource.bridge else "routed by the host, each alone"
    if isinstance(resource, Macvlan):
        return f"{resource.master}: macvlan, mode {resource.mode}"
    return ""


def _pod(record: Record) -> Pod:
    addresses = [ip["address"] for ip in (record.result or {}).get("ips", [])]
    name = record.pod or record.attachment.container[:13]  # what crictl shows of an id
    return Pod(name, record.attachment.ifname, addresses)


def _describe(network: Network, resources: Iterable[Resource], others: Mapping[int, Iterable[Far]]) -> None:
    for resource in resources:
        if isinstance(resource, GatewayAddress) and network.title == f"bridge {resource.link}":
            network.gateways[resource.address] = None
        if isinstance(resource, VxlanLink):
            network.tunnels[f"VNI {resource.vni}, UDP {resource.port}"] = None
            network.far |= dict.fromkeys(others.get(resource.vni, ()))
        if isinstance(resource, FloodList):
            network.tunnels |= dict.fromkeys(resource.vteps)
        if isinstance(resource, Bridge):
            network.gateways[f"MTU {resource.mtu}"] = None


def _badge(resource: Resource) -> str:
    kinds = {PodRules: "proxy", PodPolicy: "policy", Masquerade: "NAT", Unknown: "other"}
    return next((word for kind, word in kinds.items() if isinstance(resource, kind)), "")
