"""A configuration that changes under running pods: it takes effect and cuts nobody off, or is refused naming who holds what."""

from __future__ import annotations

import json
import subprocess

import pytest
from lab import AGENT_CNI, Host, Lab, Pod, eventually, sh
from overlay import address, conf, flooded, pair, tunnels

SETTINGS = {
    "local": ({"local": "192.0.2.111"}, ("local", "192.0.2.111")),
    "no local": ({}, ("local", None)),
    "dev": ({"local": "192.0.2.11", "dev": "eth0"}, ("link", "eth0")),
    "another port": ({"local": "192.0.2.11", "dstport": 8472}, ("port", 8472)),
    "learning": ({"local": "192.0.2.11", "learning": False}, ("learning", False)),
}


def packets(host: Host) -> int:
    return int(host.run("cat", "/sys/class/net/eth0/statistics/tx_packets").stdout)


def left_alone(host: Host) -> dict:
    """What there is, but for the MAC that a tunnel is given when it is made."""
    seen = host.snapshot()
    rows = {row for row in seen["fdb"] if "dst" in row or "vxlan" not in row}
    return seen | {"links": {name for name, _, _ in seen["links"]}, "fdb": rows}


def test_another_vni_replaces_the_tunnel_and_makes_no_loop(lab: Lab):
    hosts, pods, results = pair(lab)
    later = [lab.pod(), lab.pod()]
    edited = [conf([f"192.0.2.{12 - slot}"], slot, vxlan={"id": 200}) for slot in (0, 1)]
    new = [host.add(one, pod) for host, one, pod in zip(hosts, edited, later, strict=True)]
    assert [tunnels(host) for host in hosts] == [{"vxlan200": "br0"}] * 2
    shown = json.loads(hosts[0].run(AGENT_CNI, "show", "--json").stdout)["vteps"]
    assert [(item["device"], item["remotes"]) for item in shown] == [("vxlan200", ["192.0.2.12"])]
    for pod in (*pods, *later):
        assert all(pod.pings(address(result)) for result in (*results, *new))
    before = packets(hosts[0])
    assert pods[0].pings(address(new[1]))
    assert packets(hosts[0]) - before < 50
    for slot, host in enumerate(hosts):
        for one, pod, result in ((conf([], slot), pods[slot], results[slot]), (edited[slot], later[slot], new[slot])):
            host.check(one, pod, result).ok()
            host.delete_pod(one, pod)


def test_a_bridge_has_one_tunnel_and_a_tunnel_one_bridge(lab: Lab, host: Host):
    lab.underlay(host)
    first, pod, second = conf(["192.0.2.12"], name="first"), lab.pod(), lab.pod()
    result = host.add(first, pod)
    before = host.snapshot()
    others = {
        "vxlan100": conf(["192.0.2.12"], name="second", vxlan={"id": 200}),
        "br0": conf(["192.0.2.12"], name="second", bridge="br1", isDefaultGateway=False),
        "UDP port 4789": conf(["192.0.2.12"], name="second", vxlan={"dstport": 8472}),
    }
    for named, other in others.items():
        said = host.cni("ADD", other, second).failed(101)
        assert (named in said, "network first" in said) == (True, True), said
        assert host.snapshot() == before
    moved = first | {"bridge": "br1", "isDefaultGateway": False}
    assert "network first has VXLAN vxlan100" in host.cni("ADD", moved, second).failed(101)
    assert host.snapshot() == before
    host.check(first, pod, result).ok()
    host.delete_pod(first, pod)
    host.add(others["br0"], second)
    assert tunnels(host) == {"vxlan100": "br1"}


@pytest.mark.parametrize("name", ["flannel.1", "vxlan7"])
def test_a_tunnel_that_is_not_ours_is_told_and_left(lab: Lab, host: Host, pod: Pod, name: str):
    lab.underlay(host)
    wanted, other = conf(["192.0.2.12"]), lab.pod()
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "add", name, "master", "br0", "type", "vxlan", "id", "7", "dstport", "4789", "nolearning")
    before = host.snapshot()
    assert name in host.cni("ADD", wanted, pod).failed(101)
    assert host.snapshot() == before
    host.run("ip", "link", "set", name, "nomaster")
    result = host.add(wanted, pod)
    host.run("ip", "link", "set", name, "master", "br0")
    assert f"two tunnels, vxlan100 and {name}" in host.check(wanted, pod, result).failed(104)
    assert name in host.cni("ADD", wanted, other).failed(101)
    assert tunnels(host) == {"vxlan100": "br0", name: "br0"}


@pytest.mark.parametrize("edit", SETTINGS)
def test_settings_of_a_tunnel_follow_the_configuration(lab: Lab, edit: str):
    said, (key, value) = SETTINGS[edit]
    hosts, pods, results = pair(lab)
    hosts[0].run("ip", "addr", "add", "192.0.2.111/24", "dev", "eth0")
    before = conf(["192.0.2.12"], 0, vxlan={"local": "192.0.2.11"})
    hosts[0].add(before, lab.pod())
    later = lab.pod()
    added = hosts[0].add(conf(["192.0.2.12"], 0, vxlan=said), later)
    if "dstport" in said:
        hosts[1].add(conf(["192.0.2.11"], 1, vxlan={"dstport": 8472}), lab.pod())
    assert hosts[0].link("vxlan100")["linkinfo"]["info_data"].get(key) == value
    hosts[0].check(before, pods[0], results[0]).ok()
    hosts[0].check(before, later, added).ok()
    assert tunnels(hosts[0]) == {"vxlan100": "br0"}
    assert flooded(hosts[0]) == {"192.0.2.12"}
    assert pods[0].pings(address(results[1]))


def test_mtus_follow_what_the_pods_have(lab: Lab, host: Host, pod: Pod):
    lab.underlay(host)
    small, large = (conf(["192.0.2.12"], vxlan={"mtu": mtu}) for mtu in (1300, 1400))
    for wanted, seen in ((small, 1300), (large, 1400), (small, 1400)):
        host.add(wanted, pod)
        assert host.link("vxlan100")["mtu"] == seen
        if wanted is not large:
            host.delete_pod(wanted, pod)
        pod = lab.pod() if wanted is large else pod


def test_the_other_family_makes_the_tunnel_anew(lab: Lab, host: Host, pod: Pod):
    lab.underlay(host)
    for v6, remotes in ((False, ["192.0.2.12"]), (True, ["fd00:aa::12"]), (False, ["192.0.2.12"])):
        host.run("ip", "addr", "replace", "fd00:aa::11/64", "dev", "eth0", "nodad")
        other = lab.pod()
        result = host.add(conf(remotes), other)
        assert flooded(host) == set(remotes)
        assert tunnels(host) == {"vxlan100": "br0"}
        assert other.link("eth0")["mtu"] == (1430 if v6 else 1450)
        host.check(conf(remotes), other, result).ok()


def test_networks_on_one_tunnel_have_their_remotes_together(lab: Lab, host: Host, pod: Pod):
    lab.underlay(host)
    one, two = conf(["192.0.2.12"], name="one"), conf(["192.0.2.13"], 2, name="two")
    others = [lab.pod() for _ in range(3)]
    results = [host.add(one, pod), host.add(two, others[0])]
    assert flooded(host) == {"192.0.2.12", "192.0.2.13"}
    rolled = conf(["192.0.2.14"], name="one")
    results.append(host.add(rolled, others[1]))
    assert flooded(host) == {"192.0.2.14", "192.0.2.13"}
    for wanted, who, result in zip((one, two, rolled), (pod, *others), results, strict=False):
        host.check(wanted, who, result).ok()
    host.delete_pod(two, others[0])
    host.check(one, pod, results[0]).ok()
    kept = conf(name="three")
    host.add(kept, others[2])
    host.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vxlan100", "dst", "192.0.2.99")
    host.add(two, others[0])
    assert "192.0.2.99" in flooded(host)
    host.check(one, pod, results[0]).ok()


@pytest.mark.parametrize(
    "edit",
    [{"id": 200}, {"dstport": 8472}, {"local": "192.0.2.111"}, {"learning": False}, {"remotes": ["fd00:aa::12"]}],
    ids=str,
)
def test_a_failed_add_leaves_the_tunnel_as_it_was(lab: Lab, host: Host, pod: Pod, edit: dict):
    lab.underlay(host)
    host.run("ip", "addr", "add", "192.0.2.111/24", "dev", "eth0")
    before = conf(["192.0.2.12", "192.0.2.13"])
    result = host.add(before, pod)
    older = lab.pod()
    host.add(conf(["192.0.2.14"], vxlan=edit), older)  # a record of what is to fail holds nothing up
    host.add(before, lab.pod())
    host.run("bridge", "fdb", "add", "0a:00:00:00:00:07", "dev", "vxlan100", "dst", "192.0.2.12")
    seen, link = left_alone(host), host.link("vxlan100")["linkinfo"]["info_data"]
    other = lab.pod()
    other.run("ip", "link", "add", "eth0", "type", "bridge")
    host.cni("ADD", conf(["192.0.2.14"], vxlan=edit), other).failed(101)
    assert left_alone(host) == seen
    assert host.link("vxlan100")["linkinfo"]["info_data"] == link
    host.check(before, pod, result).ok()


def test_rows_that_somebody_gave_outlive_another_port(lab: Lab, host: Host, pod: Pod):
    lab.underlay(host)
    host.add(conf(), pod)
    host.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vxlan100", "dst", "192.0.2.99")
    host.run("bridge", "fdb", "add", "0a:00:00:00:00:07", "dev", "vxlan100", "dst", "192.0.2.12")
    rows = sh("bridge", "-n", host.name, "fdb", "show", "dev", "vxlan100").stdout
    host.add(conf(vxlan={"dstport": 8472}), lab.pod())
    assert host.link("vxlan100")["linkinfo"]["info_data"]["port"] == 8472
    assert sh("bridge", "-n", host.name, "fdb", "show", "dev", "vxlan100").stdout.count("dst") == rows.count("dst")
    assert eventually(lambda: flooded(host) == {"192.0.2.99"})


def refreshed(host: Host, *confs: dict) -> str:
    """What `agent-cni refresh` says with these configurations on the node."""
    folder = host.folder / "net.d"
    folder.mkdir(exist_ok=True)
    for one in confs:
        (folder / f"{one['name']}.conf").write_text(json.dumps(one))
    done = host.run(AGENT_CNI, "refresh", "--conf-dir", "/run/agent-cni/net.d", check=False)
    return done.stdout + done.stderr


def doctor(host: Host) -> list[str]:
    """What `agent-cni doctor` says of overlays and pods."""
    done = host.run(AGENT_CNI, "doctor", "--json", "--conf-dir", "/run/agent-cni/net.d", check=False)
    found = json.loads(done.stdout)
    items = [*found["attachments"], *found["overlays"]]
    return [f"{item['what']} -> {item['mend']}" for item in items if "UDP port" not in item["what"]]  # nobody is there


def test_a_refresh_makes_an_edit_so_without_a_pod(lab: Lab, host: Host, pod: Pod):
    lab.underlay(host)
    host.run("ip", "addr", "add", "192.0.2.111/24", "dev", "eth0")
    before = conf(["192.0.2.12", "192.0.2.13"])
    result = host.add(before, pod)
    assert "0 of 1 overlays" in refreshed(host, before)
    for edited, seen in (
        (conf(["192.0.2.13", "192.0.2.14"]), {"192.0.2.13", "192.0.2.14"}),
        (conf(["192.0.2.13"], vxlan={"local": "192.0.2.111"}), {"192.0.2.13"}),
        (conf(["192.0.2.13"], vxlan={"dstport": 8472}), {"192.0.2.13"}),
        (conf(["192.0.2.11", "192.0.2.15"], vxlan={"id": 200}), {"192.0.2.15"}),
    ):
        assert "1 of 1 overlays" in refreshed(host, edited)
        ((device, bridge),) = tunnels(host).items()
        assert (flooded(host, device), bridge) == (seen, "br0")
        host.check(before, pod, result).ok()
    assert doctor(host) == []
    host.run("ip", "link", "del", "vxlan200")
    assert "network net: VXLAN device vxlan200 is missing -> agent-cni refresh" in doctor(host)
    host.check(before, pod, result).failed(104)
    assert "1 of 1 overlays" in refreshed(host)
    assert flooded(host, "vxlan200") == {"192.0.2.15"}
    host.check(before, pod, result).ok()
    host.delete_pod(before, pod)
    assert "1 of 1 overlays" in refreshed(
        host, conf(["192.0.2.12"], vxlan={"id": 200})
    )  # a node without pods reaches others' still
    assert flooded(host, "vxlan200") == {"192.0.2.12"}
    host.run("ip", "link", "del", "vxlan200")
    assert "0 of 1 overlays" in refreshed(host)


def test_networks_on_one_tunnel_are_edited_together(lab: Lab, host: Host, pod: Pod):
    """An ADD of one is refused while the other says otherwise; a refresh sees both."""
    lab.underlay(host)
    names, other = ("one", "two"), lab.pod()
    before = [conf(["192.0.2.12"], slot, name=name) for slot, name in enumerate(names, 1)]
    results = [host.add(one, who) for one, who in zip(before, (pod, other), strict=True)]
    after = [conf(["192.0.2.12"], slot, name=name, vxlan={"dstport": 8472}) for slot, name in enumerate(names, 1)]
    assert "network two has" in host.cni("ADD", after[0], lab.pod()).failed(101)
    assert "network two has" in refreshed(host, after[0], before[1])
    assert host.link("vxlan100")["linkinfo"]["info_data"]["port"] == 4789
    assert "2 of 2 overlays" in refreshed(host, *after)
    assert host.link("vxlan100")["linkinfo"]["info_data"]["port"] == 8472
    for one, who, result in zip(before, (pod, other), results, strict=True):
        host.check(one, who, result).ok()


def test_the_agent_follows_the_configurations(lab: Lab, host: Host, pod: Pod):
    lab.underlay(host)
    result = host.add(conf(["192.0.2.12"]), pod)
    refreshed(host, conf(["192.0.2.12"]))
    agent = (AGENT_CNI, "serve", "--socket", "/run/agent-cni/own.sock", "--conf-dir", "/run/agent-cni/net.d")
    with subprocess.Popen([*host.prefix(), *map(str, agent)]) as process:
        try:
            assert eventually((host.folder / "own.sock").exists)
            (host.folder / "net.d/net.conf").write_text(json.dumps(conf(["192.0.2.12", "192.0.2.13"])))
            assert eventually(lambda: flooded(host) == {"192.0.2.12", "192.0.2.13"})
        finally:
            process.terminate()
    host.check(conf(["192.0.2.12"]), pod, result).ok()
