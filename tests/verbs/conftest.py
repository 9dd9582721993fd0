"""A plugin whose resources only take notes, to tell the story of every verb with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from cni import verbs
from cni.ipam.source import Source, source_of
from cni.naming import Attachment
from cni.protocol.call import Call
from cni.protocol.result import Interface, Result
from cni.resources import Host, Plan, Resource, World
from cni.state import Store
from cni.values import dataclass, replace

NOTES: list[str] = []
FAULTS: dict[str, BaseException] = {}
MIDST: dict[str, Callable[[], object]] = {}
EXISTING: set[str] = set()


@dataclass(frozen=True)
class Thing(Resource):
    """Exists when its name is in EXISTING; FAULTS says which verb of it fails, and how, MIDST what happens in its midst, once."""

    name: str

    def ensure(self, world: World) -> None:
        self._note("ensure")
        EXISTING.add(self.name)
        world.created(self)

    def differences(self, world: World) -> Iterator[str]:
        if self.name not in EXISTING:
            yield f"{self.name} is missing"

    def remove(self, world: World) -> None:
        self._note("remove")
        EXISTING.discard(self.name)

    def _note(self, verb: str) -> None:
        NOTES.append(f"{verb} {self.name}")
        MIDST.pop(f"{verb} {self.name}", lambda: None)()
        if f"{verb} {self.name}" in FAULTS:
            raise FAULTS[f"{verb} {self.name}"]


@dataclass(frozen=True)
class SharedThing(Thing):
    shared = True


@dataclass(frozen=True)
class RetiringThing(SharedThing):
    retires = True


@dataclass(frozen=True)
class Config:
    ipam: Source
    uplink: None = None
    rules: None = None
    sidecar: None = None
    policy: None = None
    names: None = None
    ports: tuple[str, ...] = ()
    bridge: str = ""
    links: tuple[str, ...] = ()
    address: str = ""
    shares: tuple[str, ...] = ("rules",)
    enters_pod: ClassVar[bool] = False
    has_port: ClassVar[bool] = True
    chained: ClassVar[bool] = False

    @classmethod
    def read(cls, conf: dict[str, Any], call: Call) -> Config:
        call.arguments()
        return cls(
            source_of(conf, call), links=tuple(conf.get("links", ())), shares=tuple(conf.get("shares", ("rules",)))
        )


def plan(config: Config, attachment: Attachment, lease: Result, host: Host) -> Plan:
    shared = map(RetiringThing, config.shares)
    last = () if host.unleased else (Thing("last"),)
    things = (SharedThing("bridge"), Thing(f"veth-{attachment.container}"), *shared, *last)
    return Plan(things, replace(lease, interfaces=(Interface("eth0", sandbox=host.netns),)))


PLUGIN: Any = SimpleNamespace(name="noted", Config=Config, plan=plan)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    NOTES.clear()
    FAULTS.clear()
    MIDST.clear()
    EXISTING.clear()
    monkeypatch.setattr(verbs, "validate", lambda conf, plugin: None)


@pytest.fixture
def conf(folder: Path) -> dict[str, Any]:
    ipam = {"type": "agent-ipam", "subnet": "10.1.0.0/29"}
    return {"cniVersion": "1.1.0", "name": "pods", "type": "noted", "dataDir": str(folder), "ipam": ipam}


class Telling:
    """Calls a verb for a container and returns what was delivered; see NOTES, FAULTS, MIDST and EXISTING."""

    notes, faults, midst, existing = NOTES, FAULTS, MIDST, EXISTING

    def __init__(self, conf: dict[str, Any]) -> None:
        self.conf = conf
        self.path: tuple[str, ...] = ()
        self.plugin = PLUGIN

    def __call__(
        self, verb: str, container: str = "c1", args: str = "", deliver: Any = None, **keys: Any
    ) -> dict[str, Any]:
        delivered: dict[str, Any] = {}
        call = Call(verb, container, f"/nowhere/{container}", "eth0", args, self.path)
        verbs.VERBS[verb](self.plugin, call, self.conf | keys, deliver or delivered.update)
        return delivered


@pytest.fixture
def run(conf: dict[str, Any]) -> Telling:
    return Telling(conf)


@pytest.fixture
def remembered(folder: Path) -> Callable[[], tuple[list[str], list[str]]]:
    """The containers with a record, and the addresses leased."""

    def look() -> tuple[list[str], list[str]]:
        store = Store.reading(folder)
        found = [record.attachment.container for record in store.records()] if store else []
        leases = [str(address) for address, *_ in store.all_leases()] if store else []
        if store:
            store.close()
        return found, leases

    return look
