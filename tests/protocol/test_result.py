from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.errors import DecodingFailure
from cni.protocol.result import DNS, Interface, IPConfig, Result, Route
from cni.protocol.versions import LATEST, SUPPORTED, at_least
from cni.values import replace

WHOLE = Result(
    interfaces=(
        Interface("br0", "0a:58:0a:f4:00:01", 1450),
        Interface("veth055550c6283", "0e:05:55:50:c6:28", 1450),
        Interface("eth0", "0a:58:0a:f4:01:01", 1450, "/run/netns/c1"),
    ),
    ips=(IPConfig("10.244.1.1/16", "10.244.0.1", 2), IPConfig("fd00:244::1:1/64", "fd00:244::1", 2)),
    routes=(
        Route("0.0.0.0/0", "10.244.0.1", mtu=1400, advmss=1360, priority=5, table=100, scope=0),
        Route("10.96.0.0/12", scope=253),
        Route("::/0", "fd00:244::1"),
    ),
    dns=DNS(("10.96.0.10",), "cluster.local", ("default.svc.cluster.local",), ("ndots:5",)),
)


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_whole_result_is_rendered_as_each_version_has_it(version: str, golden: Callable[[str, str], None]):
    golden(f"result-{version}.json", json.dumps(WHOLE.render(version), indent=2) + "\n")


@pytest.mark.parametrize("version", SUPPORTED)
def test_an_empty_result_is_rendered_as_each_version_has_it(version: str):
    dns = {} if at_least(version, "1.0.0") else {"dns": {}}
    assert Result().render(version) == {"cniVersion": version, **dns}


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_first_address_may_belong_to_the_first_interface(version: str):
    rendered = Result((Interface("eth0"),), (IPConfig("10.0.0.2/24", interface=0),)).render(version)
    assert not at_least(version, "0.3.0") or rendered["ips"][0]["interface"] == 0


def test_the_newest_version_is_rendered_where_none_is_asked_for():
    assert Result().render() == {"cniVersion": LATEST}


def test_old_versions_carry_the_first_address_of_each_family():
    rendered = Result(ips=(IPConfig("10.0.0.2/24"), IPConfig("10.0.1.2/24"))).render("0.2.0")
    assert rendered == {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}, "dns": {}}


def addresses(family: int) -> st.SearchStrategy[Any]:
    """Not IPv4's in IPv6's spelling, which are refused."""
    return st.ip_addresses(v=family).filter(lambda address: family == 4 or address.ipv4_mapped is None)


@st.composite
def ips(draw: st.DrawFn) -> IPConfig:
    family = draw(st.sampled_from((4, 6)))
    length = draw(st.integers(1, 32 if family == 4 else 128))
    gateway = str(draw(addresses(family))) if draw(st.booleans()) else ""
    return IPConfig(f"{draw(addresses(family))}/{length}", gateway, draw(st.none() | st.integers(0, 9)))


@st.composite
def routes(draw: st.DrawFn) -> Route:
    family = draw(st.sampled_from((4, 6)))
    network = ipaddress.ip_interface(
        (draw(addresses(family)), draw(st.integers(0, 32 if family == 4 else 128)))
    ).network
    gw = str(draw(addresses(family))) if draw(st.booleans()) else ""
    numbers = [draw(st.integers(0, 9000)) for _ in range(3)]
    return Route(
        str(network), gw, *numbers, draw(st.none() | st.integers(0, 255)), draw(st.none() | st.integers(0, 255))
    )


NAMES = st.text("abcdefgh0123-", min_size=1, max_size=15)
INTERFACES = st.builds(
    Interface, NAMES, st.sampled_from(("", "0a:58:0a:01:00:05")), st.integers(0, 9000), NAMES | st.just("")
)
WORDS = st.lists(NAMES, max_size=2).map(tuple)
RESULTS = st.builds(
    Result,
    st.lists(INTERFACES, max_size=3).map(tuple),
    st.lists(ips(), max_size=3).map(tuple),
    st.lists(routes(), max_size=3).map(tuple),
    st.builds(DNS, WORDS, NAMES | st.just(""), WORDS, WORDS),
)


def through_json(result: Result, version: str) -> Result:
    return Result.read(json.loads(json.dumps(result.render(version))))


@given(RESULTS)
def test_the_newest_version_carries_everything(result: Result):
    assert through_json(result, LATEST) == result


@given(RESULTS, st.sampled_from(("0.3.0", "0.3.1", "0.4.0", "1.0.0")))
def test_versions_before_it_lose_only_mtu_and_route_attributes(result: Result, version: str):
    kept = replace(
        result,
        interfaces=tuple(replace(item, mtu=0) for item in result.interfaces),
        routes=tuple(Route(item.dst, item.gw) for item in result.routes),
    )
    assert through_json(result, version) == kept


@given(RESULTS, st.sampled_from(("0.1.0", "0.2.0")))
def test_the_oldest_versions_keep_one_address_of_each_family_with_its_routes(result: Result, version: str):
    firsts = [next((ip for ip in result.ips if ip.family == family), None) for family in (4, 6)]
    kept = [replace(ip, interface=None) for ip in firsts if ip]
    ways = [Route(item.dst, item.gw) for ip in kept for item in result.routes if item.family == ip.family]
    assert through_json(result, version) == Result((), tuple(kept), tuple(ways), result.dns)


@given(RESULTS, st.sampled_from(SUPPORTED))
def test_nothing_empty_is_rendered(result: Result, version: str):
    assert not [value for value in _values(result.render(version)) if value in ("", [], None)]


def _values(raw: Any) -> list[Any]:
    if isinstance(raw, dict):
        return [raw, *(found for value in raw.values() for found in _values(value))]
    return [raw, *(found for value in raw for found in _values(value))] if isinstance(raw, list) else [raw]


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        ({}, Result()),
        ({"interfaces": None, "ips": None, "routes": None, "dns": None}, Result()),
        ({"ips": [{"version": "4", "address": "10.0.0.2/24"}]}, Result(ips=(IPConfig("10.0.0.2/24"),))),
        ({"ips": [{"address": "10.0.0.2/24", "interface": 0.0}]}, Result(ips=(IPConfig("10.0.0.2/24", "", 0),))),
        (
            {"ips": [{"address": "FD00::0:2/64", "gateway": "FD00::0:1"}]},
            Result(ips=(IPConfig("fd00::2/64", "fd00::1"),)),
        ),
        ({"routes": [{"dst": "FD01::/64", "gw": "FD00::0:1"}]}, Result(routes=(Route("fd01::/64", "fd00::1"),))),
        (
            {"routes": [{"dst": "10.0.0.9/24", "gw": None, "mtu": 1400.0}]},
            Result(routes=(Route("10.0.0.0/24", mtu=1400),)),
        ),
        ({"interfaces": [{"name": "a", "mtu": 1500.0, "foo": 1}]}, Result((Interface("a", mtu=1500),))),
        (
            {"ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]}, "ip6": None},
            Result(ips=(IPConfig("10.0.0.2/24", "10.0.0.1"),), routes=(Route("0.0.0.0/0"),)),
        ),
    ],
    ids=[
        *(
            "empty",
            "nulls",
            "0.3.0",
            "float64",
            "another spelling of an address",
            "another spelling of a gateway",
            "route",
            "interface",
            "0.2.0",
        ),
    ],
)
def test_what_other_plugins_say_is_read(raw: dict[str, Any], result: Result):
    assert Result.read(raw) == result


@pytest.mark.parametrize(
    "raw",
    [
        [],
        {"ips": "10.0.0.2"},
        {"ips": [{}]},
        {"ips": [{"address": "10.0.0.256/24"}]},
        {"ips": [{"address": "10.0.0.2/24", "interface": "x"}]},
        {"interfaces": [{}]},
        {"interfaces": [1]},
        {"interfaces": [{"name": "a", "mtu": "x"}]},
        {"routes": [{"dst": "x"}]},
        {"routes": [{"dst": "0.0.0.0/0", "table": []}]},
        {"dns": "10.0.0.1"},
        {"dns": {"nameservers": "10.0.0.1"}},
        {"ip4": {}, "ip6": {"ip": 5}},
        {"ip4": {"ip": "nowhere"}},
    ],
    ids=repr,
)
def test_what_is_no_result_is_refused(raw: Any):
    with pytest.raises(DecodingFailure, match=r"^a CNI result is malformed: "):
        Result.read(raw)


def test_the_gateway_of_a_family_is_the_first_named():
    result = Result(
        ips=(IPConfig("10.0.0.2/24"), IPConfig("10.0.1.2/24", "10.0.1.1"), IPConfig("10.0.2.2/24", "10.0.2.1"))
    )
    assert (result.gateway(4), result.gateway(6)) == ("10.0.1.1", "")


@pytest.mark.parametrize("mac", ["x", "0a:58:0a:09:00:0g", "0a", "0a:58:0a:09:00:02\n", "0a:58:0a:09:00:02 }", 5])
def test_an_interface_has_a_mac_or_says_none(mac: object):
    with pytest.raises(DecodingFailure, match="is malformed"):
        Result.read({"interfaces": [{"name": "eth0", "mac": mac}]})
    assert Result.read({"interfaces": [{"name": "eth0"}]}).interfaces[0].mac == ""
