"""Which engine a cluster's store is."""

from __future__ import annotations

from cni.cluster.config import ClusterConfig, EtcdConfig
from cni.cluster.store import ClusterStore


def store_of(config: ClusterConfig) -> ClusterStore:
    """The store that a host's configuration names; nobody is asked yet."""
    if isinstance(config.store, EtcdConfig):
        from cni.cluster.etcd import EtcdStore  # the one that is needed

        return EtcdStore(config.store, config.session)
    from cni.cluster.kubernetes import KubernetesStore

    return KubernetesStore(config.store, config.node, config.session)
