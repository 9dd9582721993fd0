"""A cluster's store in etcd."""

from __future__ import annotations

from collections.abc import Iterator

from cni.cluster.etcd.blocks import Blocks
from cni.cluster.etcd.hosts import Hosts
from cni.cluster.etcd.items import told
from cni.cluster.etcd.watch import Watch, rows_of
from cni.cluster.store import Change, Listing

#: Nothing may come for so many seconds, or so much of a session, until it is asked whether anybody is there.
_SILENCE, _SILENCE_OF_SESSION = 3.0, 1 / 5


class EtcdStore(Hosts, Blocks):
    """See ClusterStore."""

    def listing(self) -> Listing:
        """See ClusterStore."""
        at, rows = rows_of(self.gateway, self.keys.all())
        found = told(self.keys, rows)
        return Listing(at.revision, found.items, found.refused)

    def changes(self) -> Iterator[Listing | Change]:
        """See ClusterStore."""
        silence = min(_SILENCE, self.seconds * _SILENCE_OF_SESSION)
        return Watch(self.gateway, self.keys, silence, 2 * self.patience).told()
