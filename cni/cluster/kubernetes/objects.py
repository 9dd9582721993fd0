"""What is read of the API's objects: a few fields of many. The rest of a pod is 20 KiB that nobody here asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct

T = TypeVar("T")


class Kind(NamedTuple):
    """A kind of objects; of several `versions` of its group the first that is served is read."""

    name: str
    group: str
    versions: tuple[str, ...]
    plural: str

    @property
    def called(self) -> str:
        """As a ClusterRole names it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def is_added(self) -> bool:
        """Whether an API has it only where somebody added it."""
        return self.group == _ADMINISTRATORS

    def path(self, version: str) -> str:
        """Where it is served."""
        return f"/apis/{self.group}/{version}/{self.plural}" if self.group else f"/api/{version}/{self.plural}"

    def api_version(self, version: str) -> str:
        """As its objects say it."""
        return f"{self.group}/{version}" if self.group else version


_ADMINISTRATORS = "policy.networking.k8s.io"
NODES = Kind("Node", "", ("v1",), "nodes")
PODS = Kind("Pod", "", ("v1",), "pods")
NAMESPACES = Kind("Namespace", "", ("v1",), "namespaces")
#: What forbids. Where nobody installed an administrator's kind there is none of it.
POLICIES = (
    Kind("NetworkPolicy", "networking.k8s.io", ("v1",), "networkpolicies"),
    Kind("ClusterNetworkPolicy", _ADMINISTRATORS, ("v1beta1", "v1alpha2"), "clusternetworkpolicies"),
    Kind("AdminNetworkPolicy", _ADMINISTRATORS, ("v1alpha1",), "adminnetworkpolicies"),
    Kind("BaselineAdminNetworkPolicy", _ADMINISTRATORS, ("v1alpha1",), "baselineadminnetworkpolicies"),
)


class Metadata(Struct, rename="camel"):
    """Of any object; of one that only marks a version nothing else."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    labels: dict[str, str] | None = None


class Annotated(Metadata, rename="camel"):
    """Of a Node."""

    annotations: dict[str, str] | None = None


class Address(Struct):
    """One of a Node's: an InternalIP, a Hostname, and so on."""

    type: str = ""
    address: str = ""


class Condition(Struct):
    """What somebody says of a Node; `status` is True, False or Unknown."""

    type: str = ""
    status: str = ""


class Host(Struct, rename={"machine_id": "machineID", "boot_id": "bootID"}):
    """Which machine speaks as a Node, as its kubelet says it."""

    machine_id: str = ""
    boot_id: str = ""


class NodeSpec(Struct):
    """The blocks a Node was given."""

    podCIDR: str = ""  # noqa: N815, the API's
    podCIDRs: list[str] | None = None  # noqa: N815


class NodeStatus(Struct, rename="camel"):
    """What its kubelet says of it."""

    addresses: list[Address] | None = None
    conditions: list[Condition] | None = None
    node_info: Host | None = None


class Node(Struct):
    """A host."""

    metadata: Annotated = msgspec.field(default_factory=Annotated)
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class Port(Struct, rename="camel", omit_defaults=True):
    """A container's; it may be known by its name."""

    name: str = ""
    container_port: int = 0
    protocol: str = ""


class Container(Struct, rename="camel", omit_defaults=True):
    """What listens in a pod."""

    ports: list[Port] | None = None
    restart_policy: str = ""


class PodSpec(Struct, rename="camel", omit_defaults=True):
    """Where a pod is to run, and what in it."""

    node_name: str = ""
    host_network: bool = False
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


class PodAddress(Struct):
    """One of a pod's."""

    ip: str = ""


class PodStatus(Struct, omit_defaults=True):
    """How far a pod is."""

    phase: str = ""
    podIPs: list[PodAddress] | None = None  # noqa: N815
    podIP: str = ""  # noqa: N815


class Pod(Struct):
    """A pod."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class Policy(Struct):
    """What forbids, whole, and a Namespace, which is its labels."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: Raw = Raw(b"{}")


Object = Node | Pod | Policy


class Version(Struct, rename="camel"):
    """Of an object's metadata, when it became so."""

    resource_version: str


class Unread(Struct):
    """An object that is not understood; who goes on after it needs no more of it."""

    metadata: Version


class ListMetadata(Struct, rename={"version": "resourceVersion", "token": "continue"}):
    """At which revision a list is, and by what the next page is asked for."""

    version: str = ""
    token: str = ""


class Page(Struct):
    """Some of a list."""

    metadata: ListMetadata
    items: list[Raw] | None = None


class Status(Struct):
    """Why something was refused."""

    message: str = ""
    reason: str = ""
    code: int = 0


class Event(Struct):
    """What a watch says: ADDED, MODIFIED, DELETED, BOOKMARK, and ERROR with a Status."""

    type: str
    object: Raw


def reader(kind: type[T]) -> Callable[[bytes | Raw], T]:
    """What reads JSON as something. It raises ValueError naming the path of what is not so."""
    decoder = msgspec.json.Decoder(kind)

    def read(text: bytes | Raw) -> T:
        try:
            return decoder.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from None

    return read


def spelled(value: Any) -> str:
    """As JSON, without what is left to its default."""
    return msgspec.json.encode(value).decode()


_READERS: dict[str, Callable[[bytes | Raw], Object]] = {"Node": reader(Node), "Pod": reader(Pod)}
_POLICY = reader(Policy)


def read(kind: Kind, text: bytes | Raw) -> Object:
    """An object of a kind. Raises ValueError."""
    return _READERS.get(kind.name, _POLICY)(text)
