"""Breaks of a node of ten pods: the doctor names the cause of each in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from clinic import Clinic
from lab import AGENT_CNI, BIN_DIR, Lab, sh
from order import some

REFRESH = (f"{AGENT_CNI} refresh --conf-dir /run/agent-cni/net.d",)

REPAIR = (f"{AGENT_CNI} repair --all --conf-dir /run/agent-cni/net.d",)


class Break(NamedTuple):
    """What is done on the node, or in a pod (VETH is the host end of that one's), what undoes it, and the one line that names it.

    `undone` is for what no command of ours mends.
    """

    harm: str
    said: str
    undone: Sequence[str] = ()
    pod: str = ""
    of: str = ""


BREAKS = {
    "the ruleset is flushed": Break(
        "nft flush ruleset", r"open: the ruleset was flushed: 2 pods open, 6 pods not masqueraded, \d+ rules missing \(shop/bridged-1, .* and 5 more\)",
    ),
    "the policies' table is deleted": Break(
        "nft delete table inet agent_cni_policy", r"open: table inet agent_cni_policy was deleted: 2 pods open, \d+ rules missing \(shop/isolated-1, shop/isolated-2\)",
    ),
    "masquerading is deleted": Break(
        "nft delete table ip agent_cni", r"broken: table ip agent_cni was deleted: 6 pods not masqueraded, \d+ rules missing \(.*\)",
    ),
    "a base chain is flushed": Break(
        "nft flush chain inet agent_cni_policy forward", r"open: policy chain forward: \d+ rules differ, such as .* \(2 pods: shop/isolated-1, shop/isolated-2\)",
    ),
    "a policy's set is emptied": Break(
        "nft list sets inet | grep -o 'p4-[0-9a-f]*' | xargs nft flush set inet agent_cni_policy",
        r"open: shop/isolated-1: policy set p4-\w+ lacks 10\.3\.0\.3",
    ),
    "forwarding is off": Break(
        "sysctl -qw net.ipv4.ip_forward=0", r"broken: sysctl net\.ipv4\.ip_forward is 0, not 1 \(8 pods: shop/bridged-1, .* and 5 more\)",
    ),
    "a bridge is down": Break(
        "ip link set br0 down", r"broken: bridge br0 is down \(2 pods: shop/bridged-1, shop/bridged-2\)",
    ),
    "a bridge has another MTU": Break(
        "ip link set br0 mtu 1300", r"broken: bridge br0 has MTU 1300, below the pod's 1500 \(2 pods: .*\)",
    ),
    "a bridge hides its traffic from the rules": Break(
        "ip link set br4 type bridge nf_call_iptables 0 nf_call_ip6tables 0",
        r"open: bridge br4 does not show its traffic to the rules \(nf_call_iptables\) \(2 pods: shop/meshed-1, shop/meshed-2\)",
    ),
    "a gateway's address is gone": Break(
        "ip addr del 10.1.0.1/24 dev br0", r"broken: gateway address 10\.1\.0\.1/24 is missing on br0.* \(2 pods: .*\)",
    ),
    "a veth is down": Break("ip link set VETH down", r"broken: shop/bridged-1: host interface veth\w+ is down", of="bridged-1"),
    "a veth is off its bridge": Break(
        "ip link set VETH nomaster", r"broken: shop/bridged-2: host interface veth\w+ is not a port of br0", of="bridged-2",
    ),
    "a veth has another MTU": Break(
        "ip link set VETH mtu 1280", r"broken: shop/meshed-2: host interface veth\w+ has MTU 1280, not 1500", of="meshed-2",
    ),
    "a veth is deleted": Break(
        "ip link delete VETH", r"broken: shop/overlay-2: host interface veth\w+ is missing, and \d+ more with it", of="overlay-2",
    ),
    "a routed pod's veth is down": Break(
        "ip link set VETH down", r"broken: shop/isolated-1: host interface veth\w+ is down, and \d+ more with it", of="isolated-1",
    ),
    "a pod's address is gone": Break(
        "ip addr del 10.1.0.2/24 dev eth0", r"broken: shop/bridged-1: address 10\.1\.0\.2/24 is missing on eth0 in the pod, and 1 more with it",
        pod="bridged-1",
    ),
    "a pod's route is gone": Break(
        "ip route del default", r"broken: shop/overlay-1: route 0\.0\.0\.0/0 is missing in the pod", pod="overlay-1",
    ),
    "a pod's link is down": Break(
        "ip link set eth0 down", r"broken: shop/wire-2: eth0 is down in the pod(, and \d+ more with it)?", pod="wire-2",
    ),
    "an interception is flushed": Break(
        "iptables-nft -t nat -F", r"open: shop/meshed-1: IPv4 rules in the pod \(iptables-nft\): \d+ are missing, such as nat .*", pod="meshed-1",
    ),
    "a pod's own rules are flushed": Break(
        "nft flush ruleset", r"open: shop/wire-1: the ruleset in the pod was flushed: \d+ rules missing", pod="wire-1",
    ),
    "a host's route is gone": Break(
        "ip route del 10.3.0.3/32", r"broken: shop/isolated-2: host route 10\.3\.0\.3/32 dev veth\w+ is missing",
    ),
    "a tunnel is down": Break("ip link set vxlan7 down", r"broken: network overlay: VXLAN device vxlan7 is down"),
    "a tunnel is deleted": Break("ip link delete vxlan7", r"broken: network overlay: VXLAN device vxlan7 is missing"),
    "a row of the tunnel is gone": Break(
        "bridge fdb del 00:00:00:00:00:00 dev vxlan7 dst 192.0.2.12", r"broken: network overlay: VTEP 192\.0\.2\.12 is missing from vxlan7",
    ),
    "the uplink has less room": Break(
        "ip link set eth0 mtu 1400",
        r"broken: network overlay: uplink eth0 has MTU 1400, room for 1350 in a tunnel, and vxlan7 has 1450: larger packets are lost",
        ("ip link set eth0 mtu 1500", *REFRESH),
    ),
    "the other host's port is closed": Break(
        "nsenter --net=/run/netns/OTHER ip link set vxlan7 down",
        r"broken: network overlay: VTEP 192\.0\.2\.12, UDP port 4789: nobody listens there",
        ("nsenter --net=/run/netns/OTHER ip link set vxlan7 up",),
    ),
    "a bridge is deleted": Break(
        "ip link delete br0", r"broken: bridge br0 is missing, and \d+ more with it \(2 pods: shop/bridged-1, shop/bridged-2\)",
    ),
    "a tunnel of somebody else has the name": Break(
        "ip link del vxlan7; ip link add vxlan7 type vxlan id 8 dstport 4789 dev eth0 local 192.0.2.11; ip link set vxlan7 up",
        r"broken: network overlay: vxlan7 has VNI 8 and UDP port 4789, not 7 and 4789",
        ("ip link delete vxlan7", *REPAIR),
    ),
    "the uplink's address is gone": Break(
        "ip addr del 192.0.2.11/24 dev eth0",
        r"broken: network overlay: no route of this host leads to any of its remotes \(192.*\)",
        ("ip addr add 192.0.2.11/24 dev eth0", "ip route add default via 192.0.2.1"),
    ),
    "a lease is lost": Break(
        "python3 -c \"import sqlite3; it = sqlite3.connect('/run/agent-cni/state.db'); it.execute('DELETE FROM lease WHERE hex(address) = \\'0A010002\\''); it.commit()\"",
        r"broken: shop/bridged-1: lease of 10\.1\.0\.2/24 in network 'bridged' is missing",
    ),
    "a route of somebody else leads past a bridge": Break(
        "ip route add 10.1.0.0/25 via 192.0.2.12 dev eth0",
        r"broken: a route of somebody else leads what is sent to pods on br0 by eth0 via 192\.0\.2\.12 \(2 pods: shop/bridged-1, shop/bridged-2\)",
        ("ip route del 10.1.0.0/25",),
    ),
    "a bridge of another name holds the subnet": Break(
        f"ip link set br0 down && ip link set br0 name left && ip link set left up && {AGENT_CNI} repair --all --conf-dir /run/agent-cni/net.d",
        r"broken: a route of somebody else leads what is sent to pods on br0 by left \(2 pods: .*\)",
        ("ip link del left",),
    ),
    "a pod's address is the node's too": Break(
        "ip addr add 10.1.0.2/32 dev br0",
        r"broken: shop/bridged-1: the node itself has 10\.1\.0\.2, on br0, and takes what is sent to the pod",
        ("ip addr del 10.1.0.2/32 dev br0",),
    ),
    "policy routing refuses a pod": Break(
        "ip rule add prio 10 from 10.1.0.2 blackhole",
        r"broken: shop/bridged-1: the node forwards nothing that comes from 10\.1\.0\.2 by br0 \(EINVAL\)",
        ("ip rule del prio 10",),
    ),
    "a firewall forwards nothing": Break(
        "nft 'add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy drop; }'",
        r"warning: rules of somebody else drop what pods send out: chain f of table inet fw \(its policy\) \(8 pods: .*\)",
        ("nft delete table inet fw",),
    ),
    "a firewall closes the tunnel's port": Break(
        "nft 'add table inet fw; add chain inet fw i { type filter hook input priority 0; }; add rule inet fw i udp dport 4789 drop'",
        r"warning: rules of somebody else drop what other hosts' tunnels send \(UDP port 4789\): chain i of table inet fw .*",
        ("nft delete table inet fw",),
    ),
}  # fmt: skip


@pytest.mark.sweep  # the doctor is asked, and no call
@pytest.mark.long
def test_the_cause_of_each_break_is_one_line_and_what_it_says_mends_it(lab: Lab, tmp_path: Path):
    """Where what mends it is a command of ours that is what is done; else what the break says."""
    clinic = Clinic.opened(lab, tmp_path)
    assert clinic.doctor() == []
    wrong = {}
    for name, broken in some(BREAKS.items(), 3):
        run = runner(clinic, broken)
        run(broken.harm)
        found = clinic.doctor()
        said = [f"{item['severity']}: {item['what']}" for item in found]
        if len(said) != 1 or not re.fullmatch(broken.said, said[0]):
            wrong[name] = said
        for mend in mends(broken, [item["mend"] for item in found]):
            run(mend)
        if left := [f"{item['what']} -> {item['mend']}" for item in clinic.doctor()]:
            wrong[f"{name}, mended"] = left
    assert wrong == {}


def mends(broken: Break, said: list[str]) -> Sequence[str]:
    ours = all(mend.startswith(("agent-cni refresh", "agent-cni repair")) for mend in said)
    return [f"HOST {mend}" for mend in dict.fromkeys(said)] if ours else broken.undone


def runner(clinic: Clinic, broken: Break) -> Callable[[str], None]:
    """Runs a line on the node, or in the break's pod where it is none of ours."""
    veth = clinic.link_of(broken.of) if "VETH" in broken.harm else ""

    def run(line: str) -> None:
        ours = line.startswith("HOST ")
        words = line.removeprefix("HOST ").replace("agent-cni ", f"{AGENT_CNI} ") + " --conf-dir /run/agent-cni/net.d"
        text = words if ours else line.replace("VETH", veth).replace("OTHER", clinic.other.name)
        (clinic.pods[broken.pod] if broken.pod and not ours else clinic.host).run("sh", "-c", text, check=not ours)

    return run


def test_what_is_wrong_with_files(lab: Lab, tmp_path: Path):
    """One line each: an edited configuration, documents nobody can read, a range that is full, an address of nobody, and a folder others may write."""
    clinic = Clinic.opened(lab, tmp_path)
    overlay, isolated = clinic.confs["overlay"], clinic.confs["isolated"]

    def one(said: str) -> None:
        found = [
            f"{item['severity']}: {item['what']}" for item in clinic.doctor("--socket", "/run/agent-cni/agent.sock")
        ]
        assert [bool(re.fullmatch(said, line)) for line in found] == [True], found

    clinic.write_confs(overlay=overlay | {"vxlan": overlay["vxlan"] | {"remotes": ["192.0.2.11", "192.0.2.13"]}})
    one(
        r"broken: network overlay: its configuration says something else now: VTEP 192\.0\.2\.13 is missing from vxlan7; vxlan7 floods to VTEP 192\.0\.2\.12, .*"
    )
    clinic.write_confs(overlay=overlay | {"vxlam": {}})
    one(r"broken: /run/agent-cni/net\.d/10-overlay\.conf: .*vxlam.*did you mean 'vxlan'.*")
    clinic.write_confs()
    copy = clinic.host.folder / "net.d/11-copy.conf"
    copy.write_text(json.dumps(clinic.confs["bridged"] | {"ipam": {"subnet": "10.99.0.0/24"}}))
    one(
        r"warning: /run/agent-cni/net\.d/11-copy\.conf says otherwise of network bridged than 10-bridged\.conf, by which refresh and repair go"
    )
    copy.unlink()
    documents = Path(isolated["policy"]["policyDir"])
    (documents / "bad.yaml").write_text("- 1")
    one(r"broken: policyDir: .*bad\.yaml: not a Kubernetes object")
    (documents / "bad.yaml").unlink()
    clinic.put_document("web", {"app": "friend"})
    one(r"\w+: its policy is not what its policyDir says now \(2 pods: .*\)")
    clinic.put_document("web", {"app": "web"})
    assert clinic.doctor() == []


@pytest.mark.sweep  # the doctor is asked, and no call
def test_disks_sockets_and_ranges_on_a_real_node(lab: Lab, tmp_path: Path):
    """A full log disk, a full state folder, an agent that is gone or hung, a range without an address, a conflist that comes first."""
    host, pod = lab.host(), lab.pod()
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0"}
    conf |= {"ipam": {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.2"}}
    host.add(conf, pod)
    (host.folder / "net.d").mkdir()
    (host.folder / "net.d/20-net.conf").write_text(json.dumps(conf))
    doctor = f"{AGENT_CNI} doctor --conf-dir /run/agent-cni/net.d --bin-dir {BIN_DIR} --socket /run/agent-cni/s"

    def said(before: str = "true") -> str:
        """What it says where something was done in its mounts before, or beside it."""
        done = sh(*host.prefix(), "sh", "-c", f"{before}; {doctor}", check=False)
        return done.stdout

    full = "mount -t tmpfs -o size=64k none {0} && dd if=/dev/zero of={0}/x bs=4k 2>/dev/null"
    log = "mkdir -p /var/log/agent-cni && " + full.format("/var/log/agent-cni")
    assert re.search(r"warning: the disk of /var/log/agent-cni has \d+ KiB left: what plugins did is lost", said(log))
    inside = "mkdir /tmp/s && cp -a /run/agent-cni/. /tmp/s && mount -t tmpfs -o size=400k,mode=700 none /run/agent-cni && cp -a /tmp/s/. /run/agent-cni; rm -r /tmp/s; dd if=/dev/zero of=/run/agent-cni/x bs=4k 2>/dev/null"
    assert re.search(
        r"broken: the disk of /run/agent-cni has \d+ KiB left: no pod can be attached",
        said(f"mount -t tmpfs none /tmp && {inside}"),
    )
    assert "broken: range 10.1.0.2-10.1.0.2 of network net has no free address: 1 are leased" in said()
    dead = "python3 -c \"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind('/run/agent-cni/s')\""
    assert "warning: nobody listens on /run/agent-cni/s" in said(dead)
    (host.folder / "s").unlink()
    (host.folder / "net.d/10-other.conf").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "x", "type": "portmap"})
    )
    assert "note: /run/agent-cni/net.d/10-other.conf is not ours and sorts before 20-net.conf" in said()
