"""Every object that an ADD made, taken away or changed alone: CHECK names it. What a plan makes is what is checked."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from lab import Host, Lab, Namespace, Pod, sh
from order import some

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
WIRE = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.109", "gateway": "192.0.2.1"}
POLICY = {"ingress": ["10.9.0.0/16", "fd00:9::/64"], "egress": ["10.8.0.0/16"]}
CONFS: dict[str, dict[str, Any]] = {
    "bridged": {
        "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": "nftables",
        "vxlan": {"id": 7, "remotes": ["192.0.2.12"]}, "ipam": {"ranges": RANGES[:1]},
    },
    "routed": {"type": "custom-plugin", "policy": POLICY, "ipam": {"ranges": RANGES}},
    "wire": {"type": "macvlan", "master": "eth0", "hostAccess": True, "policy": POLICY, "ipam": WIRE},
}  # fmt: skip
#: What nobody has to see, and why.
UNSEEN = {
    r"nft .* counter .*": "what was counted",
    r"(host|pod): route .* table local": "the kernel makes it with the address",
    r"host: veth\w+ neigh_suppress on": "a new port has it off, and no plan sets it",
    r"pod: route (192\.0\.2|10\.1\.0)\.0/24 dev eth0 table main|host: route fe80::.* dev veth\w+ table main": "the kernel makes it with the address, which is seen",
    r"host: sysctl net\.ipv[46]\.conf\.(default|lo|eth0)\.forwarding": "the kernel sets it with ip_forward, which is seen",
    r"host: sysctl net\.ipv4\.conf\.all\.accept_redirects": "the kernel sets it with ip_forward, which is seen",
    r"pod: route fe80::/64 .*": "the kernel makes it with the link, and no packet of the pod's needs it",
    r"host: route (fe80::/64|10\.1\.0\.0/24|fd00:1::/64) .*": "the kernel makes it with the address, which is seen",
    r"pod: eth0 MTU 1300": "a chained tuning lowers it and does not report it",
    r"host: br0 MTU 9000|host: vxlan7 MTU 9000": "a neighbour with a larger one may want it",
}


def elements(value: Any) -> str:
    """A key as nft(8) reads it."""
    if isinstance(value, dict):
        if "elem" in value:
            return elements(value["elem"]["val"])
        if "concat" in value:
            return " . ".join(map(elements, value["concat"]))
        if "prefix" in value:
            return f"{value['prefix']['addr']}/{value['prefix']['len']}"
        if "range" in value:
            return "-".join(map(elements, value["range"]))
    return f'"{value}"' if isinstance(value, str) and re.fullmatch(r"[a-z]+[0-9a-f]*", value) else str(value)


def in_nft(place: str, namespace: Namespace) -> Iterator[tuple[str, list[str]]]:
    """Each table, chain, rule and element, and what takes it away."""
    for item in json.loads(namespace.run("nft", "-j", "list", "ruleset").stdout)["nftables"]:
        ((kind, said),) = item.items()
        where = f"{said.get('family')} {said.get('table', said.get('name'))}"
        if kind == "table":
            yield f"{place}: nft table {where}", ["nft", f"delete table {where}"]
        if kind == "chain":
            yield f"{place}: nft rules of {where} {said['name']}", ["nft", f"flush chain {where} {said['name']}"]
        if kind == "rule":
            told = f"{place}: nft rule {where} {said['chain']} {json.dumps(said['expr'])[:90]}"
            yield told, ["nft", f"delete rule {where} {said['chain']} handle {said['handle']}"]
        for entry in said.get("elem", ()) if kind in ("set", "map") else ():
            key = elements(entry[0] if kind == "map" else entry)
            yield (
                f"{place}: nft element {where} {said['name']} {key}",
                ["nft", f"delete element {where} {said['name']} {{ {key} }}"],
            )


def in_rtnetlink(place: str, namespace: Namespace, skip: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Links and addresses, and what is in tables."""
    own = {item["ifname"]: item for item in namespace.ip("link", "show") if item["ifname"] not in skip}
    for name, link in own.items():
        yield f"{place}: {name} gone", ["ip", "link", "delete", name]
        yield f"{place}: {name} down", ["ip", "link", "set", name, "down"]
        yield f"{place}: {name} MAC", ["ip", "link", "set", name, "address", "0a:00:00:00:00:99"]
        yield f"{place}: {name} MTU 1300", ["ip", "link", "set", name, "mtu", "1300"]
        if link.get("linkinfo", {}).get("info_slave_kind") == "bridge":
            yield f"{place}: {name} off its bridge", ["ip", "link", "set", name, "nomaster"]
            for flag, on in (link["linkinfo"].get("info_slave_data") or {}).items():
                if flag in ("hairpin", "isolated", "learning", "flood", "mcast_flood", "bcast_flood", "neigh_suppress"):
                    other = "off" if on else "on"
                    yield f"{place}: {name} {flag} {other}", ["bridge", "link", "set", "dev", name, flag, other]
    for name, addresses in namespace.all_addresses().items():
        for address in addresses if name in own else ():
            yield f"{place}: address {address} on {name}", ["ip", "addr", "del", address, "dev", name]
    yield from in_tables(place, namespace, own)


def in_tables(place: str, namespace: Namespace, own: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """Routes, permanent neighbours and FDB rows."""
    for family in (4, 6):
        for route in namespace.routes(family, "all"):
            if route.get("dev") in own and not route["dst"].startswith("ff00"):
                table = str(route.get("table", "main"))
                told = f"{place}: route {route['dst']} dev {route['dev']} table {table}"
                yield told, ["ip", f"-{family}", "route", "del", route["dst"], "dev", route["dev"], "table", table]
        for item in namespace.ip("neigh", "show", "nud", "permanent", family=family):
            if item["dev"] in own:
                yield (
                    f"{place}: neighbour {item['dst']} on {item['dev']}",
                    ["ip", "neigh", "del", item["dst"], "dev", item["dev"]],
                )
    for line in namespace.run("bridge", "fdb", "show").stdout.splitlines():
        words = line.split()
        if "dst" in words and words[2] in own:
            told, vtep = f"{place}: FDB row {line}", words[words.index("dst") + 1]
            yield told, ["bridge", "fdb", "del", words[0], "dev", words[2], "dst", vtep, "self"]


def settings(place: str, namespace: Namespace, before: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Sysctls that are other than before, and are no new link's."""
    for key, now in sysctls(namespace).items():
        if key in before and before[key] != now:
            yield f"{place}: sysctl {key}", ["sysctl", "-qw", f"{key}={before[key]}"]


def sysctls(namespace: Namespace) -> dict[str, str]:
    said = namespace.run("sysctl", "-a", "-r", r"^net\.ipv[46]\.(conf\.|ip_forward)", check=False).stdout
    return dict(line.split(" = ", 1) for line in said.splitlines() if " = " in line and "stable_secret" not in line)


@dataclass
class Scene:
    """One attachment of a node, and all there is of it; what was taken away comes back as it was, or with another ADD."""

    host: Host
    pod: Pod
    conf: dict[str, Any]
    result: dict[str, Any] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)

    def attach(self) -> None:
        self.result = self.host.add(self.conf, self.pod)

    def objects(self) -> dict[str, tuple[Namespace, list[str]]]:
        """By what they are called, of several alike the number too."""
        found: dict[str, tuple[Namespace, list[str]]] = {}
        things = (
            (self.host, (*in_nft("host", self.host), *in_rtnetlink("host", self.host, self.there), *settings("host", self.host, self.before))),
            (self.pod, (*in_nft("pod", self.pod), *in_rtnetlink("pod", self.pod, {"lo"}))),
        )  # fmt: skip
        for place, every in things:
            for title, argv in every:
                many = sum(known.startswith(title) for known in found)
                found[f"{title} #{many}" if many else title] = (place, argv)
        return found

    def restore(self, place: Namespace, ruleset: str) -> None:
        """Rules as they were listed; of what nft cannot read back, and of links, another attachment."""
        if ruleset and "xt " not in ruleset:
            sh("nsenter", f"--net={place.path}", "nft", "-f", "-", input=f"flush ruleset\n{ruleset}")
            return
        self.host.delete_pod(self.conf, self.pod)
        for name in {item["ifname"] for item in self.host.ip("link", "show")} - self.there:
            self.host.run("ip", "link", "delete", name, check=False)
        self.pod.delete()
        self.pod.create()
        self.attach()


@pytest.mark.sweep
@pytest.mark.long
@pytest.mark.parametrize("kind", CONFS)
def test_whatever_is_taken_away_alone_is_seen(lab: Lab, kind: str):
    host = lab.host()
    lab.underlay(host)
    conf = {"cniVersion": "1.1.0", "name": "net"} | copy.deepcopy(CONFS[kind])
    there = {item["ifname"] for item in host.ip("link", "show")}
    scene = Scene(host, lab.pod(), conf, before=sysctls(host), there=there)
    scene.attach()
    unseen, tried = [], 0
    for title in some(scene.objects(), 8):
        found = scene.objects().get(title)
        if found is None:
            continue
        place, argv = found
        ruleset = place.run("nft", "list", "ruleset").stdout if argv[0] == "nft" else ""
        if place.run(*argv, check=False).returncode == 0:
            tried += 1
            if host.check(conf, scene.pod, scene.result).code == 0:
                unseen.append(title)
            scene.restore(place, ruleset)
            host.check(conf, scene.pod, scene.result).ok()
    print(tried, "objects of", kind)
    left = [title for title in unseen if not any(re.fullmatch(shape, title) for shape in UNSEEN)]
    assert left == [], tried
