"""One line of what CHECK or a refresh says of an attachment, and what can be told of it without the kernel."""

from __future__ import annotations

from typing import NamedTuple

from cni.diagnosis.finding import Severity
from cni.naming import MASQUERADE_TABLE, Attachment
from cni.resources import Difference, Resource

#: Kinds by which a pod is kept from others, or others from it.
_GUARDING = {
    "PodPolicy", "PolicyTable", "PeerSet", "PeerEntries", "AntiSpoof", "GuardTable", "Gate", "GateTable", "PortOpening", "PodRules", "DomainSet",
    "WayBack", "BridgeFilter", "VtepFilter",
}  # fmt: skip


class Symptom(NamedTuple):
    """`pod` is what people call it; `severity` is given where no resource tells it."""

    pod: str
    attachment: Attachment
    difference: Difference
    given: Severity = Severity.BROKEN

    @property
    def line(self) -> str:
        """What is wrong, without the pod."""
        return self.difference.line

    @property
    def resource(self) -> Resource | None:
        """Whose difference it is."""
        return self.difference.resource

    @property
    def inside(self) -> bool:
        """Whether it is of nft's rules in the pod's own namespace."""
        return bool(getattr(self.resource, "netns", "")) and self.kind != "PodRules"

    @property
    def kind(self) -> str:
        """The kind of that resource, or nothing."""
        return self.resource.kind if self.resource else ""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return Severity.OPEN if is_guarding(self.resource) else self.given

    @property
    def scope(self) -> Attachment | None:
        """Whose namespace it is in: a pod's, or None for the host's."""
        return self.attachment if self.line.endswith("in the pod") or self.kind in _INSIDE else None

    @property
    def names(self) -> set[str]:
        """What its resource is about in its own namespace, by name: links among others. A host's one may say what is in the pod, too."""
        said = vars(self.resource).items() if self.resource else ()
        values = {value for key, value in said if isinstance(value, str) and (self.scope or key != "pod")}
        return values | {part for value in values if value.startswith("net.") for part in value.split(".")}


_INSIDE = {
    "PodLink",
    "PodAddress",
    "PodRoute",
    "PodNeighbour",
    "PodSysctl",
    "ProxyAddress",
    "PodLoopback",
    "SourceLabels",
}


def is_guarding(resource: Resource | None) -> bool:
    """Whether pods are kept from each other by it, or from themselves."""
    return resource is not None and resource.kind in _GUARDING


def table_of(resource: Resource) -> str:
    """The nft table of the host that a resource is in, with its family; nothing for one that is in none."""
    said = vars(resource)
    if resource.kind.startswith("Masquerade") and said["backend"] == "nftables":
        return f"{'ip' if said['family'] == 4 else 'ip6'} {MASQUERADE_TABLE}"
    words = next(iter(resource.goes_by), "").split()
    return " ".join(words[1:3])
