"""Putting back what security hangs on when somebody takes it away: rules of pods on the host, at the kernel's own word that they went.

All that a change was about is made again in one transaction, of whoever is attached then: nobody is looked at whose rules the kernel did
not tell of. An attachment that a call is at is that call's, and comes again.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from functools import lru_cache

from cni import engine, log
from cni.errors import CniError, TryAgainLater
from cni.kernel import ruleset
from cni.kernel.rule_events import ANYTHING, Changed
from cni.node import Node, held
from cni.resources import AntiSpoof, Gate, NftRules
from cni.retirement import wait_for_retirements
from cni.state import DEFAULT_FOLDER, FILE, Record, Store
from cni.state.tally import MEND, counted
from cni.state.uses import other_folders
from cni.values import dataclass, field

#: For SQLite's lock, in seconds.
_PATIENCE = 0.5
#: Rules in one transaction, as far as an attachment more does not exceed that.
_MOST = 10_000
#: Who is at it again so often within so many seconds is waited for, each time twice as long, at most so long.
_OFTEN, _WITHIN, _LONG = 5, 60.0, 60.0
_ANY = frozenset((ANYTHING,))
#: When those come again that a call was at, and how many pods a line of the log names.
_AGAIN, _NAMED = 0.1, 20


@dataclass
class PutBack:
    """Whose rules were made again (a pod, or its attachment), whom a call was at, and who cannot have them, with why."""

    whose: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Due:
    node: Node
    whose: str
    rules: tuple[NftRules, ...]


def put_back(names: frozenset[str]) -> PutBack:
    """Make again what rules of attachments on the host have to do with `names` (see rule_events)."""
    found = PutBack()
    with ExitStack() as until:
        due: list[_Due] = []
        lines = 0
        for store, record in _records(until):
            if rules := _about(store, record, names):
                due += _held(store, record, rules, until, found)
                lines += sum(rule.script().count("\n") for rule in rules)
            if lines > _MOST:
                _make(due, found)
                due, lines = [], 0
        if due:
            _make(due, found)
    return found


def _records(until: ExitStack) -> Iterator[tuple[Store, Record]]:
    for folder in (DEFAULT_FOLDER, *other_folders(DEFAULT_FOLDER)):
        if (folder / FILE).exists():
            store = until.enter_context(closing(Store.open(folder, _PATIENCE)))
            yield from ((store, record) for record in store.records() if record.complete)


def _about(store: Store, record: Record, names: frozenset[str]) -> tuple[NftRules, ...]:
    there = store.as_said(record).resources
    return tuple(item for item in there if isinstance(item, NftRules) and not item.netns and is_about(item, names))


def is_about(rules: NftRules, names: frozenset[str]) -> bool:
    """Whether any of some names is one that rules go by, or a table they are in that went."""
    if ANYTHING in names:
        return True
    touched, gone = _tables(names)
    if not (by := rules.goes_by):
        script = rules.declarations + rules.script()
        return any(table in script for table in touched)
    return not names.isdisjoint(map(_container_of, by)) or not gone.isdisjoint(map(_table_of, by))


@lru_cache(maxsize=4)
def _tables(names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The tables that some names are of, and those that are named themselves."""
    gone = frozenset(_table_of(name) for name in names if name.startswith("table "))
    return frozenset(map(_table_of, names)), gone


def _container_of(name: str) -> str:
    """An element is told of by its set."""
    kind, family, table, *rest = name.split(" ")
    return " ".join(["set", family, table, rest[0]]) if kind == "element" else name


def _table_of(name: str) -> str:
    return " ".join(name.split(" ")[1:3])


def _held(
    store: Store, record: Record, rules: tuple[NftRules, ...], until: ExitStack, found: PutBack
) -> Iterator[_Due]:
    whose = record.pod or str(record.attachment)
    with ExitStack() as own:
        try:
            node = own.enter_context(held(store, record.attachment, record.plugin))
        except TryAgainLater:
            found.busy.append(whose)
            return
        if node.record is None or node.record.resources != record.resources:
            found.busy += [whose] if node.record else []
            return
        until.enter_context(own.pop_all())
        on_device = {it for it in rules if isinstance(it, Gate | AntiSpoof) and not node.world.host.link_ref(it.link)}
        yield _Due(node, whose, tuple(it for it in rules if it not in on_device))


def _make(due: list[_Due], found: PutBack) -> None:
    try:
        _apply(due)
        found.whose += (item.whose for item in due)
    except CniError:
        for item in due:
            try:
                _apply([item])
                found.whose.append(item.whose)
            except CniError as error:
                found.failed[item.whose] = error.msg


def _apply(due: list[_Due]) -> None:
    for item in due:
        assert item.node.record
        item.node.store.lock.share_node()
        wait_for_retirements(item.node.store, item.node.record, item.rules)
    rules = dict.fromkeys(rule for item in due for rule in item.rules)
    # what declares nothing is complete in itself; alike ones together are one script, and not one for each pod
    alike: list[NftRules] = sorted(rules, key=lambda rule: bool(rule.declarations))
    engine.apply(alike, due[0].node.world)


class Vigil:
    """What was heard of, and when it is to be put back: at once, but not without end where somebody takes it away again and again. It waits
    for nothing.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_OFTEN)
        self._pause, self._due = 0.0, 0.0
        self._names: set[str] = set()
        self._since, self._by = 0.0, ""

    def heard(self, changes: Iterable[Changed]) -> None:
        """Somebody changed something."""
        for change in changes:
            if not self._names:
                self._since = time.time()
                self._due = max(self._due, time.monotonic())
            self._names |= change.names
            self._by = f"{change.process} (process {change.pid})" if change.process else "somebody"

    @property
    def owed(self) -> float:
        """Seconds until something is to be put back; without end where nothing is."""
        return max(0.0, self._due - time.monotonic()) if self._names else math.inf

    def act(self) -> None:
        """Put back what is to be by now. Nothing raises a CniError."""
        if self.owed:
            return
        names, by = frozenset(self._names), self._by
        with counted("rules", MEND):
            try:
                found = put_back(names)
            except CniError as error:
                found = PutBack(failed={"all": error.msg})
        self._names = set(names) if found.busy or found.failed else set()
        if found.whose:
            self._times.append(time.monotonic())
        often = len(self._times) == _OFTEN and time.monotonic() - self._times[0] < _WITHIN
        self._pause = min(_LONG, 2 * self._pause or 1.0) if found.failed or often else 0.0
        self._due = time.monotonic() + (self._pause or (_AGAIN if found.busy else 0.0))
        self._tell(found, by)

    def _tell(self, found: PutBack, by: str) -> None:
        if found.whose:
            began, took = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self._since)), time.time() - self._since
            msg = f"rules of {len(found.whose)} attachments were taken away or changed by {by}, and were put back"
            wait = f"; again and again: not within the next {self._pause:g} s" if self._pause else ""
            log.warning("guard", msg + wait, since=f"{began}Z", seconds=round(took, 3), pods=found.whose[:_NAMED])
        for whose, why in found.failed.items():
            log.warning("guard", f"rules of {whose}, taken away by {by}, cannot be put back: {why}")


def gone_before() -> Iterator[Changed]:
    """The tables of ours that attachments have, and the kernel has not: flushed while nobody watched."""
    with ExitStack() as until:
        tables = {
            _table_of(name)
            for store, record in _records(until)
            for item in _about(store, record, _ANY)
            for name in item.goes_by
        }
        gone = frozenset(f"table {table}" for table in tables if not ruleset.has_table(table))
    if gone:
        yield Changed(gone, "", 0)
