"""The `sidecar` section, its profile, its schema, and for which pods it is."""

from __future__ import annotations

from typing import Any

import pytest

from cni.errors import InvalidConfig, UnsupportedField
from cni.protocol.call import Call
from cni.protocol.config import validate
from cni.sidecar.config import read, section_of
from cni.sidecar.model import Interception

CALL = Call("ADD", "c1", "/run/netns/p", "eth0", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
INJECT = "sidecar.istio.io/inject"


def interception(
    section: dict[str, Any] | None = None, annotations: dict[str, str] | None = None, **runtime: Any
) -> Interception:
    told = {"io.kubernetes.cri.pod-annotations": annotations} if annotations is not None else {}
    return read(section or {}, {"runtimeConfig": told | runtime}, CALL)


def conf(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "mesh", "type": "sidecar-redirect", **keys}


def test_without_keys_everything_is_captured_to_15001():
    assert interception() == Interception()


def test_without_a_section_nothing_is_asked_for():
    assert section_of({}, CALL) is None


def test_a_section_stands_in_a_main_plugin():
    assert section_of({"sidecar": {"port": 16001}}, CALL) == Interception(port=16001, inbound_port=16001)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ({"port": 16001, "inboundPort": 16006}, "inbound_port", 16006),
        ({"includeInboundPorts": "*"}, "include_inbound_ports", None),
        ({"includeInboundPorts": []}, "include_inbound_ports", ()),
        ({"includeOutboundCIDRs": ["*"]}, "include_outbound_cidrs", None),
        ({"includeOutboundCIDRs": ["10.0.0.0/8"]}, "include_outbound_cidrs", ("10.0.0.0/8",)),
        ({"proxyUIDs": [7, 8]}, "proxy_uids", (7, 8)),
        ({"proxyGIDs": []}, "proxy_gids", ()),
        ({"ownerGroups": {"include": [5]}}, "include_groups", (5,)),
        ({"ownerGroups": {"include": "*", "exclude": [6]}}, "exclude_groups", (6,)),
        ({"mode": "tproxy"}, "transparent", True),
        ({"captureDNS": True, "dnsPort": 5353}, "dns_port", 5353),
        ({"denyUncaptured": True}, "deny_uncaptured", True),
        ({"dropInvalid": True}, "drop_invalid", True),
        ({"backend": "iptables-legacy"}, "backend", "iptables-legacy"),
        ({"virtInterfaces": ["vm0"]}, "virt_interfaces", ("vm0",)),
        ({"excludeInterfaces": ["net1"]}, "exclude_interfaces", ("net1",)),
    ],
)
def test_a_key_becomes_a_field(section: dict[str, Any], field: str, value: object):
    assert getattr(interception(section), field) == value


def test_istios_profile_has_istios_ports_and_adds_to_them():
    made = interception({"profile": "istio", "excludeInboundPorts": [22]})
    assert (made.port, made.inbound_port, made.tunnel_port, made.dns_port) == (15001, 15006, 15008, 15053)
    assert made.open_inbound_ports == (15008, 15020, 15021, 15090, 22)


def test_what_is_said_wins_over_the_profile():
    assert interception({"profile": "istio", "inboundPort": 9}).inbound_port == 9


def test_resolvers_come_from_the_runtime_in_its_own_spelling():
    assert interception(DNS={"Servers": ["10.96.0.10"]}).resolvers == ("10.96.0.10",)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"excludeOutboundCIDRs": ["0.0.0.0/0"]}, "$.excludeOutboundCIDRs: 0.0.0.0/0 excludes everything"),
        ({"proxyUIDs": [], "proxyGIDs": []}, "$.proxyUIDs: without an id of the proxy"),
        ({"captureDNS": True, "excludeOutboundPorts": [53]}, "$.excludeOutboundPorts: 53 is what captureDNS captures"),
    ],
)
def test_what_contradicts_itself_is_refused(section: dict[str, Any], words: str):
    with pytest.raises(InvalidConfig) as caught:
        interception(section)
    assert words in caught.value.msg


@pytest.mark.parametrize(
    ("section", "annotations", "wanted"),
    [
        ({}, None, True),
        ({"when": "always"}, {INJECT: "false"}, True),
        ({"when": {"annotation": INJECT}}, None, False),
        ({"when": {"annotation": INJECT}}, {INJECT: "false"}, False),
        ({"when": {"annotation": INJECT}}, {INJECT: "true"}, True),
        ({"excludeNamespaces": ["shop"]}, None, False),
        ({"excludeNamespaces": ["kube-system"]}, None, True),
        ({}, {"sidecar.istio.io/interceptionMode": "NONE"}, False),
    ],
)
def test_which_pods_it_is_for(section: dict[str, Any], annotations: dict[str, str] | None, wanted: bool):
    assert interception(section, annotations).wanted is wanted


# --- annotations

PREFIX = "traffic.sidecar.istio.io/"


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("includeOutboundIPRanges", "*", "include_outbound_cidrs", None),
        ("includeOutboundIPRanges", "10.0.0.0/8, fd00::/8", "include_outbound_cidrs", ("10.0.0.0/8", "fd00::/8")),
        ("includeOutboundIPRanges", "", "include_outbound_cidrs", ()),
        ("excludeOutboundIPRanges", "10.1.0.0/16", "exclude_outbound_cidrs", ("10.1.0.0/16",)),
        ("includeOutboundPorts", "443", "include_outbound_ports", (443,)),
        ("excludeOutboundPorts", "3306,6379", "exclude_outbound_ports", (3306, 6379)),
        ("includeInboundPorts", "*", "include_inbound_ports", None),
        ("includeInboundPorts", "", "include_inbound_ports", ()),
        ("excludeInboundPorts", "22", "exclude_inbound_ports", (22,)),
        ("kubevirtInterfaces", "net1,net2", "virt_interfaces", ("net1", "net2")),
        ("excludeInterfaces", "net3", "exclude_interfaces", ("net3",)),
    ],
)
def test_an_annotation_overrides_its_key(name: str, text: str, field: str, value: object):
    section = {"includeInboundPorts": [1], "includeOutboundCIDRs": ["192.0.2.0/24"], "excludeOutboundPorts": [2]}
    assert getattr(interception(section, {f"{PREFIX}{name}": text}), field) == value


@pytest.mark.parametrize("field", ["include_outbound_cidrs", "exclude_outbound_cidrs"])
def test_host_bits_of_an_annotations_range_are_dropped(field: str):
    """As Istio does; in a configuration they are refused."""
    name = {"include_outbound_cidrs": "includeOutboundIPRanges", "exclude_outbound_cidrs": "excludeOutboundIPRanges"}
    told = {f"{PREFIX}{name[field]}": "10.96.0.1/12,fd00:96::1/108, 192.0.2.7"}
    assert getattr(interception({}, told), field) == ("10.96.0.0/12", "fd00:96::/108", "192.0.2.7/32")


@pytest.mark.parametrize("older", [{}, {f"{PREFIX}kubevirtInterfaces": "net9"}])
def test_the_newer_name_of_virtual_interfaces_wins(older: dict[str, str]):
    newer = {"istio.io/reroute-virtual-interfaces": "tap0, k6t-eth0"}
    for told in (older | newer, newer | older):
        assert interception({"virtInterfaces": ["vm0"]}, told).virt_interfaces == ("tap0", "k6t-eth0")


def test_the_mode_is_an_annotation_too():
    assert interception({}, {"sidecar.istio.io/interceptionMode": "TPROXY"}).transparent
    assert not interception({"mode": "tproxy"}, {"sidecar.istio.io/interceptionMode": "REDIRECT"}).transparent


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (f"{PREFIX}includeOutboundIPRanges", "10.0.0.1/33"),
        ("istio.io/reroute-virtual-interfaces", "sixteen-bytes-xx"),
        (f"{PREFIX}excludeOutboundIPRanges", "*"),
        (f"{PREFIX}excludeOutboundIPRanges", "::/0"),
        (f"{PREFIX}excludeOutboundPorts", "http"),
        (f"{PREFIX}includeOutboundPorts", "0"),
        (f"{PREFIX}includeInboundPorts", "80,*"),
        (f"{PREFIX}includeInboundPorts", "65536"),
        (f"{PREFIX}excludeInboundPorts", "٤"),
        (f"{PREFIX}excludeInterfaces", "a/b"),
        (f"{PREFIX}kubevirtInterfaces", "sixteen-bytes-xx"),
        ("sidecar.istio.io/interceptionMode", "tproxy"),
    ],
)
def test_a_malformed_annotation_is_an_error_that_names_it(name: str, text: str):
    with pytest.raises(InvalidConfig) as caught:
        interception({}, {name: text})
    assert name in caught.value.msg or "excludes everything" in caught.value.msg


# --- schema

EVERY_KEY: dict[str, Any] = {
    "port": 15001, "inboundPort": 15006, "profile": "plain", "proxyUIDs": [1337], "proxyGIDs": [1337],
    "includeInboundPorts": "*", "excludeInboundPorts": [22], "includeOutboundCIDRs": ["*"],
    "excludeOutboundCIDRs": ["10.0.0.0/8"], "includeOutboundPorts": [443], "excludeOutboundPorts": [22],
    "excludeInterfaces": ["net1"], "ownerGroups": {"include": "*", "exclude": [5]}, "virtInterfaces": ["vm0"],
    "captureDNS": True, "dnsPort": 15053, "mode": "redirect", "dropInvalid": True, "denyUncaptured": True,
    "when": {"annotation": INJECT}, "excludeNamespaces": ["kube-system"], "backend": "iptables-nft",
}  # fmt: skip


def test_every_documented_key_is_accepted_alone_and_in_a_main_plugin():
    validate(conf(**EVERY_KEY), "sidecar-redirect")
    for plugin in ("bridge-vxlan", "macvlan"):
        validate({"cniVersion": "1.1.0", "name": "n", "type": plugin, "sidecar": EVERY_KEY}, plugin)


def test_a_misspelt_key_is_named_wherever_it_stands():
    with pytest.raises(UnsupportedField, match=r"\$\.inboundport: unknown key.*did you mean 'inboundPort'"):
        validate(conf(inboundport=1), "sidecar-redirect")
    with pytest.raises(UnsupportedField, match=r"\$\.sidecar\.prot: unknown key"):
        validate({"cniVersion": "1.1.0", "name": "n", "type": "bridge-vxlan", "sidecar": {"prot": 1}}, "bridge-vxlan")


@pytest.mark.parametrize(
    "keys",
    [
        {"port": 0},
        {"port": 65536},
        {"port": "15001"},
        {"proxyUIDs": ["istio-proxy"]},
        {"proxyUIDs": [-1]},
        {"excludeInboundPorts": "*"},
        {"excludeOutboundCIDRs": ["*"]},
        {"excludeOutboundCIDRs": ["10.0.0.1/8"]},
        {"includeOutboundCIDRs": "10.0.0.0/8"},
        {"excludeInterfaces": ["a/b"]},
        {"mode": "none"},
        {"when": "sometimes"},
        {"when": {}},
        {"ownerGroups": {"only": [1]}},
        {"backend": "nftables"},
    ],
    ids=str,
)
def test_a_wrong_value_is_refused(keys: dict[str, Any]):
    with pytest.raises((InvalidConfig, UnsupportedField), match=next(iter(keys))):
        validate(conf(**keys), "sidecar-redirect")


@pytest.mark.parametrize("name", ['a"b', "eth+", "+", "eth*", "!eth0", "a/b", "a:b", "a b", "a\\b"])
@pytest.mark.parametrize(
    ("key", "annotation"),
    [("excludeInterfaces", "excludeInterfaces"), ("virtInterfaces", "kubevirtInterfaces")],
    ids=["excluded", "virtual"],
)
def test_an_interface_that_rules_would_read_otherwise_is_refused(key: str, annotation: str, name: str):
    with pytest.raises(InvalidConfig, match=f"traffic.sidecar.istio.io/{annotation}"):
        interception(annotations={f"traffic.sidecar.istio.io/{annotation}": f"net1,{name}"})
    with pytest.raises(InvalidConfig, match=rf"^\$\.{key}\[1\]: "):
        validate(conf(**{key: ["net1", name]}), "sidecar-redirect")
    for plugin in ("bridge-vxlan", "macvlan", "custom-plugin"):
        with pytest.raises(InvalidConfig, match=rf"^\$\.sidecar\.{key}\[0\]: "):
            validate(conf(type=plugin, sidecar={key: [name]}), plugin)


@pytest.mark.parametrize(
    ("plugin", "keys"),
    [
        ("bridge-vxlan", {"bridge": "br+"}),
        ("bridge-vxlan", {"vxlan": {"id": 1, "dev": "eth+"}}),
        ("macvlan", {"master": 'e"0'}),
    ],
)
def test_links_of_the_host_are_named_so_that_rules_can_name_them(plugin: str, keys: dict[str, Any]):
    with pytest.raises(InvalidConfig, match="would mean something else in a packet rule"):
        validate(conf(type=plugin, **keys), plugin)
