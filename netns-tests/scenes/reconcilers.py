"""Hosts whose reconciler a test hands the cluster's news, one at a time, as a member would."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Self

from lab import ROOT, Host, sh

from cni.cluster.blocks import block_of, host_address
from cni.cluster.model import Block, Endpoint, Item, Key, Network, Node
from cni.cluster.pools import Pool

#: The reconciler of a host: lines in, lines out; it listens to the kernel, and looks when that wakes it or nothing is said to it.
HAND = """
import json, select, sys, time
from pathlib import Path
from threading import Thread
from cni.cluster.model import Network, Node, read
from cni.cluster.store import Change, Listing
from cni.member.reconciler import Reconciler
from cni.state import Store
from cni.state.membership import Member
folder = Path("/run/agent-cni")
me = Node.read(("nodes", sys.argv[1]), json.loads(sys.argv[2]))
store = Store.open(folder)
with store.transaction():
    store.put_member(Member(me.name, me.machine, "token", me.vtep, me.mac))
    for name, value in json.loads(sys.argv[3]).items():
        store.share(Network.read(("networks", name), value))
store.close()
hand = Reconciler(me, folder)
items = lambda said: tuple(read(tuple(key), value) for key, value in said)
verbs = {
    "listing": lambda revision, put: hand.heard(Listing(revision, items(put))),
    "change": lambda revision, put, gone: hand.heard(Change(revision, items(put), tuple(map(tuple, gone)))),
    "look": lambda: time.sleep(0.25) or hand.look(),  # the state is looked at a few times a second at most
    "compare": hand.compare, "clear": hand.clear,
}
Thread(target=hand.watch, args=(lambda: None,), daemon=True).start()
while True:
    ready, _, _ = select.select([sys.stdin], [], [], 0.05)
    if not ready:
        hand.look()
    elif line := sys.stdin.readline():
        verb, *said = json.loads(line)
        print(json.dumps(verbs[verb](*said)), flush=True)
    else:
        break
"""


@dataclass
class Hand:
    """A host and the process that reconciles it. Use it with `with`."""

    host: Host
    me: Node
    networks: tuple[Network, ...]

    def __enter__(self) -> Self:
        shared = {network.name: network.value for network in self.networks}
        command = [*self.host.prefix(), ROOT / ".venv/bin/python3", "-c", HAND]
        said = [self.me.name, json.dumps(self.me.value), json.dumps(shared)]
        self.process = subprocess.Popen([*map(str, command), *said], stdin=-1, stdout=-1, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, verb: str, *said: Any) -> Any:
        """What it answers."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{json.dumps([verb, *said])}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@dataclass
class News:
    """The cluster's news, as a store would tell them to each hand."""

    hands: list[Hand] = field(default_factory=list)
    revision: int = 1
    items: dict[Key, Item] = field(default_factory=dict)

    def listing(self, *hands: Hand) -> list[int]:
        """Tell all there is; what each hand changed."""
        return [
            hand.ask("listing", self.revision, list(map(_said, self.items.values()))) for hand in hands or self.hands
        ]

    def change(self, put: Iterable[Item] = (), gone: Iterable[Item] = ()) -> list[int]:
        """Tell what is new and what is gone; what each hand changed."""
        put, gone = list(put), [item.key for item in gone]
        self.revision += 1
        for key in gone:
            del self.items[key]
        self.items |= {item.key: item for item in put}
        return [hand.ask("change", self.revision, list(map(_said, put)), gone) for hand in self.hands]


def of_host(host: Host, number: int, family: int = 4, device: str = "vxlan100") -> Node:
    """A host as the cluster knows it, by the MAC its device has."""
    vtep = f"192.0.2.{number}" if family == 4 else f"fd00:2::{number:x}"
    link = host.link(device)
    return Node(host.name, f"machine-{number}", vtep, link["address"] if link else "")


def of_pod(network: Network, node: Node, address: str, mac: str) -> Endpoint:
    """A pod's address as the cluster knows it."""
    return Endpoint(network.name, address, node.name, mac, "container", "eth0")


def own_of(network: Network, node: Node, addresses: Iterable[str]) -> list[Item]:
    """What a host says of itself: its record, its blocks, and its own address in each."""
    spans = dict.fromkeys(filter(None, (block_of(network, ip_address(text)) for text in addresses)))
    blocks = [Block(network.name, span, node.name, node.machine) for span in spans]
    own = [Endpoint(network.name, host_address(network, span), node.name, node.mac) for span in spans]
    return [node, *blocks, *own]


def pool(subnet: str, gateway: str, first: str, last: str) -> Pool:
    return Pool(subnet, first, last, gateway)


def rows(host: Host) -> set[str]:
    """All that is the member's on a host: FDB rows, neighbours, routes and addresses."""
    fdb = sh("bridge", "-n", host.name, "fdb", "show").stdout.splitlines()
    found = {line.strip() for line in fdb if "extern_learn" in line}
    for family in (4, 6):
        for what in (("neigh", "show", "nud", "permanent"), ("route", "show", "table", "all")):
            lines = sh("ip", "-n", host.name, f"-{family}", *what).stdout.splitlines()
            found |= {line.strip() for line in lines if "proto 172" in line or "proto 0xac" in line}
    return found


def _said(item: Item) -> tuple[Key, dict[str, Any]]:
    return item.key, item.value
