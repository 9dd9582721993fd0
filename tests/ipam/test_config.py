from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from cni.errors import CniError, InvalidConfig, InvalidEnvironment
from cni.ipam.config import IpamConfig
from cni.protocol.call import Call
from cni.protocol.config import validate
from cni.protocol.result import DNS, Result

RANGE = {"subnet": "10.0.0.0/24"}


def read(ipam: dict[str, Any] | None = None, cni_args: str = "", **keys: Any) -> IpamConfig:
    conf = {"cniVersion": "1.0.0", "name": "pods", "ipam": RANGE if ipam is None else ipam, **keys}
    validate(conf, "agent-ipam")
    return IpamConfig.read(conf, Call("ADD", args=cni_args))


def subnets(config: IpamConfig) -> list[str]:
    return [str(part.subnet) for item in config.sets for part in item.ranges]


def firsts(result: Result) -> list[str]:
    return [ip.address for ip in result.ips]


def test_ranges_of_the_runtime_come_before_the_single_one_before_the_list():
    ipam = {"subnet": "10.0.2.0/24", "ranges": [[{"subnet": "10.0.3.0/24"}], [{"subnet": "fd00::/64"}]]}
    config = read(ipam, runtimeConfig={"ipRanges": [[{"subnet": "10.0.1.0/24"}]]})
    assert subnets(config) == ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24", "fd00::/64"]


def test_the_single_range_keeps_its_own_ends_and_gateway():
    config = read({**RANGE, "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.19", "gateway": "10.0.0.254"})
    assert str(config.sets[0]) == "10.0.0.9-10.0.0.19"
    assert [str(gateway) for gateway in config.gateways] == ["10.0.0.254"]


@pytest.mark.parametrize("key", ["ipRanges", "IPRanges", "IpRanges", "ipranges"])
def test_runtime_ranges_are_found_in_any_case(key: str):
    assert subnets(read({}, runtimeConfig={key: [[RANGE]]})) == ["10.0.0.0/24"]


@pytest.mark.parametrize("ipam", [{}, {"ranges": []}, {"rangeStart": "10.0.0.5"}], ids=str)
def test_no_range_at_all_is_refused(ipam: dict[str, Any]):
    with pytest.raises(InvalidConfig, match=r"^\$\.ipam: no subnet, no ranges"):
        read(ipam)


@pytest.mark.parametrize(
    "ranges",
    [[[{"subnet": "nowhere"}]], [[{"subnet": "10.0.0.5/24"}]], [[{}]], [[5]], [5], "10.0.0.0/24", 5, {"a": 1}],
    ids=repr,
)
def test_wrong_ranges_of_the_runtime_are_refused_with_their_path(ranges: Any):
    with pytest.raises(InvalidConfig, match=r"^\$\.runtimeConfig\.ipRanges"):
        read({}, runtimeConfig={"ipRanges": ranges})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ipam": {"subnet": "10.1.0.0/31"}}, "$.ipam.subnet: "),
        ({"ipam": {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}}, "$.ipam: rangeStart"),
        ({"ipam": {"ranges": [[{"subnet": "10.1.0.0/31"}]]}}, "$.ipam.ranges[0][0].subnet: "),
        (
            {"ipam": {}, "runtimeConfig": {"ipRanges": [[{"subnet": "10.1.0.0/31"}]]}},
            "$.runtimeConfig.ipRanges[0][0].subnet: ",
        ),
        ({"ipam": {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.1.0.0/25"}]]}}, "$.ipam.ranges[0]: "),
    ],
)
def test_paths_are_those_of_the_file(keys: dict[str, Any], said: str):
    with pytest.raises(InvalidConfig) as raised:
        IpamConfig.read({"cniVersion": "1.0.0"} | keys, Call("ADD"))
    assert raised.value.msg.startswith(said)


def test_ranges_that_overlap_the_runtimes_are_refused():
    with pytest.raises(InvalidConfig, match="overlaps"):
        read(RANGE, runtimeConfig={"ipRanges": [[RANGE]]})


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", ""])
def test_old_versions_know_one_address_per_family(version: str):
    with pytest.raises(InvalidConfig, match="one address per family"):
        read({"ranges": [[RANGE], [{"subnet": "10.0.1.0/24"}]]}, cniVersion=version)
    assert len(read({"ranges": [[RANGE], [{"subnet": "fd00::/64"}]]}, cniVersion=version).sets) == 2


@pytest.mark.parametrize(
    ("args", "keys"),
    [
        ("IP=10.0.0.5", {}),
        ("", {"args": {"cni": {"ips": ["10.0.0.5"]}}}),
        ("", {"args": {"cni": {"ips": ["10.0.0.5/24"]}}}),
        ("", {"runtimeConfig": {"ips": ["10.0.0.5/24"]}}),
        ("", {"runtimeConfig": {"Ips": ["10.0.0.5"]}}),
    ],
    ids=["CNI_ARGS", "args.cni", "args.cni with prefix", "runtimeConfig", "runtimeConfig of a Go caller"],
)
def test_a_certain_address_can_be_asked_for(args: str, keys: dict[str, Any]):
    assert [str(item) for item in read(None, args, **keys).requested] == ["10.0.0.5"]


def test_addresses_asked_for_in_several_places_are_all_wished_for():
    asked = {"args": {"cni": {"ips": ["10.0.0.6"]}}, "runtimeConfig": {"ips": ["fd00::7"]}}
    config = read({"ranges": [[RANGE], [{"subnet": "fd00::/64"}]]}, "IP=10.0.0.5", **asked)
    assert {str(item) for item in config.requested} == {"10.0.0.5", "10.0.0.6", "fd00::7"}


def test_one_address_asked_for_in_two_places_is_one_wish():
    config = read(cni_args="IP=10.0.0.5", runtimeConfig={"ips": ["10.0.0.5/24"]})
    assert [str(item) for item in config.requested] == ["10.0.0.5"]


@pytest.mark.parametrize(
    ("args", "keys", "error", "said"),
    [
        ("IP=here", {}, InvalidEnvironment, "CNI_ARGS: IP: 'here'"),
        ("Foo=1", {}, InvalidEnvironment, "CNI_ARGS: unknown Foo"),
        ("", {"args": {"cni": {"ips": ["here"]}}}, InvalidConfig, "$.args.cni.ips: 'here'"),
        ("", {"args": {"cni": {"ips": "10.0.0.5"}}}, InvalidConfig, "$.args.cni.ips: '10.0.0.5'"),
        ("", {"args": {"cni": {"ips": 5}}}, InvalidConfig, "$.args.cni.ips: "),
        ("", {"args": {"cni": "ips"}}, InvalidConfig, "$.args.cni: "),
        ("", {"runtimeConfig": {"ips": [None]}}, InvalidConfig, "$.runtimeConfig.ips[0]: "),
        ("", {"runtimeConfig": {"IPs": 5}}, InvalidConfig, "$.runtimeConfig.IPs: "),
    ],
    ids=[
        *("IP in CNI_ARGS", "unknown in CNI_ARGS", "args.cni.ips", "text for a list", "number for a list"),
        *("args.cni", "null in runtimeConfig", "number in runtimeConfig"),
    ],
)
def test_a_wrong_wish_is_blamed_where_it_stands(args: str, keys: dict[str, Any], error: type[CniError], said: str):
    with pytest.raises(error) as caught:
        read(None, args, **keys)
    assert caught.value.msg.startswith(said)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("10.0.0.5", ("10.0.0.5", "10.0.0.5")),
        ("10.0.0.8/30", ("10.0.0.8", "10.0.0.11")),
        ("10.0.0.5-10.0.0.9", ("10.0.0.5", "10.0.0.9")),
        (" 10.0.0.5 - 10.0.0.9 ", ("10.0.0.5", "10.0.0.9")),
        ("fd00::1-fd00::ff", ("fd00::1", "fd00::ff")),
    ],
)
def test_addresses_networks_and_spans_can_be_reserved(text: str, ends: tuple[str, str]):
    first, last = map(ipaddress.ip_address, ends)
    assert read({**RANGE, "reserved": [text]}).reserved == ((first.version, int(first), int(last)),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "here",
        "10.0.0.5/24",
        "10.0.0.5-",
        "-10.0.0.5",
        "10.0.0.9-10.0.0.5",
        "10.0.0.5-fd00::9",
        "10.0.0.0/30-10.0.0.9",
    ],
)
def test_other_reservations_are_refused_with_their_path(text: str):
    with pytest.raises(InvalidConfig, match=r"^\$\.ipam\.reserved\[1\]: "):
        read({**RANGE, "reserved": ["10.0.0.5", text]})


def test_routes_are_read_with_their_attributes():
    (route,) = read({**RANGE, "routes": [{"dst": "10.96.0.1/12", "mtu": 1400.0, "table": 0, "scope": 253}]}).routes
    assert (route.dst, route.gw, route.mtu, route.table, route.scope) == ("10.96.0.0/12", "", 1400, 0, 253)


def test_resolv_conf_becomes_dns(tmp_path: Path):
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# comment\n; another\n\nnameserver 10.0.0.1 ignored\n nameserver fd00::1\nnameserver\n"
        "domain example.org\nsearch a.example b.example\noptions ndots:5\noptions rotate\nsortlist 10.0.0.0\n"
    )
    assert read({**RANGE, "resolvConf": str(file)}).dns == DNS(
        ("10.0.0.1", "fd00::1"), "example.org", ("a.example", "b.example"), ("ndots:5", "rotate")
    )


def test_an_empty_resolv_conf_is_no_dns(tmp_path: Path):
    (tmp_path / "resolv.conf").write_text("")
    assert not read({**RANGE, "resolvConf": str(tmp_path / "resolv.conf")}).dns


@pytest.mark.parametrize("content", [None, b"nameserver \xff\xfe\n"], ids=["missing", "not UTF-8"])
def test_a_resolv_conf_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None):
    file = tmp_path / "resolv.conf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=rf"^\$\.ipam\.resolvConf: {file}: "):
        read({**RANGE, "resolvConf": str(file)})


def test_a_preview_is_what_the_first_attachment_would_get():
    config = read({"ranges": [[RANGE], [{"subnet": "fd00::/64"}]], "reserved": ["10.0.0.2-10.0.0.9"]})
    assert firsts(config.first_addresses()) == ["10.0.0.10/24", "fd00::2/64"]
    assert firsts(read(cni_args="IP=10.0.0.77").first_addresses()) == ["10.0.0.77/24"]


def test_a_preview_looks_further_than_the_first_range():
    gateway_only = {"subnet": "10.0.1.0/24", "rangeEnd": "10.0.1.1"}
    assert firsts(read({"ranges": [[gateway_only, RANGE]]}).first_addresses()) == ["10.0.0.2/24"]


def test_ranges_that_hold_nothing_to_give_are_refused():
    with pytest.raises(CniError, match=r"10\.0\.1\.1"):
        read({"subnet": "10.0.1.0/24", "rangeEnd": "10.0.1.1"}).first_addresses()


def test_the_flat_form_gives_exactly_its_addresses():
    config = IpamConfig.fixed(["192.168.10.10/24", "fd00::10/64"], ["192.168.10.1"])
    given = config.first_addresses()
    assert firsts(given) == ["192.168.10.10/24", "fd00::10/64"]
    assert [ip.gateway for ip in given.ips] == ["192.168.10.1", ""]


@pytest.mark.parametrize(
    ("own", "gateways", "said"),
    [
        (["10.0.0.1/24"], ["10.0.0.1"], r"\$\.ip: 10\.0\.0\.1 is the gateway's address too"),
        (["10.0.0.2/24", "10.0.1.2/24"], [], r"\$\.ip\[1\]: a second IPv4 address"),
        (["10.0.0.2/24"], ["10.0.0.1", "10.0.0.9"], r"\$\.gateway\[1\]: a second IPv4"),
        (["10.0.0.2/24"], ["fd00::1"], r"\$\.gateway.*: "),
        (["10.0.0.255/24"], [], r"\$\.ip\[0\]: 10\.0\.0\.255/24 is the network's own or its broadcast address"),
    ],
    ids=[
        "the gateway's own",
        "two of a family",
        "two gateways of a family",
        "a gateway without an address",
        "broadcast",
    ],
)
def test_a_flat_form_that_contradicts_itself_is_refused(own: list[str], gateways: list[str], said: str):
    with pytest.raises(InvalidConfig, match=f"^{said}"):
        IpamConfig.fixed(own, gateways)
