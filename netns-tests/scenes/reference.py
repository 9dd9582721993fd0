"""What Kubernetes' API reference says of one connection, straight from raw objects: the second opinion of every test of policies.

It shares no code with what it judges. Sources: NetworkPolicySpec of networking.k8s.io/v1, "Network Policies" of Kubernetes'
documentation, and ClusterNetworkPolicySpec of policy.networking.k8s.io/v1beta1 (sigs.k8s.io/network-policy-api v0.3.0). Objects are
taken for valid.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Raw = dict[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: an address, and whose it is: a pod's (`namespace/name`), a node's, or nobody's we know.

    A pod that is not `held` is a peer, but nobody holds it to the policies about it.
    """

    address: str
    pod: str = ""
    node: str = ""
    held: bool = True


@dataclass(frozen=True)
class Reference:
    """Objects of a cluster, and what they let through."""

    objects: tuple[Raw, ...]

    def allows(self, source: End, to: End, protocol: str, port: int) -> bool:
        """Whether a new connection may be. A pod cannot block itself; a node reaches its own pods."""
        if source == to or (source.pod and source.pod == to.pod):
            return True
        return self.passes("egress", source, to, protocol, port) and (
            bool(source.node and not source.pod) or self.passes("ingress", to, source, protocol, port)
        )

    def passes(self, direction: str, me: End, peer: End, protocol: str, port: int) -> bool:
        """Whether one end's own policies let it through: `ingress` to it, or `egress` from it. The first tier that decides does."""
        if not me.pod or not me.held:
            return True
        asked = (direction, me, peer, protocol, port)
        for said in (self._tier("Admin", *asked), self._namespaced(*asked), self._tier("Baseline", *asked)):
            if said is not None:
                return said
        return True

    # --- networking.k8s.io/v1

    def _namespaced(self, direction: str, me: End, peer: End, protocol: str, port: int) -> bool | None:
        """Policies add up; None where none selects the pod in this direction."""
        home, selected = me.pod.split("/")[0], False
        for policy in self._of("NetworkPolicy"):
            spec = policy["spec"]
            types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
            if policy["metadata"]["namespace"] != home or direction.capitalize() not in types:
                continue
            if not chosen(spec.get("podSelector"), self._labels(me.pod)):
                continue
            selected = True
            for rule in spec.get(direction) or []:
                if self._lets(rule, direction, me, peer, protocol, port):
                    return True
        return False if selected else None

    def _lets(self, rule: Raw, direction: str, me: End, peer: End, protocol: str, port: int) -> bool:
        """Absent and empty lists restrict nothing; items are ORed, peers and ports ANDed."""
        listed = rule.get("from" if direction == "ingress" else "to") or []
        near = [item for item in listed if self._is(item, me.pod.split("/")[0], peer)]
        if listed and not near:
            return False
        named = me.pod if direction == "ingress" else peer.pod
        if direction == "egress" and listed and all(item.get("ipBlock") for item in near):
            named = ""  # what only an ipBlock names has no names of ports
        return not rule.get("ports") or any(self._port(item, protocol, port, named) for item in rule["ports"])

    def _is(self, item: Raw, home: str, peer: End) -> bool:
        block = item.get("ipBlock")
        if block:
            return within(peer.address, block["cidr"]) and not any(
                within(peer.address, hole) for hole in block.get("except") or []
            )
        if not peer.pod:
            return False
        space = peer.pod.split("/")[0]
        spaces = item.get("namespaceSelector")
        near = space == home if spaces is None else chosen(spaces, self._spaces[space])
        return near and chosen(item.get("podSelector"), self._labels(peer.pod))

    def _port(self, item: Raw, protocol: str, port: int, pod: str) -> bool:
        if (item.get("protocol") or "TCP") != protocol:
            return False
        wanted = item.get("port")
        if isinstance(wanted, str):
            return (wanted, protocol, port) in set(self._ports(pod))
        return wanted is None or wanted <= port <= (item.get("endPort") or wanted)

    # --- policy.networking.k8s.io/v1beta1

    def _tier(self, tier: str, direction: str, me: End, peer: End, protocol: str, port: int) -> bool | None:
        """The first rule that matches, by priority and then by its place; None where it passes, or none does."""
        policies = [item for item in self._of("ClusterNetworkPolicy") if item["spec"]["tier"] == tier]
        for policy in sorted(policies, key=lambda item: item["spec"]["priority"]):
            if not self._named(policy["spec"]["subject"], me.pod):
                continue
            for rule in policy["spec"].get(direction) or []:
                action = rule["action"]
                peers = rule["from" if direction == "ingress" else "to"]
                if action != "Accept" and not all(peers):  # of a version to come: fails closed
                    return False
                if any(self._matches(item, peer) for item in peers) and self._speaks(
                    rule, me.pod if direction == "ingress" else peer.pod, protocol, port
                ):
                    return None if action == "Pass" else action == "Accept"
        return None

    def _named(self, item: Raw, pod: str) -> bool:
        """Whether a subject, or a peer by `namespaces` or `pods`, is this pod."""
        space = self._spaces[pod.split("/", maxsplit=1)[0]]
        if "namespaces" in item:
            return chosen(item["namespaces"], space)
        pods = item.get("pods")
        return (
            pods is not None
            and chosen(pods.get("namespaceSelector"), space)
            and chosen(pods.get("podSelector"), self._labels(pod))
        )

    def _matches(self, item: Raw, peer: End) -> bool:
        if "networks" in item:
            return any(within(peer.address, cidr) for cidr in item["networks"])
        if "nodes" in item:
            return any(
                peer.address in {it["address"] for it in node["status"]["addresses"]}
                for node in self._of("Node")
                if chosen(item["nodes"], node["metadata"].get("labels") or {})
            )
        return bool(peer.pod) and self._named(item, peer.pod)

    def _speaks(self, rule: Raw, pod: str, protocol: str, port: int) -> bool:
        for item in rule.get("protocols") or []:
            if "destinationNamedPort" in item:
                if (item["destinationNamedPort"], protocol, port) in set(self._ports(pod)):
                    return True
            elif protocol.lower() in item:
                wanted = item[protocol.lower()]["destinationPort"]
                span = wanted.get("range") or {"start": wanted.get("number"), "end": wanted.get("number")}
                if span["start"] <= port <= span["end"]:
                    return True
        return not rule.get("protocols")

    # --- what is known of pods and namespaces

    def _of(self, kind: str) -> Iterator[Raw]:
        return (item for item in self.objects if item["kind"] == kind)

    @cached_property
    def _pods(self) -> dict[str, Raw]:
        return {f"{item['metadata']['namespace']}/{item['metadata']['name']}": item for item in self._of("Pod")}

    @cached_property
    def _spaces(self) -> dict[str, dict[str, str]]:
        """Namespaces' labels; the API server adds the name."""
        return {
            item["metadata"]["name"]: {
                **(item["metadata"].get("labels") or {}),
                "kubernetes.io/metadata.name": item["metadata"]["name"],
            }
            for item in self._of("Namespace")
        }

    def _labels(self, pod: str) -> dict[str, str]:
        return self._pods[pod]["metadata"].get("labels") or {}

    def addresses(self, pod: str) -> set[str]:
        """What a pod's object says its addresses are."""
        status = self._pods[pod]["status"]
        return {status["podIP"], *(item["ip"] for item in status.get("podIPs") or ())}

    def _ports(self, pod: str) -> Iterator[tuple[str, str, int]]:
        """The ports a pod's containers name: name, protocol, number."""
        for container in self._pods[pod]["spec"]["containers"] if pod else ():
            for port in container.get("ports") or ():
                if "name" in port:
                    yield port["name"], port.get("protocol") or "TCP", port["containerPort"]


def chosen(selector: Raw | None, labels: dict[str, str]) -> bool:
    """Whether a label selector selects; all its conditions must hold, and without any it selects everything."""
    wanted = selector or {}
    if any(labels.get(key) != value for key, value in (wanted.get("matchLabels") or {}).items()):
        return False
    for item in wanted.get("matchExpressions") or []:
        has, values = labels.get(item["key"]), item.get("values") or []
        holds = {
            "In": has is not None and has in values,
            "NotIn": has is None or has not in values,
            "Exists": has is not None,
            "DoesNotExist": has is None,
        }
        if not holds[item["operator"]]:
            return False
    return True


def within(address: str, cidr: str) -> bool:
    """Whether an address is of a network, whose host bits say nothing."""
    network = ipaddress.ip_interface(cidr).network
    return network.version == ipaddress.ip_address(address).version and ipaddress.ip_address(address) in network
