"""The cluster's store in the Kubernetes API: no object there is ours, but for annotations of this host's own Node."""

from cni.cluster.kubernetes.store import KubernetesStore

__all__ = ["KubernetesStore"]
