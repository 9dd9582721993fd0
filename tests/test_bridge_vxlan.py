"""The two nouns of bridge-vxlan: what it accepts, and what it plans on which host."""

from __future__ import annotations

from typing import Any

import pytest

from cni import plugin
from cni.errors import CniError, InvalidConfig, InvalidEnvironment
from cni.kernel.view import SCOPE_LINK, SCOPE_UNIVERSE
from cni.naming import Attachment
from cni.protocol.call import Call
from cni.protocol.config import validate
from cni.protocol.result import DNS, IPConfig, Result, Route
from cni.protocol.schema import given
from cni.resources import (
    BlockGateway,
    Bridge,
    DeadEnd,
    FloodList,
    GatewayAddress,
    Host,
    Plan,
    PodLink,
    PodRoute,
    Uplink,
    VethPair,
    Vtep,
    VxlanLink,
)

NOUNS = plugin.load("bridge-vxlan")
POD = Attachment("pods", "c1", "eth0")
LEASE = Result(ips=(IPConfig("10.1.0.5/24", "10.1.0.1"),))
DUAL = Result(ips=(IPConfig("fd00::5/64", "fd00::1"), IPConfig("10.1.0.5/24", "10.1.0.1")))
TUNNEL = {"id": 7, "remotes": ["192.0.2.2"]}
IPV6_TUNNEL = {"id": 7, "remotes": ["fd00:9::2"]}


def config(cni_args: str = "", **keys: Any) -> Any:
    conf = given({"cniVersion": "1.0.0", "name": "pods", **keys}, "bridge-vxlan")
    validate(conf, "bridge-vxlan")
    return NOUNS.Config.read(conf, Call("ADD", args=cni_args))


def planned(lease: Result = LEASE, uplink_mtu: int = 1500, cni_args: str = "", **keys: Any) -> Plan:
    host = Host("/run/netns/c1", Uplink("eth1", uplink_mtu) if uplink_mtu else None, "nftables")
    return NOUNS.plan(config(cni_args, **keys), POD, lease, host)


def only(plan: Plan, kind: type) -> Any:
    (found,) = (item for item in plan.resources if isinstance(item, kind))
    return found


def routes(plan: Plan) -> list[tuple[str, str]]:
    return [(item.dst, item.gateway) for item in plan.resources if isinstance(item, PodRoute)]


@pytest.mark.parametrize(
    ("uplink_mtu", "keys", "mtu"),
    [
        (1500, {}, 1500),
        (9000, {}, 9000),
        (0, {}, 1500),
        (1500, {"mtu": 1400.0}, 1400),
        (1500, {"mtu": 9000}, 9000),
        (1500, {"vxlan": TUNNEL}, 1450),
        (9000, {"vxlan": TUNNEL}, 8950),
        (0, {"vxlan": TUNNEL}, 1450),
        (1500, {"vxlan": IPV6_TUNNEL}, 1430),
        (9000, {"vxlan": IPV6_TUNNEL}, 8930),
        (1500, {"vxlan": {"id": 7, "local": "fd00:9::1"}}, 1430),
        (1500, {"vxlan": TUNNEL, "mtu": 1450}, 1450),
        (1500, {"vxlan": TUNNEL, "mtu": 1300}, 1300),
        (1500, {"vxlan": TUNNEL | {"mtu": 1400}}, 1400),
        (1500, {"vxlan": TUNNEL | {"mtu": 1400}, "mtu": 1300}, 1300),
    ],
    ids=[
        *("uplink", "jumbo", "no uplink", "asked", "larger than the uplink", "tunnel", "jumbo tunnel"),
        *("tunnel without uplink", "IPv6 tunnel", "jumbo IPv6 tunnel", "IPv6 by local", "all a tunnel has"),
        *("less than a tunnel has", "tunnel's own", "less than the tunnel's own"),
    ],
)
def test_the_mtu_is_what_fits(uplink_mtu: int, keys: dict[str, Any], mtu: int):
    plan = planned(uplink_mtu=uplink_mtu, **keys)
    assert only(plan, VethPair).mtu == only(plan, PodLink).mtu == mtu
    assert {item.mtu for item in plan.result.interfaces} == {mtu}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"vxlan": TUNNEL, "mtu": 1451}, r"\$\.mtu: 1451 does not fit; with VXLAN's 50 bytes at most 1450 do"),
        ({"vxlan": IPV6_TUNNEL, "mtu": 1450}, r"\$\.mtu: 1450 does not fit; with VXLAN's 70 bytes at most 1430 do"),
        ({"vxlan": TUNNEL | {"mtu": 1451}}, r"\$\.vxlan\.mtu: 1451 does not fit"),
        ({"vxlan": TUNNEL | {"mtu": 1400}, "mtu": 1401}, r"\$\.mtu: 1401 does not fit"),
    ],
    ids=["IPv4", "IPv6", "the device's", "above the device's"],
)
def test_an_mtu_the_tunnel_would_drop_is_code_7(keys: dict[str, Any], said: str):
    with pytest.raises(InvalidConfig, match=f"^{said}"):
        planned(**keys)


ASKED = ("0a:00:00:00:00:01", "0a:00:00:00:00:02", "0a:00:00:00:00:03")


@pytest.mark.parametrize(
    ("lease", "runtime", "args", "cni_args", "mac"),
    [
        (LEASE, {"mac": ASKED[0]}, {"mac": ASKED[1]}, f"MAC={ASKED[2]}", ASKED[0]),
        (LEASE, {"Mac": ASKED[0].upper()}, None, "", ASKED[0]),
        (LEASE, {"mac": ASKED[0].replace(":", "-")}, None, "", ASKED[0]),
        (LEASE, {}, {"mac": ASKED[1]}, f"MAC={ASKED[2]}", ASKED[1]),
        (LEASE, None, None, f"MAC={ASKED[2]}", ASKED[2]),
        (LEASE, None, None, "", "0a:58:0a:01:00:05"),
        (DUAL, None, None, "", "0a:58:0a:01:00:05"),
        (Result(ips=DUAL.ips[:1]), None, None, "", "0a:96:aa:09:cb:d8"),
        (Result(), None, None, "", POD.pod_mac),
    ],
    ids=[
        *("runtimeConfig first", "of a Go caller", "with dashes", "then args.cni", "then CNI_ARGS"),
        *("then the address", "IPv4 before IPv6", "IPv6", "then the attachment"),
    ],
)
def test_the_mac_is_the_first_asked_for_or_derived(lease: Result, runtime: Any, args: Any, cni_args: str, mac: str):
    plan = planned(lease, cni_args=cni_args, runtimeConfig=runtime, args={"cni": args} if args else None)
    assert only(plan, VethPair).pod_mac == only(plan, PodLink).mac == plan.result.interfaces[2].mac == mac


@pytest.mark.parametrize(
    ("keys", "args", "error", "said"),
    [
        ({"runtimeConfig": {"mac": "here"}}, "", InvalidConfig, "$.runtimeConfig.mac: "),
        ({"runtimeConfig": {"mac": 5}}, "", InvalidConfig, "$.runtimeConfig.mac: "),
        ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "", InvalidConfig, "$.runtimeConfig.mac: "),
        ({"args": {"cni": {"mac": "here"}}}, "", InvalidConfig, "$.args.cni.mac: "),
        ({"args": {"cni": "mac"}}, "", InvalidConfig, "$.args.cni: "),
        ({}, "MAC=here", InvalidEnvironment, "CNI_ARGS: MAC: 'here'"),
    ],
    ids=["runtimeConfig", "a number", "multicast", "args.cni", "no object", "CNI_ARGS"],
)
def test_a_wrong_mac_is_blamed_where_it_stands(keys: dict[str, Any], args: str, error: type[CniError], said: str):
    with pytest.raises(error) as caught:
        config(args, **keys)
    assert caught.value.msg.startswith(said)


def test_a_default_gateway_gives_each_family_its_default_route():
    plan = planned(DUAL, isDefaultGateway=True)
    assert routes(plan) == [("0.0.0.0/0", "10.1.0.1"), ("::/0", "fd00::1")]
    assert [route.dst for route in plan.result.routes] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize("gw", ["", "10.1.0.9"], ids=["to the gateway", "elsewhere"])
def test_a_default_route_of_the_ipam_is_kept_and_not_doubled(gw: str):
    lease = Result(ips=LEASE.ips, routes=(Route("0.0.0.0/0", gw), Route("0.0.0.0/0", gw)))
    plan = planned(lease, isDefaultGateway=True)
    assert routes(plan) == [("0.0.0.0/0", gw or "10.1.0.1")]


def test_an_ipam_without_gateway_gets_the_first_address_of_the_subnet():
    plan = planned(Result(ips=(IPConfig("10.1.0.5/24"),)), isGateway=True)
    assert only(plan, GatewayAddress).address == "10.1.0.1/24"
    assert plan.result.ips[0].gateway == "10.1.0.1"


@pytest.mark.parametrize("address", ["10.1.0.1/24", "10.1.0.5/32"], ids=["the first address", "no subnet"])
def test_a_pod_is_never_its_own_gateway(address: str):
    with pytest.raises(CniError, match="gateway"):
        planned(Result(ips=(IPConfig(address),)), isGateway=True)


def test_only_a_gateway_outside_the_subnet_is_onlink():
    lease = Result(ips=LEASE.ips, routes=(Route("10.9.0.0/16"), Route("10.8.0.0/16", "192.0.2.1")))
    plan = planned(lease)
    assert [item.onlink for item in plan.resources if isinstance(item, PodRoute)] == [False, True]


def test_a_route_of_link_scope_has_no_gateway():
    lease = Result(ips=LEASE.ips, routes=(Route("169.254.0.0/16", scope=253), Route("10.9.0.0/16", scope=0)))
    plan = planned(lease)
    assert routes(plan) == [("169.254.0.0/16", ""), ("10.9.0.0/16", "10.1.0.1")]


def test_the_bridges_mac_says_which_gateway_it_serves():
    assert only(planned(isGateway=True), Bridge).mac == "0a:58:0a:01:00:01"
    assert only(planned(), Bridge).mac == ""


def test_the_result_names_interfaces_in_the_order_of_the_reference():
    result = planned(DUAL, vxlan=TUNNEL, bridge="br0").result
    assert [item.name for item in result.interfaces] == ["br0", POD.host_interface, "eth0", "vxlan7"]
    assert [item.sandbox for item in result.interfaces] == ["", "", "/run/netns/c1", ""]
    assert {ip.interface for ip in result.ips} == {2}


def test_the_configurations_dns_wins_over_the_ipams():
    lease = Result(ips=LEASE.ips, dns=DNS(("10.0.0.53",)))
    assert planned(lease).result.dns == DNS(("10.0.0.53",))
    assert planned(lease, dns={"nameservers": ["10.0.0.54"]}).result.dns == DNS(("10.0.0.54",))


@pytest.mark.parametrize("key", ["nameservers", "search", "options"])
def test_an_empty_list_says_that_there_is_to_be_no_dns(key: str):
    lease = Result(ips=LEASE.ips, dns=DNS(("10.0.0.53",)))
    assert planned(lease, dns={key: []}).result.dns == DNS()
    assert planned(lease, dns={key: None, "domain": ""}).result.dns == planned(lease, dns={}).result.dns == lease.dns


@pytest.mark.parametrize(
    ("remotes", "local", "vteps"),
    [
        (["192.0.2.2", "192.0.2.3"], "", ("192.0.2.2", "192.0.2.3")),
        (["192.0.2.1", "192.0.2.2"], "192.0.2.1", ("192.0.2.2",)),
        (["FD00:9::0:2"], "", ("fd00:9::2",)),
        ([], "", ()),
    ],
    ids=["all", "all but our own", "in the kernel's spelling", "none"],
)
def test_broadcasts_go_to_the_other_vteps(remotes: list[str], local: str, vteps: tuple[str, ...]):
    plan = planned(vxlan={"id": 7, "remotes": remotes} | ({"local": local} if local else {}))
    assert only(plan, FloodList).vteps == vteps


@pytest.mark.parametrize("remotes", [{}, {"remotes": None}], ids=["absent", "null"])
def test_without_remotes_the_flood_list_is_left_to_others(remotes: dict[str, Any]):
    plan = planned(vxlan={"id": 7, **remotes})
    assert only(plan, VxlanLink).name == "vxlan7"
    assert not any(isinstance(item, FloodList) for item in plan.resources)


@pytest.mark.parametrize(
    "vxlan",
    [{"id": 7, "remotes": ["192.0.2.2", "fd00::2"]}, {"id": 7, "local": "fd00::1", "remotes": ["192.0.2.2"]}],
    ids=["remotes", "local and remote"],
)
def test_vteps_of_both_families_are_code_7(vxlan: dict[str, Any]):
    with pytest.raises(InvalidConfig, match=r"^\$\.vxlan: local and remotes must be of one family$"):
        config(vxlan=vxlan)


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"hairpinMode": True, "promiscMode": True}, "$.hairpinMode"),
        ({"ip": "10.1.0.5/24", "ipam": {"subnet": "10.1.0.0/24"}}, "$.ip"),
        ({"disableContainerInterface": True, "ipam": {"subnet": "10.1.0.0/24"}}, "$.disableContainerInterface"),
        ({"disableContainerInterface": True, "ip": "10.1.0.5/24"}, "$.disableContainerInterface"),
        ({"gateway": "10.1.0.1"}, "$.gateway"),
        ({"gateway": "10.1.0.1", "ipam": {"subnet": "10.1.0.0/24"}}, "$.gateway"),
        ({"mtu": 67}, "$.mtu"),
    ],
    ids=str,
)
def test_keys_that_exclude_each_other_are_code_7(keys: dict[str, Any], path: str):
    with pytest.raises(InvalidConfig) as caught:
        config(**keys)
    assert caught.value.msg.startswith(f"{path}: ")


def test_a_plan_is_pure():
    assert planned(DUAL, vxlan=TUNNEL, ipMasq=True, isDefaultGateway=True) == planned(
        DUAL, vxlan=TUNNEL, ipMasq=True, isDefaultGateway=True
    )


CLUSTER = {"cluster": True, "subnet": "10.10.0.0/16"}


@pytest.mark.parametrize(
    ("vtep", "mode", "mtu"), [("192.0.2.1", "l2", 1450), ("fd00:9::1", "l2", 1430), ("192.0.2.1", "l3", 1450)]
)
def test_a_tunnel_of_the_cluster_is_as_other_hosts_know_it(vtep: str, mode: str, mtu: int):
    read = config(isGateway=True, ipam=CLUSTER, vxlan={"id": 7, "mode": mode})
    lease = Result(
        ips=(IPConfig("10.10.3.66/26", "10.10.3.65") if mode == "l3" else IPConfig("10.10.3.66/16", "10.10.0.1"),)
    )
    host = Host("/run/netns/c1", Uplink("eth1", 1500), vtep=Vtep(vtep, "fe:00:00:00:00:01"))
    plan = NOUNS.plan(read, POD, lease, host)
    link = only(plan, VxlanLink)
    assert (link.local, link.mac, link.learning, link.mtu) == (vtep, "fe:00:00:00:00:01", False, mtu)
    assert link.bridge == ("cni0" if mode == "l2" else "")
    gateway = only(plan, GatewayAddress)
    assert (type(gateway), gateway.address, gateway.beside, gateway.scope) == (
        (BlockGateway, "10.10.3.65/26", True, SCOPE_UNIVERSE)
        if mode == "l3"
        else (GatewayAddress, "10.10.0.1/16", True, SCOPE_LINK)
    )
    assert only(plan, Bridge).mac == "0a:58:0a:0a:00:01", "whichever block came first"
    ends = [item.dst for item in plan.resources if isinstance(item, DeadEnd)]
    assert ends == (["10.10.0.0/16"] if mode == "l3" else []), "what no block is known for leaves by no other link"
    assert not [item for item in plan.resources if isinstance(item, FloodList)]


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (
            {"ipam": CLUSTER, "vxlan": {"id": 7, "remotes": ["192.0.2.2"]}},
            r"\$\.vxlan\.remotes: excludes ipam\.cluster",
        ),
        ({"ipam": CLUSTER, "vxlan": {"id": 7, "remotes": []}}, r"\$\.vxlan\.remotes: excludes ipam\.cluster"),
        ({"ipam": CLUSTER, "vxlan": {"id": 7, "local": "192.0.2.1"}}, r"\$\.vxlan\.local: excludes ipam\.cluster"),
        ({"ipam": CLUSTER, "vxlan": {"id": 7, "learning": True}}, r"\$\.vxlan\.learning: excludes ipam\.cluster"),
        (
            {"ipam": {"subnet": "10.10.0.0/16"}, "vxlan": {"id": 7, "mode": "l3"}},
            r"\$\.vxlan\.mode: belongs to ipam\.cluster",
        ),
        ({"vxlan": {"id": 7, "mode": "l2"}}, r"\$\.vxlan\.mode: belongs to ipam\.cluster"),
        ({"ipam": CLUSTER, "vxlan": {"id": 7, "mode": "l3"}}, r"\$\.vxlan\.mode: l3 needs isGateway"),
        ({"ipam": CLUSTER, "ip": "10.10.0.9/16"}, r"\$\.ip: excludes ipam"),
    ],
)
def test_what_the_cluster_says_is_not_said_beside_it(keys: dict[str, Any], named: str):
    with pytest.raises(InvalidConfig, match=named):
        config(**keys)
