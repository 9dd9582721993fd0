"""agent-cni repair: whatever is taken away of an attachment is there again, as it was, with what stands on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from lab import AGENT_CNI, Host, Lab, Namespace, Pod, Site, sh
from order import some

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
HEAD = {"cniVersion": "1.1.0", "name": "net"}
BRIDGE = HEAD | {
    "type": "bridge-vxlan",
    "bridge": "br0",
    "isDefaultGateway": True,
    "mtu": 1400,
    "ipam": {"ranges": RANGES},
}
SPAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
SPAN6 = {"subnet": "fd00:2::/64", "rangeStart": "fd00:2::100", "rangeEnd": "fd00:2::199"}
MACVLAN = HEAD | {"type": "macvlan", "master": "eth0", "hostAccess": True, "ipam": {"ranges": [[SPAN], [SPAN6]]}}
ROUTED = HEAD | {"type": "custom-plugin", "ipam": {"ranges": RANGES}}
POLICY = {"policy": {"ingress": ["10.0.0.0/8", "192.0.2.0/24", "fd00::/16"], "egress": ["0.0.0.0/0", "::/0"]}}
NFT, IPTABLES = {"ipMasq": True, "ipMasqBackend": "nftables"}, {"ipMasq": True, "ipMasqBackend": "iptables"}

KINDS: dict[str, dict[str, Any]] = {
    "bridge": BRIDGE | NFT,
    "bridge, isolated": BRIDGE | POLICY | NFT,
    "bridge, iptables": BRIDGE | IPTABLES | {"sidecar": {}},
    "overlay": BRIDGE | {"mtu": 0, "vxlan": {"id": 7, "remotes": ["192.0.2.12"]}},
    "macvlan": MACVLAN,
    "macvlan, isolated": MACVLAN | POLICY | {"sidecar": {}},
    "routed": ROUTED | POLICY | NFT,
    "routed, intercepted": ROUTED | {"sidecar": {"mode": "tproxy"}},
    "chained": HEAD | {"type": "custom-plugin"} | POLICY,
    "sidecar-redirect": HEAD | {"type": "sidecar-redirect"},
}
CHAINED = ("chained", "sidecar-redirect")


@dataclass
class Scene:
    """A node on a wire with a pod of a kind, and a neighbour of the same."""

    site: Site
    conf: dict[str, Any]
    before: dict[str, Any] | None
    pod: Pod
    result: dict[str, Any]
    neighbour: Pod
    theirs: dict[str, Any]

    @property
    def host(self) -> Host:
        return self.site.host

    def checks(self) -> list[str]:
        """What the real verb says of each attachment."""
        said = []
        for pod, result in ((self.pod, self.result), (self.neighbour, self.theirs)):
            for conf in filter(None, (self.before, self.conf)):
                answer = self.host.check(conf, pod, result)
                said += [] if answer.code == 0 else [answer.json["msg"]]
        return said

    def repair(self, *words: str) -> tuple[int, str]:
        done = self.host.run(AGENT_CNI, "repair", *words, "--conf-dir", "/nowhere", check=False)
        return done.returncode, done.stdout + done.stderr

    def reaches(self) -> bool:
        """Both ways, over both families: to the node, the wire where it can be, and each other."""
        addresses = [ip["address"].split("/")[0] for ip in self.theirs["ips"]]
        return all(self.pod.pings(address, 5) for address in addresses)


def added(host: Host, conf: dict[str, Any], before: dict[str, Any] | None, pod: Pod) -> dict[str, Any]:
    if before is None:
        return host.add(conf, pod)
    previous = host.add(before, pod)
    return host.add(conf | {"prevResult": previous}, pod)


@pytest.fixture
def scene(kind: str, lab: Lab) -> Iterator[Scene]:
    site, conf = lab.site(), KINDS[kind]
    before = BRIDGE if kind in CHAINED else None
    pod, neighbour = lab.pod(), lab.pod()
    results = [added(site.host, conf, before, each) for each in (neighbour, pod)]
    made = Scene(site, conf, before, pod, results[1], neighbour, results[0])
    assert made.checks() == []
    yield made
    for each, result in ((pod, results[1]), (neighbour, results[0])):
        site.host.delete_pod(conf | {"prevResult": result}, each)
        if before:
            site.host.delete_pod(before, each)
    assert made.host.kept() == {"attachment": [], "lease": []}


def said(space: Namespace) -> dict[str, Any]:
    """What is there, without what the kernel numbers, counts and ages by itself."""
    links = {
        item["ifname"]: (
            item["address"], item["mtu"], "UP" in item["flags"], item.get("master"), item.get("ifalias"),
            item.get("linkinfo", {}).get("info_slave_data", {}).get("hairpin"),
            item.get("linkinfo", {}).get("info_slave_data", {}).get("multicast_router"),
        )
        for item in space.ip("link", "show")
    }  # fmt: skip
    neighbours = sh("ip", "-n", space.name, "-j", "neigh", "show", "nud", "permanent").stdout
    return {
        "links": links,
        "addresses": space.all_addresses(),
        "routes": {
            (route["dst"], route.get("dev"), route["table"], route.get("gateway"), route.get("metric"))
            for family in (4, 6)
            for route in space.routes(family, "all")
            if not route["dst"].startswith(("fe80:", "ff00:", "multicast")) and route.get("type") != "anycast"
            if (route["dst"], route["table"]) != ("::6", "main")  # it leads to who speaks; what delivers there is another
        },
        "neighbours": {(item["dst"], item["dev"], item.get("lladdr")) for item in json.loads(neighbours or "[]") if item},
        "rules": uncounted(space.run("nft", "--stateless", "list", "ruleset").stdout),
        "iptables": uncounted("".join(space.run(f"{ip}tables-legacy-save", check=False).stdout for ip in ("ip", "ip6"))),
        "rule": [sh("ip", "-n", space.name, f"-{family}", "rule").stdout for family in (4, 6)],
    }  # fmt: skip


def uncounted(text: str) -> list[str]:
    """Rules in an order that does not tell when a set's elements or a table came."""
    text = re.sub(
        r"counter (xt target TPROXY|masquerade)", "counter", text
    )  # of iptables' rules nft prints them now and then
    lines = (line.strip() for line in re.sub(r",\s*\n\s*", ", ", text).splitlines() if not line.startswith("#"))
    return sorted(" ".join(sorted(re.split(r", | ", line))) if line.startswith("elements") else line for line in lines)


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is otherwise now, by area."""
    found = []
    for area, one in before.items():
        two = after[area]
        if one != two:
            pairs = (map(str, it.items()) if isinstance(it, dict) else map(str, it) for it in (one, two))
            first, second = map(list, pairs)
            found.append(
                f"{area}: lost {[it for it in first if it not in second]}, has {[it for it in second if it not in first]}"
            )
    return found


Taking = Callable[[], object]


def takings(scene: Scene) -> Iterator[tuple[str, Taking]]:
    """Each object that an ADD made, and what takes it away."""
    host, pod = scene.host, scene.pod
    for item in pod.ip("link", "show"):
        if item["ifname"] == "eth0":
            yield "pod eth0 gone", lambda: sh("ip", "-n", pod.name, "link", "del", "eth0")
            yield "pod eth0 down", lambda: sh("ip", "-n", pod.name, "link", "set", "eth0", "down")
            if scene.conf["type"] != "macvlan":
                yield "pod eth0 MTU", lambda: sh("ip", "-n", pod.name, "link", "set", "eth0", "mtu", "1500")
            yield (
                "pod eth0 MAC",
                lambda: sh("ip", "-n", pod.name, "link", "set", "eth0", "address", "0a:00:00:00:00:99"),
            )
            yield "pod eth0 renamed", lambda: renamed(pod, "eth0", "mine")
    yield from of_addresses(pod, {"eth0"})
    yield from of_routes(pod, {"eth0"})
    for family in (4, 6):  # what the kernel made with addresses too, where CHECK sees that way to a gateway missing
        if any("gateway" in route and not route.get("flags") for route in pod.routes(family)):
            flush = ("ip", "-n", pod.name, f"-{family}", "route", "flush", "table", "main")
            yield f"pod routes of IPv{family}", lambda flush=flush: sh(*flush)
    yield from of_neighbours(pod, {"eth0"})
    yield from of_rules(pod)
    ours = {item["ifname"] for item in host.ip("link", "show")} - {"lo", "eth0"}
    mine = next((item["ifname"] for item in host.ip("link", "show") if is_end(item, host, pod)), "")
    for name in sorted({mine, *(ours - {item for item in ours if item.startswith("veth")})} - {""}):
        yield f"host {name} gone", lambda name=name: sh("ip", "-n", host.name, "link", "del", name)
        yield f"host {name} down", lambda name=name: sh("ip", "-n", host.name, "link", "set", name, "down")
        yield f"host {name} MTU", lambda name=name: sh("ip", "-n", host.name, "link", "set", name, "mtu", "1280")
        yield f"host {name} nomaster", lambda name=name: sh("ip", "-n", host.name, "link", "set", name, "nomaster")
        if not name.startswith("br"):
            yield (
                f"host {name} MAC",
                lambda name=name: sh("ip", "-n", host.name, "link", "set", name, "address", "0a:00:00:00:00:99"),
            )
    yield from of_addresses(host, ours)
    yield from of_routes(host, {mine, *ours} - {item for item in ours if item.startswith("veth") and item != mine})
    yield from of_neighbours(host, {mine, *ours})
    yield from of_rules(host)
    if scene.conf["type"] != "macvlan":
        yield "ip_forward", lambda: host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        yield "ip6 forwarding", lambda: host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
    yield (
        "lease",
        lambda: host.run("python3", "-c", SQL.format(f"DELETE FROM lease WHERE container = '{pod.container}'")),
    )


SQL = "import sqlite3; d = sqlite3.connect('/run/agent-cni/state.db'); d.execute(\"{}\"); d.commit()"


def renamed(space: Namespace, before: str, after: str) -> None:
    sh("ip", "-n", space.name, "link", "set", before, "down")
    sh("ip", "-n", space.name, "link", "set", before, "name", after)


def is_end(item: dict[str, Any], host: Host, pod: Pod) -> bool:
    own = pod.link("eth0")
    return (
        item["ifname"].startswith("veth")
        and bool(own)
        and item.get("link_index") == own["ifindex"]
        and item["ifindex"] == own.get("link_index")
    )


def of_addresses(space: Namespace, links: set[str]) -> Iterator[tuple[str, Taking]]:
    for link, held in sorted(space.all_addresses().items()):
        for address in sorted(held) if link in links else ():
            yield (
                f"{space.name.split('-')[0]} address {address}",
                lambda link=link, address=address: sh("ip", "-n", space.name, "addr", "del", address, "dev", link),
            )


def of_routes(space: Namespace, links: set[str]) -> Iterator[tuple[str, Taking]]:
    for family in (4, 6):
        for route in space.routes(family):
            if (
                route.get("dev") in links
                and not route["dst"].startswith(("fe80", "ff00", "multicast"))
                and route.get("protocol") != "kernel"
            ):
                yield (
                    f"{space.name.split('-')[0]} route {route['dst']}",
                    lambda family=family, route=route: sh(
                        "ip", "-n", space.name, f"-{family}", "route", "del", route["dst"], "dev", route["dev"]
                    ),
                )


def of_neighbours(space: Namespace, links: set[str]) -> Iterator[tuple[str, Taking]]:
    out = sh("ip", "-n", space.name, "-j", "neigh", "show", "nud", "permanent").stdout
    for item in json.loads(out or "[]"):
        if item and item["dev"] in links:
            yield (
                f"{space.name.split('-')[0]} neighbour {item['dst']}",
                lambda item=item: sh("ip", "-n", space.name, "neigh", "del", item["dst"], "dev", item["dev"]),
            )


def of_rules(space: Namespace) -> Iterator[tuple[str, Taking]]:
    """The ruleset, each table, each chain's rules, each rule, each element of a set or map."""
    where, found = space.name.split("-")[0], json.loads(space.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    if any("table" in item for item in found):
        yield f"{where} ruleset", lambda: space.run("nft", "flush", "ruleset")
    for item in found:
        if "table" in item:
            table = f"{item['table']['family']} {item['table']['name']}"
            yield f"{where} table {table}", lambda table=table: space.run("nft", "delete", "table", *table.split())
            if where == "pod" or "agent_cni" in table:
                yield (
                    f"{where} dormant {table}",
                    lambda table=table: space.run("nft", f"add table {table} {{ flags dormant; }}"),
                )
        elif "chain" in item:
            chain = f"{item['chain']['family']} {item['chain']['table']} {item['chain']['name']}"
            yield f"{where} chain {chain}", lambda chain=chain: space.run("nft", f"flush chain {chain}")
        elif "rule" in item:
            rule = item["rule"]
            place = f"{rule['family']} {rule['table']} {rule['chain']}"
            index = sum(
                1
                for it in found[: found.index(item)]
                if "rule" in it
                and (it["rule"]["table"], it["rule"]["chain"], it["rule"]["family"])
                == (rule["table"], rule["chain"], rule["family"])
            )
            yield f"{where} rule {index} of {place}", lambda place=place, index=index: one_rule(space, place, index)
        else:
            yield from of_elements(space, where, next(iter(item.items())))


def one_rule(space: Namespace, place: str, index: int) -> None:
    """A rule's handle is another after each repair."""
    found = json.loads(space.run("nft", "-j", "list", "chain", *place.split()).stdout)["nftables"]
    rules = [item["rule"]["handle"] for item in found if "rule" in item]
    space.run("nft", f"delete rule {place} handle {rules[index]}")


def of_elements(space: Namespace, where: str, item: tuple[str, dict[str, Any]]) -> Iterator[tuple[str, Taking]]:
    kind, said = item
    if kind not in ("set", "map") or not said.get("elem"):
        return
    place = f"{said['family']} {said['table']} {said['name']}"
    listed = space.run("nft", f"list {kind} {place}").stdout
    elements = re.search(r"elements = \{(.*?)\}\n", listed, re.DOTALL)
    for element in elements.group(1).split(",") if elements else ():
        key = re.sub(r"comment \"[^\"]*\"", "", element.split(" : ")[0]).strip()
        yield (
            f"{where} element {key} of {place}",
            lambda key=key: space.run("nft", f"delete element {place} {{ {key} }}"),
        )


@pytest.mark.sweep(most=4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.tried(
    "every object of an ADD taken away alone, for ten kinds of pods, then agent-cni repair",
    "CHECK is clean, all is as it was, traffic passes",
)
def test_whatever_is_taken_away_is_there_again(scene: Scene):
    before = (said(scene.host), said(scene.pod), said(scene.neighbour))
    assert scene.reaches()
    every, wrong, noticed = some(takings(scene), 12), [], 0
    for what, take in every:
        take()
        amiss = scene.checks()
        noticed += bool(amiss)
        code, told = scene.repair("--all")
        after = (said(scene.host), said(scene.pod), said(scene.neighbour))
        left = scene.checks()
        other = [line for one, two in zip(before, after, strict=True) for line in changed(one, two)]
        if left or code or other or not scene.reaches():
            wrong.append((what, code, told, left, other, bool(amiss)))
            before = after
    print(f"{len(every)} taken, {noticed} noticed by CHECK")
    assert not wrong, "\n".join(
        f"{what}: {code} {told.strip()}\n  left {left}\n  other {other} noticed {amiss}"
        for what, code, told, left, other, amiss in wrong
    )


MESSAGES = "sendto,sendmsg"


def struck(scene: Scene, inject: str) -> int:
    """A repair whose n-th message to the kernel is refused or is its last; its exit code."""
    argv = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={MESSAGES}", "-e", f"inject={MESSAGES}:{inject}")
    done = scene.host.run(*argv, AGENT_CNI, "repair", "--all", "--conf-dir", "/nowhere", check=False)
    return done.returncode


@pytest.mark.sweep(most=2)
@pytest.mark.parametrize("how", ["error=EPERM", "signal=SIGKILL"])
@pytest.mark.parametrize("kind", ["bridge, isolated", "macvlan, isolated"])
@pytest.mark.tried(
    "a repair of a lost link refused, or killed, at each message to the kernel", "the next repair makes all as it was"
)
def test_a_repair_that_fails_anywhere_is_made_good_by_the_next(scene: Scene, how: str):
    before = (said(scene.host), said(scene.pod), said(scene.neighbour))
    wrong = []
    for message in range(1, 200, 7 if "EPERM" in how else 9):
        sh("ip", "-n", scene.pod.name, "link", "del", "eth0")
        code = struck(scene, f"{how}:when={message}")
        told = scene.repair("--all")
        after = (said(scene.host), said(scene.pod), said(scene.neighbour))
        other = [line for one, two in zip(before, after, strict=True) for line in changed(one, two)]
        if told[0] or other or scene.checks():
            wrong.append((message, code, told, other))
        if code == 0 and message > 40:
            break
    print(f"up to message {message}")
    assert not wrong, "\n".join(map(str, wrong))
