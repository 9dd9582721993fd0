"""What a configuration may hold: every fault with its JSON path, all of them at once."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cni.errors import CniError, InvalidConfig, UnsupportedField
from cni.protocol.config import validate
from cni.protocol.schema import given

HEADER = {"cniVersion": "1.0.0", "name": "pods", "type": "bridge-vxlan"}


def fault(**keys: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        validate(HEADER | keys, "bridge-vxlan")
    return caught.value


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"isGatewy": True}, "$.isGatewy: unknown key, value true (did you mean 'isGateway'?)"),
        (
            {"addIf": "true"},
            "$.addIf: unknown key, value \"true\" (kubenet's and minikube's; the reference bridge never",
        ),
        ({"master": "eth0"}, '$.master: unknown key, value "eth0" (no bridge has one'),
        ({"interface": "eth0"}, '$.interface: unknown key, value "eth0" (no reference plugin'),
        ({"log_file": "/x"}, '$.log_file: unknown key, value "/x" (whereabouts reads it'),
        ({"zzz": {"a": 1}}, '$.zzz: unknown key, value {"a": 1}'),
        ({"vxlan": {"id": 1, "remote": ["x"]}}, "$.vxlan.remote: unknown key, value [\"x\"] (did you mean 'remotes'?)"),
        ({"ipam": {"subnt": "x"}}, "$.ipam.subnt: unknown key, value \"x\" (did you mean 'subnet'?)"),
        ({"dns": {"nameserver": "x"}}, "$.dns.nameserver: unknown key, value \"x\" (did you mean 'nameservers'?)"),
        (
            {"ipam": {"ranges": [[{"subnet": "10.0.0.0/24", "start": 1}]]}},
            "$.ipam.ranges[0][0].start: unknown key, value 1",
        ),
    ],
    ids=[
        "a typo",
        "kubenet's",
        "macvlan's",
        "nobody's",
        "whereabouts'",
        "a stranger",
        "in vxlan",
        "in ipam",
        "in dns",
        "in a range",
    ],
)
def test_an_unknown_key_is_code_2_with_key_value_and_suggestion(keys: dict[str, Any], said: str):
    error = fault(**keys)
    assert type(error) is UnsupportedField
    assert error.msg.startswith(said)


def test_several_unknown_keys_are_named_together():
    error = fault(foo=1, bar=2)
    assert type(error) is UnsupportedField
    assert error.msg == "$.foo: unknown key, value 1; $.bar: unknown key, value 2"


def test_a_long_value_is_cut():
    assert len(fault(foo="x" * 1000).msg) < 120


@pytest.mark.parametrize(
    "keys",
    [{"vlan": 100}, {"vlanTrunk": [{"id": 5}]}, {"preserveDefaultVlan": True}, {"macspoofchk": True}],
    ids=lambda keys: next(iter(keys)),
)
def test_what_does_not_exist_yet_is_code_2_with_a_reason(keys: dict[str, Any]):
    error = fault(**keys)
    assert type(error) is UnsupportedField
    assert error.msg.startswith(f"$.{next(iter(keys))}: ")
    assert "not supported" in error.msg


@pytest.mark.parametrize(
    "keys",
    [{"vlan": 0}, {"vlanTrunk": []}, {"vlanTrunk": None}, {"preserveDefaultVlan": False}, {"macspoofchk": False}],
    ids=str,
)
def test_asking_for_none_of_it_is_fine(keys: dict[str, Any]):
    validate(given(HEADER | keys, "bridge-vxlan"), "bridge-vxlan")


def test_mixed_faults_are_code_7_with_every_path():
    error = fault(
        mtu="big", isGatewy=True, vlan=5, bridge="x" * 16, vxlan={"id": 0, "dstport": 70000, "remotes": ["nowhere"]}
    )
    assert type(error) is InvalidConfig
    paths = {line.partition(": ")[0] for line in error.msg.split("; ")}
    assert paths == {
        *("$.mtu", "$.isGatewy", "$.vlan", "$.bridge"),
        *("$.vxlan.id", "$.vxlan.dstport", "$.vxlan.remotes[0]"),
    }


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("$.mtu", {"mtu": True}),
        ("$.mtu", {"mtu": 1500.5}),
        ("$.mtu", {"mtu": -1}),
        ("$.mtu", {"mtu": 65536}),
        ("$.mtu", {"mtu": float("inf")}),
        ("$.bridge", {"bridge": "br0\n"}),
        ("$.bridge", {"bridge": ".."}),
        ("$.bridge", {"bridge": ""}),
        ("$.ip", {"ip": "10.0.0.1"}),
        ("$.ip", {"ip": 5}),
        ("$.ip", {"ip": []}),
        ("$.ip[1]", {"ip": ["10.0.0.1/24", "10.0.0.1/33"]}),
        ("$.gateway", {"gateway": "10.0.0.1/24"}),
        ("$.ipMasqBackend", {"ipMasqBackend": "ipfw"}),
        ("$.vxlan", {"vxlan": {}}),
        ("$.vxlan.id", {"vxlan": {"id": 1 << 24}}),
        ("$.vxlan.local", {"vxlan": {"id": 1, "local": "10.0.0.1/24"}}),
        ("$.ipam.subnet", {"ipam": {"subnet": "10.0.0.1/24"}}),
        ("$.ipam.gateway", {"ipam": {"subnet": "10.0.0.0/24", "gateway": "10.0.0"}}),
        ("$.ipam.ranges[0]", {"ipam": {"ranges": [[]]}}),
        ("$.ipam.ranges[0][0]", {"ipam": {"ranges": [[{}]]}}),
        ("$.ipam.routes[0].dst", {"ipam": {"subnet": "10.0.0.0/24", "routes": [{"dst": "x"}]}}),
        ("$.ipam.dataDir", {"ipam": {"subnet": "10.0.0.0/24", "dataDir": "relative"}}),
        ("$.ipam.type", {"ipam": {"type": "../host-local"}}),
        ("$.ipam.type", {"ipam": {"type": "host-local\n"}}),
        ("$.dns.nameservers[0]", {"dns": {"nameservers": ["here"]}}),
        ("$.runtimeConfig", {"runtimeConfig": []}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_value_is_code_7_with_its_path(path: str, keys: dict[str, Any]):
    error = fault(**keys)
    assert type(error) is InvalidConfig
    assert error.msg.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ({"ipam": {"subnet": "10.1.0.5/16"}}, "10.1.0.5/16"),
        ({"vxlan": {"id": 1, "local": "nowhere"}}, "nowhere"),
        ({"ip": "10.0.0.1/33"}, "10.0.0.1/33"),
        ({"bridge": "much too long for one"}, "much too long for one"),
    ],
    ids=["cidr", "address", "interface", "ifname"],
)
def test_a_format_is_explained_in_one_sentence_that_names_the_value_once(keys: dict[str, Any], value: str):
    assert len(re.findall(re.escape(value), fault(**keys).msg)) == 1


@pytest.mark.parametrize(
    "keys",
    [
        {"args": {"cni": {"ips": ["10.0.0.5"]}, "labels": [1]}},
        {"capabilities": {"ips": True}, "runtimeConfig": {"IPs": [], "portMappings": [{"HostPort": 1}]}},
        {"prevResult": {"anything": 1}},
        {"args": None, "capabilities": None, "runtimeConfig": None, "prevResult": None, "dns": None},
        {"dns": {"nameservers": None, "domain": "a", "search": ["b"], "options": ["ndots:5"]}},
        {"cni.dev/valid-attachments": [], "cni.dev/anything": 1},
        {"mtu": 1500.0, "vxlan": {"id": 100.0, "dstport": 4789.0}},
        {"ipam": {}},
        {"ipam": None, "vxlan": None},
        {"ipam": {"type": "host-local", "subnet": "10.0.0.0/8", "whatever": 1}},
        {"ipam": {"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0", "mtu": 1400.0, "table": 0}]}},
    ],
    ids=[
        *("args", "runtimeConfig", "prevResult", "nulls", "dns", "cni.dev keys", "float64 numbers"),
        *("empty ipam", "no sections", "a foreign ipam", "our ipam"),
    ],
)
def test_what_callers_really_send_is_taken(keys: dict[str, Any]):
    validate(given(HEADER | keys, "bridge-vxlan"), "bridge-vxlan")


def test_as_a_delegate_the_ipam_ignores_the_other_plugins_keys():
    conf = HEADER | {"type": "macvlan", "master": "eth0", "ipam": {"type": "agent-ipam", "subnet": "10.0.0.0/24"}}
    validate(conf, "agent-ipam")


@pytest.mark.parametrize("conf", [{}, {"ipam": None}, {"ipam": {"subnet": 5}}], ids=["none", "null", "a wrong subnet"])
def test_as_a_delegate_the_ipam_needs_its_section(conf: dict[str, Any]):
    with pytest.raises(InvalidConfig, match=r"\$"):
        validate(HEADER | conf, "agent-ipam")
