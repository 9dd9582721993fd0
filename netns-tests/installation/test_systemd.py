"""Our units, and what install, join and uninstall tell systemd, with systemd itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from first_process import BootedNode
from lab import AGENT_CNI, ROOT, eventually
from resolver import PYTHON, SERVE, ask

from cni.kernel.hostsdir import Entry
from cni.naming import Attachment

pytestmark = pytest.mark.sweep  # one node, with its own agent

SOCKET, SERVICE, MEMBER = "agent-cni.socket", "agent-cni.service", "agent-cni-member.service"
FLOWS = "agent-cni-flows.service"
NAMES, NAMED = "agent-cni-names.service", "agent-cni-names.path"
GATE, HELD = "agent-cni-dnsgate.service", "agent-cni-dnsgate.path"
UNITS = Path("/etc/systemd/system")
PROBED = Entry(
    Attachment("net", "c1", "eth0"), ("127.0.0.1",), ("web",), "a/b", '{"tcp": 9, "interval": 0.5, "failures": 1}'
)
CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isGateway": True, "ipMasq": True,
    "policy": {"ingress": [{}]}, "ipam": {"type": "agent-ipam", "subnet": "10.1.0.0/24"},
}  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> Iterator[BootedNode]:
    with BootedNode(tmp_path) as booted:
        booted.run(AGENT_CNI, "install", "--systemd", "--link")
        yield booted


ALLOWED = {"egress": [{"to": [{"domainNames": ["api.example.com"]}], "ports": [{"port": 80}]}]}
ELSEWHERE = {
    "cniVersion": "1.1.0", "name": "flat", "type": "macvlan", "master": "up0", "policy": ALLOWED,
    "ipam": {"type": "agent-ipam", "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100"},
}  # fmt: skip
OUTSIDE = "192.0.2.2"
ZONE = {"api.example.com": [("A", "198.51.100.7", 5)], "evil.example": [("A", "198.51.100.66", 5)]}


def call(node: BootedNode, verb: str, number: int = 1, conf: dict[str, object] = CONF) -> None:
    """A call that must succeed."""
    pod = f"/run/netns/pod{number}"
    given = f"CNI_COMMAND={verb} CNI_CONTAINERID=c{number} CNI_IFNAME=eth0 CNI_NETNS={pod} CNI_PATH=/opt/cni/bin"
    done = node.run("env", *given.split(), f"/opt/cni/bin/{conf['type']}", check=False, input=json.dumps(conf))
    assert done.returncode == 0, done.stdout


def of_before(node: BootedNode, unit: str, line: str, instead: str) -> None:
    """Have a unit be as a release before had it, for systemd too, and what runs go by it."""
    text = node.run("cat", UNITS / unit).stdout
    assert line in text
    node.run("tee", UNITS / unit, input=text.replace(line, instead))
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "try-restart", unit)


def test_the_agent_starts_with_the_first_call_and_serves_as_confined_as_its_unit_says(node: BootedNode):
    assert (node.state(SOCKET), node.state(SERVICE)) == ("active", "inactive")
    node.run("ip", "netns", "add", "pod1")
    call(node, "ADD")
    assert node.state(SERVICE) == "active"
    for verb in ("STATUS", "ADD", "DEL", "DEL"):
        node.run("ip", "netns", "add", "pod2", check=False)
        call(node, verb, 2)
    assert node.run("ping", "-c1", "-W2", "10.1.0.2").returncode == 0
    call(node, "DEL")
    assert "Operation not permitted" not in node.run("sh", "-c", "cat /var/log/agent-cni/*").stdout


@pytest.mark.parametrize(
    ("unit", "line", "instead", "name", "now"),
    [
        (SERVICE, "OOMScoreAdjust=-900", "OOMScoreAdjust=-100", "OOMScoreAdjust", "-900"),
        (SOCKET, "Backlog=512", "Backlog=5", "Backlog", "512"),
        (MEMBER, "WatchdogSec=60", "WatchdogSec=50", "WatchdogUSec", "1min"),
    ],
)
def test_what_runs_by_a_unit_of_the_release_before_runs_by_the_new_one(
    node: BootedNode, unit: str, line: str, instead: str, name: str, now: str
):
    in_a_cluster(node)
    call(node, "STATUS")
    of_before(node, unit, line, instead)
    call(node, "STATUS")
    serving = MEMBER if unit == MEMBER else SERVICE
    assert eventually(lambda: node.state(serving) == "active")
    old, others = node.said_of(serving, "MainPID"), {SERVICE, MEMBER} - {serving}
    before = [node.said_of(other, "MainPID") for other in others]
    assert f"installed {UNITS / unit}\n" in install(node)
    assert [node.said_of(it, "NeedDaemonReload") for it in (SOCKET, SERVICE, MEMBER)] == ["no"] * 3
    assert eventually(lambda: node.said_of(serving, "MainPID") != old and node.state(unit) == "active")
    assert node.said_of(unit, name) == now
    call(node, "STATUS")
    assert eventually(lambda: node.state(serving) == "active")
    assert [node.said_of(other, "MainPID") for other in others] == before
    old = node.said_of(serving, "MainPID")
    assert install(node) == "nothing to be installed\n"
    assert node.said_of(serving, "MainPID") == old


def test_what_was_disabled_or_ended_stays_so(node: BootedNode):
    """A release with another socket, and another agent's and member's unit, starts none of them."""
    node.run("systemctl", "disable", "--now", SOCKET, SERVICE)
    for unit, line in ((SOCKET, "Backlog=512"), (SERVICE, "UMask=0022"), (MEMBER, "UMask=0077")):
        of_before(node, unit, line, f"# {line}")
    install(node)
    assert [node.state(unit) for unit in (SOCKET, SERVICE, MEMBER)] == ["inactive"] * 3
    assert node.run("systemctl", "is-enabled", SOCKET, MEMBER, check=False).stdout.split() == ["disabled"] * 2
    call(node, "STATUS")


def named(node: BootedNode, network: str, option: str = "") -> None:
    """A network with names, as a call would leave it, and a pod of it that is probed where nothing listens."""
    for folder in ("here", "there"):
        node.run("mkdir", "-p", f"/run/agent-cni-names/{network}/{folder}")
    node.run("tee", PROBED.path, input=PROBED.text)
    folders = "".join(f"hostsdir=/run/agent-cni-names/{network}/{folder}\n" for folder in ("here", "there"))
    text = f"{option}listen-address=127.0.0.1\nbind-dynamic\nno-hosts\nno-resolv\npid-file=\n{folders}"
    node.run("tee", f"/run/agent-cni-names/{network}/dnsmasq.conf", input=text)


def processes(node: BootedNode, program: str) -> list[str]:
    return node.run("sh", "-c", f"grep -lsx {program} /proc/[0-9]*/comm || true").stdout.split()


def test_who_answers_for_names_starts_with_the_first_and_is_as_confined_as_its_unit_says(node: BootedNode):
    node.run("cp", ROOT / ".cache/dnsmasq/usr/sbin/dnsmasq", "/usr/local/bin/dnsmasq")
    assert (node.state(NAMED), node.state(NAMES)) == ("active", "inactive")
    assert node.run("stat", "-c", "%a", "/run/agent-cni-names").stdout == "755\n"
    named(node, "net")
    assert eventually(lambda: node.state(NAMES) == "active")
    assert eventually(lambda: processes(node, "dnsmasq"))
    assert eventually(lambda: "Connection refused" in node.run("cat", PROBED.path).stdout)
    status = "1 networks, 1 pods probed, 1 not answered"
    assert eventually(lambda: node.said_of(NAMES, "StatusText") == status)
    old = node.said_of(NAMES, "MainPID")
    node.run("kill", "-9", old)
    assert eventually(lambda: node.said_of(NAMES, "MainPID") not in (old, "0") and processes(node, "dnsmasq"))
    assert len(processes(node, "dnsmasq")) == 1
    assert "Operation not permitted" not in node.run("sh", "-c", "cat /var/log/agent-cni/* /run/journal").stdout
    node.run("agent-cni", "uninstall")
    assert not processes(node, "dnsmasq")
    assert node.run("ls", "/run").stdout.split().count("agent-cni-names") == 0


def test_a_recorder_of_flows_runs_where_somebody_enables_it_and_is_as_confined_as_its_unit_says(node: BootedNode):
    assert (node.state(FLOWS), node.run("systemctl", "is-enabled", FLOWS, check=False).stdout.strip()) == (
        "inactive",
        "disabled",
    )
    node.run("systemctl", "enable", "--now", FLOWS)
    assert node.state(FLOWS) == "active"
    assert node.said_of(FLOWS, "StatusText") == "0 connections seen, 0 denied, 0 events shed"
    assert node.run("stat", "-c", "%a", "/var/log/agent-cni/flows").stdout == "700\n"
    assert node.run("sysctl", "-n", "net.netfilter.nf_conntrack_acct").stdout == "1\n"
    old = node.said_of(FLOWS, "MainPID")
    assert node.run("awk", "{print $19}", f"/proc/{old}/stat").stdout == "19\n"
    node.run("kill", "-9", old)
    assert eventually(lambda: node.said_of(FLOWS, "MainPID") not in (old, "0") and node.state(FLOWS) == "active")
    assert "Operation not permitted" not in node.run("sh", "-c", "cat /var/log/agent-cni/*.log /run/journal").stdout
    node.run("agent-cni", "uninstall")
    assert node.state(FLOWS) == "inactive"


class _InNode:
    """A namespace of the node by its name there, as scenes have one."""

    def __init__(self, node: BootedNode, name: str) -> None:
        self._node, self._name = node, name

    def run(self, *argv: object, check: bool = True):
        return self._node.run("ip", "netns", "exec", self._name, *argv, check=check)


@pytest.mark.parametrize("conf", [CONF | {"policy": ALLOWED}, ELSEWHERE], ids=["bridge-vxlan", "macvlan"])
def test_the_gate_starts_with_the_first_pod_that_is_held_to_names_and_is_as_confined_as_its_unit_says(
    node: BootedNode, conf: dict[str, object]
):
    """What was let through before it was killed is still, and it is there anew; it sees namespaces that are younger than it."""
    outside(node)
    assert (node.state(HELD), node.state(GATE)) == ("active", "inactive")
    for number in (1, 2):
        node.run("ip", "netns", "add", f"pod{number}")
        node.run("ip", "-n", f"pod{number}", "link", "set", "lo", "up")  # as a runtime does
        call(node, "ADD", number, conf)
        assert eventually(lambda: node.state(GATE) == "active")
        pod, status = _InNode(node, f"pod{number}"), f"{number} pods"
        assert eventually(lambda: node.said_of(GATE, "StatusText") == status)  # noqa: B023  # asked at once
        pod.run("ip", "route", "replace", "default", "via", gateway_of(conf))
        assert eventually(lambda: (told := ask(pod, OUTSIDE, "api.example.com")) and told.addresses == ["198.51.100.7"])  # noqa: B023
        assert ask(pod, OUTSIDE, "evil.example").code == "REFUSED"
    assert node.run("agent-cni", "dnsgate", "--probe").stdout == "a DNS gate judges what pods of this host ask\n"
    old = node.said_of(GATE, "MainPID")
    node.run("kill", "-9", old)
    assert eventually(lambda: node.said_of(GATE, "MainPID") not in (old, "0") and node.state(GATE) == "active")
    assert eventually(lambda: ask(_InNode(node, "pod2"), OUTSIDE, "api.example.com"))
    assert "Operation not permitted" not in node.run("sh", "-c", "cat /var/log/agent-cni/* /run/journal").stdout
    for number in (1, 2):
        call(node, "DEL", number, conf)
    assert eventually(lambda: node.said_of(GATE, "StatusText") == "0 pods")
    node.run("agent-cni", "uninstall")
    assert node.state(GATE) == "inactive"


def gateway_of(conf: dict[str, object]) -> str:
    return "192.0.2.1" if conf["type"] == "macvlan" else "10.1.0.1"


def outside(node: BootedNode) -> None:
    """A link out of the node, and behind it a resolver."""
    node.run("ip", "netns", "add", "outside")
    node.run("ip", "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", "outside")
    node.run("ip", "link", "set", "up0", "up")
    node.run("ip", "address", "add", "192.0.2.1/24", "dev", "up0")
    for words in (
        "link set lo up",
        "link set eth0 up",
        f"address add {OUTSIDE}/24 dev eth0",
        "route add default via 192.0.2.1",
    ):
        node.run("ip", "-n", "outside", *words.split())
    node.run("mkdir", "-p", "/run/zone")
    held = {name: {"records": records, "how": ""} for name, records in ZONE.items()}
    told = f"nohup ip netns exec outside {PYTHON} -c \"$0\" '{json.dumps(held)}' /run/zone 53 {OUTSIDE} >/run/zone/log 2>&1 &"
    node.run("sh", "-c", told, SERVE)
    assert eventually(lambda: node.run("ls", "/run/zone/ready", check=False).returncode == 0)


def test_uninstall_ends_and_forgets_them(node: BootedNode):
    in_a_cluster(node)
    call(node, "STATUS")
    said = node.run("agent-cni", "uninstall", check=False)
    assert (said.returncode, "this host is in a cluster" in said.stderr) == (1, True)
    node.run("agent-cni", "leave", "--force")
    assert (node.state(MEMBER), node.state(SERVICE)) == ("inactive", "active")
    node.run("agent-cni", "uninstall")
    listed = node.run("systemctl", "list-units", "--all", "--no-legend", "--full", "agent-cni*").stdout
    files = node.run("systemctl", "list-unit-files", "--no-legend", "agent-cni*", check=False).stdout
    assert (listed, files) == ("", "")
    assert (
        node.run(
            "find", "/etc/systemd", "/opt", "/run/agent-cni", "-path", "*agent-cni*", "-type", "f", check=False
        ).stdout
        == ""
    )


def in_a_cluster(node: BootedNode) -> None:
    """With a member that runs; its store is away, which no boot waits for."""
    config = {"node": "here", "vtep": "192.0.2.11", "etcd": {"endpoints": ["http://127.0.0.1:9"]}}
    node.run("ip", "addr", "add", "192.0.2.11/32", "dev", "lo")
    node.run("mkdir", "-p", "/etc/agent-cni")
    node.run("tee", "/etc/agent-cni/cluster.json", input=json.dumps(config))
    node.run("systemctl", "enable", "--now", MEMBER)
    assert node.state(MEMBER) == "active"


def install(node: BootedNode) -> str:
    """What the release that is there put down."""
    return node.run("agent-cni", "install", "--systemd", "--link").stdout
