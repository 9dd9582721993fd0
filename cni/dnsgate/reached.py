"""What a pod was told and may reach by that: elements of its sets, each for as long as its answer holds. Pure.

An address is one of several names; it is in the sets of the rules that have any of these. Who forgets it first asks whether a
connection lives: see `due`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from cni.dnsgate.guest import Guest
from cni.dnsgate.message import Name
from cni.kernel.ruleset import Change
from cni.naming import POLICY_TABLE

#: Addresses a pod may reach by names at a time, and the longest that an answer holds, in seconds (RFC 8767, 4).
_MOST, _LONGEST = 4096, 7 * 86400.0
#: Names of the same rules that an address is known by at a time: below a pattern anybody can ask for as many as he likes.
_NAMES = 16


class Reached:
    """Of one pod; times are seconds of one clock."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._until: dict[bytes, dict[Name, float]] = {}
        #: What a set had before anything was told here, under no name that is known: until when.
        self._found: dict[tuple[str, bytes], float] = {}
        self._there: dict[str, set[bytes]] = {}

    def renew(self, guest: Guest, there: Mapping[str, Collection[bytes]], now: float) -> None:
        """The pod is held to other names, or its sets are others: `there` is what the kernel has in each. What nobody told stays for
        the least time.
        """
        self.guest = guest
        self._there = {name: set(keys) for name, keys in there.items()}
        known = self._wanted()
        self._found = {
            (name, key): self._found.get((name, key), now + guest.entry.keep)
            for name, keys in there.items()
            for key in keys
            if key not in known.get(name, ())
        }

    @property
    def addresses(self) -> set[bytes]:
        """What the pod may reach."""
        return self._until.keys() | {address for _, address in self._found}

    def is_full(self, address: bytes) -> bool:
        """Whether one more address is too many."""
        return address not in self._until and len(self._until) >= _MOST

    def admit(self, address: bytes, name: Name, ttl: int, now: float) -> bool:
        """A name was told; whether the address was not known by it."""
        names = self._until.setdefault(address, {})
        is_new = name not in names
        names[name] = max(names.get(name, 0.0), now + min(max(ttl, self.guest.entry.keep), _LONGEST))
        if len(names) > _NAMES:
            rules = self.guest.rules_of(name)
            alike = [other for other in names if self.guest.rules_of(other) == rules]
            if len(alike) > _NAMES:
                del names[min(alike, key=names.__getitem__)]
        return is_new

    def additions(self, addresses: Iterable[bytes]) -> dict[str, set[bytes]]:
        """What the kernel lacks of some addresses, by set."""
        lacking: dict[str, set[bytes]] = {}
        for address in addresses:
            for name in self._sets_of(address):
                if address not in self._there.get(name, ()):
                    lacking.setdefault(name, set()).add(address)
        return lacking

    def added(self, elements: Mapping[str, Collection[bytes]]) -> None:
        """The kernel has these."""
        for name, keys in elements.items():
            self._there.setdefault(name, set()).update(keys)

    def changes(self) -> Iterator[Change]:
        """What takes all sets to what they are to be."""
        wanted = self._wanted()
        for name in self.guest.every_set:
            there, now = self._there.get(name, set()), wanted.get(name, set())
            if there != now:
                yield Change(f"{POLICY_TABLE} {name}", frozenset(now - there), frozenset(there - now))

    def changed(self) -> None:
        """The kernel has all that it is to have."""
        self._there = self._wanted()

    def due(self, now: float) -> set[bytes]:
        """The addresses of which some answer is too old."""
        old = {address for address, names in self._until.items() if min(names.values()) <= now}
        return old | {address for (_, address), until in self._found.items() if until <= now}

    def extend(self, addresses: Collection[bytes], now: float) -> None:
        """Connections to some addresses live: they stay as long again."""
        until = now + self.guest.entry.keep
        for address in addresses & self._until.keys():
            self._until[address] = {name: max(old, until) for name, old in self._until[address].items()}
        self._found = {item: max(old, until) if item[1] in addresses else old for item, old in self._found.items()}

    def forget(self, now: float) -> None:
        """Forget what is too old."""
        for address in self.due(now) & self._until.keys():
            left = {name: until for name, until in self._until[address].items() if until > now}
            if left:
                self._until[address] = left
            else:
                del self._until[address]
        self._found = {item: until for item, until in self._found.items() if until > now}

    def _sets_of(self, address: bytes) -> Iterator[str]:
        rules = {rule for name in self._until.get(address, ()) for rule in self.guest.rules_of(name)}
        return self.guest.sets(rules, 4 if len(address) == 4 else 6)

    def _wanted(self) -> dict[str, set[bytes]]:
        wanted: dict[str, set[bytes]] = {name: set() for name in self.guest.every_set}
        for address in self._until:
            for name in self._sets_of(address):
                wanted[name].add(address)
        for name, address in self._found:
            if name in wanted:
                wanted[name].add(address)
        return wanted
