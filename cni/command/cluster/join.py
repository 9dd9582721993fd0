"""Being in a cluster: this host joins it, or is its member."""

from __future__ import annotations

import argparse

from cni.cluster.config import ClusterConfig
from cni.member.run import run

#: Options, and by what path cluster.json has each.
_KEYS = {
    "node": ("node",), "vtep": ("vtep",), "uplinks": ("uplinks",), "session": ("session",), "free_after": ("freeAfter",), "metrics": ("metrics",), "conflists": ("conflists",),
    "metrics_cert": ("metricsCert",), "metrics_key": ("metricsKey",), "metrics_client_ca": ("metricsClientCa",),
    "encryption": ("encryption",), "wireguard_port": ("wireguardPort",), "etcd": ("etcd", "endpoints"),
    "cacert": ("etcd", "cacert"), "cert": ("etcd", "cert"), "key": ("etcd", "key"), "user": ("etcd", "user"),
    "password_file": ("etcd", "passwordFile"), "prefix": ("etcd", "prefix"), "server": ("kubernetes", "server"),
    "token": ("kubernetes", "token"),
}  # fmt: skip


def join(options: argparse.Namespace) -> int:
    """Have this host in a cluster; without options, be its member by cluster.json until SIGTERM or Ctrl-C.

    Options are written to cluster.json once the store has been asked whether this host can join by them; what is not named
    stays as it was, and an empty text takes it out. Where systemd has the member's unit, it runs the member from now on and
    this returns when the host is in the cluster; elsewhere this is the member.
    """
    if options.rotate_key:
        from cni.command.cluster.rotation import rotate

        return rotate(options)
    asked = {path: value for name, path in _KEYS.items() if (value := getattr(options, name)) is not None}
    if asked.get(("uplinks",)) == [""]:
        asked["uplinks",] = ""
    if options.kubernetes:  # the files are the API's then
        asked = {("kubernetes", *path[1:]) if path[0] == "etcd" else path: value for path, value in asked.items()}
        asked.setdefault(("kubernetes", "server"), "")
    if asked:
        from cni.command.cluster.joining import joined  # a member has no use for it

        config = joined(options, asked)
    else:
        config = ClusterConfig.load(options.config)
    if config:
        run(config)
    return 0
