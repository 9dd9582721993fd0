"""What the doctor finds of a host's part in its cluster. The other hosts are really asked in netns-tests/cluster."""

from __future__ import annotations

import json
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory
from member_host import Host, network

from cni.cluster.model import Endpoint, Network, Node
from cni.command.doctor import doctor, membership
from cni.kernel.wireguard import Peer, Shown, Tunnel
from cni.member import metrics
from cni.member.metrics import Server
from cni.naming import Attachment
from cni.resources import VxlanLink
from cni.state import Record
from cni.state.daemons import MEMBER, alone
from cni.state.membership import LOST, Member
from cni.values import replace

NET = network()


class Line:
    """This host's links: the one with its VTEP, and the tunnel."""

    def __init__(self, mtu: int = 1500, tunnel: int = 1450, holds: bool = True) -> None:
        self.mtu, self.tunnel, self.holds = mtu, tunnel, holds

    def __call__(self) -> Line:
        return self

    def close(self) -> None: ...

    def holding(self, address: object) -> int:
        return 2 if self.holds else 0

    def link_by_index(self, index: int) -> Any:
        return Namespace(name="eth0", mtu=self.mtu)

    def link_by_name(self, name: str) -> Any:
        return Namespace(name=name, mtu=self.tunnel)


@dataclass
class Scene:
    here: Host
    there: Host
    file: Path
    line: Line

    def found(self) -> dict[str, str]:
        return {item.line: item.mend for item in membership.cluster_faults(Namespace(config=self.file))}

    @property
    def member(self) -> Member:
        with closing(self.here.state) as state:
            found = state.member()
        assert found
        return found

    def configure(self, **keys: Any) -> None:
        self.file.write_text(json.dumps({"node": "a", "etcd": {"endpoints": ["http://192.0.2.2:2379"]}} | keys))


@pytest.fixture
def scene(no_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Two hosts of one cluster; the member of this one runs, and nothing is wrong."""
    memory = Memory()
    for folder in (no_node, tmp_path / "there"):
        folder.mkdir(mode=0o700)
    scene = Scene(Host("a", memory, no_node), Host("b", memory, tmp_path / "there"), tmp_path / "cluster.json", Line())
    scene.configure()
    for host in (scene.here, scene.there):
        host.share(NET)
        host.turn(3)
    monkeypatch.setattr(membership, "DEFAULT_FOLDER", no_node)
    monkeypatch.setattr(membership, "store_of", lambda config: scene.here.store)
    monkeypatch.setattr(membership, "Rtnl", lambda: scene.line)
    monkeypatch.setattr(membership, "_MOMENT", 0)
    monkeypatch.setattr(membership.far_rows, "faults", lambda *_: set())
    monkeypatch.setattr(membership.vteps, "unreachable", lambda vteps, port: {})
    with alone(MEMBER):
        yield scene


def record(scene: Scene, container: str, pod: str = "") -> None:
    link = VxlanLink("vxlan100", 100, 4789, "", "", 1450, "br0")
    with closing(scene.here.state) as state, state.transaction():
        state.put(Record(Attachment("net", container, "eth0"), "bridge-vxlan", "/run/netns/x", pod, {}, (link,)))


def only(found: dict[str, str]) -> tuple[str, str]:
    assert len(found) == 1, found
    return found.popitem()


def test_nothing_is_wrong_with_a_host_whose_member_does_its_work(scene: Scene):
    assert scene.found() == {}


def test_a_host_in_no_cluster_is_not_asked(no_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(membership, "DEFAULT_FOLDER", no_node)
    options = Namespace(config=tmp_path / "none")
    assert list(membership.cluster_faults(options)) == []
    assert not membership.is_in_cluster(options)
    assert doctor._fine("cluster", options) == "none"
    assert not no_node.exists()


def test_a_configuration_that_is_gone_or_wrong_is_named(scene: Scene):
    scene.file.write_text('{"etcd": {}}')
    line, mend = only(scene.found())
    assert "'endpoints' is a required property" in line
    assert "cluster.json" in mend
    scene.file.unlink()
    assert "this host is in no cluster, there is no" in only(scene.found())[0]


def test_a_host_without_a_member_is_told(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(membership, "is_running", lambda _: False)
    line, mend = only(scene.found())
    assert line.startswith("no member runs on this host")
    assert "agent-cni join" in mend


def test_a_member_that_stands_still_is_told_by_the_store(scene: Scene):
    scene.here.store.memory.end_session("a")
    line, mend = only(scene.found())
    assert "has not heard of a for a session" in line
    assert "systemctl restart agent-cni-member" in mend


def test_a_store_that_is_away_is_told_once_and_since_when(scene: Scene):
    scene.here.store.cut = True
    assert "look at etcd at http://192.0.2.2:2379" in only(scene.found())[1]
    scene.here.turn()
    line, mend = only(scene.found())
    assert "the cluster's store is not reached" in line
    assert "since 20" in line
    assert "etcd" in mend


def test_a_name_that_is_anothers_is_told_with_both_ways_out(scene: Scene, tmp_path: Path):
    clone = Host("a", scene.here.store.memory, scene.here.folder, machine="another")
    clone.turn()
    (line,) = [line for line in scene.found() if "may not be" in line]
    assert "agent-cni node remove a" in scene.found()[line]
    assert "agent-cni join --node" in scene.found()[line]


def test_another_name_with_blocks_of_before_is_told_with_both_ways_out(scene: Scene):
    renamed = Host("z", scene.here.store.memory, scene.here.folder, machine=scene.here.machine)
    renamed.turn()
    (line,) = [line for line in scene.found() if "it cannot be z" in line]
    assert "agent-cni join --node a, " in scene.found()[line]
    assert "agent-cni leave" in scene.found()[line]


def test_a_network_the_cluster_has_otherwise_is_told(scene: Scene):
    scene.here.share(replace(NET, vni=101))
    scene.here.turn()
    line, mend = only(scene.found())
    assert line.startswith("network net: the cluster has net differently: vni is 101 here and 100 there")
    assert "alike on every host" in mend


def test_two_networks_of_one_vni_are_told(scene: Scene):
    scene.there.share(network("other", "10.20.0.0/24"))
    scene.there.turn(2)
    assert only(scene.found())[0] == "networks net and other have one VNI, 100: their pods share a wire"


def test_networks_without_an_overlay_have_no_vni_in_common(scene: Scene):
    scene.there.share(network("one", "10.20.0.0/24", vni=0), network("two", "10.30.0.0/24", vni=0))
    scene.there.turn(2)
    assert scene.found() == {}


def test_a_block_that_is_another_hosts_is_told_with_the_pods_it_cuts_off(scene: Scene):
    address = scene.here.add("0123456789abcdef", NET)
    record(scene, "0123456789abcdef", "default/web")
    scene.here.turn()
    with closing(scene.here.state) as state, state.transaction():
        (block,) = [item.block for item in state.blocks("net") if item.leased]
        state.put_block(block, LOST)
    (line,) = [line for line in scene.found() if "another host's" in line]
    assert line == f"block {block.span} of network net is another host's by now; cut off: default/web ({address})"
    assert "delete these pods" in scene.found()[line]


def test_what_the_member_leaves_undone_is_told_and_what_it_is_about_to_do_is_not(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    assert scene.here.add("one", NET)
    with closing(scene.here.state) as state, state.transaction():
        state.wish("net", 4, "10.10.0.9")
    assert list(scene.found()) == [
        "network net: 1 addresses are not told to the cluster",
        "network net: a call waits for 10.10.0.9",
    ]
    monkeypatch.setattr(membership.time, "sleep", lambda _: scene.here.turn(2))
    assert scene.found() == {}


def test_of_addresses_in_no_block_nobody_waits_to_be_told(scene: Scene):
    """What is to be done is another thing: their pods are to go."""
    address = scene.here.add("one", NET)
    scene.here.turn()
    with closing(scene.here.state) as state, state.transaction():
        state.say([Endpoint("net", "10.99.0.9", "a", "0a:00:00:00:00:09", "two", "eth0")], "bridge-vxlan")
    assert scene.found() == {}
    with closing(scene.here.state) as state, state.transaction():
        state.lease(Attachment("net", "three", "eth0"), "bridge-vxlan", ip_address("10.99.0.8"))
    line, mend = only(scene.found())
    assert line == "network net: pods have addresses that are in no block of this host, such as 10.99.0.8"
    assert mend.startswith("delete them")
    assert address not in line


def test_a_host_past_its_fence_is_told(scene: Scene):
    member = scene.member
    with closing(scene.here.state) as state, state.transaction():
        state.put_member(replace(member, fenced_at=1.0))
    scene.configure(freeAfter=600)
    line, mend = only(scene.found())
    assert line == "no address is given here: the cluster has not heard of this host for half of freeAfter, 600 s"
    assert "three quarters" in mend


def test_an_address_the_host_lost_is_told(scene: Scene):
    scene.line.holds = False
    line, mend = only(scene.found())
    assert line.endswith("which the others send to")
    assert "--vtep" in mend


@pytest.mark.parametrize(("mtu", "tunnel", "fits"), [(1500, 1450, True), (1499, 1450, False), (1400, 1350, True)])
def test_an_underlay_too_small_for_the_pods_is_told(scene: Scene, mtu: int, tunnel: int, fits: bool):
    record(scene, "one")
    scene.line.mtu, scene.line.tunnel = mtu, tunnel
    found = scene.found()
    assert (found == {}) is fits
    assert (
        fits
        or only(found)[0] == f"vxlan100 has MTU {tunnel}, and eth0 has room for {mtu - 50}: larger packets are lost"
    )


def test_a_host_that_does_not_answer_is_told_by_its_name(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def unreachable(vteps: list[str], port: int) -> dict[str, str]:
        asked.append((vteps, port))
        return {vteps[0]: "the host does not answer"}

    monkeypatch.setattr(membership.vteps, "unreachable", unreachable)
    record(scene, "one")
    vtep = scene.there.config.vtep
    line, mend = only(scene.found())
    assert line == f"b at {vtep}, UDP port 4789: the host does not answer"
    assert mend == "look at that host, and at what filters UDP port 4789"
    assert asked == [([vtep], 4789)]
    scene.here.store.memory.end_session("b")
    assert scene.found() == {}, "nobody asks a host that is known to be away"


def test_a_peer_that_never_proved_its_key_is_told_by_its_name(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    other = Node("b", "b-machine", "fd00::b", "0a:00:00:00:00:02", "its key", "192.0.2.99:51820")
    session = scene.there.keeper.session
    assert session
    scene.there.store.announce(session, other)
    member = scene.member
    with closing(scene.here.state) as state, state.transaction():
        state.put_member(replace(member, encryption="wireguard"))
    heard = 0
    peer = Peer("its key", "fd00::b/128", "192.0.2.99:51820")
    monkeypatch.setattr(
        membership.wireguard, "show", lambda name: Shown("", 51820, {"its key": Tunnel(peer, heard, 0, 0)})
    )
    line, mend = only(scene.found())
    assert line == "no tunnel to b: nobody with its key answers at 192.0.2.99:51820"
    assert "UDP port 51820" in mend
    heard = 1
    assert scene.found() == {}


def test_what_the_store_has_that_nobody_can_read_is_told_by_its_key(scene: Scene):
    scene.here.store.memory.put_text(("nodes", "x"), "no JSON")
    line, mend = only(scene.found())
    assert line.startswith("nodes/x in the store: ")
    assert mend == "look who writes there, then etcdctl del /agent-cni/nodes/x"


class _Other(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("who", ["a member", "somebody else", "nobody"])
def test_a_port_of_metrics_that_somebody_else_has_is_told(scene: Scene, who: str):
    make: dict[str, Callable[[], HTTPServer | Server]] = {
        "a member": lambda: Server("127.0.0.1:0", {"/healthz": lambda: ""}, metrics.told),
        "somebody else": lambda: HTTPServer(("127.0.0.1", 0), _Other),
        "nobody": lambda: HTTPServer(("127.0.0.1", 0), _Other),
    }
    with make[who]() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        if who == "nobody":
            server.shutdown()
            server.server_close()
        scene.configure(metrics=f"127.0.0.1:{server.server_address[1]}")
        found = scene.found()
        if who != "nobody":
            server.shutdown()
        thread.join()
    assert bool(found) is (who != "a member")
    assert all("--metrics" in mend for mend in found.values())


def test_networks_are_of_the_same_kind_as_in_the_store(scene: Scene):
    """What is looked at is really there: else nothing wrong would be found."""
    items = scene.here.store.listing().items
    assert {type(item) for item in items} >= {Network, Node}
