"""Lists in which other people's plugins stand before and after ours, through the real cnitool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, BIN_DIR, CNITOOL, REFERENCE_DIR, Host, Lab, Pod


def cnitool(host: Host, verb: str, network: str, pod: Pod, path: str = f"{BIN_DIR}:{REFERENCE_DIR}") -> dict[str, Any]:
    env = {
        "CNI_PATH": path,
        "NETCONFPATH": str(host.folder),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    remembered = host.folder / "cache"  # libcni's own is the machine's
    remembered.mkdir(exist_ok=True)
    Path("/var/lib/cni").mkdir(parents=True, exist_ok=True)
    bound = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /var/lib/cni && exec "$@"', remembered]
    return json.loads(host.run(*bound, CNITOOL, verb, network, pod.path, env=env).stdout or "{}")


def written(host: Host, name: str, *plugins: dict[str, Any]) -> Path:
    file = host.folder / f"{name}.conflist"
    file.write_text(json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": plugins}))
    return file


@pytest.mark.parametrize("policy", ["open", "same-bridge"])
def test_firewall_finds_our_bridge_first_also_behind_loopback(lab: Lab, policy: str):
    """Nomad's list: loopback, the bridge, firewall, portmap."""
    host, first, second, other = lab.host(), lab.pod(), lab.pod(), lab.pod()
    for number, name in enumerate(("blue", "red")):
        ipam = {"ranges": [[{"subnet": f"10.{number}.0.0/24"}]]}
        own = {"type": "bridge-vxlan", "bridge": f"br-{name}", "isDefaultGateway": True, "ipam": ipam}
        firewall = {"type": "firewall", "backend": "iptables", "ingressPolicy": policy}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
        host.run(AGENT_CNI, "validate", written(host, name, {"type": "loopback"}, own, firewall, portmap))
    placed = ((first, "blue"), (second, "blue"), (other, "red"))
    made = [cnitool(host, "add", network, pod) for pod, network in placed]
    assert [item["interfaces"][-1]["name"] for item in made] == ["lo"] * 3
    assert second.pings("10.0.0.2")
    assert other.pings("10.0.0.2", 1 if policy == "same-bridge" else 5) == (policy == "open")
    for verb in ("check", "del", "del"):
        for pod, network in placed:
            cnitool(host, verb, network, pod)
    assert host.state() == {"attachments": [], "leases": []}


@pytest.mark.tried("agent-cni doctor on pods of healthy lists: host-local, tuning and sbr", "ok")
@pytest.mark.parametrize("folder", ["", "state"], ids=["", "in a folder of its own"])
def test_the_doctor_judges_a_list_as_its_runtime_does(host: Host, pod: Pod, tmp_path: Path, folder: str):
    own = {
        "type": "bridge-vxlan",
        "bridge": "br0",
        "isGateway": True,
        **({"dataDir": str(tmp_path / folder)} if folder else {}),
    }
    own |= {"ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": str(tmp_path / "local")}}
    tuning = {"type": "tuning", "mac": "0a:00:00:00:00:09", "mtu": 1400}
    written(host, "tuned", own | {"ipam": own["ipam"] | {"routes": [{"dst": "0.0.0.0/0"}]}}, tuning, {"type": "sbr"})
    (host.folder / "bin").mkdir()
    for file in (*BIN_DIR.iterdir(), *REFERENCE_DIR.iterdir()):
        if not (host.folder / "bin" / file.name).exists():
            (host.folder / "bin" / file.name).symlink_to(file)
    cnitool(host, "add", "tuned", pod)
    cnitool(host, "check", "tuned", pod)
    doctor = (AGENT_CNI, "doctor", "--json", "--bin-dir", host.folder / "bin", "--conf-dir", host.folder)
    cached = (*doctor, "--cache-dir", host.folder / "cache")
    assert json.loads(host.run(*cached, check=False).stdout)["attachments"] == []
    assert json.loads(host.run(*doctor, "--cache-dir", "/nowhere", check=False).stdout)["attachments"]
    pod.run("ip", "link", "set", "eth0", "address", "0a:00:00:00:00:08")
    said = json.loads(host.run(*cached, check=False).stdout)["attachments"]
    assert [item for item in said if "0a:00:00:00:00:08" in item["what"]], said
    cnitool(host, "del", "tuned", pod)
    assert host.state() == {"attachments": [], "leases": []}


RANGES = [[{"subnet": "10.4.0.0/24", "gateway": "10.4.0.1"}]]
NEXT = (
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall", "ingressPolicy": "same-bridge"},
    {"type": "tuning"},
)
#: What `network create` writes of its own bridge (nerdctl pkg/netutil, podman libpod's CNI backend).
CREATED = {
    "nerdctl": {"bridge": "br-0123456789ab", "hairpinMode": True, "ipam": {"ranges": RANGES, "routes": [{"dst": "0.0.0.0/0"}]}},
    "podman": {
        "bridge": "cni-podman1", "hairpinMode": True,
        "ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], "ranges": [*RANGES, [{"subnet": "fd04::/64", "gateway": "fd04::1"}]]},
    },
}  # fmt: skip


@pytest.mark.parametrize("linked", [True, False], ids=["a link", "a file"])
@pytest.mark.parametrize("creator", CREATED)
def test_what_nerdctl_and_podman_create_runs_on_ours(lab: Lab, tmp_path: Path, creator: str, linked: bool):
    """Both know drivers by the reference's names alone."""
    host, pods = lab.host(), [lab.pod(), lab.pod()]
    for name, plugin in (("bridge", "bridge-vxlan"), ("host-local", "agent-ipam")):
        if linked:
            (tmp_path / name).symlink_to(BIN_DIR / plugin)
        else:
            (tmp_path / name).write_bytes((BIN_DIR / plugin).read_bytes())
            (tmp_path / name).chmod(0o755)
    own = {"type": "bridge", "isGateway": True, "ipMasq": True, "capabilities": {"ips": True}, **CREATED[creator]}
    own["ipam"] = {"type": "host-local", **own["ipam"]}
    written(host, creator, own, *NEXT)
    made = [cnitool(host, "add", creator, pod, f"{tmp_path}:{REFERENCE_DIR}") for pod in pods]
    assert [item["ips"][0]["address"] for item in made] == ["10.4.0.2/24", "10.4.0.3/24"]
    assert pods[0].pings("10.4.0.3")
    assert {item["plugin"] for item in host.state()["attachments"]} == {"bridge-vxlan", "agent-ipam"}
    for verb in ("check", "del", "del"):
        for pod in pods:
            cnitool(host, verb, creator, pod, f"{tmp_path}:{REFERENCE_DIR}")
    assert host.state() == {"attachments": [], "leases": []}
