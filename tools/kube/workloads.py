"""What is run in a cluster to be asked."""

from __future__ import annotations

from typing import Any

import images


def web(name: str, replicas: int, **spec: Any) -> dict[str, Any]:
    """A Deployment whose pods answer with their names, and with who asked at /cgi-bin/who."""
    script = (
        "mkdir -p /www/cgi-bin && hostname >/www/index.html && dd if=/dev/zero of=/www/big bs=1M count=20 2>/dev/null; "
        'printf \'#!/bin/sh\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n%%s\\\\n" "$REMOTE_ADDR"\\n\' >/www/cgi-bin/who; '
        "chmod +x /www/cgi-bin/who; exec httpd -f -p 8080 -h /www"
    )
    container = {
        "name": "web", "image": images.SHELL, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
        # else a busy node gives all it has to whoever asked for some, such as an installation, and nobody answers for seconds
        "resources": {"requests": {"cpu": "20m"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }  # fmt: skip
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container | spec.pop("container", {})]} | spec
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                 "template": {"metadata": {"labels": {"app": name}}, "spec": pod}},
    }  # fmt: skip


def everywhere(name: str, **spec: Any) -> dict[str, Any]:
    """A DaemonSet of the same pods."""
    made = web(name, 0, **spec) | {"kind": "DaemonSet"}
    del made["spec"]["replicas"]
    return made


def service(name: str, app: str, kind: str = "ClusterIP", **spec: Any) -> dict[str, Any]:
    body = {"type": kind, "selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]} | spec
    body["ipFamilyPolicy"] = "PreferDualStack"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}
