"""The node as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cni.command.picture.graph import drawn
from cni.command.picture.pictured import Far, Health, Uplink, networks
from cni.naming import Attachment
from cni.resources import (
    Bridge,
    FloodList,
    GatewayAddress,
    Macvlan,
    NftMasquerade,
    PodPolicy,
    PodRules,
    Resource,
    VethPair,
    VxlanLink,
    decoded,
)
from cni.state import Record

OVERLAY = (
    Bridge("br0", "", 1450, promiscuous=False),
    VxlanLink("vxlan100", 100, 4789, "", "", 1450, "br0"),
    FloodList("vxlan100", ("192.0.2.12", "192.0.2.13")),
    GatewayAddress("br0", "10.244.0.1/16", force=False),
)
NAT, PROXY = NftMasquerade("nftables", 4, "10.244.1.2", "10.244.0.0/16", "x"), PodRules("n", "iptables-nft", 4, "")
POLICY = PodPolicy(("10.244.1.2",), (), closed=False, pod="")


def veth(container: str, bridge: str) -> VethPair:
    return VethPair(f"veth{container}", "0e:00:00:00:00:01", "eth0", "0a:00:00:00:00:01", 1450, bridge, False, False)


def record(container: str, pod: str, *resources: Resource, addresses: tuple[str, ...] = ()) -> Record:
    result = {"ips": [{"address": text} for text in addresses]}
    who = Attachment("net", container, "eth0")
    return Record(who, "any", f"/run/netns/{container}", pod, {}, resources, result, True)


NODE = [
    record("c1", "shop/web", *OVERLAY, veth("c1", "br0"), NAT, addresses=("10.244.1.2/16",)),
    record("c2", "shop/<db>", *OVERLAY, veth("c2", "br0"), PROXY, POLICY, addresses=("10.244.1.3/16", "fd00::3/64")),
    record("c3", "", *OVERLAY, veth("c3", "br0"), addresses=("10.244.1.4/16",)),
    record("c4", "shop/d", *OVERLAY, veth("c4", "br0")),
    record("c5", "shop/e", *OVERLAY, veth("c5", "br0")),
    record("m1", "edge/scan", Macvlan("eth0", "ens5", "bridge", "", 1500, 0, False, ""), addresses=("192.0.2.20/24",)),
    record("i1", "agents/ai", veth("i1", ""), POLICY, addresses=("10.9.0.2/32",)),
    record("m1", "edge/scan", PROXY),
]


def test_a_node_as_it_is_drawn(golden: Callable[[str, str], None]):
    picture = drawn(networks(NODE), "node-1")
    ET.fromstring(picture)  # well-formed, names escaped
    golden("graph.svg", picture)


def test_a_chained_plugin_adds_to_the_pod_of_another():
    wire = next(network for network in networks(NODE) if network.title.startswith("ens5"))
    assert [list(pod.badges) for pod in wire.pods.values()] == [["proxy"]]


def test_what_another_release_recorded_is_left_out():
    odd = record("c1", "a/b", veth("c1", "br0"))
    odd = odd.having(resources=(*odd.resources, *decoded([{"kind": "Wormhole"}, {"kind": "Bridge", "colour": "red"}])))
    assert [network.title for network in networks([odd])] == ["bridge br0"]


def test_the_picture_of_an_empty_node(agent: Any, folder: Path, tmp_path: Path):
    folder.mkdir()
    assert agent("show", "--graph", tmp_path / "node.svg", "--data-dir", folder).status == 0
    assert (
        agent("show", "--graph", "-", "--data-dir", folder).out.rstrip() == (tmp_path / "node.svg").read_text().rstrip()
    )
    assert ET.parse(tmp_path / "node.svg").getroot().tag.endswith("svg")
    said = agent("show", "--graph", tmp_path / "no/where.svg", "--data-dir", folder)
    assert (said.status, len(said.err.splitlines())) == (1, 1)


def hosts(many: int, encryption: str = "", away: int = 0) -> list[Far]:
    return [
        Far(
            f"node-{number:02}.rack-7.example.net",
            f"[2001:db8:0:{number:x}::11]:51820",
            number,
            number >= away,
            encryption,
        )
        for number in range(many)
    ]


def boxes(picture: str) -> list[tuple[float, float, float, float]]:
    found = [item.attrib for item in ET.fromstring(picture).iter() if item.tag.endswith("rect")]
    return [tuple(float(item[name]) for name in ("x", "y", "width", "height")) for item in found]  # type: ignore[misc]


@pytest.mark.parametrize(("many", "encryption"), [(2, ""), (3, "WireGuard"), (50, "WireGuard"), (5000, "")])
def test_a_clusters_other_hosts_are_drawn_where_one_can_read_them(many: int, encryption: str):
    picture = drawn(networks(NODE[:5], {100: hosts(many, encryption, away=1)}), "node-1")
    root = ET.fromstring(picture)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(x + wide <= width and y + high <= height for x, y, wide, high in boxes(picture))
    drawn_hosts = [box for box in boxes(picture) if box[3] == 60]
    assert len(drawn_hosts) == len(set(drawn_hosts)) == min(many, 60)
    assert not any(_overlap(one, other) for one in drawn_hosts for other in drawn_hosts if one < other)
    texts = [item.text or "" for item in root.iter() if item.tag.endswith("text")]
    assert (f"VXLAN in {encryption} to" if encryption else "VXLAN to") in texts
    assert (f"and {many - 60} more hosts" in texts) is (many > 60)
    assert sum(text == "away" for text in texts) == 1
    assert all(len(text) <= 28 for text in texts if "node-" in text or "2001:" in text)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(one[at] < other[at] + other[at + 2] and other[at] < one[at] + one[at + 2] for at in (0, 1))


def test_a_network_of_another_vni_has_no_hosts_of_the_cluster():
    (network,) = networks(NODE[:1], {101: hosts(3)})
    assert network.far == {}


def test_a_network_this_host_is_a_guest_of_is_drawn_without_pods():
    own, strange = networks(NODE[1:2], {100: hosts(3), 101: hosts(2)}, {"far": 101})
    assert (own.title, len(own.pods)) == ("bridge br0", 1)
    assert (strange.title, strange.pods, list(strange.far)) == ("far: a guest, no pods here", {}, hosts(2))
    assert "VNI 101" in drawn([own, strange], "node-1")


def test_a_host_of_the_cluster_is_drawn_as_it_is(golden: Callable[[str, str], None]):
    there = [Far("node-2", "192.0.2.12:51820", 3, True, "WireGuard"), Far("node-3", "192.0.2.13:51820", 1, False, "WireGuard")]  # fmt: skip
    golden("graph-cluster.svg", drawn(networks(NODE[1:3], {100: there}), "node-1"))


def test_what_is_not_as_it_was_made_is_red_and_says_what(golden: Callable[[str, str], None]):
    web, db = NODE[0], NODE[1]
    lines = ["eth0 is down in the pod, and 3 more with it", "host interface vethc1 has MTU 1280, not 1450"]
    health = Health(
        {web.attachment: lines},
        {"net": ["VXLAN device vxlan100 is down"]},
        {db.attachment: ["8080→80/tcp", "53→53/udp"]},
    )
    odd = record("n1", "lab/new", *decoded([{"kind": "Wormhole"}]), addresses=("10.5.0.2/24",))
    links = [Uplink("eth0", 1500, ("192.0.2.11/24",)), Uplink("eth1", 1500, (), "it has no carrier")]
    picture = drawn(networks([web, db, odd], health=health), "node-1", links)
    root = ET.fromstring(picture)
    texts = [item.text or "" for item in root.iter() if item.tag.endswith("text")]
    red = [item.text for item in root.iter() if item.tag.endswith("text") and item.attrib.get("fill") == "#b3261e"]
    assert red[0] == "uplink eth1, MTU 1500: it has no carrier"
    assert "VXLAN device vxlan100 is down" in red
    assert "eth0 is down in the pod, and 3 " in " ".join(map(str, red))
    assert {"8080→80/tcp, 53→53/udp", "net: bridge br0", "net: another's link, by any", "other"} <= set(texts)
    frames = [
        item
        for item in root.iter()
        if item.tag.endswith("rect") and item.attrib["stroke" if "stroke" in item.attrib else "x"] == "#b3261e"
    ]
    assert len(frames) == 1
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(x + wide <= width and y + high <= height for x, y, wide, high in boxes(picture))
    golden("graph-ailing.svg", picture)


def test_a_well_node_and_an_ill_one_are_two_pictures():
    pod = NODE[0]
    well, ill = (
        drawn(networks([pod], health=health), "n") for health in (Health(), Health({pod.attachment: ["x is missing"]}))
    )
    assert well != ill
