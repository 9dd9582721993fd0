"""Addresses: ours, as a delegate's, and a delegate's under ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from lab import AGENT_CNI, BIN_DIR, REFERENCE_DIR, ROOT, Host, Lab, Namespace, Pod, Site, eventually, sh

SMALL = {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.12"}


def ipam(**section: object) -> dict:
    return {"cniVersion": "1.1.0", "name": "net", "type": "agent-ipam", "ipam": section}


def given(result: dict) -> list[str]:
    return [ip["address"].split("/")[0] for ip in result["ips"]]


def ask(host: Host, conf: dict, container: str, **env: str) -> list[str]:
    """An ADD of agent-ipam alone: like host-local it needs no netns to exist."""
    return given(host.cni("ADD", conf, container=container, CNI_NETNS="/run/netns/none", **env).ok())


def release(host: Host, conf: dict, container: str) -> None:
    host.cni("DEL", conf, container=container).ok()


def test_addresses_are_given_in_turn_and_the_gateway_never(host: Host):
    conf = ipam(subnet="10.1.0.0/29")
    assert [ask(host, conf, f"c{number}") for number in range(5)] == [[f"10.1.0.{last}"] for last in (2, 3, 4, 5, 6)]


def test_a_released_address_rests_until_its_turn(host: Host):
    conf = ipam(**SMALL)
    assert ask(host, conf, "a") == ["10.1.0.10"]
    release(host, conf, "a")
    assert [ask(host, conf, name) for name in "bcd"] == [["10.1.0.11"], ["10.1.0.12"], ["10.1.0.10"]]


def test_an_exhausted_range_is_named_by_add_and_status(host: Host):
    conf = ipam(**SMALL)
    host.cni("STATUS", conf).ok()
    for name in "abc":
        ask(host, conf, name)
    assert "10.1.0.10-10.1.0.12" in host.cni("ADD", conf, container="d", CNI_NETNS="/x").failed(103)
    assert "10.1.0.10-10.1.0.12" in host.cni("STATUS", conf).failed(50)
    assert len(host.state()["leases"]) == 3


def test_every_range_set_gives_one_address_or_none_gives(host: Host):
    full = {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.5", "rangeEnd": "10.2.0.5"}
    conf = ipam(ranges=[[{"subnet": "fd00:1::/64"}], [full]])
    assert ask(host, conf, "a") == ["fd00:1::2", "10.2.0.5"]
    host.cni("ADD", conf, container="b", CNI_NETNS="/x").failed(103)
    assert len(host.state()["leases"]) == 2


def test_a_set_of_two_ranges_goes_on_in_the_second(host: Host):
    one, two = ({"subnet": "10.1.0.0/24", "rangeStart": f"10.1.0.{at}", "rangeEnd": f"10.1.0.{at}"} for at in (9, 50))
    conf = ipam(ranges=[[one, two]])
    assert [ask(host, conf, name) for name in "ab"] == [["10.1.0.9"], ["10.1.0.50"]]


WISHES = {
    "runtimeConfig.ips": ({"runtimeConfig": {"ips": ["10.1.0.77/24"]}}, {}),
    "runtimeConfig.IPs": ({"runtimeConfig": {"IPs": ["10.1.0.77"]}}, {}),
    "args.cni.ips": ({"args": {"cni": {"ips": ["10.1.0.77"]}}}, {}),
    "CNI_ARGS": ({}, {"CNI_ARGS": "IgnoreUnknown=1;IP=10.1.0.77;K8S_POD_NAME=p"}),
}


@pytest.mark.parametrize("way", WISHES)
def test_a_requested_address_is_given_or_its_holder_named(host: Host, way: str):
    keys, env = WISHES[way]
    conf = ipam(subnet="10.1.0.0/24") | keys
    assert ask(host, conf, "first", **env) == ["10.1.0.77"]
    assert "first" in host.cni("ADD", conf, container="second", CNI_NETNS="/x", **env).failed(102)


@pytest.mark.parametrize("wish", ["10.9.0.1", "10.1.0.1", "10.1.0.30"], ids=["no range", "gateway", "reserved"])
def test_a_request_that_cannot_be_met_is_an_error(host: Host, wish: str):
    conf = ipam(subnet="10.1.0.0/24", reserved=["10.1.0.24/29"]) | {"runtimeConfig": {"ips": [wish]}}
    assert wish in host.cni("ADD", conf, container="c", CNI_NETNS="/x").failed(102)
    assert host.state() == {"attachments": [], "leases": []}


def test_ranges_of_the_runtime_come_first(host: Host):
    conf = ipam(subnet="10.1.0.0/24") | {"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/24"}]]}}
    assert ask(host, conf, "c") == ["10.7.0.2", "10.1.0.2"]


def test_the_broadcast_address_is_nobodys(host: Host):
    conf = ipam(subnet="10.1.0.0/30", rangeStart="10.1.0.2", rangeEnd="10.1.0.3")
    host.cni("ADD", conf | {"runtimeConfig": {"ips": ["10.1.0.3"]}}, container="a", CNI_NETNS="/x").failed(102)
    assert ask(host, conf, "a") == ["10.1.0.2"]
    host.cni("ADD", conf, container="b", CNI_NETNS="/x").failed(103)


@pytest.mark.parametrize(
    "one", [{"subnet": "10.66.0.5/32"}, {"subnet": "fd66::5/128", "gateway": "fd66::1"}], ids=["IPv4", "IPv6"]
)
def test_a_single_address_is_a_range_of_one(host: Host, lab: Lab, conf: dict, one: dict[str, str]):
    own = one["subnet"]
    routed = {"isDefaultGateway": "gateway" in one, "ipMasq": False, "ipam": {"ranges": [[one]]}}
    pod = lab.pod()
    result = host.add(conf | routed, pod)
    assert (given(result), own in pod.addresses("eth0")) == ([own.split("/")[0]], True)
    host.check(conf | routed, pod, result).ok()
    host.cni("ADD", conf | routed, lab.pod()).failed(103)
    host.cni("STATUS", conf | routed).failed(50)
    host.delete_pod(conf | routed, pod)
    assert host.state()["leases"] == []


def test_reserved_addresses_are_never_given(host: Host):
    conf = ipam(subnet="10.1.0.0/29", reserved=["10.1.0.2", "10.1.0.4-10.1.0.5"])
    assert [ask(host, conf, name) for name in "ab"] == [["10.1.0.3"], ["10.1.0.6"]]
    host.cni("ADD", conf, container="c", CNI_NETNS="/x").failed(103)


def test_a_sticky_pod_comes_back_to_its_address(host: Host):
    conf = ipam(subnet="10.1.0.0/24", rangeStart="10.1.0.10", rangeEnd="10.1.0.13", sticky=True)
    words = {name: f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}" for name in ("db-0", "web", "job")}
    first = ask(host, conf, "1", CNI_ARGS=words["db-0"])
    release(host, conf, "1")
    others = [ask(host, conf, name, CNI_ARGS=words[name]) for name in ("web", "job")]
    assert first not in others
    assert ask(host, conf, "2", CNI_ARGS=words["db-0"], CNI_IFNAME="net1") != first
    assert ask(host, conf, "2", CNI_ARGS=words["db-0"]) == first


def test_dns_comes_from_resolv_conf(host: Host, tmp_path: Path):
    file = tmp_path / "resolv.conf"
    file.write_text("# ours\nnameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:5\n")
    result = host.cni("ADD", ipam(subnet="10.1.0.0/24", resolvConf=str(file)), container="c", CNI_NETNS="/x").ok()
    assert result["dns"] == {
        "nameservers": ["192.0.2.53"],
        "search": ["a.example", "b.example"],
        "options": ["ndots:5"],
    }


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"subnet": "10.1.0.0/31"}, "$.ipam.subnet"),
        ({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}, "rangeStart"),
        ({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}, "rangeStart 10.1.0.9 is after"),
        ({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]]}, "$.ipam.ranges[1]: "),
        ({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]}, "one family"),
        ({"subnet": "10.1.0.0/24", "reserved": ["x"]}, "$.ipam.reserved[0]"),
        ({"routes": []}, "no subnet"),
    ],
)
def test_impossible_ranges_are_named(host: Host, section: dict, path: str):
    assert path in host.cni("ADD", ipam(**section), container="c", CNI_NETNS="/x").failed(7)


def test_agent_ipam_serves_the_reference_bridge(host: Host, pod: Pod):
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni1", "isGateway": True}
    conf |= {"ipam": {"type": "agent-ipam", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}
    result = host.add(conf, pod, bin_dir=REFERENCE_DIR)
    assert (given(result), pod.pings("10.1.0.1")) == (["10.1.0.2"], True)
    host.check(conf, pod, result, bin_dir=REFERENCE_DIR).ok()
    host.delete_pod(conf, pod, bin_dir=REFERENCE_DIR)
    assert host.state() == {"attachments": [], "leases": []}


@pytest.fixture
def local(conf: dict, tmp_path: Path) -> dict:
    """Our bridge with the reference's host-local."""
    return conf | {
        "cniVersion": "1.0.0",
        "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": str(tmp_path)},
    }


def reservations(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("net/10.*"))


def test_host_local_serves_our_bridge(settled: Host, pod: Pod, local: dict, tmp_path: Path):
    result = settled.add(local, pod)
    assert reservations(tmp_path) == given(result)
    settled.check(local, pod, result).ok()
    settled.delete_pod(local, pod)
    assert reservations(tmp_path) == []


def test_a_failure_after_the_delegates_add_brings_its_del(settled: Host, pod: Pod, local: dict, tmp_path: Path):
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    settled.cni("ADD", local, pod).failed(101)
    assert not (tmp_path / "net/last_reserved_ip.0").exists(), "without a link nobody is asked for addresses"
    pod.run("ip", "link", "del", "eth0")
    settled.cni("ADD", local | {"ipam": local["ipam"] | {"gateway": "10.1.0.9"}}, pod).failed(101)
    assert (tmp_path / "net/last_reserved_ip.0").exists(), "it was asked, and keeps this"
    assert reservations(tmp_path) == []


def test_a_delegate_too_old_for_the_version_blocks_no_del(settled: Host, pod: Pod, local: dict):
    newer = local | {"cniVersion": "1.1.0"}
    assert "host-local" in settled.cni("ADD", newer, pod).failed(1)
    settled.delete_pod(newer, pod)


def test_static_serves_our_bridge(settled: Host, pod: Pod, conf: dict):
    static = conf | {
        "cniVersion": "1.0.0",
        "ipam": {"type": "static", "addresses": [{"address": "10.1.0.44/24", "gateway": "10.1.0.1"}]},
    }
    assert given(settled.add(static, pod)) == ["10.1.0.44"]
    settled.delete_pod(static, pod)


@pytest.mark.parametrize("keys", [{"type", "subnet"}, {"type", "subnet", "dataDir"}], ids=["", "a folder of its own"])
def test_our_ipam_serves_our_bridge_under_another_name(
    settled: Host, pod: Pod, local: dict, tmp_path: Path, keys: set[str]
):
    """As host-local it is asked within the bridge's call about the same attachment, and has the folder of its section."""
    stand_in = tmp_path / "host-local"
    stand_in.write_text(f"#!/bin/sh\nexec {BIN_DIR}/agent-ipam\n")
    stand_in.chmod(0o755)
    env = {"CNI_PATH": f"{BIN_DIR}:{tmp_path}"}
    foreign = local | {"name": "other", "cniVersion": "1.1.0", "ipam": {key: local["ipam"][key] for key in keys}}
    alone = foreign | {"type": "agent-ipam"}
    result = settled.add(foreign, pod, **env)
    assert (given(result), (tmp_path / "state.db").exists()) == (["10.1.0.2"], "dataDir" in keys)
    settled.check(foreign, pod, result, **env).ok()
    settled.cni("STATUS", foreign, **env).ok()
    settled.cni("GC", foreign | {"cni.dev/valid-attachments": []}, **env).ok()
    settled.delete_pod(foreign, pod, **env)
    assert ask(settled, alone, "another", **env) == ["10.1.0.3"], "the first was given back, and rests"
    settled.cni("DEL", alone, container="another", **env).ok()
    shown = json.loads(settled.run(AGENT_CNI, "show", "--json", "--data-dir", tmp_path).stdout)
    assert (shown["leases"], shown["attachments"]) == ([], [])


FAKE = """#!/bin/sh
conf=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID" >> {log}
case $CNI_COMMAND in
ADD) {add} ;;
STATUS) echo '{{"cniVersion":"1.1.0","code":50,"msg":"no more"}}'; exit 1 ;;
CHECK) echo '{{"cniVersion":"1.1.0","code":7,"msg":"lost"}}'; exit 1 ;;
esac
"""
GOOD = """echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.66/24"}]}'"""


@pytest.fixture
def fake(tmp_path: Path):
    """An IPAM plugin that records its calls; `add` is what it does on ADD."""

    def write(add: str) -> tuple[dict, Path]:
        log = tmp_path / "calls"
        (tmp_path / "fake-ipam").write_text(FAKE.format(log=log, add=add))
        (tmp_path / "fake-ipam").chmod(0o755)
        return {"CNI_PATH": f"{BIN_DIR}:{tmp_path}"}, log

    return write


def test_every_verb_reaches_the_delegate(settled: Host, pod: Pod, conf: dict, fake):
    env, log = fake(GOOD)
    foreign = conf | {"ipam": {"type": "fake-ipam", "anything": {"goes": 1}}}
    result = settled.add(foreign, pod, **env)
    assert "lost" in settled.check(foreign, pod, result, **env).failed(104)
    assert "no more" in settled.cni("STATUS", foreign, **env).failed(50)
    settled.cni(
        "GC", foreign | {"cni.dev/valid-attachments": [{"containerID": pod.container, "ifname": "eth0"}]}, **env
    ).ok()
    settled.delete_pod(foreign, pod, **env)
    verbs = [line.split()[0] for line in log.read_text().splitlines()]
    assert verbs == ["ADD", "CHECK", "STATUS", "GC", "DEL"]


LOOKS = """nsenter --net=$CNI_NETNS ip -br link show $CNI_IFNAME >> {log}; """ + GOOD


@pytest.mark.parametrize("guarded", [{}, {"policy": {"ingress": []}}, {"sidecar": {}}], ids=["", "policy", "sidecar"])
@pytest.mark.parametrize("kind", ["bridge-vxlan", "macvlan", "custom-plugin"])
def test_the_delegate_sees_the_link_with_its_mac(site: Site, lab: Lab, fake, kind: str, guarded: dict):
    """One that is guarded is down: nothing passes before its guards stand."""
    pod = lab.pod()
    env, log = fake(LOOKS.replace("{log}", "$0.seen"))
    conf = {"cniVersion": "1.1.0", "name": "net", "type": kind, "ipam": {"type": "fake-ipam"}, **guarded}
    result = site.host.add(conf, pod, **env)
    name, _, mac, flags = log.with_name("fake-ipam.seen").read_text().split(maxsplit=3)
    assert name.split("@")[0] == "eth0"
    assert mac == pod.link("eth0")["address"] == next(item["mac"] for item in result["interfaces"] if "sandbox" in item)
    assert ("UP" in flags.strip("<>\n ").split(",")) == (not guarded and kind != "custom-plugin")
    assert given(result) == ["10.1.0.66"]
    assert pod.run("cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra").stdout == "0\n"
    site.host.delete_pod(conf, pod, **env)
    if kind == "bridge-vxlan":
        sh("ip", "-n", site.host.name, "link", "del", "cni0")


BUSYBOX = ROOT / ".cache/busybox/bin/busybox"
POOL = """start {subnet}.77
end {subnet}.77
interface {link}
lease_file {folder}/leases
pidfile {folder}/pid
opt subnet 255.255.255.0
opt router {subnet}.1
opt lease 120
"""


@pytest.fixture
def dhcp(tmp_path: Path):
    """The reference's daemon, and a DHCP server with one address to give."""
    running = []

    def serve(server: Namespace, link: str, subnet: str) -> dict:
        (tmp_path / "leases").touch()
        (tmp_path / "udhcpd.conf").write_text(POOL.format(subnet=subnet, link=link, folder=tmp_path))
        socket = tmp_path / "dhcp.sock"
        running.append(server.start(BUSYBOX, "udhcpd", "-f", "-a", "1", tmp_path / "udhcpd.conf"))
        running.append(subprocess.Popen([REFERENCE_DIR / "dhcp", "daemon", "-socketpath", socket], stderr=-3))
        assert eventually(socket.exists)
        return {"type": "dhcp", "daemonSocketPath": str(socket)}

    yield serve
    for process in running:
        process.terminate()
        process.wait()


def test_dhcp_serves_our_bridge(lab: Lab, dhcp, tmp_path: Path):
    """A server beside the pods on the administrator's bridge; its one address is free again when a pod is gone."""
    host, server, pods = lab.host(), lab.pod(), [lab.pod(), lab.pod()]
    sh("ip", "-n", host.name, "link", "add", "br0", "up", "type", "bridge")
    peer = ("peer", "name", "lan", "netns", server.name)
    low = ("address", "02:00:00:00:00:01")  # the bridge keeps it, whatever pods have
    sh("ip", "-n", host.name, "link", "add", "server", "up", *low, "master", "br0", "type", "veth", *peer)
    sh("ip", "-n", server.name, "addr", "add", "10.66.0.1/24", "dev", "lan")
    sh("ip", "-n", server.name, "link", "set", "lan", "up")
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "sidecar": {}}
    conf["ipam"] = {"type": "dhcp", "daemonSocketPath": str(tmp_path / "dhcp.sock")}
    before = host.snapshot() | {"fdb": set()}  # it learns what the server sends
    assert "DHCP daemon" in host.cni("ADD", conf, pods[0]).json["msg"]
    assert pods[0].link("eth0") is None
    dhcp(server, "lan", "10.66.0")
    held_on(host, conf, pods, "10.66.0")
    assert host.snapshot() | {"fdb": set()} == before


def test_dhcp_serves_our_macvlan(site: Site, lab: Lab, dhcp):
    """A server on the physical network; with a policy too, which is held in the pod."""
    switch = next(item for item in lab.made if item.name.startswith("switch"))
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "master": "eth0"}
    conf |= {"ipam": dhcp(switch, "sw0", "192.0.2"), "policy": {"ingress": [], "egressDrop": False}}
    held_on(site.host, conf, [lab.pod(), lab.pod()], "192.0.2")


def held_on(host: Host, conf: dict, pods: list[Pod], subnet: str) -> None:
    for pod in pods:
        result = host.add(conf, pod)
        assert given(result) == [f"{subnet}.77"]
        assert pod.pings(f"{subnet}.1")
        host.check(conf, pod, result).ok()
        host.delete_pod(conf, pod)
        host.delete_pod(conf, pod)
    assert host.state() == {"attachments": [], "leases": []}


@pytest.mark.parametrize("kind", ["bridge-vxlan", "custom-plugin"])
def test_dhcp_is_refused_where_nothing_could_pass(host: Host, pod: Pod, kind: str):
    conf = {"cniVersion": "1.0.0", "name": "net", "type": kind, "policy": {}, "ipam": {"type": "dhcp"}}
    assert "$.ipam.type: dhcp" in host.cni("ADD", conf, pod).failed(7)


def test_gc_releases_at_the_delegate(settled: Host, pod: Pod, conf: dict, fake):
    env, log = fake(GOOD)
    foreign = conf | {"ipam": {"type": "fake-ipam"}}
    settled.add(foreign, pod, **env)
    pod.delete()
    settled.cni("GC", foreign | {"cni.dev/valid-attachments": []}, **env).ok()
    assert log.read_text().splitlines()[1] == f"DEL {pod.container}"


ANSWERS = {
    "an error of its own": ("""echo '{"cniVersion":"1.1.0","code":42,"msg":"sold out"}'; exit 1""", 42, "sold out"),
    "no JSON": ("echo hello", 6, "no JSON"),
    "no address": ("""echo '{"cniVersion":"1.1.0"}'""", 6, "without an address"),
    "nothing at all": ("exit 3", 106, "fake-ipam"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_delegate_that_fails_is_told_to_release(settled: Host, pod: Pod, conf: dict, fake, answer: str):
    add, code, words = ANSWERS[answer]
    env, log = fake(add)
    assert words in settled.cni("ADD", conf | {"ipam": {"type": "fake-ipam"}}, pod, **env).failed(code)
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["ADD", "DEL"]


def test_a_missing_delegate_is_named_and_nothing_is_left(settled: Host, pod: Pod, conf: dict):
    assert "nowhere" in settled.cni("ADD", conf | {"ipam": {"type": "nowhere"}}, pod).failed(106)


def test_gc_keeps_what_is_listed_and_removes_the_rest(settled: Host, lab: Lab, conf: dict):
    pods = [lab.pod() for _ in range(3)]
    for pod in pods:
        settled.add(conf, pod)
    kept = {"containerID": pods[0].container, "ifname": "eth0"}
    settled.cni("GC", conf).ok()
    assert len(settled.state()["attachments"]) == 3
    settled.cni("GC", conf | {"cni.dev/valid-attachments": [kept, {"containerID": "other", "ifname": "eth0"}]}).ok()
    assert [item["container"] for item in settled.state()["attachments"]] == [pods[0].container]
    assert pods[0].pings("10.1.0.1")
    settled.cni("GC", conf | {"cni.dev/attachments": []}).ok()


def test_leases_of_two_networks_are_separate(host: Host):
    one, two = ipam(subnet="10.1.0.0/24"), ipam(subnet="10.1.0.0/24") | {"name": "other"}
    assert ask(host, one, "c") == ask(host, two, "c")
    assert json.dumps(host.state()["leases"]).count("10.1.0.2") == 2
