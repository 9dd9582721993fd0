"""The Kubernetes objects a policy is made of, as values: what was read of them and judged."""

from __future__ import annotations

from cni.policy.domains import together
from cni.policy.labels import Labels, Selector
from cni.policy.model import Peers, Port
from cni.values import dataclass, field


@dataclass(frozen=True)
class PodPeer:
    """Pods that `pods` selects, in the namespaces that `namespaces` selects; None is the policy's own."""

    pods: Selector = Selector()
    namespaces: Selector | None = None


@dataclass(frozen=True)
class DomainPeer:
    """What `names` are resolved to: patterns, normal."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class NamedPort:
    """A port by the name it has in a pod; `protocol` as in the model."""

    protocol: str
    name: str


@dataclass(frozen=True)
class Rule:
    """Peers and ports that are let through; None is all, an empty tuple none."""

    peers: tuple[tuple[Peers, ...] | PodPeer | DomainPeer, ...] | None = None
    ports: tuple[Port | NamedPort, ...] | None = None


@dataclass(frozen=True)
class NetworkPolicy:
    """Rules by direction, for pods of one namespace; None leaves a direction alone.

    What cannot be read lets nothing through and is named in `faults`; a selector that cannot be read may
    select any pod, and directions that cannot be read may be both. `where` it stands is for people.
    """

    namespace: str
    name: str
    selector: Selector
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None
    faults: tuple[str, ...] = ()
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class NodePeer:
    """The nodes that `nodes` selects."""

    nodes: Selector = Selector()


@dataclass(frozen=True)
class ClusterRule:
    """What becomes of traffic with `peers` on `ports`; None is all, an empty tuple none.

    `action` is accept, deny, or pass, which leaves it to the next tier; `name` is for people.
    """

    action: str
    peers: tuple[tuple[Peers, ...] | PodPeer | NodePeer | DomainPeer, ...] | None
    ports: tuple[Port | NamedPort, ...] | None = None
    name: str = ""


@dataclass(frozen=True)
class ClusterPolicy:
    """A ClusterNetworkPolicy: rules by direction, the first that matches decides, for the pods of a `subject`.

    `tier` is admin, asked before NetworkPolicies, or baseline, asked where none selects the pod; of a tier's policies
    the one of the lowest `priority` is asked first. What cannot be read accepts nothing, and denies where it may have meant to;
    it is named in `faults`. A subject that cannot be read may be any pod.
    """

    tier: str
    priority: int
    name: str
    subject: PodPeer
    ingress: tuple[ClusterRule, ...] = ()
    egress: tuple[ClusterRule, ...] = ()
    faults: tuple[str, ...] = ()
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Pod:
    """A pod with the addresses that are its own, and its containers' named ports with their numbers. One that is `apart`
    has ended, or is in its node's network: no address is its own.
    """

    namespace: str
    name: str
    labels: Labels
    addresses: tuple[str, ...] = ()
    ports: tuple[tuple[NamedPort, int], ...] = ()
    apart: bool = False


def unknown(namespace: str, name: str) -> Pod:
    """A pod without an object: it may have any labels."""
    return Pod(namespace, name, Labels({}, complete=False))


@dataclass(frozen=True)
class Namespace:
    """A namespace; it has its own name as a label."""

    name: str
    labels: Labels


@dataclass(frozen=True)
class KubeNode:
    """A node of the cluster with the addresses that its status tells."""

    name: str
    labels: Labels
    addresses: tuple[str, ...] = ()


def names_of(rule: Rule | ClusterRule) -> tuple[str, ...]:
    """The names of domains among a rule's peers, in order."""
    return together(name for peer in rule.peers or () if isinstance(peer, DomainPeer) for name in peer.names)


#: What is read of a feed.
Object = NetworkPolicy | ClusterPolicy | Pod | Namespace | KubeNode


def document_of(policy: NetworkPolicy | ClusterPolicy) -> str:
    """What people call it."""
    if isinstance(policy, NetworkPolicy):
        return f"NetworkPolicy {policy.namespace}/{policy.name}"
    return f"ClusterNetworkPolicy {policy.name}"
