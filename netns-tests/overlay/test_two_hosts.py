"""Two hosts, real cnitool, the conflists of conf.d: pods and nodes of different hosts reach each other."""

from __future__ import annotations

import json

import pytest
from lab import AGENT_CNI, BIN_DIR, CNITOOL, ROOT, Host, Lab, Pod, eventually
from overlay import address, conf

FILES = ("10-bridge-vxlan.conflist", "11-bridge-vxlan-second-host.conflist")


def cnitool(host: Host, verb: str, pod: Pod, network: str = "pods") -> dict:
    """One real cnitool call with the conflists this host has in its own folder."""
    env = {"CNI_PATH": str(BIN_DIR), "NETCONFPATH": str(host.folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    out = host.run(CNITOOL, verb, network, pod.path, env=env).stdout
    return json.loads(out) if out.strip() else {}


def two_hosts(lab: Lab) -> list[Host]:
    hosts = [lab.host(), lab.host()]
    lab.underlay(*hosts)
    for host, file in zip(hosts, FILES, strict=True):
        (host.folder / file).write_text((ROOT / "conf.d" / file).read_text())
    return hosts


def test_pods_of_two_hosts_reach_each_other(lab: Lab):
    one, two = two_hosts(lab)
    placed = [(host, lab.pod()) for host in (one, one, two)]
    results = [cnitool(host, "add", pod) for host, pod in placed]
    addresses = [ip["address"].split("/")[0] for result in results for ip in result["ips"]]
    gateways = {ip["gateway"] for result in results for ip in result["ips"]}
    assert len(set(addresses)) == 6
    for _, pod in placed:
        assert all(pod.pings(address) for address in [*addresses, *gateways])
    for host in (one, two):  # what kube-proxy, probes and NodePorts need
        assert all(host.pings(address) for address in [*addresses, *gateways])
    assert len(gateways) == 4
    for host, pod in placed:
        cnitool(host, "del", pod)
    assert not any(pod.link("eth0") for _, pod in placed)
    assert [host.state() for host in (one, two)] == [{"attachments": [], "leases": []}] * 2


def told(host: Host, netconf: dict) -> list[str]:
    """What doctor says of overlays on a host with a configuration."""
    (host.folder / "net.d").mkdir(exist_ok=True)
    (host.folder / "net.d/net.conf").write_text(json.dumps(netconf))
    done = host.run(AGENT_CNI, "doctor", "--json", "--conf-dir", "/run/agent-cni/net.d", check=False)
    found = json.loads(done.stdout)
    return [item["what"] for area in ("attachments", "overlays") for item in found[area]]


def test_doctor_asks_the_other_hosts(lab: Lab):
    """A host that was told of nobody new, one that gives from another's range, one that is not there, one without a tunnel."""
    old, new, idle = hosts = [lab.host() for _ in range(3)]
    lab.underlay(*hosts)
    every = ["192.0.2.11", "192.0.2.12"]
    first, second = conf([], 1), conf(every, 2)
    pods = [lab.pod() for _ in range(3)]
    results = [old.add(first, pods[0]), new.add(second, pods[1])]
    assert pods[1].pings(address(results[0]))
    assert any("pods of VTEP 192.0.2.12 are heard" in line for line in told(old, first))
    assert any("VTEP 192.0.2.11 does not know of this host" in line for line in told(new, second))
    first["vxlan"]["remotes"] = every
    assert any("says something else now" in line for line in told(old, first))
    old.run(AGENT_CNI, "refresh", "--conf-dir", "/run/agent-cni/net.d")
    assert [told(old, first), told(new, second)] == [[], []]
    more = [*every, "192.0.2.13", "192.0.2.99"]
    copied = conf(more, 1)  # from the first host to the third, and not edited
    idle.add(copied, pods[2])
    idle.run("ip", "link", "set", "vxlan100", "down")
    new.add(conf(more, 2), lab.pod())
    said = told(new, conf(more, 2))
    assert any("VTEP 192.0.2.13, UDP port 4789: nobody listens there" in line for line in said)
    assert any("VTEP 192.0.2.99, UDP port 4789: the host does not answer" in line for line in said)
    idle.run("ip", "link", "set", "vxlan100", "up")
    old.add(copied, lab.pod())
    assert eventually(lambda: any("two hosts give from one range" in line for line in told(idle, copied)))


@pytest.mark.parametrize(
    ("more", "told_of"),
    [
        ({}, True),
        ({"gateway": "10.1.0.1"}, True),
        ({"gateway": "10.1.1.1"}, False),
        ({"gateway": "10.1.1.1", "rangeStart": "10.1.1.2"}, False),
        ({"gateway": "10.1.1.255"}, False),
        ({"gateway": "10.1.1.1", "rangeStart": "10.1.1.3"}, True),
    ],
)
def test_doctor_tells_a_gateway_that_every_host_has(host: Host, more: dict, told_of: bool):
    """One beside a host's range is that host's, as of a block whose first address is the gateway's."""
    netconf = conf(["192.0.2.12"], 1)
    netconf["ipam"]["ranges"][0][0] |= more
    told(host, netconf)
    done = host.run(AGENT_CNI, "doctor", "--conf-dir", "/run/agent-cni/net.d", check=False)
    assert (f"gateway {more.get('gateway', '10.1.0.1')} is not of this host's range" in done.stdout) == told_of


def test_doctor_looks_at_an_overlay_whose_pods_go_by_documents(lab: Lab):
    """What it reads of such a configuration is about some pod of Kubernetes'."""
    hosts = [lab.host(), lab.host()]
    lab.underlay(*hosts)
    every = ["192.0.2.11", "192.0.2.12"]
    confs = [conf(every, number) | {"policy": {"policyDir": "/run/agent-cni/policies"}} for number in (1, 2)]
    for number, (host, netconf) in enumerate(zip(hosts, confs, strict=True), 1):
        (host.folder / "policies").mkdir()
        netconf["ipam"]["ranges"][0][0]["gateway"] = f"10.1.{number}.1"
        host.add(netconf, lab.pod(), CNI_ARGS="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
    for host, netconf in zip(hosts, confs, strict=True):
        assert told(host, netconf) == []
        done = host.run(AGENT_CNI, "doctor", "--conf-dir", "/run/agent-cni/net.d", check=False)
        assert "configurations: ok" in done.stdout, done.stdout
