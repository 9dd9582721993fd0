"""The cluster's store in etcd, by its JSON gateway."""

from cni.cluster.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
