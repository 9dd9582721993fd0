"""What can be seen of a cluster: figures that are what happened, and a doctor who names what is broken."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from answers import within
from authority import Authority, Mounted
from cluster import PREFIX, WIREGUARD, Cluster, Node, conf
from lab import AGENT_CNI, ROOT, Lab, eventually, sh
from prometheus_client.parser import text_string_to_metric_families

from cni.cluster.model import Block, Endpoint
from cni.naming import Attachment

METRICS = "127.0.0.1:9402"
PYTHON = ROOT / ".venv/bin/python3"


class Figures:
    """What a host's member says of itself, by name and the values of its labels."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def __call__(self, name: str, *labels: str) -> float:
        """A value; of nothing that was said -1."""
        return self.all().get((f"agent_cni_{name}", *sorted(labels)), -1.0)

    def all(self) -> dict[tuple[str, ...], float]:
        text = within(
            self.node, lambda: urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10).read().decode()
        )
        families = text_string_to_metric_families(text)
        return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def doctor(node: Node) -> dict[str, str]:
    """What is wrong with a host's part in its cluster, and what mends it."""
    environ = os.environ | {"PATH": f"{WIREGUARD}:{os.environ['PATH']}"}
    found = json.loads(node.run(AGENT_CNI, "doctor", "--json", check=False, env=environ).stdout)["cluster"]
    return {item["what"]: item["mend"] for item in found}


@contextmanager
def broken(node: Node, what: str, mend: str) -> Iterator[None]:
    """Something that was done is told, with what mends it; when it is undone, nothing is wrong any more."""
    last: dict[str, str] = {}

    def is_told() -> bool:
        last.clear()
        last.update(doctor(node))
        return any(what in line and mend in advice for line, advice in last.items())

    assert eventually(is_told), (what, last, node.said())
    assert len(last) == 1, last
    yield
    assert eventually(lambda: doctor(node) == {}), (doctor(node), node.said())


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_figures_are_what_happened(lab: Lab, mode: str):
    net = conf(mode)
    with Cluster(lab, hosts=2) as cluster:
        one, two = cluster.nodes
        cluster.join(metrics=METRICS)
        here, there = Figures(one), Figures(two)
        pods = [cluster.add(one, net) for _ in range(3)]
        other = cluster.add(two, net)
        asked = other.addresses[0]
        refused = one.cni("ADD", net, lab.pod(), CNI_ARGS=f"IP={asked}")
        assert f"is in a block of {two.name}" in refused.failed(102)
        assert here("call_seconds_count", "bridge-vxlan", "ADD", "0") == 3
        assert here("call_seconds_count", "bridge-vxlan", "ADD", "102") == 1
        assert here("call_failures_total", "bridge-vxlan", "ADD") == 1
        assert there("call_seconds_count", "bridge-vxlan", "ADD", "0") == 1
        assert here("attachments", "net", "bridge-vxlan", "complete") == 3
        assert here("addresses_leased", "net", "4") == here("block_addresses_leased", "net", "4") == 3

        items = cluster.listing()
        known = [item for item in items if isinstance(item, Endpoint)]
        blocks = [item for item in items if isinstance(item, Block)]

        def are_heard(who: Figures, many: int) -> bool:
            return who("endpoints", "net") == (many if mode == "l2" else -1)  # in l3 nobody goes by them

        assert eventually(lambda: are_heard(here, len(known)) and are_heard(there, len(known)))
        assert here("nodes", "alive") == 2
        assert here("nodes", "away") == 0
        if mode == "l2":
            far = [item for item in known if item.node == one.name]
            assert eventually(lambda: there("rows", "PeerNeighbour") == len(far))
            assert eventually(lambda: there("rows", "PeerRow") == len({item.mac for item in far}))
        else:
            ways = [item for item in blocks if item.node == one.name]
            assert eventually(lambda: there("rows", "PeerRoute") == len(ways))
        assert there("blocks", "net", "4", "held") == len(
            [item for item in blocks if item.node == two.name and item.addresses.version == 4]
        )
        assert here("endpoints_published_total", "there") == len([item for item in known if item.node == one.name])
        assert here("endpoints_unpublished", "net") == 0
        assert here("session_renewals_total") >= 0
        assert here("store_silence_seconds") < 60
        assert here("member_info", one.name, "") == 1
        assert (here("mends_total", "PeerRow"), there("mends_total", "PeerRow")) == (-1, -1)

        shown = json.loads(one.run(AGENT_CNI, "show", "--json").stdout)
        assert [(item["node"], item["state"]) for item in shown["cluster"]] == [(one.name, "well")]
        assert [(item["network"], item["mode"], item["used"], item["state"]) for item in shown["networks"]] == [
            ("net", mode, 6, "agreed")
        ]
        picture = one.run(AGENT_CNI, "show", "--graph", "-").stdout
        assert f">{two.name}</text>" in picture
        assert ">1 pod</text>" in picture
        lines = json.loads(one.run(AGENT_CNI, "trace", pods[0].pod.container, "--json").stdout)
        assert sorted(line["verb"] for line in lines) == ["ADD", "publish", "publish"]

        # its first pod took rows to the bridge
        taken = max(0, there("row_changes_total", "PeerNeighbour", "taken"))
        cluster.remove(pods.pop())
        assert eventually(lambda: here("call_seconds_count", "bridge-vxlan", "DEL", "0") == 1)
        assert eventually(lambda: are_heard(there, len(known) - 2))
        if mode == "l2":  # in l3 a pod is no row
            assert there("row_changes_total", "PeerNeighbour", "taken") == taken + 2
            assert there("convergence_seconds_count") >= 1
            assert there("convergence_seconds_sum") < 60

        far = next(
            item for item in two.run("bridge", "fdb", "show", "dev", "vxlan100").stdout.splitlines() if "dst" in item
        )
        two.run("bridge", "fdb", "del", far.split()[0], "dev", "vxlan100", "self")
        assert eventually(lambda: there("mends_total", "PeerRow") == 1)

        assert here("store_listings_total") >= 1
        cluster.etcd.kill(0)
        assert eventually(lambda: here("member_troubled") == 1 and here("store_errors_total", "unreachable") >= 1)
        placed = cluster.add(one, net)
        assert eventually(lambda: here("endpoints_unpublished", "net") == 2)  # an answer is kept for a second
        assert are_heard(here, len(known) - 2)
        cluster.etcd.start(0)
        assert eventually(lambda: here("endpoints_unpublished", "net") == 0 and here("member_troubled") == 0)
        assert eventually(lambda: are_heard(there, len(known)))
        assert eventually(lambda: here("store_silence_seconds") < 10)
        cluster.remove(placed)
        text = one.run(AGENT_CNI, "metrics").stdout
        assert 'agent_cni_call_seconds_count{plugin="bridge-vxlan",verb="ADD",code="0"} 4' in text


@pytest.mark.sweep  # the doctor is asked, and no call
def test_what_is_broken_is_named_with_what_mends_it(lab: Lab):
    net = conf(families="4")
    with Cluster(lab, hosts=2, session=2) as cluster:
        one, two = cluster.nodes
        cluster.join()
        placed = cluster.add(one, net)
        cluster.add(two, net)
        cluster.settle()
        assert doctor(one) == doctor(two) == {}

        one.pause()
        with broken(one, f"the cluster has not heard of {one.name} for a session", "systemctl restart"):
            one.go_on()
        one.kill()
        assert any("no member runs on this host" in line for line in doctor(one))
        far = next(
            line for line in one.run("bridge", "fdb", "show", "dev", "vxlan100").stdout.splitlines() if "dst" in line
        )
        one.run("bridge", "fdb", "del", far.split()[0], "dev", "vxlan100", "self")
        one.run("ip", "neigh", "add", "10.10.99.99", "lladdr", "0a:58:0a:0a:63:63", "dev", "br0", "nud", "permanent", "proto", "172")  # fmt: skip
        found = doctor(one)
        assert any(
            "1 of the rows to other hosts are missing, such as" in line and far.split()[0] in line for line in found
        )
        assert any(
            "1 of the rows to other hosts are wanted by nobody, such as neighbour 10.10.99.99" in line for line in found
        )
        assert all("agent-cni join" in mend for mend in found.values())
        assert eventually(lambda: two.remembered(lambda state: state.away().get(one.name)))
        assert f"no, since {time.strftime('%Y-%m-%d', time.gmtime())} " in two.run(AGENT_CNI, "node").stdout
        cluster.join(one)
        assert eventually(lambda: doctor(one) == {}), doctor(one)
        assert eventually(lambda: two.remembered(lambda state: state.away()) == {})

        cluster.etcd.kill(0)
        with broken(one, "the cluster's store is not reached", "look at etcd at http"):
            cluster.etcd.start(0)
            assert eventually(lambda: cluster.joined(one) and cluster.joined(two))

        two.run("nft", "-f", "-", input="table inet x { chain in { type filter hook input priority -200; udp dport 4789 reject; }; }")  # fmt: skip
        with broken(one, f"{two.name} at {two.underlay()}, UDP port 4789", "what filters UDP port 4789"):
            two.run("nft", "delete", "table", "inet", "x")

        sh("ip", "-n", one.name, "link", "set", "eth0", "mtu", "1400")
        with broken(one, "vxlan100 has MTU 1450, and eth0 has room for 1350", "raise the MTU of eth0"):
            sh("ip", "-n", one.name, "link", "set", "eth0", "mtu", "1500")

        assert one.cni("ADD", net | {"vxlan": {"id": 101}}, lab.pod()).failed(101)
        with broken(one, "the cluster has net differently: vni is 101 here and 100 there", "alike on every host"):
            cluster.remove(placed)
            cluster.add(one, net)

        cluster.etcd.put(f"{PREFIX}/nodes/odd", "no JSON")
        with broken(one, "nodes/odd in the store", f"etcdctl del {PREFIX}/nodes/odd"):
            cluster.etcd.ctl("del", f"{PREFIX}/nodes/odd")

        other = cluster.add(two, conf(name="other", families="4", bridge="br1", ipam={"ranges": [[{"subnet": "10.20.0.0/16"}]]}, vxlan={"id": 200}))  # fmt: skip
        assert eventually(lambda: doctor(one) == {})
        said = json.loads(cluster.etcd.ctl("get", "--print-value-only", f"{PREFIX}/networks/other"))
        cluster.etcd.put(f"{PREFIX}/networks/third", json.dumps(said | {"vni": 200}))
        with broken(one, "networks other and third have one VNI, 200", "its own vxlan.id"):
            cluster.etcd.ctl("del", f"{PREFIX}/networks/third")
        cluster.remove(other)


@pytest.mark.sweep  # the doctor is asked, and no call
def test_a_host_that_was_taken_for_dead_is_told_which_pods_are_cut_off(lab: Lab):
    net = conf(families="4", block=8)
    with Cluster(lab, hosts=2, session=2) as cluster:
        one, two = cluster.nodes
        cluster.join(metrics=METRICS)
        placed = cluster.add(two, net)
        cluster.settle()
        two.pause()
        assert eventually(lambda: not cluster.alive(two))
        one.run(AGENT_CNI, "node", "remove", two.name)
        taken = cluster.lab.pod()
        one.cni("ADD", net, taken, CNI_ARGS=f"IP={placed.addresses[0]}").ok()
        two.go_on()
        line = f"cut off: {placed.pod.container[:13]} ({placed.addresses[0]})"
        with broken(two, line, "delete these pods"):
            assert Figures(two)("blocks", "net", "4", "lost") == 1
            found = json.loads(two.run(AGENT_CNI, "doctor", "--json", check=False).stdout)
            assert found["attachments"] == []  # what the member did on purpose is no fault of the pod's
            two.pause()  # who sets the port up then, nobody sets it down again
            done = two.run(AGENT_CNI, "repair", "--all", "--conf-dir", "/nowhere", check=False)
            assert (done.returncode, "it is cut off; delete the pod" in done.stderr) == (1, True), done
            port = two.link(Attachment(net["name"], placed.pod.container, "eth0").host_interface)
            assert port
            assert "UP" not in port["flags"]
            two.go_on()
            cluster.remove(placed)
        one.cni("DEL", net, taken).ok()


@pytest.mark.sweep  # the doctor is asked, and no call
def test_who_may_not_be_who_he_says_and_a_port_that_is_taken_are_told(lab: Lab):
    with Cluster(lab, hosts=1, session=2) as cluster:
        (one,) = cluster.nodes
        cluster.join()
        clone = cluster.more()
        cluster.configure(clone)
        file = clone.etc / "agent-cni/cluster.json"
        file.write_text(file.read_text().replace(clone.name, one.name))
        clone.start()
        assert eventually(lambda: any("may not be" in line for line in doctor(clone))), (doctor(clone), clone.said())
        (mend,) = (mend for line, mend in doctor(clone).items() if "may not be" in line)
        assert f"agent-cni node remove {one.name}" in mend
        clone.kill()

        script = "import socket; it = socket.create_server(('127.0.0.1', 9402)); print(flush=True); input()"
        command = ["nsenter", f"--net={one.path}", PYTHON, "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taker:
            assert taker.stdout
            taker.stdout.readline()
            one.kill()
            cluster.join(one, metrics=METRICS)
            with broken(one, f"the member does not answer at {METRICS}", "--metrics"):
                taker.send_signal(signal.SIGKILL)
                taker.wait()
        assert Figures(one)("member_troubled") == 0


@pytest.mark.sweep
def test_a_tunnel_nobody_answers_in_is_told_by_its_hosts_name(lab: Lab):
    net = conf(families="4")
    with Cluster(lab, hosts=2, session=2) as cluster:
        one, two = cluster.nodes
        two.run("nft", "-f", "-", input="table inet x { chain in { type filter hook input priority -200; udp dport 51820 drop; }; chain out { type filter hook output priority -200; udp sport 51820 drop; }; }")  # fmt: skip
        cluster.join(encryption="wireguard", metrics=METRICS)
        cluster.add(one, net)
        with broken(
            one, f"no tunnel to {two.name}: nobody with its key answers at {two.underlay()}:51820", "UDP port 51820"
        ):
            assert Figures(one)("encryption_peers", "silent") == 1
            two.run("nft", "delete", "table", "inet", "x")
            cluster.add(two, net)
            cluster.meshed()
        assert Figures(one)("encryption_peers", "proved") == 1
        assert doctor(two) == {}


def test_another_host_is_told_figures_by_a_certificate_and_doctor_says_when_they_end(lab: Lab, tmp_path: Path):
    authority, files = Authority(tmp_path / "ca", days=100), Mounted(tmp_path / "mount")
    with Cluster(lab, hosts=2) as cluster:
        one, two = cluster.nodes
        address = one.underlay(cluster.family)
        files.put(authority.ca.read_bytes(), authority.give("first", [address]))
        place = f"{address}:9402"
        paths = {"metricsCert": str(files.cert), "metricsKey": str(files.key), "metricsClientCa": str(files.ca)}
        cluster.join(one, metrics=place, **paths)
        cluster.join(two)
        authority.give("scraper")

        def asked(path: str, believed: Path, *, shown: bool = False) -> str:
            context = ssl.create_default_context(cafile=str(believed))
            context.check_hostname = believed == authority.ca
            if shown:
                context.load_cert_chain(authority.folder / "scraper.pem", authority.folder / "scraper-key.pem")
            with suppress(OSError), closing(HTTPSConnection(place, timeout=10, context=context)) as connection:
                connection.request("GET", path)
                return connection.getresponse().read().decode()
            return ""

        def from_other(path: str, believed: Path = authority.ca, *, shown: bool = False) -> str:
            return within(two, partial(asked, path, believed, shown=shown))

        assert eventually(lambda: "agent_cni_member_info" in from_other("/metrics", shown=True)), one.said()
        assert from_other("/metrics") == "who asks for figures is to show a certificate\n"
        assert from_other("/healthz") == "ok\n"
        assert doctor(one) == {}
        ends = json.loads(one.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["certificates"]
        (found,) = ends
        assert found["what"].startswith(f"{files.cert} (cluster.json) ends on ")
        long = Authority(tmp_path / "long", days=90)
        files.put(pair=(long.ca.read_bytes(), (long.folder / "ca-key.pem").read_bytes()))
        assert json.loads(one.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["certificates"] == []
        assert from_other("/healthz") == "", "it is of another authority by now"
        assert "agent_cni_member_info" in from_other("/metrics", long.ca, shown=True)
