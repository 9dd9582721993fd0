"""Words of Docker, compose, nerdctl and podman: each is answered by what to write instead, wherever it stands and however it is spelled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.errors import UnsupportedField
from cni.protocol import foreign
from cni.protocol.config import faults
from cni.protocol.schema import schema_of

HEADER = {"cniVersion": "1.0.0", "name": "pods", "type": "bridge-vxlan"}
PLUGINS = ("bridge-vxlan", "macvlan", "custom-plugin")


def said(keys: dict[str, Any], plugin: str = "bridge-vxlan") -> str:
    """The one thing that is said against a configuration, after path and value."""
    ((kind, line),) = faults(HEADER | {"type": plugin} | keys, plugin)
    assert kind is UnsupportedField
    return line.partition(" (")[2].removesuffix(")")


@pytest.mark.parametrize(
    ("keys", "mend"),
    [
        ({"driver": "bridge"}, 'the word here is type: "type": "bridge-vxlan"'),
        ({"Driver": "overlay"}, 'the word here is type: "type": "bridge-vxlan" with a vxlan section'),
        ({"driver": "macvlan"}, 'the word here is type: "type": "macvlan"'),
        ({"driver": "ipvlan"}, "there is none"),
        ({"driver": "none"}, "a pod with nothing but loopback has no configuration"),
        ({"driver": "weave"}, "the word here is type: bridge is"),
        ({"subnet": "10.1.0.0/24"}, 'Docker\'s place: "ipam": {"subnet": …}'),
        ({"subnets": [{"subnet": "10.1.0.0/24"}]}, 'podman\'s: "ipam": {"ranges": [[{"subnet": …'),
        ({"parent": "eth0"}, 'docker\'s -o parent: master, with "type": "macvlan"'),
        ({"attachable": True}, "leave it out"),
        ({"internal": True}, "leave isDefaultGateway and ipMasq out"),
        ({"ip_range": "10.1.0.0/28"}, "its first and last address are rangeStart and rangeEnd"),
        ({"aux_addresses": {"printer": "10.1.0.9"}}, "these addresses are ipam.reserved"),
        ({"driver_opts": {}}, "each option is a key of its own here"),
        ({"com.docker.network.bridge.name": "br0"}, "the key here is bridge"),
        ({"com.docker.network.bridge.enable_icc": "false"}, '"portIsolation": true'),
        ({"com.docker.network.driver.mtu": "1400"}, "the key here is mtu"),
        ({"com.docker.network.internal": "true"}, "leave isDefaultGateway and ipMasq out"),
        ({"com.docker.network.enable_ipv6": "true"}, "give ipam.ranges a second set"),
        ({"com.docker.network.tomorrow": "1"}, "an option of one of Docker's drivers"),
        ({"network_interface": "podman1"}, "podman's: bridge, or master of a macvlan"),
        ({"dns_enabled": True}, 'podman\'s: "names": {}'),
        ({"isolate": True}, "policy holds networks apart"),
        ({"ipv6_enabled": True}, "give ipam.ranges a second set, of IPv6"),
        ({"external": True}, "compose's: leave it out"),
        ({"ports": ["80:80"]}, "compose's: chain portmap"),
        ({"IPAM": {}}, "did you mean 'ipam'?"),
        ({"ipam": {"subnet": "10.1.0.0/24", "driver": "default"}}, "the word here is type"),
        ({"ipam": {"config": [{"subnet": "10.1.0.0/24"}]}}, "what stands in it is a range here"),
        ({"ipam": {"subnet": "10.1.0.0/24", "ip_range": "10.1.0.0/28"}}, "its first and last address"),
        ({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "aux_addresses": {}}]]}}, "these addresses are ipam.reserved"),
        ({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "lease_range": {}}]]}}, "its first and last address"),
    ],
    ids=json.dumps,
)
def test_a_foreign_word_is_answered_by_what_to_write(keys: dict[str, Any], mend: str):
    assert said(keys).startswith(mend)


def test_a_gateway_where_docker_has_it_is_answered_too():
    assert said({"gateway": "10.1.0.1"}, "custom-plugin") == 'Docker\'s place: "ipam": {"gateway": …}'


@pytest.mark.parametrize(
    ("key", "mend"),
    [
        ("drvier", "as 'driver': the word here is type"),
        ("atachable", "as 'attachable': leave it out"),
        ("subnett", "as 'subnet': Docker's place"),
        ("aux_adresses", "as 'aux_addresses': these addresses"),
        ("dns_enable", "as 'dns_enabled': podman's"),
        ("isGatway", "did you mean 'isGateway'?"),
        ("enabledadd", "did you mean 'enabledad'?"),
        ("rangeStart", "did you mean 'ipam.rangeStart'?"),
    ],
)
def test_one_that_is_misspelt_is_understood_all_the_same(key: str, mend: str):
    assert said({key: "x"}).startswith(mend)


@pytest.mark.parametrize("section", ["", "ipam", "ranges"])
def test_every_word_is_in_lower_case_and_says_something(section: str):
    assert foreign.words(section)
    for key, mend in foreign.words(section).items():
        assert (key, bool(mend)) == (key.lower(), True)
        assert mend.count("(") == mend.count(")")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_what_a_word_leads_to_is_a_key(plugin: str):
    """No word of the table is a key of the plugin but where another plugin has none of that name."""
    known = {name.lower() for name in schema_of(plugin)["properties"]}
    assert foreign.words("").keys() & known <= {"gateway", "master"}


@pytest.mark.parametrize(
    ("text", "whose"),
    [
        (b"services:\n  web:\n    image: x\n", "a compose file"),
        (b"# mine\nnetworks:\n  web: {}\n", "a compose file"),
        (b'[{"Name": "web", "Id": "1", "Driver": "bridge"}]', "what `docker network inspect` or podman's prints"),
        (b'[\n  {\n    "name": "web"\n  }\n]', "what `docker network inspect` or podman's prints"),
        (b"{", ""),
        (b"[1]", ""),
    ],
)
def test_a_text_that_is_no_configuration_is_said_to_be_whose_it_is(text: bytes, whose: str):
    assert foreign.whose(text) == (
        f" (this is {whose}: docs/coming-from-docker.md says what to write)" if whose else ""
    )
