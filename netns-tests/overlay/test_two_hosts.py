"""Two hosts, real cnitool, the conflists of conf.d: pods and nodes of different hosts reach each other."""

from __future__ import annotations

import json

from lab import BIN_DIR, CNITOOL, ROOT, Host, Lab, Pod

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
