"""Hosts with two uplinks, each to a switch of its own, every way in which one fails, and for how long nobody is answered then.

The store is at the first switch. Between subnets each switch is the gateway and knows the other; in one subnet they are one wire.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from cluster import UNDERLAY, Cluster, Node, Placed
from lab import PATIENCE, Namespace, sh

#: The second uplink's addresses; between subnets, and in one.
SECOND = {4: "198.51.100.{}", 6: "fd00:3::{:x}"}
_BESIDE = 100
_CORE = ("203.0.113.1", "203.0.113.2"), ("fd00:4::1", "fd00:4::2")
_EVERY = 0.02


@dataclass
class Uplinked(Node):
    """A host with `eth0` and `eth1`; `switches` are those they are wired to."""

    switches: dict[str, Namespace] = field(default_factory=dict)

    def silence(self, link: str, silent: bool = True) -> None:
        """Let nothing pass at the switch's port, whose carrier stays."""
        state = "disabled" if silent else "forwarding"
        sh("bridge", "-n", self.switches[link].name, "link", "set", "dev", f"port{self.number}", "state", state)

    def unplug(self, link: str, out: bool = True) -> None:
        """Take the carrier away, or have it again."""
        sh("ip", "-n", self.switches[link].name, "link", "set", f"port{self.number}", "down" if out else "up")

    def down(self, link: str) -> None:
        """Set a link down."""
        sh("ip", "-n", self.name, "link", "set", link, "down")

    def cut_off(self, link: str) -> None:
        """Delete a link."""
        sh("ip", "-n", self.name, "link", "del", link)

    def bare(self, link: str) -> None:
        """Take a link's addresses away."""
        sh("ip", "-n", self.name, "addr", "flush", "dev", link, "scope", "global")


#: How a host's first uplink fails.
FAILURES: dict[str, Callable[[Uplinked], None]] = {
    "silent": lambda host: host.silence("eth0"),
    "unplugged": lambda host: host.unplug("eth0"),
    "down": lambda host: host.down("eth0"),
    "deleted": lambda host: host.cut_off("eth0"),
    "bare": lambda host: host.bare("eth0"),
}


@dataclass
class Uplinks(Cluster):
    """Hosts .11, .12, … whose second uplinks are in another subnet, or in `one`; without `gateways` nobody routes."""

    one: bool = False
    gateways: bool = True
    kind: type[Node] = Uplinked

    def __post_init__(self) -> None:
        super().__post_init__()
        self.second = self.lab.add(Namespace(self.lab.name("second")))
        sh("ip", "-n", self.second.name, "link", "add", "sw0", "type", "bridge")
        sh("ip", "-n", self.second.name, "link", "set", "sw0", "up")
        self._join_switches()
        for node in self.nodes:
            sh("ip", "-n", node.name, "route", "flush", "default")
            for link in ("eth0", "eth1"):
                if self.family == 6:
                    sh("ip", "-n", node.name, "-4", "addr", "flush", "dev", link, check=False)
                self.wire(node, link)

    def _join_switches(self) -> None:
        first, second = self.switch.name, self.second.name
        sh("ip", "-n", first, "link", "add", "core", "type", "veth", "peer", "core", "netns", second)
        if self.one:
            for name in (first, second):
                sh("ip", "-n", name, "link", "set", "core", "master", "sw0", "up")
            return
        for family in (4, 6):
            length = 24 if family == 4 else 64
            sh("ip", "-n", second, "addr", "add", f"{SECOND[family].format(1)}/{length}", "dev", "sw0", *_now(family))
        for number, name in enumerate((first, second)):
            sh("ip", "-n", name, "link", "set", "core", "up")
            for family, ends, there in zip((4, 6), _CORE, ((SECOND, UNDERLAY)[number],) * 2, strict=True):
                length, subnet = (24, there[4].format(0)) if family == 4 else (64, there[6].format(0))
                sh("ip", "-n", name, "addr", "add", f"{ends[number]}/{length}", "dev", "core", *_now(family))
                sh("ip", "-n", name, "route", "add", f"{subnet}/{length}", "via", ends[1 - number])
        for where in (self.switch, self.second):
            for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
                where.run("sysctl", "-qw", f"{key}=1")
        for keeper in self.keepers:
            sh("ip", "-n", keeper.name, "-6", "route", "replace", "default", "via", UNDERLAY[6].format(1))

    def wire(self, node: Node, link: str) -> None:
        """Give a host an uplink, with addresses and routes, as its network's configuration does at boot."""
        assert isinstance(node, Uplinked)
        switch = self.switch if link == "eth0" else self.second
        node.switches |= {"eth0": self.switch, "eth1": self.second}
        port = f"port{node.number}"
        if node.link(link) is None:
            peer = ("peer", "name", link, "netns", node.name)
            sh("ip", "-n", switch.name, "link", "add", port, "master", "sw0", "type", "veth", *peer)
        sh("ip", "-n", switch.name, "link", "set", port, "up")
        sh("ip", "-n", node.name, "link", "set", link, "up")
        for family in (4, 6) if self.family == 4 else (6,):
            self._address(node, link, family)

    def _address(self, node: Node, link: str, family: int) -> None:
        near = link == "eth0" or self.one
        length, gateway = (24 if family == 4 else 64), (UNDERLAY if near else SECOND)[family].format(1)
        at = f"{self.at(node, link, family)}/{length}"
        sh("ip", "-n", node.name, "addr", "replace", at, "dev", link, *_now(family))
        if self.gateways:
            metric = () if link == "eth0" else ("metric", 200)
            sh("ip", "-n", node.name, f"-{family}", "route", "replace", "default", "via", gateway, "dev", link, *metric)

    def at(self, node: Node, link: str, family: int = 0) -> str:
        """A host's address by one of its uplinks."""
        family = family or self.family
        if link == "eth0":
            return node.underlay(family)
        return UNDERLAY[family].format(node.number + _BESIDE) if self.one else SECOND[family].format(node.number)

    def configure(self, host: Node, **options: Any) -> None:
        super().configure(host, **{"vtep": "", "uplinks": ["eth0", "eth1"]} | options)

    def said_at(self, node: Node) -> str:
        """Where others are to send, by the store."""
        found = next(item for item in self.listing() if item.key == ("nodes", node.name))
        return found.underlay.rpartition(":")[0].strip("[]") or found.vtep

    def is_at(self, node: Node, link: str) -> bool:
        """Whether a host is reached by an uplink, as the store says."""
        return self.said_at(node) == self.at(node, link)


class Pauses:
    """For how long one pod got no answer of another, at most, in seconds: it asks every 20 ms."""

    def __init__(self, asking: Placed, asked: Placed, family: int) -> None:
        command = ["ping", "-n", "-D", "-i", _EVERY, asked.address(family)]
        self._ping = asking.pod.start(*command)
        self._began = time.time()

    def close(self) -> None:
        self._ping.terminate()
        self._ping.communicate(timeout=PATIENCE)

    def longest(self) -> float:
        """The longest until now."""
        self._ping.send_signal(2)
        said, _ = self._ping.communicate(timeout=PATIENCE)
        answered = [float(at) for at in re.findall(r"^\[([\d.]+)\] \d+ bytes from", said, re.MULTILINE)]
        times = [self._began, *answered, time.time()]
        return max(later - sooner for sooner, later in pairwise(times))


@contextmanager
def pauses(asking: Placed, asked: Placed, family: int = 4) -> Iterator[Pauses]:
    """From now on."""
    made = Pauses(asking, asked, family)
    try:
        yield made
    finally:
        if made._ping.poll() is None:
            made.close()


def _now(family: int) -> tuple[str, ...]:
    return ("nodad",) if family == 6 else ()
