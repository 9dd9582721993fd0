"""A pod with a proxy beside its application, and a machine outside: the scene of the sidecar tests."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from lab import Host, Lab, Pod
from traffic import PROXY, Actor

NET = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge-vxlan",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}
#: The reference bridge, for what is chained after it.
REFERENCE = {
    "cniVersion": "1.0.0",
    "name": "ref",
    "type": "bridge",
    "bridge": "cni7",
    "isGateway": True,
    "ipam": {"type": "host-local", "dataDir": "/run/agent-cni/reference", "subnet": "10.7.0.0/24"},
}
BACKENDS = ("iptables-nft", "iptables-legacy")
SAVE = {"iptables-nft": "iptables-nft-save", "iptables-legacy": "iptables-legacy-save"}
APP_UID, WEB, OUT, IN = 1000, 8080, 15001, 15006


@dataclass
class Scene:
    """`app` and `proxy` are in the pod, `outside` is another machine with a server on ports 80, 53 and 22."""

    host: Host
    pod: Pod
    far: Pod
    conf: dict[str, Any]
    result: dict[str, Any]
    far_result: dict[str, Any]
    held: ExitStack = field(default_factory=ExitStack)

    def actors(self, transparent: bool = False) -> None:
        """Start the application, the proxy and the outside server."""
        self.app, self.outside = self.actor(self.pod, APP_UID), self.actor(self.far)
        self.proxy = self.actor(self.pod, PROXY)
        self.app.listen("app", WEB)
        self.app.listen("app", 22)
        self.app.listen("local", 9000, "127.0.0.1", "::1")
        self.proxy.listen("outbound", OUT)
        self.proxy.listen("inbound", IN, transparent=transparent)
        for port in (80, 22, 443):
            self.outside.listen("outside", port)
        self.outside.listen("outside", 53, udp=True)
        self.outside.listen("outside", 53)
        for port in (123, 124):
            self.outside.listen("outside", port, udp=True)

    def actor(self, where: Pod, uid: int = 0, gid: int | None = None) -> Actor:
        return self.held.enter_context(Actor(where, uid, gid))

    def address(self, family: int) -> str:
        """The pod's own address."""
        return address_of(self.result, family)

    def far_address(self, family: int) -> str:
        return address_of(self.far_result, family)

    def lines(self, family: int) -> list[str]:
        """Our rules in the pod, as the backend's own program prints them."""
        program = SAVE[self.conf["sidecar"]["backend"]].replace("iptables", "iptables" if family == 4 else "ip6tables")
        return [line for line in self.pod.run(program).stdout.splitlines() if "ACNI_" in line]


def remains(pod: Pod) -> dict[str, list[str]]:
    """Everything of ours that could be in a pod's namespace, whatever the backend."""
    saves = [name.replace("iptables", kind) for name in SAVE.values() for kind in ("iptables", "ip6tables")]
    rules = [line for save in saves for line in pod.run(save).stdout.splitlines() if "ACNI_" in line]
    ways = [line for line in _ip(pod, "rule") if "133" in line]
    routes = [line for line in _ip(pod, "route", "show", "table", "all") if "table 133" in line]
    return {
        "rules": rules,
        "ways": ways,
        "routes": routes,
        "lo": sorted(pod.addresses("lo") - {"127.0.0.1/8", "::1/128"}),
    }


def _ip(pod: Pod, *words: str) -> list[str]:
    return [line for family in ("-4", "-6") for line in pod.run("ip", family, *words).stdout.splitlines()]


NOTHING: dict[str, list[str]] = {"rules": [], "ways": [], "routes": [], "lo": []}


def chained(conf: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A sidecar-redirect configuration that follows the plugin of `conf` in a chain."""
    return {"cniVersion": conf["cniVersion"], "name": conf["name"], "type": "sidecar-redirect", **keys}


def address_of(result: dict[str, Any], family: int) -> str:
    return next(ip["address"].split("/")[0] for ip in result["ips"] if (":" in ip["address"]) == (family == 6))


def network(sidecar: dict[str, Any] | None = None) -> dict[str, Any]:
    """The bridge network, with or without interception."""
    return copy.deepcopy(NET) | ({} if sidecar is None else {"sidecar": {"inboundPort": IN} | sidecar})


def staged(lab: Lab, sidecar: dict[str, Any], host: Host | None = None) -> Scene:
    """A scene without its actors."""
    host = host or lab.host()
    pod, far = lab.pod(), lab.pod()
    conf = network(sidecar)
    far_result = host.add(network(), far)
    return Scene(host, pod, far, conf, host.add(conf, pod), far_result)
