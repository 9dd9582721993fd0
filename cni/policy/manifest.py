"""Documents taken apart into the objects a policy is made of, in whatever list they come.

An object of another group's kind, of a kind that only looks like ours, or of none is refused by name: to leave it
out could let through what it forbids. Other kinds are nothing to us.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from cni.errors import InvalidConfig
from cni.policy.fields import listed, name, numbered, path_of, shown, text
from cni.policy.kubernetes import Cluster
from cni.policy.labels import Labels
from cni.policy.objects import KubeNode, NamedPort, Namespace, Object, Pod
from cni.policy.spec import network_policy
from cni.policy.tiers import admin_network_policy, baseline_admin_network_policy, cluster_network_policy
from cni.protocol.config import meant

_ADMIN = "policy.networking.k8s.io"
#: The kinds that are read, each of which versions.
_OURS = {
    "NetworkPolicy": ("networking.k8s.io/v1",),
    "ClusterNetworkPolicy": (f"{_ADMIN}/v1beta1", f"{_ADMIN}/v1alpha2"),
    "AdminNetworkPolicy": (f"{_ADMIN}/v1alpha1",),
    "BaselineAdminNetworkPolicy": (f"{_ADMIN}/v1alpha1",),
    "Pod": ("v1",),
    "Namespace": ("v1",),
    "Node": ("v1",),
}
_ANSWERS = ("Status", "Table", "PartialObjectMetadata", "WatchEvent")
_DONE = ("Succeeded", "Failed")
_LIKENESS = 0.8


class Item(NamedTuple):
    """One object of a document: where it stands and what it is called, what was read of it, and the object as it came. `value` is what of it
    is kept as JSON, from which `known` reads the same.
    """

    where: str
    kind: str
    namespace: str
    name: str
    read: Object
    value: Any
    raw: dict[str, Any]


def items_of(where: str, document: Any) -> Iterator[Item]:
    """The objects of ours in a document that stands `where`. Raises InvalidConfig beginning with that."""
    for at, kind, raw in _apart(where, document):
        space, own = _place(raw, at)
        found = _READERS[kind](raw, at, space, own)
        yield Item(at, kind, space, own, found, _kept(raw, found), raw)


def known(kind: str, where: str, namespace: str, name: str, value: Any) -> Object:
    """An object again, by what was kept of it."""
    if kind == "Pod":
        ports = tuple((NamedPort(protocol, called), number) for protocol, called, number in value["ports"])
        return Pod(namespace, name, Labels(value["labels"]), tuple(value["addresses"]), ports, value["apart"])
    if kind == "Namespace":
        return Namespace(name, Labels(value["labels"]))
    if kind == "Node":
        return KubeNode(name, Labels(value["labels"]), tuple(value["addresses"]))
    return _READERS[kind](value, where, namespace, name)


def refuse_two_meanings(item: Item, other: Object, there: str) -> None:
    """Raise InvalidConfig where an object of one name is another one `there`."""
    if item.read != other:
        what = f"{item.kind} {item.namespace}/{item.name} is another one than in {there.removeprefix('policyDir: ')}"
        raise InvalidConfig(f"{item.where}: {what}")


def cluster_of(documents: Iterable[tuple[str, Any]], feed: str = "") -> Cluster:
    """What documents of a feed say, each given with where it stands. Raises InvalidConfig beginning with that."""
    return Cluster(feed, tuple(objects_of(documents)))


def objects_of(documents: Iterable[tuple[str, Any]]) -> list[Object]:
    """The objects in documents, of every kind that is read. Raises InvalidConfig as `cluster_of` does."""
    found: dict[tuple[str, ...], Item] = {}
    for number, item in enumerate(item for one in documents for item in items_of(*one)):
        first = found.setdefault((item.kind, item.namespace, item.name or str(number)), item)
        refuse_two_meanings(item, first.read, first.where)
    return [item.read for item in found.values()]


def _kept(raw: dict[str, Any], read: Object) -> Any:
    if isinstance(read, Pod):
        ports = [[port.protocol, port.name, number] for port, number in read.ports]
        return {"labels": read.labels.known, "addresses": [*read.addresses], "ports": ports, "apart": read.apart}
    if isinstance(read, Namespace):
        return {"labels": read.labels.known}
    if isinstance(read, KubeNode):
        return {"labels": read.labels.known, "addresses": [*read.addresses]}
    return {key: value for key, value in raw.items() if key not in ("metadata", "status")}


def _apart(where: str, raw: Any, within: tuple[str, str] | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The objects of ours in a document: where, of which kind, and what. What a list says of all its items they may leave out."""
    if not isinstance(raw, dict):
        raise InvalidConfig(f"{where}: not a Kubernetes object")
    given, meant_by_list = (raw.get("kind"), raw.get("apiVersion")), within or ("", "")
    kind, version = (text(one or other, where) for one, other in zip(given, meant_by_list, strict=True))
    if kind.endswith("List") and within is None:
        if "items" not in raw:
            raise InvalidConfig(f"{where}: a {shown(kind)} without items")
        of = ("", "") if kind == "List" else (kind.removesuffix("List"), version)
        for at, item in numbered(listed(raw["items"], f"{where}: items"), "items"):
            yield from _apart(f"{where}: {at}", item, of)
    elif _is_ours(kind, version, where):
        yield where, kind, raw
    elif "items" in raw:
        raise InvalidConfig(f"{where}: a {shown(kind)} has no items here")


def _is_ours(kind: str, version: str, where: str) -> bool:
    if kind in _OURS:
        if version and version not in _OURS[kind]:
            raise InvalidConfig(f"{where}: a {kind} of {shown(version)} is not understood, only of {_OURS[kind][0]}")
        return True
    if not kind or kind in _ANSWERS:
        raise InvalidConfig(f"{where}: {f'a {kind}' if kind else 'what has no kind'} is no object of a cluster")
    if kind.lower().endswith("networkpolicy"):
        raise InvalidConfig(f"{where}: a {shown(kind)} is not understood, only Kubernetes' own NetworkPolicy")
    alike = meant(kind, _OURS, _LIKENESS)
    if alike or any(name.startswith(kind) or name.lower() == kind.lower() for name in (*_OURS, "List")):
        raise InvalidConfig(f"{where}: the kind {shown(kind)} is not known{alike}")
    return False


def _place(raw: dict[str, Any], where: str) -> tuple[str, str]:
    """Its namespace and name."""
    metadata = _object(raw.get("metadata"), f"{where}: metadata")
    space, own = (name(metadata.get(key), f"{where}: metadata.{key}") for key in ("namespace", "name"))
    return space or "default", own


def _namespace(raw: dict[str, Any], where: str, _: str, own: str) -> Namespace:
    return Namespace(own, _labels(raw, where))


def _pod(raw: dict[str, Any], where: str, space: str, own: str) -> Pod:
    """One that has ended, or is in its node's network, has no address of its own."""
    spec, status = (_object(raw.get(key), f"{where}: {key}") for key in ("spec", "status"))
    apart = bool(spec.get("hostNetwork")) or status.get("phase") in _DONE
    ips = [
        (at, _object(item, at).get("ip"))
        for at, item in numbered(listed(status.get("podIPs"), f"{where}: status.podIPs"), f"{where}: status.podIPs")
    ]
    found = [(at, text) for at, text in ips or [(f"{where}: status.podIP", status.get("podIP"))] if text]
    addresses = () if apart else tuple(_address(text, at) for at, text in found)
    return Pod(space, own, _labels(raw, where), addresses, tuple(_ports(spec)), apart)


def _ports(spec: dict[str, Any]) -> Iterator[tuple[NamedPort, int]]:
    """The named ports of its containers, and of those that are started before them and stay."""
    started = [item for item in _objects(spec.get("initContainers")) if item.get("restartPolicy") == "Always"]
    for container in (*_objects(spec.get("containers")), *started):
        for port in _objects(container.get("ports")):
            number, called = port.get("containerPort"), port.get("name")
            if isinstance(called, str) and type(number) is int and 0 < number < 1 << 16:
                yield NamedPort(str(port.get("protocol") or "TCP").lower(), called), number


def _labels(raw: dict[str, Any], where: str) -> Labels:
    at = f"{where}: metadata.labels"
    labels = _object((raw.get("metadata") or {}).get("labels"), at)
    return Labels({str(key): text(value, path_of(at, key)) for key, value in labels.items()})


def _address(raw: Any, where: str) -> str:
    try:
        return str(ipaddress.ip_address(text(raw, where)))
    except ValueError:
        raise InvalidConfig(f"{where}: {shown(raw)} is no address") from None


def _object(raw: Any, where: str) -> dict[str, Any]:
    """An object whose fields are free; absent is empty."""
    if raw is not None and not isinstance(raw, dict):
        raise InvalidConfig(f"{where}: {shown(raw)} is no object")
    return raw or {}


def _objects(raw: Any) -> list[dict[str, Any]]:
    return [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []


def _node(raw: dict[str, Any], where: str, _: str, own: str) -> KubeNode:
    """Its addresses are those of its status that are none of a name."""
    status = _object(raw.get("status"), f"{where}: status")
    items = numbered(listed(status.get("addresses"), f"{where}: status.addresses"), f"{where}: status.addresses")
    told = [(f"{at}.address", _object(item, at)) for at, item in items]
    known = (_address(item.get("address"), at) for at, item in told if str(item.get("type")).endswith("IP"))
    return KubeNode(own, _labels(raw, where), tuple(dict.fromkeys(known)))


_READERS: dict[str, Callable[[dict[str, Any], str, str, str], Object]] = {
    "NetworkPolicy": network_policy,
    "ClusterNetworkPolicy": cluster_network_policy,
    "AdminNetworkPolicy": admin_network_policy,
    "BaselineAdminNetworkPolicy": baseline_admin_network_policy,
    "Node": _node,
    "Pod": _pod,
    "Namespace": _namespace,
}
