"""A cluster's store in the Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import ClassVar

from cni.cluster.config import KubernetesConfig
from cni.cluster.document import Document
from cni.cluster.fields import Malformed
from cni.cluster.kubernetes import items
from cni.cluster.kubernetes.hosts import Annotations, Hosts
from cni.cluster.kubernetes.objects import NODES
from cni.cluster.kubernetes.objects import Node as Object
from cni.cluster.kubernetes.roster import Roster
from cni.cluster.kubernetes.watch import Watch
from cni.cluster.model import LAYER_2, Block, Endpoint, Key, Network
from cni.cluster.store import Change, Listing, Session, Sparing
from cni.errors import Conflict

_KUBECTL = "the policies of this cluster are Kubernetes' objects: kubectl"


class KubernetesStore(Hosts):
    """See ClusterStore. Nobody claims a block: the API's controllers say in a Node's podCIDRs which it has."""

    assigns: ClassVar[bool] = True

    def __init__(self, config: KubernetesConfig, me: str, seconds: float) -> None:
        super().__init__(config, me, seconds)
        #: What this process said of its pods; to others their objects say it.
        self._published: dict[Key, Endpoint] = {}
        self._watch: Watch | None = None
        self._roster = Roster(self.api)

    def reconnect(self) -> None:
        """See ClusterStore."""
        self.api.reconnect()

    def declare(self, session: Session, network: Network) -> Network:
        """See ClusterStore. All are told by their configuration, so that what a host says counts for itself."""

        def said(node: Object) -> Annotations:
            self._unless_lost(session, node)
            return {items.NETWORKS: items.with_declared(node, network)}

        self.write(session.node.name, said)
        return network

    def claim(self, session: Session, block: Block) -> bool:
        """See ClusterStore: whether it is one that the Node was given, of a network that this host or another one has declared."""
        node, known = self.own(session), self._watch.networks if self._watch else ()
        with suppress(Malformed):
            known = (*known, *items.declared(node))
        return block in items.blocks_of(node, session.node, known)[0]

    def give_up(self, session: Session, block: Block) -> bool:
        """See ClusterStore: what a Node was given it keeps."""
        self.own(session)
        return block.is_of(session.node)

    def publish(self, session: Session, block: Block, there: Sequence[Endpoint], gone: Sequence[Endpoint]) -> bool:
        """See ClusterStore: others know of pods by their objects."""
        for endpoint in (*there, *gone):
            assert block.has(endpoint)
        if not self.claim(session, block):
            return False
        before = {key: item for key, item in self._published.items() if key not in {one.key for one in gone}}
        self._published = before | {item.key: item for item in there}
        return True

    def assigned(self, session: Session) -> tuple[str, ...]:
        """See ClusterStore."""
        return tuple(items.spans_of(self.own(session)))

    def serves(self, session: Session) -> None:
        """See ClusterStore. A cloud's controllers say of a new Node that it has no network yet, and no pod is sent there until it has."""
        node = self.own(session)
        if any(one.type == items.UNAVAILABLE and one.status != "False" for one in node.status.conditions or ()):
            self.api.say_condition(NODES, node, items.available())
            self.look(session.node.name)

    def apply(self, documents: Sequence[Document]) -> int:
        """See ClusterStore. Raises Conflict."""
        raise Conflict(f"{_KUBECTL} apply")

    def delete(self, documents: Sequence[Key]) -> int:
        """See ClusterStore. Raises Conflict."""
        raise Conflict(f"{_KUBECTL} delete")

    def listing(self) -> Listing:
        """See ClusterStore. Pods are in it where anybody goes by them: there may be 100,000."""
        sparing = Sparing(self.me, lambda item: isinstance(item, Network) and item.mode == LAYER_2)
        return Watch(self.api, self.me, sparing, lambda _: None, Roster(self.api)).listed()[1]

    def changes(self, sparing: Sparing | None = None) -> Iterator[Listing | Change]:
        """See ClusterStore."""
        self._watch = Watch(self.api, self.me, sparing, self.saw, self._roster)
        return self._watch.told(lambda: [*self._published.values()])
