"""What a member counts while it works: counters, gauges and histograms its rooms add to, by Prometheus' conventions.

Plain numbers in memory, of one process and of any of its threads. Source of the names' shape:
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import ClassVar, NamedTuple

#: Of one thing, what its labels say, in the order of their names.
Labels = tuple[str, ...]

_lock = Lock()


class Sample(NamedTuple):
    """A line of an answer: a name, its labels by name, and a value."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Figure:
    """Something that is counted under a name; `means` is one line for people, `labels` tell its values apart."""

    kind: ClassVar[str]

    def __init__(self, name: str, means: str, *labels: str) -> None:
        self.name = f"agent_cni_{name}"
        self.means = means
        self.labels = labels
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}
        EVERY.append(self)

    def samples(self) -> Iterator[Sample]:
        """What it is now."""
        with _lock:
            found = sorted(self._values.items())
        return (Sample(self.name, self._named(key), value) for key, value in found)

    def value(self, **labels: str) -> float:
        """One of its values, 0 where nothing was said."""
        return self._values.get(self._key(labels), 0.0)

    def _key(self, given: Mapping[str, str]) -> Labels:
        if len(given) != len(self.labels):
            raise KeyError(f"{self.name} has the labels {self.labels}, not {tuple(given)}")
        return tuple(given[name] for name in self.labels)

    def _named(self, key: Labels) -> tuple[tuple[str, str], ...]:
        return tuple(zip(self.labels, key, strict=True))


#: All there are, in the order in which they are told.
EVERY: list[Figure] = []


class Counter(Figure):
    """What only grows while the process lives; its name ends with ``_total``."""

    kind = "counter"

    def add(self, amount: float = 1, **labels: str) -> None:
        """Count so much more."""
        key = self._key(labels)
        with _lock:
            self._values[key] = self._values.get(key, 0.0) + amount


class Gauge(Figure):
    """What is so now."""

    kind = "gauge"

    def set(self, value: float, **labels: str) -> None:
        """Say what it is now."""
        with _lock:
            self._values[self._key(labels)] = value

    def put(self, values: Mapping[Labels, float]) -> None:
        """Say all there is now, by the labels' values in their order: what is not named is no more."""
        with _lock:
            self._values = dict(values)


class Since(Gauge):
    """How many seconds ago something was so last, by a clock nobody sets; it is told from the first time on."""

    def __init__(self, name: str, means: str) -> None:
        super().__init__(name, means)
        self._values.clear()

    def now(self) -> None:
        """It is so now."""
        self.set(time.monotonic())

    def samples(self) -> Iterator[Sample]:
        """How long ago that was."""
        now = time.monotonic()
        return (item._replace(value=round(now - item.value, 3)) for item in super().samples())


class Histogram(Figure):
    """How long something took, by seconds: how many took at most so long (cumulative), all together, and how many."""

    kind = "histogram"

    def __init__(self, name: str, means: str, *labels: str, bounds: tuple[float, ...]) -> None:
        super().__init__(name, means, *labels)
        self._values.clear()
        self.bounds = bounds
        self._counts: dict[Labels, list[int]] = {}
        if not labels:
            self._begin(())

    def observe(self, seconds: float, **labels: str) -> None:
        """Count one that took so long."""
        key = self._key(labels)
        with _lock:
            if key not in self._counts:
                self._begin(key)
            self._counts[key][bisect_left(self.bounds, seconds)] += 1
            self._values[key] += seconds

    def samples(self) -> Iterator[Sample]:
        """What it is now, cumulative."""
        with _lock:
            found = [(key, list(self._counts[key]), total) for key, total in sorted(self._values.items())]
        for key, counts, total in found:
            yield from distribution(self.name, self._named(key), self.bounds, counts, total)

    def _begin(self, key: Labels) -> None:
        self._counts[key] = [0] * (len(self.bounds) + 1)
        self._values[key] = 0.0


def distribution(
    name: str, labels: tuple[tuple[str, str], ...], bounds: tuple[float, ...], counts: list[int], total: float
) -> Iterator[Sample]:
    """A histogram's lines from how many fell between two bounds, the last being above all of them."""
    so_far = 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        so_far += count
        below = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield Sample(f"{name}_bucket", (*labels, ("le", below)), so_far)
    yield Sample(f"{name}_sum", labels, total)
    yield Sample(f"{name}_count", labels, so_far)


#: From half a millisecond to half a minute.
_QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# --- what the store is heard to say (watcher, session)
NODES = Gauge("nodes", "Hosts of the cluster, alive or away.", "state")
ENDPOINTS = Gauge(
    "endpoints",
    "Addresses of an l2 network the cluster knows of, those of this host too; in l3 hosts do not hear of them.",
    "network",
)
REFUSED = Counter("store_items_refused_total", "Items of the store that could not be read.")
HEARD = Since("store_silence_seconds", "Seconds since the store was heard of.")
STORE_ERRORS = Counter("store_errors_total", "Failures of the store, by kind, as unreachable or compacted.", "kind")
LISTINGS = Counter("store_listings_total", "Times everything was read anew.")

# --- this host's life in the cluster (session, publisher, steward)
RENEWALS = Counter("session_renewals_total", "Times the session was renewed.")
SESSIONS_LOST = Counter("sessions_lost_total", "Sessions the store counted as over before this host left.")
PUBLISHED = Counter("endpoints_published_total", "Endpoints the store was told of, there or gone.", "change")
CLAIMS = Counter("block_claims_total", "Blocks asked for, and whether they were had: claimed, taken.", "outcome")

# --- by which link others reach this host (uplinks)
UPLINKS = Gauge(
    "uplink_behind",
    "What is behind an uplink: 3 a gateway that answers, 2 hosts that do, 1 nobody, 0 it carries nothing or has no address.",
    "uplink",
)
UPLINK_TAKEN = Gauge("uplink_taken", "1 for the uplink by which others reach this host, 0 for the rest.", "uplink")
SWITCHES = Counter("uplink_switches_total", "Times another uplink was taken.")

# --- what is done to the kernel (reconciler)
ROWS = Gauge("rows", "Things of other hosts kept in this host's kernel, by kind of resource.", "kind")
CHANGES = Counter("row_changes_total", "Things of other hosts put into the kernel or taken from it.", "kind", "change")
MENDS = Counter("mends_total", "Things a comparison with the kernel found missing, wrong or stale, and mended.", "kind")
COMPARISONS = Counter("comparisons_total", "Comparisons of what is to be in the kernel with what is there.")
CONVERGENCE = Histogram(
    "convergence_seconds",
    "From when a change was heard of to when the kernel had it, with those that were heard together.",
    bounds=_QUICK,
)
REFUSALS = Counter("kernel_refusals_total", "Times the kernel refused what was to be changed.")
