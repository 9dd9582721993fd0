"""The uplinks of this host, watched by a thread of its own: who answers behind each is asked, the best is taken, and the cluster told."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing

from cni import log
from cni.cluster.model import Node
from cni.errors import CniError
from cni.kernel.events import LINKS, Events
from cni.kernel.netlink.reachability import Asking
from cni.kernel.view import LinkRef
from cni.member import figures
from cni.member.trouble import Trouble
from cni.member.uplinks import routes
from cni.member.uplinks.choice import GATEWAY, HOSTS, NOBODY, NOTHING, Choice, Seen
from cni.member.uplinks.probes import Probes, Target
from cni.member.uplinks.way import Way, address, ways

#: Seconds between two steps, and until all is read again of which nothing was heard.
_TICK, _READ_AGAIN = 0.05, 1.0
#: How many other hosts are asked where there is no gateway.
_ASKED = 5
_WORDS = {
    NOTHING: "no link of that name carries anything, or it has no address",
    NOBODY: "nobody answers", HOSTS: "hosts of the cluster answer", GATEWAY: "a gateway answers",
}  # fmt: skip


class Uplinks:
    """Them. `before` is where others sent to last; `peers` are the other hosts that are alive, those
    that are to be asked first. `moved` is told by which address they are to
    send from now on, and by which they may, and `switched` when packets take another link by now.
    """

    def __init__(
        self,
        names: Sequence[str],
        before: str,
        peers: Callable[[], Sequence[Node]],
        moved: Callable[[str, tuple[str, ...]], None],
        switched: Callable[[], None],
    ) -> None:
        self._names, self._peers = names, peers
        self._moved, self._switched = moved, switched
        self._at = before
        self._told: tuple[str, tuple[str, ...]] = ("", ())
        self._ways: tuple[Way, ...] = ()
        self._read_at = 0.0
        self._choice: Choice | None = None
        self._silent: frozenset[str] = frozenset()
        self._trouble = Trouble("uplinks")

    def run(self) -> None:
        """Watch them, for ever."""
        with closing(Asking()) as host, closing(Events(LINKS)) as events:
            probes, anew = Probes(host), True
            while True:
                try:
                    self.step(host, probes, time.monotonic(), anew=anew)
                except CniError as error:  # a link that goes meanwhile, a state that is in use: the next step does it
                    self._trouble.is_so(error.msg)
                    self._read_at = 0.0
                else:
                    self._trouble.over()
                anew = bool(events.wait(self._is_about_one, _TICK))

    def step(self, host: Asking, probes: Probes, now: float, *, anew: bool = False) -> None:
        """Look, ask, and take what is best. Raises KernelRefused, and what `moved` does."""
        if is_read := anew or now >= self._read_at + _READ_AGAIN:
            self._ways, self._read_at = ways(host, self._names, self._at), now
        choice = self._choice = self._choice or self._begun(host)
        targets = {way.name: self._targets(way) for way in self._ways}
        probes.ask([target for some in targets.values() for target in some], now)
        seen = [_seen(way, targets[way.name], probes, way.name == choice.taken) for way in self._ways]
        before, taken = choice.taken, self._way(choice.decide(now, seen))
        silent = frozenset(item.name for item in seen if item.behind <= NOBODY)
        if is_read or taken.name != before or silent != self._silent:
            routes.ensure(host, self._ways, taken, silent)
            self._silent = silent
        if taken.name != before:
            self._tell(before, taken, seen)
            self._read_at = 0.0
        self._follow(host, taken, is_another=taken.name != before)
        figures.UPLINKS.put({(item.name,): item.behind for item in seen})
        figures.UPLINK_TAKEN.put({(item.name,): item.name == taken.name for item in seen})

    def _follow(self, host: Asking, taken: Way, *, is_another: bool) -> None:
        """Have others send where they are heard now; of one that nobody can send to, nothing is said."""
        every = tuple(way.address for way in self._ways if way.address)
        if not taken.address or (taken.address, every) == self._told:
            return
        self._moved(taken.address, every)
        is_moved, self._told = taken.address != self._at, (taken.address, every)
        self._at = taken.address
        if is_another or is_moved:
            self._switched()
        if is_moved and taken.link and taken.family == 4:
            host.announce(taken.link, taken.address)

    def _begun(self, host: Asking) -> Choice:
        """Go on with the one others send to, if it is there; nothing of a link is preferred any more that is no uplink."""
        routes.clear(host, [way.link.index for way in self._ways if way.link])
        at = address(self._ways, self._at)
        found = next((way.name for way in self._ways if at and way.address == at), self._names[0])
        return Choice(found)

    def _way(self, name: str) -> Way:
        return next(way for way in self._ways if way.name == name)

    def _targets(self, way: Way) -> tuple[Target, ...]:
        """Whom to ask: its gateway, or, where there is none, hosts of the cluster that are on its link."""
        if not (way.link and way.carries and way.address):
            return ()
        link = LinkRef(way.link.index, way.link.name)
        if gateway := way.gateways.get(way.family):
            return (Target(link, gateway.gateway),) if gateway.gateway else ()
        places = [next(filter(way.reaches, _addresses_of(node)), "") for node in self._peers()]
        return tuple(Target(link, place) for place in list(filter(None, places))[:_ASKED])

    def _is_about_one(self, link: int, message: bytes) -> bool:
        known = any(way.link and way.link.index == link for way in self._ways)
        return known or any(name.encode() in message for name in self._names)

    def _tell(self, before: str, taken: Way, seen: Sequence[Seen]) -> None:
        figures.SWITCHES.add()
        why = {item.name: _WORDS[item.behind] for item in seen}
        text = f"uplink {taken.name} is taken ({why[taken.name]}), and {before} left ({why.get(before, 'it is none any more')})"
        log.warning("member", text, verb="uplinks")


def _seen(way: Way, targets: Collection[Target], probes: Probes, is_taken: bool) -> Seen:
    """Of the one that is taken nobody is silent before that is known, and of another nobody answers."""
    if not (way.carries and way.address):
        return Seen(way.name, NOTHING)
    answers = sum(is_taken if (said := probes.answers(target)) is None else said for target in targets)
    if gateway := way.gateways.get(way.family):
        return Seen(way.name, GATEWAY if answers or not gateway.gateway else NOBODY)
    return Seen(way.name, HOSTS if answers else NOBODY, answers)


def _addresses_of(node: Node) -> tuple[str, ...]:
    """All by which a host may be reached, outside of tunnels."""
    place = node.underlay.rpartition(":")[0].strip("[]") or node.vtep
    return node.uplinks or (place,)
