"""The networks a cluster of the rig can have: what an administrator would write on each node, by hand, from its podCIDR."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from addressing import CONTROL, PODS
from build import FLANNEL_MANIFEST
from node import Node
from shell import HOME, ROOT, sh

Plugin = dict[str, Any]
VERSIONS = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"]}
PORTMAP = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
#: What nodes with encryption have, as the tests have it of Debian.
WIREGUARD = tuple(ROOT / ".cache/wireguard/usr/bin" / name for name in ("wg", "wireguard-go"))
STAGE = HOME / "stage"  # the product, as `make install DESTDIR=` bakes it into an image


def at(node: Node, number: int) -> str:
    """The address with this number in the node's block."""
    return str(ipaddress.ip_network(node.block)[number])


def remotes(node: Node) -> list[str]:
    return [other.address for other in node.cluster.nodes if other is not node]


def from_folder(node: Node) -> Plugin:
    """The policy section for NetworkPolicies from a folder; one that all nodes of the rig see."""
    return {"policyDir": f"{node.cluster.folder}/policies"}


def reference(node: Node) -> list[Plugin]:
    """The reference bridge, a block for each node, routes between them by hand (as kubenet had it)."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": node.block}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return [{"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}, PORTMAP]


def overlay(node: Node, own_gateway: bool = False, **more: Any) -> list[Plugin]:
    """Our bridge-vxlan as the README has it: one subnet, one gateway address on all nodes, a slice for each."""
    ipam = {"type": "agent-ipam", "subnet": PODS[4], "rangeStart": at(node, 2), "rangeEnd": at(node, 254)}
    if own_gateway:
        ipam["gateway"] = at(node, 1)
    bridge = {"type": "bridge-vxlan", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True,
              "vxlan": {"id": 100, "remotes": remotes(node)}, "ipam": ipam}  # fmt: skip
    return [bridge | more, PORTMAP]


def gateways(node: Node) -> list[Plugin]:
    """The same, but each node with a gateway address of its own."""
    return overlay(node, own_gateway=True)


def policies(node: Node) -> list[Plugin]:
    """The same, and pods are held to the NetworkPolicies in a folder of the node."""
    return overlay(node, own_gateway=True, policy=from_folder(node))


def blocks(node: Node) -> list[Plugin]:
    """Our bridge-vxlan without its overlay: a block for each node, routes by hand."""
    ipam = {"type": "agent-ipam", "subnet": node.block}
    return [
        {"type": "bridge-vxlan", "bridge": "cni0", "isDefaultGateway": True, "ipam": ipam},
        PORTMAP,
    ]


def blockpolicies(node: Node) -> list[Plugin]:
    """The same, and pods are held to the NetworkPolicies in a folder of the node."""
    bridge, portmap = blocks(node)
    return [bridge | {"policy": from_folder(node)}, portmap]


def routed(node: Node) -> list[Plugin]:
    """custom-plugin alone: a point-to-point link for each pod, a block for each node, routes by hand."""
    return [{"type": "custom-plugin", "ipam": {"type": "agent-ipam", "subnet": node.block}}, PORTMAP]


def joined(node: Node) -> list[Plugin]:
    """One network over all nodes, which members keep by etcd: conf.d/13 with policies from a folder. podCIDRs go unread."""
    return over_all(node, from_folder(node))


def stored(node: Node) -> list[Plugin]:
    """The same with the API as the members' store: blocks are podCIDRs, policies those of the API."""
    return over_all(node, {"cluster": True})


def over_all(node: Node, policy: Plugin) -> list[Plugin]:
    ipam = {
        "type": "agent-ipam",
        "cluster": True,
        "ranges": [[{"subnet": PODS[family]}] for family in node.cluster.families],
    }
    bridge = {"type": "bridge-vxlan", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True,
              "vxlan": {"id": 100, "mode": "l3"}, "ipam": ipam, "policy": policy}  # fmt: skip
    return [bridge, PORTMAP]


@dataclass(frozen=True)
class Network:
    """`ours`: nodes have the product; `by_route`: nodes need routes to each other's blocks and masquerade what leaves;
    `theirs`: which of the reference plugins nodes have; `member`: a member of ours runs on each, with the
    cluster's etcd or its API as store;
    `fed`: the API's policies are written into a folder (feed.py); `manifest`: it is brought by that; `lacks`: what is not asked of it, and why.
    """

    plugins: Callable[[Node], list[Plugin]] | None
    ours: bool = True
    by_route: bool = False
    theirs: tuple[str, ...] = ()
    member: str = ""
    fed: bool = False
    manifest: Path | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)

    def prepare(self, node: Node) -> None:
        """Before the node is switched on."""
        for plugin in Path("/usr/lib/cni").iterdir():
            if not self.theirs or plugin.name in self.theirs:
                shutil.copy(plugin, node.root / "opt/cni/bin")
        for program in WIREGUARD:
            if program.exists():
                (node.root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
                shutil.copy(program, node.root / "usr/local/bin")
        for path in ("usr/local/bin/agent-cni", "opt/agent-cni"):
            if os.path.lexists(f"/{path}") and not self.ours:  # a whiteout hides what this machine happens to have
                (node.root / path).parent.mkdir(parents=True, exist_ok=True)
                os.mknod(node.root / path, stat.S_IFCHR, os.makedev(0, 0))
        if self.ours:
            shutil.copytree(STAGE, node.root, symlinks=True, dirs_exist_ok=True)

    def configure(self, node: Node) -> None:
        """Once the controllers have given the node its block; again after each boot."""
        if self.by_route:
            self._route(node)
        if (
            self.ours
        ):  # as some distributions have it: a bridge of ours shows its traffic to kube-proxy's rules all the same
            node.run("sysctl", "-qw", *(f"net.bridge.bridge-nf-call-{kind}=0" for kind in ("iptables", "ip6tables")))
        if self.member and "member" not in node.services:
            keys = node.cluster.keys.folder
            store = {
                "etcd": ("--etcd", f"http://{CONTROL}:2379", "--vtep", node.address),
                "api": ("--kubernetes", "--server", f"https://{CONTROL}:6443", "--cacert", keys / "ca.crt",
                        "--cert", keys / "admin.crt", "--key", keys / "admin.key"),
            }[self.member]  # fmt: skip
            node.start("member", "agent-cni", "join", "--node", node.name, *store)
        if self.plugins:
            text = json.dumps(VERSIONS | {"name": "pods", "plugins": self.plugins(node)}, indent=1)
            node.run("sh", "-c", "cd /etc/cni/net.d && cat >.new && mv .new 10-pods.conflist", input=text)

    def _route(self, node: Node) -> None:
        for other in node.cluster.nodes:
            if other is not node:
                node.run("ip", "route", "replace", other.block, "via", other.address)
        node.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", node.block, "!", "-d", PODS[4], "-j", "MASQUERADE")


UNHEARD = {"policy": "nobody reads the API's policies"}
#: What each ADD makes of a list written by hand: a node without pods has none of it, and a new node is not in it.
BY_CALLS = {
    "empty_node": "only an ADD makes the overlay's part on a node",
    "late_node": "only an ADD reads the new list of nodes",
}

NETWORKS = {
    "reference": Network(reference, ours=False, by_route=True, lacks=UNHEARD),
    "overlay": Network(overlay, lacks=UNHEARD | BY_CALLS),
    "gateways": Network(gateways, lacks=UNHEARD | BY_CALLS),
    "policies": Network(policies, fed=True, lacks=BY_CALLS),
    "blocks": Network(blocks, by_route=True, lacks=UNHEARD),
    "blockpolicies": Network(blockpolicies, by_route=True, fed=True),
    "routed": Network(routed, by_route=True, lacks=UNHEARD),
    "joined": Network(joined, member="etcd", fed=True),
    "stored": Network(stored, member="api"),
    "flannel": Network(
        None,
        ours=False,
        theirs=("loopback", "portmap", "host-local", "bridge"),
        manifest=FLANNEL_MANIFEST,
        lacks=UNHEARD,
    ),
    # something in the cluster is to bring it:
    "nothing": Network(None, ours=False, theirs=("loopback", "portmap", "host-local")),
    "kubeadm": Network(
        None, ours=False
    ),  # a node as the kubernetes-cni package furnishes it, macvlan among the plugins
}


def stage() -> None:
    """`make install` of this checkout into a folder, as for a node's image."""
    shutil.rmtree(STAGE, ignore_errors=True)
    offline = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(ROOT / ".cache/wheels")}
    STAGE.mkdir(parents=True)
    sh("make", "-C", ROOT, "install", f"DESTDIR={STAGE}", env=offline)
