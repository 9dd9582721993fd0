"""A cluster's store in etcd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from cni.cluster.etcd.blocks import Blocks
from cni.cluster.etcd.documents import Documents
from cni.cluster.etcd.hosts import Hosts
from cni.cluster.etcd.listing import listed
from cni.cluster.etcd.watch import Watch
from cni.cluster.store import Change, Listing, Session, Sparing

#: For so much of a session, and no more seconds, nothing may come until it is asked whether anybody is there. A ledger is deaf after
#: ten (cni.member.ledger), and frees nobody then: it is to hear of a quiet cluster sooner.
_SILENCE_OF_SESSION, _SILENCE = 1 / 5, 5.0


class EtcdStore(Hosts, Blocks, Documents):
    """See ClusterStore."""

    assigns: ClassVar[bool] = False

    def reached_at(self, node: str) -> str:
        """See ClusterStore: hosts say it themselves."""
        return ""

    def reconnect(self) -> None:
        """See ClusterStore."""
        self.gateway.reconnect()

    def assigned(self, session: Session) -> None:
        """See ClusterStore."""

    def serves(self, session: Session) -> None:
        """See ClusterStore: nobody waits."""

    def listing(self) -> Listing:
        """See ClusterStore."""
        found = listed(self.gateway, self.keys, self.keys.all())
        return Listing(found.at.revision, tuple(found.items), tuple(found.refused))

    def changes(self, sparing: Sparing | None = None) -> Iterator[Listing | Change]:
        """See ClusterStore."""
        silence = min(self.seconds * _SILENCE_OF_SESSION, _SILENCE)
        return Watch(self.gateway, self.keys, silence, 2 * self.patience, sparing).told()
