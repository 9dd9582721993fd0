"""Encrypted tunnels between hosts: what is on the wire, and what becomes of it when keys, devices and programs go."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from answers import within
from cluster import UNDERLAY, WIREGUARD, Cluster, Node, conf
from forge import send_vxlan
from lab import AGENT_CNI, PATIENCE, ROOT, Lab, eventually, sh
from wire import Wire

from cni.overlay.wireguard import DEVICE, PREFIX, vtep

PORT, VXLAN, MTU = 51820, 4789, 1500
#: WireGuard notices after 15 seconds that nobody answers (its whitepaper, 6.5).
SOON = 14
#: One end of tunnels, which is told whom to have as peers and says how it is.
END = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
from pathlib import Path
from cni.cluster.model import Node
from cni.member.encryption import Encryption
from cni.member.key import Key
from cni.overlay import wireguard
name, address, port = sys.argv[1:]
key = Key(Path("/run/agent-cni"))
end = Encryption(name, int(port), key)
for line in sys.stdin:
    verb, nodes = json.loads(line)
    if verb == "ensure":
        end.ensure(address, [Node.read(("nodes", name), value) for name, value in nodes.items()])
    changed = end.look() if verb == "look" else end.remove() if verb == "remove" else None
    public = "" if verb == "remove" else key.public
    me = Node(name, "0" * 32, wireguard.vtep(name), "fe:00:00:00:00:01", public, wireguard.underlay(address, int(port)))
    print(json.dumps({"me": me.value, "trouble": end.trouble, "refused": end.refused, "changed": changed}), flush=True)
"""


class End:
    """A host and the process that has its end of the tunnels. Use it with `with`."""

    def __init__(self, host: Node, family: int = 4, path: str = str(WIREGUARD)) -> None:
        self.host, self._family, self._path = host, family, path

    def __enter__(self) -> Self:
        command = [*self.host.prefix(), ROOT / ".venv/bin/python3", "-c", END]
        command += [self.host.name, self.host.underlay(self._family), str(PORT)]
        environ = os.environ | {"PATH": f"{self._path}:{os.environ['PATH']}"}
        self.process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environ)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, verb: str, **nodes: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{json.dumps([verb, nodes])}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    @property
    def me(self) -> dict[str, Any]:
        return self.ask("described")["me"]

    def ensure(self, *others: End) -> dict[str, Any]:
        """With others as peers."""
        return self.ask("ensure", **{end.host.name: end.me for end in (self, *others)})

    @property
    def vtep(self) -> str:
        return vtep(self.host.name)

    def wg(self, *words: str) -> str:
        """What `wg` says on the host."""
        return self.host.run(WIREGUARD / "wg", *words).stdout

    def heard(self) -> dict[str, int]:
        """When each peer proved its key."""
        return {
            key: int(when)
            for key, when in (line.split() for line in self.wg("show", DEVICE, "latest-handshakes").splitlines())
        }

    def reaches(self, other: End, seconds: int = PATIENCE) -> bool:
        return self.host.pings(other.vtep, seconds)

    def reaches_soon(self, other: End) -> bool:
        """Long before WireGuard itself would see that a session is gone."""
        return bool(eventually(lambda: self.reaches(other, 1), SOON))

    def send(self, other: End) -> OSError | None:
        """A VXLAN packet of ours to another host, and why it was not taken."""

        def sent() -> OSError | None:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as out:
                try:
                    out.sendto(b"\x08" + bytes(7) + b"cleartext", (other.vtep, VXLAN))
                except OSError as error:
                    return error
            return None

        return within(self.host, sent)

    def servers(self) -> list[int]:
        """The processes that serve the device on this host."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                same = str((process / "ns/net").readlink()) == f"net:[{Path(self.host.path).stat().st_ino}]"
                if same and (process / "comm").read_text().strip() == "wireguard-go" and (process / "exe").exists():
                    found.append(int(process.name))
            except OSError:
                continue
        return found


#: No call of a plugin is made by what has only ends of tunnels: with the node agent it would be the same.
ENDS = pytest.mark.sweep


@pytest.fixture
def ends(lab: Lab) -> Callable[..., Any]:
    """Makes ends on hosts of one wire."""

    @contextmanager
    def made(count: int = 2, family: int = 4, mtu: int = MTU) -> Iterator[list[End]]:
        hosts = [lab.add(Node(lab.name("host"), number=11 + number)) for number in range(count)]
        lab.underlay(*hosts, mtu=mtu)
        for host in hosts:
            sh("ip", "-n", host.name, "addr", "add", f"{UNDERLAY[6].format(host.number)}/64", "dev", "eth0", "nodad")
        with ExitStack() as stack:
            found = [stack.enter_context(End(host, family)) for host in hosts]
            yield found
            for end in found:
                end.ask("remove")
            assert eventually(lambda: not any(end.servers() for end in found))
            assert [left_on(end.host) for end in found] == [[]] * count

    return made


def left_on(host: Node) -> list[str]:
    links = [item["ifname"] for item in host.ip("link", "show") if item["ifname"] not in ("lo", "eth0")]
    routes = [route["dst"] for route in host.routes(6) if route["dst"] == str(PREFIX)]
    return [
        *links,
        *routes,
        *(item.name for item in (host.etc / "wireguard").iterdir()),
        *(item.name for item in host.folder.iterdir() if item.name != "agent.sock"),
    ]


def strangers(wire: Wire) -> list[bytes]:
    """What was on the wire and is neither the tunnels' nor what hosts of a wire say of themselves."""
    inside = ipaddress.IPv6Address(PREFIX[0]).packed[:6]
    return [frame for frame in wire.frames if inside in frame or not (is_tunnels(frame) or is_of_hosts(frame))]


def is_tunnels(frame: bytes) -> bool:
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00":
        return packet[9] == socket.IPPROTO_UDP and packet[22:24] == PORT.to_bytes(2, "big")
    return kind == b"\x86\xdd" and packet[6] == socket.IPPROTO_UDP and packet[42:44] == PORT.to_bytes(2, "big")


def is_of_hosts(frame: bytes) -> bool:
    """ARP, IGMP, ICMP, and ICMPv6 with its listeners' reports."""
    kind, packet = frame[12:14], frame[14:]
    protocol = {b"\x08\x00": packet[9], b"\x86\xdd": packet[6]}.get(kind)
    return kind == b"\x08\x06" or protocol in (0, socket.IPPROTO_ICMP, socket.IPPROTO_IGMP, socket.IPPROTO_ICMPV6)


@ENDS
@pytest.mark.parametrize("family", [4, 6])
def test_only_the_wireguard_port_is_on_the_wire_whatever_becomes_of_the_device(ends: Any, family: int):
    with ends(2, family) as (a, b), Wire(a.host, "eth0") as wire:
        assert a.ensure(b)["trouble"] == b.ensure(a)["trouble"] == ""
        assert a.reaches(b)
        link = a.host.link(DEVICE)
        assert link
        assert link["mtu"] == MTU - {4: 60, 6: 80}[family]
        whole = link["mtu"] - 48  # of ICMPv6 over IPv6
        assert a.host.run("ping", "-c", 1, "-W", PATIENCE, "-M", "do", "-s", whole, b.vtep).returncode == 0
        assert eventually(lambda: 14 + MTU in map(len, wire.frames))
        assert eventually(lambda: not a.ask("look")["changed"]), "the kernel routes to an IPv6 address a moment later"

        (server,) = a.servers()
        os.kill(server, signal.SIGKILL)
        assert eventually(lambda: a.send(b))
        assert a.ask("look")["changed"]
        assert a.ensure(b)["trouble"] == ""
        assert b.reaches_soon(a), "a session is begun by who was made again"

        sh("ip", "-n", a.host.name, "link", "delete", DEVICE)
        assert a.send(b)
        assert eventually(lambda: not a.servers())
        assert a.ask("look")["changed"]
        assert a.ensure(b)["trouble"] == ""
        assert a.reaches_soon(b)

        sh("ip", "-n", a.host.name, "link", "set", DEVICE, "down")
        assert a.send(b)
        sh("ip", "-n", a.host.name, "link", "set", DEVICE, "up")  # its address is gone
        assert a.ask("look")["changed"]
        assert a.ensure(b)["trouble"] == ""
        assert a.reaches_soon(b)
        assert a.send(b) is None
    assert strangers(wire) == []
    assert not wire.carried(b"cleartext")
    assert sum(map(is_tunnels, wire.frames)) > 10
    assert max(map(len, wire.frames)) == 14 + MTU


@ENDS
def test_a_tunnel_outlives_its_member_and_a_peer_does_not_notice_others(ends: Any):
    with ends(3) as (a, b, c):
        assert a.ensure(b)["trouble"] == b.ensure(a)["trouble"] == ""
        assert a.reaches(b)
        servers, heard, key = a.servers(), a.heard(), a.me["wireguard"]
        a.process.send_signal(signal.SIGINT)  # from a terminal, too
        a.process.wait(PATIENCE)
        assert a.reaches(b)
        with End(a.host) as again:
            assert again.me["wireguard"] == key
            assert again.ensure(b, c)["trouble"] == c.ensure(again)["trouble"] == ""
            assert (again.servers(), again.heard()[b.me["wireguard"]]) == (servers, heard[b.me["wireguard"]])
            assert again.reaches(c)
            assert again.ensure(c)["trouble"] == ""
            assert list(again.heard()) == [c.me["wireguard"]]
            assert not again.reaches(b, 1)
        a.__enter__()


@ENDS
def test_a_server_that_hangs_is_replaced_and_nothing_is_in_clear_meanwhile(ends: Any):
    with ends(2) as (a, b), Wire(a.host, "eth0") as wire:
        assert a.ensure(b)["trouble"] == b.ensure(a)["trouble"] == ""
        assert a.reaches(b)
        (server,), key = a.servers(), a.me["wireguard"]
        os.kill(server, signal.SIGSTOP)
        assert "wg did not end within 5 s" in a.ensure(b)["trouble"]
        a.send(b)
        assert a.servers() == [server], "it may only have been slow"
        assert a.ask("look")["changed"]
        assert a.ensure(b)["trouble"] == ""
        assert len(a.servers()) == 1
        assert a.servers() != [server]
        assert a.me["wireguard"] == key
        assert list(a.heard()) == [b.me["wireguard"]]
        assert a.reaches_soon(b)
        assert b.reaches_soon(a)
    assert strangers(wire) == []
    assert not wire.carried(b"cleartext")


@ENDS
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_another_key_is_in_use_within_seconds_at_both_ends(ends: Any, how: str):
    with ends(2) as (a, b):
        assert a.ensure(b)["trouble"] == b.ensure(a)["trouble"] == ""
        assert a.reaches(b)
        assert b.reaches(a)
        old, file = a.me["wireguard"], a.host.folder / "wireguard.key"
        file.unlink()
        if how == "replaced":
            file.touch(0o600)
            file.write_text(sh(WIREGUARD / "wg", "genkey").stdout)
        assert a.ask("look")["changed"]
        assert a.ensure(b)["trouble"] == ""
        assert not a.reaches(b, 1), "nobody knows this key yet"
        assert a.me["wireguard"] != old
        assert b.ensure(a)["trouble"] == ""
        assert list(b.heard()) == [a.me["wireguard"]]
        assert a.reaches_soon(b)
        assert b.reaches_soon(a)


@ENDS
def test_what_is_in_the_way_is_named_and_nothing_is_in_clear_until_it_is_gone(ends: Any):
    with ends(2) as (a, b), Wire(a.host, "eth0") as wire:
        assert b.ensure(a)["trouble"] == ""
        sh("ip", "-n", a.host.name, "link", "add", DEVICE, "type", "bridge")
        assert "not ours" in a.ensure(b)["trouble"]
        assert a.send(b)
        sh("ip", "-n", a.host.name, "link", "delete", DEVICE)

        def taken() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind(("0.0.0.0", PORT))
            return made

        with within(a.host, taken):
            assert (
                a.ensure(b)["trouble"] == f"encryption: UDP port {PORT} of this host is taken: WireGuard cannot have it"
            )
            assert a.send(b)
            assert a.ask("look")["changed"]
        sh("ip", "-n", a.host.name, "link", "set", "eth0", "mtu", 1300)
        assert "MTU 1300 of eth0 is too little for IPv6 in the tunnel: 1340 is needed" in a.ensure(b)["trouble"]
        sh("ip", "-n", a.host.name, "link", "set", "eth0", "mtu", MTU)
        sh("ip", "-n", a.host.name, "addr", "del", "192.0.2.11/24", "dev", "eth0")
        assert "no link of this host has its underlay address 192.0.2.11" in a.ensure(b)["trouble"]
        sh("ip", "-n", a.host.name, "addr", "add", "192.0.2.11/24", "dev", "eth0")
        (a.host.folder / "wireguard.key").chmod(0o644)
        assert "may be read by others (mode 644, not 600)" in a.ensure(b)["trouble"]
        assert a.send(b)
        (a.host.folder / "wireguard.key").chmod(0o600)
        for setting in ("all", "default"):
            a.host.run("sysctl", "-qw", f"net.ipv6.conf.{setting}.disable_ipv6=1")
        assert a.ensure(b)["trouble"] == ""
        assert a.reaches_soon(b)
    assert strangers(wire) == []


@ENDS
def test_without_the_programs_there_is_no_tunnel_and_it_is_said(ends: Any, tmp_path: Path):
    with ends(1) as (a,):
        with End(a.host, path=str(tmp_path)) as without:
            said = without.ensure()
            assert said["trouble"] == "encryption: the program wg is missing"
            assert "wireguard" not in said["me"]
            assert without.send(a)
        (tmp_path / "wg").symlink_to(WIREGUARD / "wg")
        with End(a.host, path=str(tmp_path)) as without:
            said = without.ensure()
            assert said["trouble"] == (
                f"encryption: this kernel has no WireGuard, and the program wireguard-go is missing: {DEVICE} cannot be made"
            )


def tunnelled(node: Node) -> str:
    """Why a host of a cluster has no tunnels; empty when it has."""
    member = node.remembered(lambda store: store.member())
    return member.no_tunnel if member else "no member"


def peers_of(node: Node) -> set[str]:
    """Whom a host sends to in its tunnels."""
    shown = node.run(WIREGUARD / "wg", "show", DEVICE, "allowed-ips", check=False).stdout.split()
    return set(shown[1::2])


def test_members_keep_the_tunnels_and_say_when_there_are_none(lab: Lab):
    with Cluster(lab, hosts=3) as cluster:
        a, b, c = cluster.nodes
        cluster.join(a, b, encryption="wireguard")
        assert eventually(lambda: tunnelled(a) == tunnelled(b) == "")
        assert eventually(lambda: a.pings(vtep(b.name), 1))
        cluster.join(c, encryption="wireguard")
        for node in cluster.nodes:
            others = {f"{vtep(other.name)}/128" for other in cluster.nodes if other is not node}
            assert eventually(lambda: peers_of(node) == others)  # noqa: B023 - asked at once
        assert eventually(lambda: c.pings(vtep(a.name), 1))

        environ = os.environ | {"PATH": f"{WIREGUARD}:{os.environ['PATH']}"}
        key = a.run(AGENT_CNI, "join", "--rotate-key", env=environ).stdout.split()[-1]
        assert eventually(lambda: key in b.run(WIREGUARD / "wg", "show", DEVICE, "peers").stdout)
        assert eventually(lambda: b.pings(vtep(a.name), 1), SOON)

        a.kill()
        assert eventually(lambda: a.pings(vtep(b.name), 1), SOON), "tunnels outlive the member"
        with within(b, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
            b.pause()
            os.kill(End(b).servers()[0], signal.SIGKILL)
            assert eventually(lambda: not b.link(DEVICE))
            other.bind(("0.0.0.0", PORT))
            b.go_on()
            assert eventually(lambda: f"UDP port {PORT} of this host is taken" in tunnelled(b))
        assert eventually(lambda: tunnelled(b) == "")
        assert eventually(lambda: b.pings(vtep(c.name), 1), SOON)


@pytest.mark.parametrize(("mode", "family"), [("l2", 4), ("l3", 6)])
def test_pods_of_all_hosts_talk_by_the_tunnels_alone_whatever_becomes_of_them(lab: Lab, mode: str, family: int):
    with Cluster(lab, hosts=3, family=family) as cluster, ExitStack() as wires:
        a, b, c = cluster.nodes
        seen = [wires.enter_context(Wire(node, "eth0")) for node in cluster.nodes]
        network = conf(mode, ipMasq=True)
        cluster.join(encryption="wireguard")
        for node in cluster.nodes:
            cluster.add(node, network)
        cluster.meshed()
        first, second, third = cluster.placed
        mtu = 1500 - {4: 60, 6: 80}[family] - 70
        assert [item["mtu"] for item in first.result["interfaces"] if item.get("sandbox")] == [mtu]
        for version, headers in ((4, 28), (6, 48)):
            whole = ("ping", "-c", 1, "-W", PATIENCE, "-M", "do", "-s", mtu - headers, second.address(version))
            assert first.pod.run(*whole, check=False).returncode == 0

        for again in (
            lambda: os.kill(End(a).servers()[0], signal.SIGKILL),
            lambda: sh("ip", "-n", a.name, "link", "delete", DEVICE),
            (a.folder / "wireguard.key").unlink,
            lambda: (a.kill(), End(a).servers() and sh("ip", "-n", a.name, "link", "delete", DEVICE), a.start()),
        ):
            again()
            cluster.faults(asked=1)  # what they send meanwhile is nobody's to read
            cluster.meshed(SOON * 2)

        a.pause()
        os.kill(End(a).servers()[0], signal.SIGKILL)
        with within(a, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as taken:
            assert eventually(lambda: not a.link(DEVICE))
            taken.bind(("::", PORT))
            a.go_on()
            taken_port = f"UDP port {PORT} of this host is taken"
            assert eventually(lambda: taken_port in tunnelled(a))
            pod = lab.pod()
            why = f"packets between hosts are to be encrypted, and cannot be: encryption: {taken_port}"
            assert a.cni("ADD", network, pod).failed(11).startswith(why)
            assert a.cni("STATUS", network).failed(51).startswith(why)
            assert [line for line in cluster.faults(asked=1) if line.startswith(first.pod.name)]
        assert eventually(lambda: not tunnelled(a))
        cluster.meshed(SOON * 2)
        a.add(network, pod)
        a.delete_pod(network, pod)

        cluster.remove(third)
        c.stop()
        assert eventually(lambda: not cluster.alive(c))
        b.run(AGENT_CNI, "node", "remove", c.name)
        assert eventually(lambda: peers_of(a) == {f"{vtep(b.name)}/128"})
    for wire in seen:
        assert [frame for frame in strangers(wire) if not is_of_the_store(frame)] == []
        assert sum(map(is_tunnels, wire.frames)) > 10


def is_of_the_store(frame: bytes) -> bool:
    """What hosts say to etcd."""
    packet = frame[14 + {b"\x08\x00": 20, b"\x86\xdd": 40}.get(frame[12:14], 0) :]
    return 2379 in struct.unpack("!HH", packet[:4])


@pytest.mark.parametrize("encryption", ["", "wireguard"])
def test_a_pod_puts_no_frames_before_others_by_way_of_its_host(lab: Lab, encryption: str):
    """Behind its host's address, or with another's, it would be one of those who may send VXLAN."""
    with Cluster(lab, hosts=2) as cluster:
        a, b = cluster.nodes
        cluster.join(encryption=encryption)
        network = conf(ipMasq=True)
        mine, near, far = (cluster.add(node, network) for node in (a, a, b))
        cluster.meshed()
        for claimed in (b.underlay(), b.underlay(6), vtep(b.name)):
            mine.pod.run("ip", "addr", "add", claimed, "dev", "eth0", *(["nodad"] if ":" in claimed else []))
        four, six = mine.address(4), mine.address(6)
        for at, source, target in (
            (far, four, b.underlay()), (far, six, b.underlay(6)), (far, six, vtep(b.name)),
            (near, b.underlay(), a.underlay()), (near, b.underlay(6), a.underlay(6)), (near, vtep(b.name), vtep(a.name)),
        ):  # fmt: skip
            mac = next(item["mac"] for item in at.result["interfaces"] if item.get("sandbox"))
            frame = (
                bytes.fromhex(f"{mac}0a5800000001".replace(":", "")) + b"\x88\xb5" + b"forged by a pod".ljust(60, b".")
            )
            with Wire(at.pod, "eth0") as wire:
                send_vxlan(mine.pod, source, target, 100, frame)
            assert not wire.carried(b"forged"), (source, target)


def test_a_cluster_with_pods_is_encrypted_from_when_its_members_are_told(lab: Lab):
    with Cluster(lab, hosts=2) as cluster:
        cluster.join()
        network = conf()
        for node in cluster.nodes:
            (node.folder / "net.d").mkdir()
            (node.folder / "net.d/10.conf").write_text(json.dumps(network))
            cluster.add(node, network)
        cluster.meshed()
        for node in cluster.nodes:
            node.stop()
        cluster.partition(*cluster.nodes)
        for node in cluster.nodes:
            cluster.configure(node, encryption="wireguard")
            node.start()
        assert eventually(lambda: cluster.faults(asked=1)), "nothing was heard yet, and nothing is in clear any more"
        cluster.heal()
        for node in cluster.nodes:
            assert eventually(lambda: sent_to(node) == vtep(node.name) and cluster.joined(node))  # noqa: B023 - asked at once
        with Wire(cluster.nodes[0], "eth0") as wire:
            assert cluster.faults(asked=1), "their devices are those of before"
        assert [frame for frame in strangers(wire) if not is_of_the_store(frame)] == []
        for node in cluster.nodes:
            node.run(AGENT_CNI, "refresh", "--conf-dir", "/run/agent-cni/net.d")
        cluster.meshed()


def sent_to(node: Node) -> str:
    """Where others send to a host, by its state."""
    member = node.remembered(lambda store: store.member())
    return member.vtep if member else ""
