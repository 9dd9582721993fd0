"""What a pod gets from bridge-vxlan, and that DEL takes all of it away."""

from __future__ import annotations

import ipaddress

import pytest
from lab import Host, Lab, Namespace, Pod, eventually, sh


def mac_of(pod: Pod, name: str = "eth0") -> str:
    return pod.link(name)["address"]


def port_of(host: Host, result: dict) -> dict:
    return host.link(result["interfaces"][1]["name"])


def test_a_pod_gets_addresses_routes_and_a_way_out(settled: Host, pod: Pod, conf: dict):
    result = settled.add(conf, pod)
    assert pod.addresses("eth0") == {ip["address"] for ip in result["ips"]}
    assert [route["gateway"] for family in (4, 6) for route in pod.routes(family) if route["dst"] == "default"] == [
        "10.1.0.1",
        "fd00:1::1",
    ]
    assert all(pod.pings(address) for address in ("10.1.0.1", "fd00:1::1"))
    assert [item.get("sandbox", "") for item in result["interfaces"]] == ["", "", pod.path]
    settled.delete_pod(conf, pod)


def test_a_layer_2_attachment_has_a_link_that_is_up_and_nothing_else(settled: Host, pod: Pod, conf: dict):
    result = settled.add(conf | {"ipam": {}, "ipMasq": False}, pod)
    assert "ips" not in result
    assert (pod.addresses("eth0"), pod.link("eth0")["operstate"]) == (set(), "UP")
    settled.delete_pod(conf, pod)


def test_the_host_end_is_a_port_and_speaks_no_ipv6_of_its_own(settled: Host, pod: Pod, conf: dict):
    link = settled.add(conf, pod)["interfaces"][1]["name"]
    assert settled.link(link)["operstate"] == "UP"
    assert settled.ip("addr", "show", "dev", link, family=6) == []
    assert not [route for route in settled.routes(6, "all") if route["dev"] == link]
    assert pod.pings("fd00:1::1"), "what passes it is the bridge's"
    settled.delete_pod(conf, pod)


def test_an_ipv6_address_is_usable_at_return(settled: Host, pod: Pod, conf: dict):
    settled.add(conf, pod)
    shown = sh("ip", "-n", pod.name, "-6", "addr", "show", "scope", "global").stdout
    assert "inet6 fd00:1::" in shown
    assert "tentative" not in shown
    settled.delete_pod(conf, pod)


def test_a_default_route_of_the_ipam_is_not_added_twice(settled: Host, pod: Pod, conf: dict):
    twice = conf | {"ipam": conf["ipam"] | {"routes": [{"dst": "0.0.0.0/0"}]}}
    settled.add(twice, pod)
    assert len([route for route in pod.routes() if route["dst"] == "default"]) == 1
    settled.delete_pod(twice, pod)


def test_route_attributes_are_applied(settled: Host, pod: Pod, conf: dict):
    routes = [
        {"dst": "198.51.100.0/24", "gw": "10.1.0.7", "mtu": 1300, "advmss": 1200, "priority": 7},
        {"dst": "203.0.113.0/24", "gw": "10.1.0.1", "table": 100},
        {"dst": "192.0.2.0/24", "gw": "172.16.0.1"},
        {"dst": "fd00:9::/64", "gw": "fd00:1::9", "mtu": 1290},
    ]
    result = settled.add(conf | {"ipam": conf["ipam"] | {"routes": routes}}, pod)
    first = next(route for route in pod.routes() if route["dst"] == "198.51.100.0/24")
    assert (first["gateway"], first["metric"], first["metrics"]) == ("10.1.0.7", 7, [{"mtu": 1300, "advmss": 1200}])
    assert pod.routes(table="100")[0]["dst"] == "203.0.113.0/24"
    assert "onlink" in next(route for route in pod.routes() if route["dst"] == "192.0.2.0/24")["flags"]
    assert routes[0] in result["routes"]
    settled.delete_pod(conf, pod)


@pytest.mark.parametrize("gateway", ["10.1.0.1", "fd00:1::1"])
def test_a_bridge_that_was_set_down_is_the_gateway_again(host: Host, pod: Pod, conf: dict, gateway: str):
    """The kernel forgets a link's IPv6 addresses when it is set down, unless it is told otherwise."""
    host.add(conf, pod)
    for state in ("down", "up"):
        host.run("ip", "link", "set", "br0", state)
    assert eventually(lambda: pod.pings(gateway, 1))
    host.delete_pod(conf, pod)


@pytest.mark.parametrize("family", [4, 6])
def test_force_address_replaces_another_gateway(lab: Lab, host: Host, pod: Pod, family: int):
    subnets = {4: ("10.1.0.0/24", "10.2.0.0/24"), 6: ("fd00:1::/64", "fd00:1::/60")}[family]
    confs = [
        {"cniVersion": "1.1.0", "name": f"net{number}", "type": "bridge-vxlan", "bridge": "br0", "isGateway": True,
         "ipam": {"subnet": subnet}} for number, subnet in enumerate(subnets)
    ]  # fmt: skip
    host.add(confs[0], lab.pod())
    before = host.addresses("br0")
    assert "forceAddress" in host.cni("ADD", confs[1], pod).failed(101)
    assert host.addresses("br0") == before
    host.add(confs[1] | {"forceAddress": True}, pod)
    wanted = ipaddress.ip_network(subnets[1])
    assert host.addresses("br0") == {f"{wanted[1]}/{wanted.prefixlen}"}


def test_mac_precedence(settled: Host, lab: Lab, conf: dict):
    layers = [
        ({}, {}, "0a:58:0a:01:00:"),
        ({}, {"CNI_ARGS": "IgnoreUnknown=1;MAC=0a:00:00:00:00:01"}, "0a:00:00:00:00:01"),
        ({"args": {"cni": {"mac": "0a:00:00:00:00:02"}}}, {"CNI_ARGS": "MAC=0a:00:00:00:00:01"}, "0a:00:00:00:00:02"),
        (
            {"args": {"cni": {"mac": "0a:00:00:00:00:02"}}, "runtimeConfig": {"mac": "0a:00:00:00:00:03"}},
            {"CNI_ARGS": "MAC=0a:00:00:00:00:01"},
            "0a:00:00:00:00:03",
        ),
    ]
    for keys, env, wanted in layers:
        pod = lab.pod()
        settled.add(conf | keys, pod, **env)
        assert mac_of(pod).startswith(wanted)
        settled.delete_pod(conf, pod)


def test_macs_of_bridge_and_host_end_are_given_at_creation_and_stay(settled: Host, lab: Lab, conf: dict):
    bridge = settled.link("br0")["address"]
    assert bridge == "0a:58:0a:01:00:01"
    one, two = lab.pod(), lab.pod()
    result = settled.add(conf, one)
    before = port_of(settled, result)["address"]
    settled.add(conf, two)
    settled.delete_pod(conf, two)
    assert (settled.link("br0")["address"], port_of(settled, result)["address"]) == (bridge, before)
    settled.delete_pod(conf, one)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ({"hairpinMode": True}, ("hairpin", True)),
        ({"portIsolation": True}, ("isolated", True)),
        ({}, ("hairpin", False)),
    ],
)
def test_port_flags(settled: Host, pod: Pod, conf: dict, key: dict, shown: tuple):
    result = settled.add(conf | key, pod)
    data = port_of(settled, result)["linkinfo"]["info_slave_data"]
    assert data[shown[0]] is shown[1]
    settled.delete_pod(conf, pod)


def test_isolated_pods_reach_the_gateway_and_not_each_other(settled: Host, lab: Lab, conf: dict):
    isolated = conf | {"portIsolation": True}
    pods = [lab.pod() for _ in range(3)]
    results = [settled.add(isolated if number < 2 else conf, pod) for number, pod in enumerate(pods)]
    addresses = [result["ips"][0]["address"].split("/")[0] for result in results]
    assert not pods[0].pings(addresses[1], seconds=1)
    assert pods[0].pings(addresses[2])
    assert pods[0].pings("10.1.0.1")
    for pod in pods:
        settled.delete_pod(conf, pod)


def test_promiscuous_bridge(host: Host, pod: Pod, conf: dict):
    host.add(conf | {"promiscMode": True}, pod)
    assert "PROMISC" in host.link("br0")["flags"]


@pytest.mark.parametrize(
    "keys",
    [
        {"hairpinMode": True, "promiscMode": True},
        {"disableContainerInterface": True},
        {"ip": "10.1.0.9/24"},
        {"mtu": 67},
        {"gateway": "10.1.0.1"},
    ],
    ids="+".join,
)
def test_keys_that_exclude_each_other_are_code_7(settled: Host, pod: Pod, conf: dict, keys: dict):
    assert f"$.{next(iter(keys))}" in settled.cni("ADD", conf | keys, pod).failed(7)


def test_disable_container_interface_leaves_the_pods_end_down(settled: Host, pod: Pod, conf: dict):
    settled.add(conf | {"ipam": None, "ipMasq": False, "disableContainerInterface": True}, pod)
    assert "UP" not in pod.link("eth0")["flags"]
    settled.delete_pod(conf, pod)


@pytest.mark.parametrize(("mtu", "uplink", "wanted"), [(0, 9000, 9000), (1400, 9000, 1400), (0, None, 1500)])
def test_mtu_is_the_uplinks_unless_given_and_is_reported(
    lab: Lab, host: Host, pod: Pod, conf: dict, mtu: int, uplink: int | None, wanted: int
):
    if uplink:
        lab.underlay(host, mtu=uplink)
    result = host.add(conf | {"mtu": mtu}, pod)
    assert {item["mtu"] for item in result["interfaces"]} == {wanted}
    assert (pod.link("eth0")["mtu"], host.link("br0")["mtu"]) == (wanted, wanted)


def test_an_existing_bridge_is_used_as_it_is(host: Host, pod: Pod, conf: dict):
    sh("ip", "-n", host.name, "link", "add", "br0", "address", "02:00:00:00:00:99", "type", "bridge")
    sh("ip", "-n", host.name, "link", "set", "br0", "mtu", "1400")
    result = host.add(conf, pod)
    assert result["interfaces"][0] == {"name": "br0", "mac": "02:00:00:00:00:99", "mtu": 1400}
    host.delete_pod(conf, pod)
    assert host.link("br0")["address"] == "02:00:00:00:00:99"


def test_what_is_no_bridge_is_left_alone(host: Host, pod: Pod, conf: dict):
    sh("ip", "-n", host.name, "link", "add", "br0", "type", "veth", "peer", "name", "br0peer")
    before = host.snapshot()
    assert "not a bridge" in host.cni("ADD", conf, pod).failed(101)
    assert host.snapshot() == before


def test_a_foreign_interface_of_the_pod_is_never_touched(settled: Host, pod: Pod, conf: dict):
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    index = pod.link("eth0")["ifindex"]
    assert "eth0 exists already" in settled.cni("ADD", conf, pod).failed(101)
    settled.delete_pod(conf, pod)
    assert pod.link("eth0")["ifindex"] == index


def test_what_came_before_in_a_chain_is_not_dropped(settled: Host, pod: Pod, conf: dict):
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "sandbox": pod.path}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    result = settled.add(conf | {"prevResult": before}, pod)
    assert [item["name"] for item in result["interfaces"]] == ["br0", result["interfaces"][1]["name"], "eth0", "lo"]
    named = [(ip["address"], result["interfaces"][ip["interface"]]["name"]) for ip in result["ips"]]
    assert named[-1] == ("127.0.0.1/8", "lo")
    assert {name for _, name in named[:-1]} == {"eth0"}
    assert result["dns"] == before["dns"]
    settled.check(conf, pod, result).ok()
    settled.delete_pod(conf, pod)


def test_a_second_network_in_the_same_pod(settled: Host, pod: Pod, conf: dict):
    other = conf | {
        "name": "other",
        "bridge": "br1",
        "isDefaultGateway": False,
        "isGateway": True,
        "ipam": {"subnet": "10.9.0.0/24"},
    }
    settled.add(conf, pod)
    settled.add(other, pod, ifname="net1")
    assert pod.pings("10.9.0.1")
    assert pod.pings("10.1.0.1")
    settled.delete_pod(other, pod, ifname="net1")
    settled.delete_pod(conf, pod)
    sh("ip", "-n", settled.name, "link", "del", "br1")


def test_a_duplicate_address_is_found_with_enabledad(settled: Host, lab: Lab, pod: Pod, conf: dict):
    dad = conf | {
        "enabledad": True,
        "ipam": {"ranges": [[{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::5", "rangeEnd": "fd00:1::5"}]]},
    }
    squatter = lab.pod()
    settled.add(conf | {"ipam": None, "ipMasq": False}, squatter)
    sh("ip", "-n", squatter.name, "addr", "add", "fd00:1::5/64", "dev", "eth0", "nodad")
    assert "fd00:1::5" in settled.cni("ADD", dad, pod).failed(101)
    squatter.run("ip", "addr", "del", "fd00:1::5/64", "dev", "eth0")
    settled.add(dad, pod)
    for each in (pod, squatter):
        settled.delete_pod(conf, each)


def test_a_reused_address_is_reachable_at_once(settled: Host, lab: Lab, conf: dict):
    watcher, first, second = lab.pod(), lab.pod(), lab.pod()
    addresses = ("10.1.0.9", "fd00:1::9")

    def ranges(**bounds: tuple[str, str]) -> dict:
        subnets = ("10.1.0.0/24", "fd00:1::/64")
        one_of_each = ({"subnet": text} | {key: by[n] for key, by in bounds.items()} for n, text in enumerate(subnets))
        return {"ipam": {"type": "agent-ipam", "ranges": [[item] for item in one_of_each]}}

    watch = conf | {"name": "watch"} | ranges(rangeStart=("10.1.0.100", "fd00:1::100"))
    fixed = conf | ranges(rangeStart=addresses, rangeEnd=addresses)
    settled.add(watch, watcher)
    settled.add(fixed | {"runtimeConfig": {"mac": "0a:00:00:00:00:11"}}, first)
    assert all(watcher.pings(address) for address in addresses)
    settled.delete_pod(fixed, first)
    settled.add(fixed | {"runtimeConfig": {"mac": "0a:00:00:00:00:22"}}, second)

    def known() -> set[str]:
        shown = [watcher.ip("neigh", "show", text, family=6 if ":" in text else 4) for text in addresses]
        return {item["lladdr"] for items in shown for item in items}

    assert eventually(lambda: known() == {"0a:00:00:00:00:22"}, 3), "it asks nobody, and after 5 s only him it knew"
    assert all(watcher.pings(address) for address in addresses)
    settled.delete_pod(fixed, second)
    settled.delete_pod(watch, watcher)


@pytest.mark.parametrize("backend", ["nftables", "iptables", "legacy", None])
def test_masquerading_hides_pods_from_outside_only(lab: Lab, pod: Pod, conf: dict, backend: str | None):
    host, outside, neighbour = lab.host(), lab.add(Namespace(f"out-{backend}")), lab.pod()
    wire(host, outside)
    if backend == "legacy":
        host.run("iptables-legacy", "-t", "nat", "-L", "-n")
        host.run("ip6tables-legacy", "-t", "nat", "-L", "-n")
    masq = {key: value for key, value in conf.items() if key != "ipMasqBackend"}
    masq |= {"ipMasqBackend": backend} if backend in ("nftables", "iptables") else {}
    empty = rules_of(host)
    addresses = [host.add(masq, each)["ips"][0]["address"].split("/")[0] for each in (pod, neighbour)]
    assert source_seen(pod, outside, "198.51.100.2") == "198.51.100.1"
    assert source_seen(pod, neighbour, addresses[1]) == addresses[0]
    neighbour.delete()
    host.cni("DEL", masq, neighbour, CNI_NETNS="").ok()
    assert source_seen(pod, outside, "198.51.100.2") == "198.51.100.1"
    host.delete_pod(masq, pod)
    assert rules_of(host) == empty


def wire(host: Host, outside: Namespace) -> None:
    sh("ip", "-n", host.name, "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", outside.name)
    for space, link, address in ((host, "up0", "198.51.100.1/24"), (outside, "up1", "198.51.100.2/24")):
        sh("ip", "-n", space.name, "addr", "add", address, "dev", link)
        sh("ip", "-n", space.name, "link", "set", link, "up")


def rules_of(host: Host) -> list[str]:
    """Every rule of both backends; what iptables leaves of its own (empty tables and chains) does not count."""
    native = [
        line for line in host.run("nft", "list", "ruleset").stdout.splitlines() if "agent_cni" in line or "ACNI" in line
    ]
    legacy = host.run("iptables-legacy-save").stdout + host.run("ip6tables-legacy-save").stdout
    return native + [line for line in legacy.splitlines() if "ACNI" in line]


def source_seen(client: Namespace, server: Namespace, address: str) -> str:
    """The source address a TCP server sees."""
    listener = "import socket;s=socket.create_server(('0.0.0.0',7777));print('ready',flush=True);s.settimeout(60);print(s.accept()[1][0])"
    with server.start("python3", "-c", listener) as process:
        assert process.stdout.readline() == "ready\n"
        client.run("python3", "-c", f"import socket;socket.create_connection(('{address}',7777),60)")
        return process.stdout.readline().strip()
