"""What whoever may write into the store, or has a node's token, says to bring other hosts down: it is refused by name, and the rest is heard."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.cluster.document import Document
from cni.cluster.etcd.gateway import Row
from cni.cluster.etcd.items import told
from cni.cluster.etcd.keys import Keys
from cni.cluster.fields import Malformed
from cni.cluster.kubernetes import items
from cni.cluster.kubernetes.objects import NODES, PODS, POLICIES, Annotated, Event, Kind, Node, Page, read, reader
from cni.cluster.model import Key
from cni.cluster.model import read as read_item

pytestmark = pytest.mark.threat

KEYS = Keys("/agent-cni")
POOL = {"subnet": "10.1.0.0/16", "first": "10.1.0.1", "last": "10.1.0.9", "gateway": ""}
NETWORK = {"pools": [POOL], "block": 8, "mode": "l2", "vni": 1, "reserved": []}
NODE = {"machine": "m", "vtep": "192.0.2.1", "mac": "0a:00:00:00:00:01"}
HEALTHY = Row(KEYS.of(("nodes", "b")), json.dumps(NODE).encode(), 1, 1, "0")
DEEP = (90, 500, 990, 991, 992, 993, 994, 995, 996, 1000, 100_000)  # of which some are read, and not written again
NO_TEXT = ("web\n10.0.0.9 bank.example", "a\0b", "\x1b[2J", "\ud800", "a\u2028b")


@pytest.mark.parametrize("levels", DEEP)
@pytest.mark.parametrize("begins", ["[", '{"a":'])
@pytest.mark.parametrize(
    "key", [("nodes", "a"), ("documents", "Pod", "default", "x"), ("addresses", "net", "10.1.0.5")]
)
def test_what_is_nested_deeply_in_etcd_keeps_nobody_from_the_rest(key: Key, begins: str, levels: int):
    row = Row(KEYS.of(key), begins.encode() * levels, 1, 1, "0")
    closed = row._replace(value=row.value + b"1" * (begins != "[") + {"[": b"]", '{"a":': b"}"}[begins] * levels)
    for hostile in (row, closed):
        said = told(KEYS, [hostile, HEALTHY])
        assert [item.key for item in said.items if not isinstance(item, Document)] == [("nodes", "b")]
        assert len(said.items) + len(said.refused) == 2
        for document in said.items:
            assert json.dumps(document.value)


@pytest.mark.parametrize(
    "said",
    [
        *("[" * levels for levels in DEEP),
        *('{"a":' * levels + "1" + "}" * levels for levels in DEEP),
        *("5", "null", '{"x": 5}', '{"x": []}', '{"x": {"pools": [5]}}', "\ud800", '"\\ud800"', '{"\\ud800": 1}'),
        json.dumps({"one": NETWORK, "other": NETWORK}),
        json.dumps({f"n{number}": NETWORK for number in range(1400)}),
        json.dumps({"one": NETWORK, "all": NETWORK | {"pools": [POOL | {"subnet": "0.0.0.0/0"}]}}),
    ],
    ids=lambda said: f"{said[:24]!a} {len(said)}",
)
def test_a_node_declares_no_networks_that_others_fall_over(said: str):
    """Its token may annotate it, 256 KiB of whatever. Networks that overlap would each have every podCIDR cut into blocks, for every host to hear."""
    nodes = [
        Node(metadata=Annotated(name="evil", annotations={items.NETWORKS: said}, creation_timestamp="1")),
        Node(metadata=Annotated(name="b", annotations={items.NETWORKS: json.dumps({"net": NETWORK})})),
    ]
    networks, refused = items.networks_of(nodes, "me")
    assert ([network.name for network in networks], len(refused)) == (["net"], 1)


@pytest.mark.parametrize("kind", [NODES, PODS, *POLICIES], ids=lambda kind: kind.name)
def test_an_object_that_is_nested_deeply_is_none(kind: Kind):
    for text in (b"[" * 200_000, b'{"metadata":' * 100_000, b'{"spec":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        with pytest.raises(ValueError, match=r"\w"):
            read(kind, text)
        for whole, around in ((Event, b'{"type":"ADDED","object":%s}'), (Page, b'{"metadata":{},"items":[%s]}')):
            with pytest.raises(ValueError, match=r"\w"):
                reader(whole)(around % text)


@pytest.mark.parametrize("text", NO_TEXT)
@pytest.mark.parametrize(
    ("key", "raw", "name"),
    [
        *((("nodes", "a"), NODE | {"wireguard": "k", "underlay": "u"}, name) for name in ("machine", "wireguard", "underlay")),
        *(
            (("addresses", "net", "10.1.0.5"), {"node": "a", "mac": NODE["mac"]}, name)
            for name in ("node", "pod", "names", "container", "ifname")
        ),
        (("blocks", "net", "10.1.0.0/26"), {"node": "a", "machine": "m"}, "node"),
        (("alive", "a"), {}, "token"),
    ],
)  # fmt: skip
def test_what_is_no_text_of_one_line_is_no_item(key: Key, raw: dict[str, Any], name: str, text: str):
    """It would come into a file of names, a row of SQLite, or a terminal."""
    with pytest.raises(Malformed, match=f"{name} is "):
        read_item(key, raw | {name: text})
    with pytest.raises(Malformed, match="nobody has such a name"):
        read_item((key[0], text, *key[2:]), raw | {name: "right"})
