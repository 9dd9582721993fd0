"""Lists of ours and of the reference's: each of our plugins, what may come before it and after it, and every verb twice."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
from lab import BIN_DIR, CNITOOL, REFERENCE_DIR, Host, Lab, Pod, sh

RANGES = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]], "routes": [{"dst": "0.0.0.0/0"}]}
OURS = {
    "bridge-vxlan": {"isDefaultGateway": True, "ipMasq": True},
    "bridge-vxlan with rules": {"isDefaultGateway": True, "policy": {}, "sidecar": {}},
    "macvlan": {"master": "phy0", "gateway": ["10.1.0.1", "fd00:1::1"]},
    "custom-plugin": {},
}
AFTER = {
    "tuning": {"mtu": 1400, "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}},
    "sbr": {},
    "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000},
    "firewall": {"backend": "iptables"},
    "portmap": {"snat": True, "capabilities": {"portMappings": True}},
}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
COMPANY = [
    *((("loopback",), (name,)) for name in AFTER),
    *(((), after) for after in combinations(AFTER, 2)),
]
#: portmap looks for a pod's IPv4 address among the IPv6 rules; sbr's DEL wants the interface that the first DEL took.
THEIRS = r'could not check ipv6 dnat|"sbr" failed \(delete\): Failed to get link eth0'
REFUSED = r"is attached already; DEL comes before a second ADD"


def call(host: Host, pod: Pod, verb: str) -> str:
    """What is said of a whole list; nothing if it succeeds, or one of the reference's plugins is known to fail."""
    env = {
        "CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}",
        "NETCONFPATH": str(host.folder),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "CAP_ARGS": json.dumps(PORTS),
    }
    done = host.run(CNITOOL, verb, "chain", pod.path, env=env, check=False)
    assert done.returncode == 0 or done.stderr
    return "" if done.returncode == 0 or re.search(THEIRS, done.stderr) else done.stderr


def left(host: Host) -> tuple[object, ...]:
    """Links, what iptables has of pods' addresses, records and leases."""
    rules = host.run("iptables-save").stdout + host.run("ip6tables-save").stdout
    pods = [line for line in rules.splitlines() if line.startswith("-A") and re.search(r"10\.1\.0\.|fd00:1::", line)]
    return {item["ifname"] for item in host.ip("link", "show")} - {"cni0"}, pods, host.state()


@pytest.mark.sweep(most=4)
@pytest.mark.long
@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(
    "company",
    [COMPANY[:5], COMPANY[5:10], COMPANY[10:]],
    ids=("one before, one after", "two after", "two others after"),
)
def test_every_verb_twice_in_any_company(node: Host, lab: Lab, kind: str, company: list[tuple[tuple[str, ...], ...]]):
    sh("ip", "-n", node.name, "link", "add", "phy0", "type", "veth", "peer", "name", "wire0")
    for end in ("phy0", "wire0"):
        sh("ip", "-n", node.name, "link", "set", end, "up")
    own, before = {"type": kind.split(maxsplit=1)[0], "ipam": RANGES} | OURS[kind], left(node)
    for first, after in company:
        if kind == "macvlan" and "bandwidth" in after:
            continue  # it shapes the host's end, which a macvlan has not
        pod = lab.pod()
        plugins = [{"type": name} for name in first] + [own] + [{"type": name} | AFTER[name] for name in after]
        chain = {"cniVersion": "1.0.0", "name": "chain", "plugins": plugins}
        (node.folder / "chain.conflist").write_text(json.dumps(chain))
        assert [call(node, pod, verb) for verb in ("add", "check")] == ["", ""], after
        assert pod.run("ip", "link", "show", "eth0")
        again = call(node, pod, "add")
        assert re.search(REFUSED, again), again
        assert [call(node, pod, verb) for verb in ("check", "del", "del")] == ["", "", ""], after
        assert left(node) == before, after
        pod.delete()
