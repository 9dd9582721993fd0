"""Everybody asked whether he reaches everybody, under policies of a folder: what arrives is held against the API reference.

Three namespaces x, y and z with pods a, b and c, two ports, TCP, UDP and SCTP, IPv4 and IPv6: on one node, or over three. Pods are made
once; a test changes what the folder says and has it applied.

    OneHost, ThreeHosts -> hold(documents) -> wrong()
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cases import NAMES, NODE, OUTSIDE, PODS, PORTS, PROTOCOLS, Addresses, Case, Expected, Probe, placed
from cluster import Cluster, conf
from interception import address_of
from lab import AGENT_CNI, ROOT, Host, Lab, Namespace, Pod, eventually
from prober import FAMILIES, Prober
from reference import Raw

CALLED = "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={}"
KINDS = {
    "bridged": {
        "cniVersion": "1.1.0",
        "name": "bridged",
        "type": "bridge-vxlan",
        "bridge": "br0",
        "isDefaultGateway": True,
        "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
    },
    "routed": {
        "cniVersion": "1.1.0",
        "name": "routed",
        "type": "custom-plugin",
        "ipam": {"ranges": [[{"subnet": "10.3.0.0/24"}], [{"subnet": "fd00:3::/64"}]]},
    },
}
#: What a host of a cluster has as long as its member is there.
MEMBERS_OWN = "table inet agent_cni_vteps"
#: Which kind of pod has which name: traffic is bridged, routed, and both.
KIND_OF = {"a": "bridged", "b": "bridged", "c": "routed"}


@dataclass
class Party:
    """One who asks and is asked: a pod with what it was attached by, or a machine."""

    where: Namespace
    addresses: dict[int, str]
    kind: str = ""


@dataclass(repr=False)
class Matrix:
    """Parties that one folder feeds. Use it with `with`; it begins and ends without any policy."""

    lab: Lab
    folder: Path
    parties: dict[str, Party] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._held = ExitStack()
        self.prober = self._held.enter_context(Prober(PORTS))
        self.build()
        self.hold()
        assert self.wrong() == []  # and everybody knows his neighbours from now on
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for name in [name for name, party in self.parties.items() if party.kind]:
            self.detach(name)
        left = {table for host in self.hosts() for table in host.run("nft", "list", "tables").stdout.splitlines()}
        self._held.close()
        assert kind or left <= {MEMBERS_OWN}, left

    def build(self) -> None:
        """Make hosts and pods."""
        raise NotImplementedError

    def hosts(self) -> Iterable[Host]:
        """Where the folder is read."""
        raise NotImplementedError

    def host_of(self, name: str) -> Host:
        """Whose pod one is, or is to be."""
        raise NotImplementedError

    def conf(self, kind: str) -> Raw:
        """A network whose pods the folder feeds."""
        raise NotImplementedError

    # --- pods

    def attach(self, name: str, kind: str) -> None:
        """Make a pod, `namespace/name`, and let it serve; the folder says of it what the last document did."""
        pod = self.lab.pod()
        result = self.host_of(name).add(self.conf(kind), pod, CNI_ARGS=CALLED.format(*name.split("/")))
        self.join(name, Party(pod, {family: address_of(result, family) for family in FAMILIES}, kind))

    def detach(self, name: str) -> None:
        """Take a pod away."""
        party = self.parties.pop(name)
        self.prober.forget(name)
        assert isinstance(party.where, Pod)
        self.host_of(name).delete_pod(self.conf(party.kind), party.where)

    def join(self, name: str, party: Party) -> None:
        """Have one ask and be asked."""
        self.parties[name] = party
        self.prober.join(name, party.where)

    # --- documents

    def hold(
        self, documents: list[Raw] | None = None, world: list[Raw] | None = None, far: dict[str, str] | None = None
    ) -> None:
        """Have the folder say this, with the usual pods and namespaces unless it says which, and have it applied."""
        self.say(documents, world, far)
        self.apply()

    def say(
        self, documents: list[Raw] | None = None, world: list[Raw] | None = None, far: dict[str, str] | None = None
    ) -> None:
        """Have the folder say this. Pods that are there have addresses in it."""
        put(self.folder / "objects.json", self.expect(documents, world, far))

    def expect(
        self, documents: list[Raw] | None = None, world: list[Raw] | None = None, far: dict[str, str] | None = None
    ) -> list[Raw]:
        """Go by these objects from now on, whatever the folder says."""
        there = [it for it in Case("", {}).world if it["kind"] != "Pod" or key_of(it) in self.parties]
        addresses = {name: party.addresses for name, party in self.parties.items()}
        objects = placed([*(there if world is None else world), *(documents or [])], addresses)
        self.expected = Expected(objects, addresses, far or {})
        return objects

    def apply(self) -> None:
        """Have every attachment held to what the folder says."""
        for host in self.hosts():
            done = host.run(AGENT_CNI, "refresh", check=False)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr

    # --- what is so

    def wrong(self, most: int = 20) -> list[str]:
        """Who reaches whom against what the reference says; what should arrive and did not is asked once more."""
        asked = {probe: self.expected.allows(probe) for probe in self.probes()}
        allowed = {probe for probe, yes in asked.items() if yes}
        arrived = self.prober.heard(asked, allowed)
        if missing := allowed - arrived:
            arrived |= self.prober.heard(missing, missing)
        found = [f"{probe}: {'lost' if asked[probe] else 'let through'}" for probe in sorted(arrived ^ allowed)]
        return [*found[:most], *([f"and {len(found) - most} more"] if len(found) > most else [])]

    def change(self, documents: list[Raw], world: list[Raw]) -> list[str]:
        """Have the folder say something else, and ask all pods meanwhile: what was lost that may be before and after, and what was let
        through that the same end forbids before and after.
        """
        before, pods = self.expected, [it for it in self.parties if self.parties[it].kind]
        self.say(documents, world)
        words = {it: (before.words(it), self.expected.words(it)) for it in _flows(pods, before.addresses)}
        open_, shut = ({it for it, said in words.items() if how(*said)} for how in (_stays_open, _stays_shut))
        with ThreadPoolExecutor(1) as thread:
            applied = thread.submit(self.apply)
            sent, heard = self.prober.flood(open_, shut, lambda: not applied.done())
            applied.result()
        lost = [f"{it}: {sent[it] - heard[it]} of {sent[it]} lost" for it in open_ if heard[it] < sent[it]]
        return sorted(lost + [f"{it}: {heard[it]} of {sent[it]} let through" for it in shut if heard[it]])

    def probes(self) -> Iterator[Probe]:
        """Every question there is; what passes between machines, or within one, is no policy's."""
        machines = {NODE, OUTSIDE}
        for source in self.parties:
            for to, party in self.parties.items():
                for address in party.addresses.values() if not {source, to} <= machines else ():
                    for protocol in PROTOCOLS:
                        yield from (Probe(source, to, address, protocol, port) for port in PORTS)
                    yield Probe(source, to, address, "UDP", PORTS[0], kept=True)


#: `agent-cni policy why` of many, in one process: a line for each.
WHY = """
import json, sys
from cni.command.main import main
for asked in json.load(sys.stdin):
    main(["policy", "why", "--json", *asked])
    print("\\0")
"""


@dataclass(repr=False)
class OneHost(Matrix):
    """A node with pods on a bridge and on links of their own, and a machine outside on its wire."""

    def build(self) -> None:
        site = self.lab.site()
        self.host, ends = site.host, {NODE: (site.host, 11), OUTSIDE: (site.outside, 12)}
        for name, (where, number) in ends.items():
            self.join(name, Party(where, {4: f"192.0.2.{number}", 6: f"fd00:2::{number}"}))
        for kind in KINDS.values():
            for family, ((way,),) in zip(FAMILIES, ([ranges] for ranges in kind["ipam"]["ranges"]), strict=True):
                via = self.parties[NODE].addresses[family]
                site.outside.run("ip", f"-{family}", "route", "add", way["subnet"], "via", via)
        self.host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1")
        put(self.folder / "objects.json", Case("", {}).world)
        for name in PODS:
            self.attach(name, KIND_OF[name[-1]])

    def hosts(self) -> Iterable[Host]:
        return [self.host]

    def host_of(self, name: str) -> Host:
        return self.host

    def conf(self, kind: str) -> Raw:
        return copy.deepcopy(KINDS[kind]) | {"policy": {"policyDir": str(self.folder)}}

    def why(self, probes: list[Probe]) -> dict[Probe, Raw]:
        """What `agent-cni policy why` says of each."""
        said = [
            (
                self.parties[it.source].addresses[it.family],
                f"{f'[{it.address}]' if it.family == 6 else it.address}:{it.port}/{it.protocol.lower()}",
            )
            for it in probes
        ]
        done = self.host.run(ROOT / ".venv/bin/python3", "-I", "-c", WHY, input=json.dumps(said))
        answers = done.stdout.split("\0")[:-1]
        return {it: json.loads(answer)[0] for it, answer in zip(probes, answers, strict=True)}


@dataclass(repr=False)
class ThreeHosts(Matrix):
    """A cluster whose first host has the pods a, whose second has b, and whose third has c; the folder is on each."""

    mode: str = "l2"

    def build(self) -> None:
        self.cluster = self._held.enter_context(Cluster(self.lab))
        self.cluster.join()
        put(self.folder / "objects.json", Case("", {}).world)
        for name in PODS:
            self.attach(name, self.mode)

    def hosts(self) -> Iterable[Host]:
        return self.cluster.nodes

    def host_of(self, name: str) -> Host:
        return self.cluster.nodes[NAMES.index(name[-1])]

    def conf(self, kind: str) -> Raw:
        return conf(kind, policy={"policyDir": str(self.folder)})


@dataclass(repr=False)
class FedByTheStore(ThreeHosts):
    """The same, whose documents are in the cluster's store: members follow it."""

    def conf(self, kind: str) -> Raw:
        return conf(kind, policy={"cluster": True})

    def say(
        self, documents: list[Raw] | None = None, world: list[Raw] | None = None, far: dict[str, str] | None = None
    ) -> None:
        file = self.folder / "objects.json"
        before = {key_of(it): it for it in json.loads(file.read_text())["items"]}
        now = self.expect(documents, world, far)
        put(file, now)
        teller = self.cluster.nodes[0]
        teller.run(AGENT_CNI, "policy", "apply", file)
        gone = [before[key] for key in before.keys() - set(map(key_of, now))]
        if gone:
            put(self.folder / "gone.json", gone)
            teller.run(AGENT_CNI, "policy", "delete", self.folder / "gone.json")

    def apply(self) -> None:
        eventually(lambda: not self.wrong(), 20)


def _stays_open(before: tuple[bool, bool], after: tuple[bool, bool]) -> bool:
    return all(before) and all(after)


def _stays_shut(before: tuple[bool, bool], after: tuple[bool, bool]) -> bool:
    """By the same end: between the two changes of two ends there may be a moment."""
    return not all(one or other for one, other in zip(before, after, strict=True))


def _flows(pods: list[str], addresses: Addresses) -> Iterator[Probe]:
    """From sockets that last, so that what is old is asked for as well."""
    for source, to in itertools.permutations(pods, 2):
        for address, port in itertools.product(addresses[to].values(), PORTS):
            yield Probe(source, to, address, "UDP", port, kept=True)


def key_of(item: Raw) -> str:
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def put(file: Path, objects: list[Raw]) -> None:
    """Write a list beside, and rename it: nobody sees half of it."""
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    beside.rename(file)
