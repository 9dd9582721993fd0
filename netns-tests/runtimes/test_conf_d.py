"""Every conflist of conf.d validates, and runs through the real cnitool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import AGENT_CNI, BIN_DIR, CNITOOL, PATIENCE, REFERENCE_DIR, ROOT, Host, Lab

from cni import plugin
from cni.cluster.blocks import next_block
from cni.cluster.model import Block, Network
from cni.conflist.file import plugins_of
from cni.ipam.shared import Shared
from cni.protocol.call import Call
from cni.state import Store
from cni.state.membership import Member

FILES = sorted((ROOT / "conf.d").glob("*.conflist"))


def network_of(file: Path) -> Network | None:
    """What all hosts of a cluster share by a list; None where nothing is."""
    ((_, conf),) = list(plugins_of(file))[:1]
    if conf["type"] not in plugin.names():
        return None
    read = plugin.load(conf["type"]).Config.read(conf, Call("ADD", "CONTAINER", "NETNS", "eth0"))
    return read.ipam.network if isinstance(read.ipam, Shared) else None


def play_member(host: Host, network: Network) -> None:
    """Do what a member does before the first pod: the cluster takes the network, and the host has a block of each subnet."""
    store = Store.open(host.folder)
    with store.transaction():
        store.put_member(Member("node-a", "0" * 31 + "1", "life", "192.0.2.11", "0a:58:0a:00:00:01"))
        store.share(network)
        store.refuse_network(network.name, "")
        for pool in network.pools:
            if span := next_block(network, pool, "node-a", ()):
                store.put_block(Block(network.name, span, "node-a", "0" * 31 + "1"))
    store.close()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_conflist_works_as_it_stands(lab: Lab, file: Path):
    host, pod = lab.host(), lab.pod()
    lab.underlay(host, first=12 if "second-host" in file.name else 11)
    host.run(AGENT_CNI, "validate", file)
    (host.folder / file.name).write_text(file.read_text())
    network = json.loads(file.read_text())["name"]
    if shared := network_of(file):
        play_member(host, shared)
    env = {
        "CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}",
        "NETCONFPATH": str(host.folder),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }

    remembered = host.folder / "cache"  # libcni's, whose gc would end the pods of another test with this network's name
    remembered.mkdir()
    Path("/var/lib/cni").mkdir(parents=True, exist_ok=True)
    bound = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /var/lib/cni && exec "$@"', remembered]

    def cnitool(verb: str) -> str:
        return host.run(*bound, CNITOOL, verb, network, pod.path, env=env).stdout

    result = json.loads(cnitool("add"))
    assert pod.addresses("eth0") == {ip["address"] for ip in result["ips"]}
    guarded = any(key in file.read_text() for key in ("denyUncaptured", "policy"))
    waited = 1 if guarded else PATIENCE
    assert [pod.pings(ip["gateway"], waited) for ip in result["ips"]] == [not guarded] * len(result["ips"])
    cnitool("check")
    if "reference" not in file.name:  # Debian's bridge is older than STATUS and GC
        cnitool("status")
        cnitool("gc")  # it names no valid attachment, so libcni deletes every one it remembers
        assert pod.link("eth0") is None
    cnitool("del")
    cnitool("del")
    assert pod.link("eth0") is None
    assert host.state() == {"attachments": [], "leases": []}
