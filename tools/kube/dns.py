"""CoreDNS as a cluster's name service, from a local image."""

from __future__ import annotations

from typing import Any

from addressing import DNS
from api import Api, condition
from cluster import Cluster
from images import NAMES
from shell import eventually

SELECTED = "?labelSelector=k8s-app%3Dkube-dns"
COREFILE = """.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    cache 5
    reload
}
"""


def ready(cluster: Cluster, replicas: int = 2, more: str = "") -> dict[str, Any] | None:
    """CoreDNS in the cluster, once its nodes are ready, with more plugins than those of COREFILE; a pod of it that is ready, or none
    within a minute.
    """
    assert eventually(lambda: len(cluster.ready()) == len(cluster.nodes), 90), "nodes do not become Ready"
    apply(cluster.api, DNS[cluster.families[0]], replicas, COREFILE.replace("    cache", f"{more}    cache"))
    return eventually(
        lambda: next((pod for pod in cluster.api.pods(SELECTED, "kube-system") if condition(pod, "Ready")), None), 60
    )


def apply(api: Api, address: str, replicas: int = 2, corefile: str = COREFILE) -> None:
    """Account, role, configuration, Deployment and Service."""
    kind, name = "rbac.authorization.k8s.io", "coredns"
    meta = {"name": name, "namespace": "kube-system"}
    watched = [{"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
               {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]  # fmt: skip
    subject = {"kind": "ServiceAccount", **meta}
    made: list[tuple[str, dict[str, Any]]] = [
        ("/api/v1/namespaces/kube-system/serviceaccounts", {"metadata": meta}),
        (f"/apis/{kind}/v1/clusterroles", {"metadata": {"name": name}, "rules": watched}),
        (f"/apis/{kind}/v1/clusterrolebindings", {"metadata": {"name": name}, "subjects": [subject],
                                                  "roleRef": {"apiGroup": kind, "kind": "ClusterRole", "name": name}}),
        ("/api/v1/namespaces/kube-system/configmaps", {"metadata": meta, "data": {"Corefile": corefile}}),
        ("/apis/apps/v1/namespaces/kube-system/deployments", {"metadata": meta, "spec": _deployment(replicas)}),
        ("/api/v1/namespaces/kube-system/services", {
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": address, "selector": {"k8s-app": "kube-dns"},
                     "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}}),
    ]  # fmt: skip
    for path, thing in made:
        api("POST", path, thing)


def _deployment(replicas: int) -> dict[str, Any]:
    label = {"k8s-app": "kube-dns"}
    container = {
        "name": "coredns", "image": NAMES, "imagePullPolicy": "Never", "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }  # fmt: skip
    spec = {"serviceAccountName": "coredns", "dnsPolicy": "Default", "containers": [container], "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}], "volumes": [{"name": "config", "configMap": {"name": "coredns"}}]}  # fmt: skip
    return {
        "replicas": replicas,
        "selector": {"matchLabels": label},
        "template": {"metadata": {"labels": label}, "spec": spec},
    }
