"""What serves several attachments goes with the last of them on the node, whatever folder, file or record says so."""

from __future__ import annotations

import copy
import json
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, Host, Lab, Pod, Site, eventually
from traffic import Actor

from cni.kernel.locks import LockFile
from cni.naming import digest_of
from cni.resources.masquerade_iptables import CHAIN

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
OTHER = [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]
CONFS = {
    "bridged": {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True},
    "routed": {"type": "custom-plugin", "ipMasq": True},
}


@dataclass
class Pair:
    """A pod that only its friend may talk to, and somebody who may not."""

    host: Host
    conf: dict[str, Any]
    web: Pod
    others: tuple[Pod, Pod]
    result: dict[str, Any]
    friend: Actor
    stranger: Actor
    server: Actor

    def holds(self) -> bool:
        """Whether the policy does: the friend's probe is the control of the stranger's."""
        for family in (4, 6):
            target = address_of(self.result, family)
            assert self.friend.reaches(target, 80) == "it"
            if self.stranger.reaches(target, 80) != "TimeoutError":
                return False
        return True

    def others_go(self) -> None:
        """Delete the pods without a policy: those that are routed have guards too."""
        for pod in self.others:
            conf = {key: value for key, value in self.conf.items() if key != "policy"}
            self.host.delete_pod(conf, pod)

    def checks(self) -> None:
        self.host.check(self.conf, self.web, self.result).ok()


def conf_of(kind: str, backend: str, **keys: Any) -> dict[str, Any]:
    head = {"cniVersion": "1.1.0", "name": "net", "ipam": {"ranges": RANGES}, "ipMasqBackend": backend}
    return copy.deepcopy(head | CONFS[kind]) | keys


@pytest.fixture(params=[("bridged", "nftables"), ("routed", "iptables")], ids=["bridged", "routed"])
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def pair(lab: Lab, host: Host, kind: tuple[str, str]) -> Iterator[Pair]:
    web, friend, stranger = lab.pod(), lab.pod(), lab.pod()
    seen = host.add(conf_of(*kind), friend)
    host.add(conf_of(*kind), stranger)
    allowed = [f"{address_of(seen, 4)}/32", f"{address_of(seen, 6)}/128"]
    conf = conf_of(*kind, policy={"ingress": allowed})
    result = host.add(conf, web)
    with ExitStack() as held:
        actors = [held.enter_context(Actor(pod)) for pod in (friend, stranger, web)]
        actors[2].listen("it", 80)
        made = Pair(host, conf, web, (friend, stranger), result, *actors)
        assert made.holds()
        yield made


def far_of(kind: tuple[str, str], folder: str) -> dict[str, Any]:
    """A policed network beside the first, whose state is elsewhere."""
    bridge = {"bridge": "br1"} if kind[0] == "bridged" else {}
    return conf_of(*kind, name="far", dataDir=folder, policy={"ingress": []}, ipam={"ranges": OTHER}, **bridge)


def tables(host: Host) -> list[str]:
    """Ours, each pod's gates among them."""
    return re.findall(r"^table (\S+ agent_cni\S*)$", host.run("nft", "list", "tables").stdout, re.MULTILINE)


def chained(conf: dict[str, Any]) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": conf["name"], "type": "custom-plugin", "policy": {"ingress": []}}


@pytest.mark.tried(
    "a second network with a `dataDir` of its own loses its only pod",
    "the policies, guards and masquerading of everybody else",
)
def test_a_second_folder_takes_nothing_from_the_first(lab: Lab, host: Host, pair: Pair, kind: tuple[str, str]):
    elsewhere = f"/run/elsewhere-{host.name}"
    far = far_of(kind, elsewhere)
    for _ in range(2):
        pod = lab.pod()
        host.add(far, pod)
        assert pair.holds()
        host.delete_pod(far, pod)
        assert pair.holds()
        pair.checks()
    pair.others_go()
    host.delete_pod(pair.conf, pair.web)
    assert not [name for name in tables(host) if name.startswith(("inet", "netdev"))]


@pytest.mark.tried(
    "the last user of a table is in another folder than the first", "it goes with the last, wherever that is"
)
def test_the_last_user_may_be_in_any_folder(lab: Lab, host: Host, pair: Pair, kind: tuple[str, str]):
    elsewhere = f"/run/elsewhere-{host.name}"
    far = far_of(kind, elsewhere)
    pod = lab.pod()
    result = host.add(far, pod)
    pair.others_go()
    host.delete_pod(pair.conf, pair.web)
    host.check(far, pod, result).ok()
    host.delete_pod(far, pod)
    assert "inet agent_cni_policy" not in tables(host)


@pytest.mark.tried(
    "`state.db` is lost, then a policed pod comes and goes",
    "every other policy: the kernel says that its table is in use",
)
def test_a_lost_state_opens_nobody(lab: Lab, host: Host, pair: Pair, kind: tuple[str, str]):
    host.lose_state()
    late = lab.pod()
    conf = conf_of(
        *kind,
        name="late",
        policy={"ingress": []},
        ipam={"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.77"}]]},
    )
    host.add(conf, late)
    assert pair.holds()
    host.delete_pod(conf, late)
    assert pair.holds()
    assert "inet agent_cni_policy" in tables(host)


@pytest.mark.tried(
    "a record in another folder has a configuration that is no JSON, and its pod dies",
    "`agent-cni gc` removes it there",
)
def test_a_record_elsewhere_without_a_configuration_is_collected(lab: Lab, host: Host):
    elsewhere, pod = f"/run/elsewhere-{host.name}", lab.pod()
    host.add(conf_of("bridged", "nftables", dataDir=elsewhere, policy={"ingress": []}), pod)
    script = f"import sqlite3; db = sqlite3.connect('{elsewhere}/state.db')\n"
    host.run("python3", "-c", script + "db.execute(\"UPDATE attachment SET config = '{'\"); db.commit()")
    host.bury(pod)
    assert host.run(AGENT_CNI, "gc").stdout == "removed 1 of 1 stale attachments\n"
    assert host.run(AGENT_CNI, "gc").stdout == "removed 0 of 0 stale attachments\n"
    assert tables(host) == []


def damage(host: Host, folder: str) -> None:
    """The header stays, so that the file is opened; every page behind it is gone."""
    script = (
        "import pathlib, sqlite3, sys; file = pathlib.Path(sys.argv[1])\n"
        "sqlite3.connect(file).execute('PRAGMA wal_checkpoint(TRUNCATE)')\n"
        "content = file.read_bytes(); file.unlink()\n"
        "file.write_bytes(content[:4096] + b'\\xa5' * (len(content) - 4096))"
    )
    host.run("python3", "-c", script, f"{folder}/state.db")


@pytest.mark.tried(
    "the state file of another folder is damaged behind its header",
    "DEL ends, keeps what pods of there may share, and says so; gateways that overlap are refused as ever",
)
def test_a_damaged_file_elsewhere_stops_no_del(lab: Lab, host: Host, pair: Pair, kind: tuple[str, str]):
    elsewhere = f"/run/elsewhere-{host.name}"
    far, pod, late = far_of(kind, elsewhere), lab.pod(), lab.pod()
    host.add(far, pod)
    damage(host, elsewhere)
    assert pair.holds()
    pair.others_go()
    if kind[0] == "bridged":
        wide = conf_of(*kind, name="wide", bridge="br2", ipam={"subnet": "10.1.0.0/16"})
        assert "10.1.0.1/24 on br0" in host.cni("ADD", wide, late).failed(101)
    answer = host.cni("DEL", pair.conf, pair.web)
    answer.ok()
    assert "what it shared is left as it is" in answer.stderr
    assert f"{elsewhere}/state.db" in answer.stderr
    shown = host.run(AGENT_CNI, "show", check=False)
    assert shown.returncode == 1
    assert f"{elsewhere}/state.db" in shown.stderr
    assert pair.web.container not in shown.stdout
    assert "inet agent_cni_policy" in tables(host)
    doctor = host.run(AGENT_CNI, "doctor", check=False).stdout
    assert f"the state in {elsewhere}/state.db is damaged" in doctor
    assert f"mend: rm {elsewhere}/state.db*, then restart this node's pods" in doctor


@pytest.mark.tried("a pod in two networks of two folders leaves one", "its interception, until it leaves the other")
def test_a_pod_in_two_networks_of_two_folders_is_intercepted_until_the_last(lab: Lab, host: Host):
    pod = lab.pod()
    confs = [
        conf_of("bridged", "nftables", sidecar={}),
        conf_of(
            "bridged",
            "nftables",
            name="far",
            bridge="br1",
            sidecar={},
            dataDir=f"/run/elsewhere-{host.name}",
            isDefaultGateway=False,
            ipam={"ranges": OTHER},
        ),
    ]
    results = [host.add(conf, pod, ifname=f"eth{number}") for number, conf in enumerate(confs)]
    host.delete_pod(confs[0], pod, ifname="eth0")
    assert "ACNI_REDIRECT" in pod.run("iptables-nft-save").stdout
    host.check(confs[1], pod, results[1], ifname="eth1").ok()
    host.delete_pod(confs[1], pod, ifname="eth1")
    assert "ACNI" not in pod.run("iptables-nft-save").stdout


@pytest.mark.tried("an old pod goes after its successor came with the same address", "the successor's masquerading")
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_successor_with_its_address_keeps_its_masquerading(lab: Lab, backend: str):
    site = lab.site()
    host, old, new = site.host, lab.pod(), lab.pod()
    fixed = {"ipam": {"type": "static", "addresses": [{"address": "10.1.0.9/24", "gateway": "10.1.0.1"}]}}
    conf = conf_of("bridged", backend, cniVersion="1.0.0", **fixed)
    host.add(conf, old)
    result = host.add(conf, new)
    host.delete_pod(conf, old)
    old.delete()
    assert new.pings("192.0.2.12"), "the outsider knows no way to 10.1.0.0/24: only what is masqueraded comes back"
    host.check(conf, new, result).ok()
    host.delete_pod(conf, new)
    assert not [name for name in tables(host) if name.startswith("ip")]
    assert "ACNI" not in host.run("iptables-nft-save", "-t", "nat").stdout


@pytest.mark.tried(
    "two macvlan networks with host access keep their state in two folders; one pod goes", "the host's way to the other"
)
def test_host_access_stays_while_any_folder_has_a_pod(lab: Lab, site: Site, net: dict[str, Any]):
    host, first, second = site.host, lab.pod(), lab.pod()
    one = net | {"hostAccess": True}
    span = net["ipam"] | {"rangeStart": "192.0.2.150"}
    other = one | {"name": "far", "dataDir": f"/run/elsewhere-{host.name}", "ipam": span}
    host.add(one, first)
    result = host.add(other, second)
    host.delete_pod(one, first)
    assert host.pings(address_of(result, 4))
    host.check(other, second, result).ok()
    host.delete_pod(other, second)
    assert host.link("mv-eth0") is None


@pytest.mark.tried(
    "the last masqueraded pod goes, and iptables takes its time",
    "pods that need nothing of it come meanwhile; one that does is masqueraded when it is there",
)
def test_a_slow_retirement_holds_up_nobody_else(lab: Lab, host: Host):
    masked, plain = conf_of("bridged", "iptables"), conf_of("bridged", "iptables", ipMasq=False)
    last, other, late = lab.pod(), lab.pod(), lab.pod()
    host.add(masked, last)
    (veth,) = [item["ifname"] for item in host.ip("link", "show", "type", "veth") if item.get("master") == "br0"]
    turn, iptables = LockFile(host.folder / "lock"), digest_of(CHAIN)
    with closing(turn), ThreadPoolExecutor(2) as calls:
        with turn.exclusive(iptables, CHAIN):
            going = calls.submit(host.delete_pod, masked, last)
            eventually(lambda: host.link(veth) is None)
            host.add(plain, other)
            coming = calls.submit(host.add, masked, late)
            host.delete_pod(plain, other)
            assert not going.done()
            assert not coming.done()
        going.result()
        result = coming.result()
    host.check(masked, late, result).ok()
    host.delete_pod(masked, late)
    assert CHAIN not in host.run("iptables-save", "-t", "nat").stdout


@pytest.mark.tried(
    "a second bridge brings a gateway whose subnet overlaps another network's",
    "it is refused (101), naming that network, and nothing is left",
)
def test_gateways_of_two_bridges_do_not_overlap(lab: Lab, host: Host):
    first, second = lab.pod(), lab.pod()
    conf = conf_of("bridged", "nftables")
    host.add(conf, first)
    wide = conf_of("bridged", "nftables", name="wide", bridge="br1", ipam={"subnet": "10.1.0.0/16"})
    said = host.cni("ADD", wide, second).failed(101)
    assert "net" in said
    assert "10.1.0.1/24 on br0" in said
    assert host.link("br1") is None
    assert host.state()["leases"] != []
    apart = wide | {"ipam": {"subnet": "10.2.0.0/16"}}
    host.add(apart, second)
    same = conf_of("bridged", "nftables", name="same")
    third = lab.pod()
    host.add(same | {"ipam": {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100"}}, third)


@pytest.mark.tried(
    "a record has a resource and a field this release does not know",
    "DEL removes what is known, names the rest, and ends",
)
def test_what_another_release_recorded_is_removed_as_far_as_it_is_known(lab: Lab, host: Host, pair: Pair):
    script = (
        "import json, sqlite3; db = sqlite3.connect('/run/agent-cni/state.db')\n"
        f"(text,) = db.execute(\"SELECT resources FROM attachment WHERE container = '{pair.web.container}'\").fetchone()\n"
        "items = json.loads(text) + [{'kind': 'Wormhole', 'to': 'mars'}]\n"
        "items[0]['colour'] = 'red'\n"
        f"db.execute(\"UPDATE attachment SET resources = ? WHERE container = '{pair.web.container}'\", (json.dumps(items),))\n"
        "db.commit()"
    )
    host.run("python3", "-c", script)
    assert "Wormhole" in host.check(pair.conf, pair.web, pair.result).failed(104)
    host.run("nft", "flush", "ruleset")
    host.run(AGENT_CNI, "refresh", check=False)
    if "prevResult" in pair.conf:
        host.add(pair.conf, pair.web)
    with sqlite3.connect(host.folder / "state.db") as db:
        items = [item for (text,) in db.execute("SELECT resources FROM attachment") for item in json.loads(text)]
    assert {"kind": "Wormhole", "to": "mars"} in items
    assert [item["kind"] for item in items if item.get("colour") == "red"]
    pair.others_go()
    answer = host.cni("DEL", pair.conf, pair.web)
    answer.ok()
    assert "Wormhole" in answer.stderr
    assert "colour" in answer.stderr
    assert pair.web.container not in str(host.state())
    assert "inet agent_cni_policy" not in tables(host)


@pytest.mark.tried("a record's plan, configuration or result is no JSON", "DEL and gc end and leave nothing")
@pytest.mark.parametrize("end", ["DEL", "gc"])
@pytest.mark.parametrize("column", ["resources", "config", "result"])
def test_a_record_that_is_no_json_ends_with_its_pod(host: Host, pair: Pair, column: str, end: str):
    script = (
        "import sqlite3; db = sqlite3.connect('/run/agent-cni/state.db')\n"
        f"db.execute(\"UPDATE attachment SET {column} = '{{' WHERE container = '{pair.web.container}'\"); db.commit()"
    )
    host.run("python3", "-c", script)
    pair.others_go()
    if end == "gc":
        pair.server.close()
        host.bury(pair.web)
        assert host.run(AGENT_CNI, "gc").stdout == "removed 1 of 1 stale attachments\n"
    else:
        host.cni("DEL", pair.conf, pair.web).ok()
    assert pair.web.container not in str(host.state())
    assert not [name for name in tables(host) if name.startswith(("inet", "netdev"))]
    assert host.run(AGENT_CNI, "doctor", check=False).returncode in (0, 1, 3)  # no bug


@pytest.mark.tried(
    "a pod whose network keeps its state elsewhere dies; `show`, `doctor`, `gc` without a folder",
    "they look into every folder of the node",
)
def test_commands_look_into_every_folder(lab: Lab, host: Host):
    pod = lab.pod()
    conf = conf_of("bridged", "nftables", dataDir=f"/run/elsewhere-{host.name}", policy={"ingress": []})
    host.add(conf, pod)
    assert pod.container[:12] in host.run(AGENT_CNI, "show").stdout
    host.bury(pod)
    assert f"{pod.container}/eth0: its pod is gone" in host.run(AGENT_CNI, "doctor", check=False).stdout
    assert host.run(AGENT_CNI, "gc").stdout == "removed 1 of 1 stale attachments\n"
    assert tables(host) == []
