"""The loops over resources, with resources that only take notes."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cni import engine, resources
from cni.errors import Incomplete, InvalidNetns, KernelRefused, Lacking, ToolFailed
from cni.kernel import netfilter
from cni.kernel.locks import LockFile
from cni.kernel.ruleset import Change
from cni.protocol.result import Interface, Result
from cni.resources import Resource, World, decoded, encoded, uses_of
from cni.resources.base import _KINDS, REATTACH, REFRESH, load
from cni.resources.nft import NftRules
from cni.values import dataclass, replace

NOTES: list[str] = []
load()
KINDS = {
    kind.__name__: kind
    for recorded in _KINDS.values()
    for kind in recorded
    if kind.__module__.startswith("cni.") and kind.describe is not Resource.describe
}


@dataclass(frozen=True)
class Noted(Resource):
    """Writes down what is done to it. `there` means it exists already; `fails` names the verb that fails."""

    name: str
    there: bool = False
    fails: str = ""
    mtu: int = 1500

    def ensure(self, world: World) -> None:
        self._note("ensure")
        if not self.there:
            world.created(self)

    def remove(self, world: World) -> None:
        self._note("remove")

    def differences(self, world: World) -> Iterator[str]:
        if self.fails == "differences":
            yield f"{self.name} differs"
            yield f"{self.name} has MTU {self.mtu}"

    def accepting(self, reported: Result) -> Noted:
        return replace(self, mtu=next((item.mtu for item in reported.interfaces if item.name == self.name), self.mtu))

    def _note(self, verb: str) -> None:
        NOTES.append(f"{verb} {self.name}")
        if self.fails == verb:
            raise KernelRefused(f"{self.name} refused")


@dataclass(frozen=True)
class SharedNote(Noted):
    shared = True


@pytest.fixture(autouse=True)
def notes() -> list[str]:
    NOTES.clear()
    return NOTES


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[LockFile]:
    opened = LockFile(tmp_path / "lock")
    opened.share_node()
    yield opened
    opened.close()


@pytest.fixture
def world(lock: LockFile) -> World:
    return World(None, lock)


def test_resources_are_ensured_in_order(world: World, notes: list[str]):
    engine.apply([Noted("a"), Noted("b"), Noted("c")], world)
    assert notes == ["ensure a", "ensure b", "ensure c"]


def test_undo_takes_back_in_reverse_exactly_what_was_created(world: World, notes: list[str]):
    plan = [Noted("a"), Noted("b", there=True), SharedNote("c"), Noted("d", fails="ensure"), Noted("e")]
    with pytest.raises(KernelRefused, match="d refused"):
        engine.apply(plan, world)
    notes.clear()
    world.undo.close()
    assert notes == ["remove c", "remove a"]
    world.undo.close()
    assert len(notes) == 2


def test_undo_leaves_shared_things_while_another_call_runs(world: World, notes: list[str], tmp_path: Path):
    other = LockFile(tmp_path / "lock")
    other.share_node()
    engine.apply([SharedNote("a"), Noted("b")], world)
    notes.clear()
    world.undo.close()
    assert notes == ["remove b"]
    other.close()


def test_undo_goes_on_after_a_failure(world: World, notes: list[str]):
    engine.apply([Noted("a"), Noted("b", fails="remove"), Noted("c")], world)
    notes.clear()
    with pytest.raises(KernelRefused, match="b refused"):
        world.undo.close()
    assert notes == ["remove c", "remove b", "remove a"]


def test_removal_goes_in_reverse_and_leaves_shared_things(world: World, notes: list[str]):
    engine.remove([SharedNote("a"), Noted("b"), Noted("c", there=True)], world)
    assert notes == ["remove c", "remove b"]


def test_removal_goes_on_after_a_failure_and_joins_what_failed(world: World, notes: list[str]):
    plan = [Noted("a", fails="remove"), Noted("b"), Noted("c", fails="remove")]
    with pytest.raises(Incomplete) as caught:
        engine.remove(plan, world)
    assert caught.value.msg == "c refused; a refused"
    assert notes == ["remove c", "remove b", "remove a"]


@pytest.mark.parametrize(
    "refused", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), ImportError("failed to map segment")]
)
def test_whatever_the_machine_refuses_of_a_step_stops_no_undo_and_no_removal(
    world: World, notes: list[str], monkeypatch: pytest.MonkeyPatch, refused: Exception
):
    plan = [Noted("a"), Noted("b", fails="remove"), Noted("c")]
    engine.apply(plan, world)
    monkeypatch.setattr(Noted, "_note", _refusing(refused))
    with pytest.raises(Incomplete):
        engine.remove(plan, world)
    assert notes[3:] == ["remove c", "remove b", "remove a"]
    with pytest.raises(Lacking):
        world.undo.close()
    assert notes[6:] == ["remove c", "remove b", "remove a"]
    with pytest.raises(Lacking):
        engine.apply([Noted("d", fails="ensure")], world)


def _refusing(refused: Exception) -> Callable[[Noted, str], None]:
    def note(item: Noted, verb: str) -> None:
        NOTES.append(f"{verb} {item.name}")
        if item.fails == verb:
            raise refused

    return note


def test_retiring_removes_shared_things_too(world: World, notes: list[str]):
    engine.retire([SharedNote("a"), SharedNote("b")], world)
    assert notes == ["remove b", "remove a"]


def test_every_difference_is_collected_as_later_plugins_reported(world: World):
    reported = Result((Interface("a", mtu=1400),))
    plan = [Noted("a", fails="differences"), Noted("b"), Noted("c", fails="differences")]
    found = engine.differences(plan, world, reported)
    assert [item.line for item in found] == ["a differs", "a has MTU 1400", "c differs", "c has MTU 1500"]


def test_observed_links_are_reported_as_the_host_has_them(world: World):
    links = {"br0": SimpleNamespace(mac="0a:00:00:00:00:01", mtu=9000)}
    world.__dict__["host"] = SimpleNamespace(cached_link=links.get)
    planned = Result(
        (Interface("br0", mtu=1500), Interface("gone", "0e:00:00:00:00:01"), Interface("br0", sandbox="/n"))
    )
    assert engine.observed(planned, world).interfaces == (
        Interface("br0", "0a:00:00:00:00:01", 9000),
        Interface("gone", "0e:00:00:00:00:01"),
        Interface("br0", sandbox="/n"),
    )


def test_without_a_namespace_the_pod_cannot_be_entered(world: World):
    with pytest.raises(InvalidNetns, match="the pod's namespace is gone"), world.in_pod():
        pass


SAMPLES: dict[str, dict[str, Any]] = {
    "Announcement": {"link": "eth0", "mac": "0a:58:0a:00:00:02", "addresses": ("10.0.0.2", "fd00::2")},
    "Asking": {"addresses": ("10.0.0.2", "fd00::2"), "token": "0123456789a", "rate": 200, "netns": ""},
    "AskingPod": {
        "token": "0123456789a",
        "pod": "default/agent",
        "addresses": ("10.0.0.2",),
        "link": "veth0",
        "rules": ("*.example.org api.example.com",),
        "netns": "",
        "names": ("db.example.net",),
        "everything": False,
        "keep": 60,
        "into": ("10.20.0.0/16",),
        "own": ("cluster.local",),
    },
    "AskingTable": {"netns": "/run/netns/p"},
    "Bridge": {"name": "br0", "mac": "", "mtu": 1500, "promiscuous": True},
    "DeadEnd": {"dst": "10.10.0.0/16"},
    "FloodList": {"link": "vxlan1", "vteps": ()},
    "Forwarding": {"port": "veth0"},
    "BlockGateway": {"link": "br0", "address": "10.0.0.1/26", "force": False, "beside": True},
    "GatewayAddress": {"link": "br0", "address": "10.0.0.1/24", "force": False},
    "HostNeighbour": {"link": "mv-eth0", "address": "10.0.0.2", "mac": "0a:58:0a:00:00:02"},
    "HostRoute": {"link": "mv-eth0", "dst": "10.0.0.2/32", "source": "10.0.0.9"},
    "HostShim": {"name": "mv-eth0", "mac": "0e:00:00:00:00:01", "master": "eth0"},
    "Macvlan": {
        "name": "eth0",
        "master": "eth1",
        "mode": "bridge",
        "mac": "0a:58:0a:00:00:02",
        "mtu": 1500,
        "queue": 0,
        "in_pod": False,
        "owner": "agent-cni x",
    },
    "PodNeighbour": {"link": "eth0", "address": "10.0.0.9", "mac": "0e:00:00:00:00:01"},
    "HostSysctl": {"key": "net.ipv4.ip_forward", "value": "1"},
    "Ipv6Forwarding": {"key": "net.ipv6.conf.all.forwarding", "value": "1"},
    "NoAdvertisements": {"bridge": "br0"},
    "IptablesMasquerade": {
        "backend": "iptables-nft",
        "family": 6,
        "address": "fd00::2",
        "subnet": "fd00::/64",
        "owner": "a/b/c",
    },
    "IptablesMasqueradeRules": {"backend": "iptables-legacy", "family": 4},
    "NftMasquerade": {
        "backend": "nftables",
        "family": 4,
        "address": "10.0.0.2",
        "subnet": "10.0.0.0/24",
        "owner": "a/b/c",
    },
    "NftMasqueradeRules": {"backend": "nftables", "family": 6},
    "AntiSpoof": {"link": "veth0", "mac": "0a:58:0a:00:00:02", "addresses": ("10.0.0.2", "fd00::2")},
    "BridgeFilter": {"bridge": "br0"},
    "GuardTable": {},
    "GateTable": {"token": "0123456789a"},
    "PodPolicy": {"addresses": ("10.0.0.2",), "rules": ("in-10.0.0.2 drop",), "closed": True, "pod": "default/web"},
    "PeerEntries": {"addresses": ("10.1.0.5", "fd00::5"), "pod": "shop/web"},
    "PeerSet": {"selection": '{"feed":"folder /p","namespace":"shop","pods":[]}', "family": 4, "netns": "/run/netns/p"},
    "DomainSet": {
        "names": ("*.example.org", "api.example.com"),
        "token": "0123456789a",
        "family": 6,
        "netns": "/run/netns/p",
    },
    "PolicyTable": {"netns": "/run/netns/p"},
    "ProxyAddress": {"link": "eth0", "address": "::6/128"},
    "SourceLabels": {"netns": "/run/netns/p", "address": "::6/128"},
    "PodLoopback": {},
    "PodRules": {"netns": "/run/netns/p", "backend": "iptables-nft", "family": 4, "text": "*nat\nCOMMIT\n"},
    "WayBack": {"netns": "/run/netns/p", "family": 6, "mark": 1337, "table": 133},
    "FreshAddress": {"address": "10.0.0.2", "policy": True, "masquerade": False},
    "PeerAddress": {"link": "br0", "address": "10.0.0.2/32"},
    "PeerNeighbour": {"link": "br0", "address": "10.0.0.9", "mac": "0a:58:0a:00:00:09"},
    "PeerRefusal": {"link": "lo", "dst": "10.0.0.0/16"},
    "PeerRoute": {"link": "br0", "dst": "10.0.0.0/25", "gateway": "", "source": "10.0.0.2"},
    "PeerRow": {"link": "vxlan1", "mac": "0a:58:0a:00:00:09", "vtep": "192.0.2.2"},
    "PodAddress": {"link": "eth0", "address": "fd00::2/64", "dad": True},
    "PodLink": {"name": "eth0", "mac": "0a:58:0a:00:00:02", "mtu": 1450},
    "GatewayRoute": {
        "link": "eth0",
        "dst": "169.254.1.1/32",
        "gateway": "",
        "mtu": 0,
        "advmss": 0,
        "priority": 0,
        "table": 254,
        "scope": 253,
        "onlink": False,
    },
    "PodRoute": {
        "link": "eth0",
        "dst": "0.0.0.0/0",
        "gateway": "10.0.0.1",
        "mtu": 1400,
        "advmss": 1360,
        "priority": 5,
        "table": 254,
        "scope": 0,
        "onlink": False,
    },
    "Gate": {
        "link": "veth0",
        "hook": "ingress",
        "token": "0123456789a",
        "lines": ("ether type arp accept",),
        "pod": "eth0",
        "mac": "0a:58:0a:00:00:02",
    },
    "PortOpening": {"link": "veth0", "on_bridge": True, "lent": True},
    "LostPort": {"host": "veth0"},
    "PodSysctl": {"key": "net.ipv6.conf.eth0.disable_ipv6", "value": "0"},
    "Settled": {"link": "eth0"},
    "Vacant": {"link": "eth0", "mac": "0a:58:0a:00:00:02", "addresses": ("10.0.0.2",)},
    "NameServer": {
        "network": "net",
        "bridge": "br0",
        "domain": "net",
        "zones": ("0.1.10.in-addr.arpa",),
        "upstream": ("192.0.2.53",),
    },
    "PodNames": {
        "network": "net",
        "container": "c1",
        "ifname": "eth0",
        "addresses": ("10.1.0.2",),
        "names": ("web.net", "web"),
        "health": '{"tcp": 80}',
    },
    "VethPair": {
        "host": "veth0",
        "host_mac": "0e:00:00:00:00:02",
        "pod": "eth0",
        "pod_mac": "0a:58:0a:00:00:02",
        "mtu": 1450,
        "bridge": "br0",
        "hairpin": True,
        "isolated": False,
    },
    "VtepFilter": {"vteps": ("192.0.2.2",), "overlays": ("4789 7",)},
    "VxlanLink": {"name": "vxlan1", "vni": 1, "port": 4789, "local": "", "dev": "", "mtu": 1450, "bridge": "br0"},
}


def test_every_kind_has_a_sample_here_and_is_offered_by_the_package():
    assert set(SAMPLES) == set(KINDS) - {"Unknown"}
    assert set(SAMPLES) <= set(resources.__all__)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_resource_survives_the_state_file(kind: str):
    resource = KINDS[kind](**SAMPLES[kind])
    assert decoded(json.loads(json.dumps(encoded([resource])))) == (resource,)


@pytest.mark.parametrize("odd", [None, {}, [{}], [None], [["x"]], {"x": 1}, 1.5, "x", ["x"], 5, True], ids=str)
@pytest.mark.parametrize("kind", SAMPLES)
def test_a_value_that_is_none_of_a_fields_is_told_and_nobody_acts_on_it(kind: str, odd: Any):
    whole = json.loads(json.dumps(encoded([KINDS[kind](**SAMPLES[kind])])[0]))
    for name, value in whole.items():
        if name == "kind" or (type(value) is type(odd) and odd in ("x", ["x"], 5, True)):
            continue
        (read,) = decoded([whole | {name: odd}])
        assert read.describe() == f"a {KINDS[kind].kind} with {name} of another type, of another release"
        read.remove(None)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_resource_describes_itself_in_one_line(kind: str):
    text = KINDS[kind](**SAMPLES[kind]).describe()
    assert text
    assert text == text.strip()
    assert "\n" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_what_retires_is_shared(kind: str):
    assert KINDS[kind].shared or not KINDS[kind].retires


@pytest.mark.parametrize(
    ("raw", "known", "unknown"),
    [
        ({"kind": "Teleporter", "to": "mars"}, 0, "a resource of kind Teleporter"),
        ({"to": "mars"}, 0, "a resource of kind None"),
        ({"kind": "GuardTable", "colour": "red"}, 1, "colour of a GuardTable"),
        ({"kind": "PodLink", "name": "eth0"}, 0, "a PodLink without mac, mtu"),
    ],
)
def test_what_another_release_recorded_is_named_and_the_rest_of_it_is_known(raw: dict, known: int, unknown: str):
    *read, last = decoded([raw])
    assert len(read) == known
    assert list(last.differences(None)) == [f"{unknown}, which another release recorded, is not known to this one"]
    last.remove(None)


@dataclass(frozen=True)
class Held(Resource):
    """Shared by what its identity says; the note tells nobody apart."""

    netns: str
    family: int
    note: str = ""
    shared = True
    retires = True
    identity = ("netns", "family")

    @property
    def mentions(self) -> tuple[str, ...]:
        return (self.netns, "10.0.0.2")


def test_uses_name_what_is_shared_by_its_identity_and_a_namespace_by_what_it_is():
    def lasting(value: object) -> str:
        return "boot:7" if value == "/run/netns/a" else str(value)

    one, other = Held("/run/netns/a", 4, "one"), Held("/proc/9/ns/net", 4, "other")
    assert list(uses_of([one], lasting)) == ["Held boot:7 4", "boot:7", "10.0.0.2"]
    assert list(uses_of([other], lasting)) == ["Held /proc/9/ns/net 4", "/proc/9/ns/net", "10.0.0.2"]
    assert list(uses_of([Noted("veth")], lasting)) == []


@dataclass(frozen=True)
class Ruled(NftRules):
    """One line of a script, in a table that others make."""

    line: str
    table: str = ""
    obstacle: str = ""

    @property
    def declarations(self) -> str:
        return f"{self.table}\n" if self.table else ""

    def script(self) -> str:
        return f"{self.line}\n"

    def in_the_way(self, world: World) -> str:
        return f"{self.obstacle}\n" if self.obstacle else ""

    def differences(self, world: World) -> Iterator[str]:
        yield f"{self.line} is missing"

    def remove(self, world: World) -> None:
        NOTES.append(f"remove {self.line}")


def test_a_difference_says_whose_it_is_and_what_mends_it(world: World):
    link, rules = Noted("a", fails="differences"), Ruled("b")
    found = engine.differences([link, rules], world, Result())
    assert [(item.resource, item.mend) for item in found] == [(link, REATTACH), (link, REATTACH), (rules, REFRESH)]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The scripts of each transaction; whoever makes one by nft itself fails."""
    sent: list[list[str]] = []
    monkeypatch.setattr(netfilter, "nft_made", lambda scripts, changes=(): sent.append(list(scripts)))
    monkeypatch.setattr(netfilter, "nft", lambda script: pytest.fail(f"nft is given {script}"))
    return sent


def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[str]:
    """Let the kernel refuse what is made; returns what nft is given then."""

    def refuse(scripts: Iterable[str], changes: Iterable[Change] = ()) -> None:
        list(scripts)
        raise error

    sent: list[str] = []
    monkeypatch.setattr(netfilter, "nft_made", refuse)
    monkeypatch.setattr(netfilter, "nft", sent.append)
    return sent


def test_neighbours_of_one_transaction_are_made_in_one(world: World, made: list[list[str]]):
    engine.apply([Ruled("a"), Ruled("b"), Noted("veth"), Ruled("c"), Ruled("d")], world)
    assert made == [["a\nb\n"], ["c\nd\n"]]


def test_neighbours_in_one_table_declare_it_once(world: World, made: list[list[str]]):
    engine.apply([Ruled("a", "x"), Ruled("b", "x"), Ruled("c", "y"), Ruled("d", "x")], world)
    assert made == [["x\na\nb\ny\nc\nx\nd\n"]]


def test_what_declares_nothing_is_a_script_of_its_own(world: World, made: list[list[str]]):
    engine.apply([Ruled("a"), Ruled("b", "x"), Ruled("c", "y"), Ruled("d"), Ruled("e")], world)
    assert made == [["a\n", "x\nb\ny\nc\n", "d\ne\n"]]


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EOPNOTSUPP])
def test_what_is_in_the_way_goes_in_the_same_transaction(world: World, monkeypatch: pytest.MonkeyPatch, number: int):
    sent = refusing(monkeypatch, KernelRefused("in the way", number))
    engine.apply([Ruled("a", "x"), Ruled("b", "y", "free b"), Ruled("c", "y", "free c")], world)
    assert sent == ["free b\nfree c\nx\na\ny\nb\nc\n"]


@pytest.mark.parametrize("error", [KernelRefused("refused", errno.EPERM), ToolFailed("refused")], ids=["kernel", "nft"])
def test_a_refused_transaction_is_taken_back_whole(world: World, monkeypatch: pytest.MonkeyPatch, error: Exception):
    sent = refusing(monkeypatch, error)
    with pytest.raises(type(error), match="refused"):
        engine.apply([Ruled("a"), Ruled("b")], world)
    assert sent == []
    world.undo.close()
    assert NOTES == ["remove b", "remove a"]


def test_rules_that_nft_refuses_in_the_end_are_taken_back_too(world: World, monkeypatch: pytest.MonkeyPatch):
    def refuse(script: str) -> None:
        raise ToolFailed("refused again")

    refusing(monkeypatch, KernelRefused("in the way", errno.EEXIST))
    monkeypatch.setattr(netfilter, "nft", refuse)
    with pytest.raises(ToolFailed, match="again"):
        engine.apply([Ruled("a"), Ruled("b")], world)
    world.undo.close()
    assert NOTES == ["remove b", "remove a"]


RICH = {
    "kind": "GatewayAddress",
    "link": "br0",
    "address": "10.0.0.1/24",
    "force": False,
    "since": {"year": [2031]},
    "colour": "red",
}
OF_ANOTHER_RELEASE = [
    {"kind": "Teleporter", "to": {"planet": "mars"}, "stops": [1, None]},
    {"kind": "PodLink", "name": "eth0", "speed": 3},
    RICH,
    {"kind": "GatewayAddress", "link": {"name": "br0"}, "address": "10.0.0.1/24", "colour": "red"},
    {"kind": "unreadable", "text": "{"},
]


def test_what_another_release_recorded_stays_as_it_wrote_it():
    read = decoded(OF_ANOTHER_RELEASE)
    assert encoded(read) == OF_ANOTHER_RELEASE
    assert decoded(json.loads(json.dumps(encoded(read)))) == read


def test_a_field_of_another_release_goes_with_what_it_was_about():
    resource, *of_it = decoded([RICH])
    other = replace(resource, address="10.0.0.2/24")
    assert encoded([other, *of_it]) == encoded([other])
