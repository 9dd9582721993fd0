"""Anything may befall three hosts, in any order: no address is two hosts', ever, and in the end all agree."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from cluster_memory import Memory
from member_host import Host, network
from member_oracle import duplicates, rows, sound, spelled

from cni.member import survivors

NETS = (
    network(subnet="10.10.0.0/25", block=8),
    network("routed", "10.20.0.0/25 fd00:20::/121", block=16, mode="l3", vni=200),
)
STEPS = 200


class Town:
    """Three hosts and what befalls them. `alive` is who has which address, whatever any state says of it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.memory = Memory()
        self.hosts = [Host(f"node-{letter}", self.memory, folder / letter) for letter in "abc"]
        self.hosts[2].spares = True
        self.alive: dict[tuple[str, str], tuple[str, str]] = {}
        self.told: list[str] = []
        for host in self.hosts:
            host.share(*NETS)
            host.keeper.step()
            host.hear()  # of nobody's blocks

    def befall(self) -> None:
        """One thing."""
        host = self.chance.choice(self.hosts)
        what = self.chance.choices(
            [self.comes, self.goes, self.works, self.is_cut, self.is_healed, self.is_killed, self.is_not_answered,
             self.sleeps, self.is_idle, self.reboots, self.half_works, self.is_deaf],
            [20, 5, 12, 1, 5, 2, 2, 1, 3, 0.5, 4, 4],
        )[0]  # fmt: skip
        self.told.append(f"{host.name} {what.__name__}")
        what(host)

    def comes(self, host: Host) -> None:
        net = self.chance.choice(NETS)
        family = self.chance.choice([4, 6]) if net is NETS[1] else 4
        container = f"c{len(self.told)}"
        if address := host.add(container, net, family):
            assert (net.name, address) not in self.alive, self.told
            self.alive[net.name, address] = host.name, container

    def goes(self, host: Host) -> None:
        mine = [place for place, (name, _) in self.alive.items() if name == host.name]
        if mine:
            place = self.chance.choice(sorted(mine))
            _, container = self.alive.pop(place)
            host.delete(container, next(net for net in NETS if net.name == place[0]))

    def works(self, host: Host) -> None:
        host.turn()

    def half_works(self, host: Host) -> None:
        """A thread of it is quicker than another."""
        self.chance.choice([host.keeper.step, host.hear, host.publisher.step])()

    def is_cut(self, host: Host) -> None:
        host.store.cut = True

    def is_healed(self, host: Host) -> None:
        host.store.cut = host.deaf = False

    def is_deaf(self, host: Host) -> None:
        """Its watch hangs, and it goes on by what it has heard before."""
        host.deaf = True

    def is_killed(self, host: Host) -> None:
        host.again()

    def is_not_answered(self, host: Host) -> None:
        host.store.lost_answers = self.chance.randrange(1, 4)
        host.turn()

    def sleeps(self, host: Host) -> None:
        """Long enough for every session to end."""
        self.memory.pass_time(60)

    def is_idle(self, host: Host) -> None:
        """It gives up what it does not need."""
        host.idle = host.estate._idle = 0.0
        host.turn()
        host.idle = host.estate._idle = 3600.0

    def reboots(self, host: Host) -> None:
        """Its pods and its state are gone, and its session by the time that it is back."""
        self.memory.end_session(host.name)
        shutil.rmtree(host.folder)
        self.alive = {place: who for place, who in self.alive.items() if who[0] != host.name}
        host.again()
        host.share(*NETS)

    def end(self) -> None:
        """All is well again."""
        for host in self.hosts:
            host.store.cut = host.deaf = False
            host.store.lost_answers = 0
        for host in self.hosts * 4:
            host.turn()


@pytest.mark.parametrize("seed", range(10))
def test_no_address_is_two_hosts_whatever_befalls_them(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(survivors, "living", lambda said: [])
    town = Town(seed, tmp_path)
    for _ in range(STEPS):
        town.befall()
        assert duplicates(*town.hosts) == [], town.told
    town.end()
    sound(town.memory, *town.hosts)
    leased = {
        (name, spelled(packed))
        for host in town.hosts
        for name, packed in rows(host, "SELECT network, address FROM lease")
    }
    assert leased == town.alive.keys()
    assert len(town.told) == STEPS
    assert town.alive
