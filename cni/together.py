"""Attachments held together to what their feeds say now: those that a change is about in one transaction of the kernel's, all or none.

Nobody waits for one that a call is at, and one that cannot be had holds no other up: where the kernel refuses all together each is
tried by itself, and one that is refused then is shut, for what it was held to may let in whom nobody lets in any more. What somebody
else is at is no refusal: who waits for that comes again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cni import engine, plugin
from cni.decoding import decoded
from cni.errors import CniError, Incomplete, TryAgainLater, Unavailable, own_terms
from cni.kernel import ruleset
from cni.naming import Attachment
from cni.node import Node, beside_calls, held
from cni.policy.feeds import going_by_what_is_known, reading_once
from cni.protocol.call import Call
from cni.refresh import call_about, is_fed, rules_of_today
from cni.resources import NftRules, PeerSet, PodPolicy, Resource, World, key_of
from cni.resources.base import REFRESH
from cni.resources.world import PEERS
from cni.retirement import wait_for_retirements
from cni.state import FILE, Store
from cni.state.documents import Documents
from cni.state.fed import Fed
from cni.values import dataclass, field

#: For SQLite's lock, in seconds, where there is a next time soon.
_AT_ONCE = 0.02
#: Rules in one transaction, as far as a pod more does not exceed that: some 10 MiB to the kernel.
_MOST = 10_000
#: Of what failed of one attachment, in an answer.
_MOST_SAID = 300


@dataclass
class Followed:
    """What became of attachments: whose rules were others, which are to come again, why some cannot be held to what is said now, and
    which have them in their pods; and why what was to be made `besides` cannot be.
    """

    changed: list[Fed] = field(default_factory=list)
    again: list[Fed] = field(default_factory=list)
    failed: dict[Fed, CniError] = field(default_factory=dict)
    inside: list[Fed] = field(default_factory=list)
    besides: CniError | None = None


class _Way(NamedTuple):
    """Whether it is about rules on the host or `inside` of pods, what was begun and not done, and what was found so far."""

    found: Followed
    unfinished: set[str]
    inside: bool


@dataclass(frozen=True)
class _Wanted:
    """What an attachment is to have from now on, and which of that is to be made; sets that are `kept` for others hold what they are to."""

    fed: Fed
    node: Node
    resources: tuple[Resource, ...]
    rules: tuple[NftRules, ...]
    kept: frozenset[Resource]

    @property
    def lines(self) -> int:
        """How many rules those are."""
        return sum(1 for item in self.rules for _ in item.details())


def follow(items: Iterable[Fed], besides: Sequence[NftRules] = ()) -> Followed:
    """Make rules on the host what feeds say now, without a look at those that are recorded so, but of whom somebody was killed at; those
    in a pod stay as they are, for who may enter none, and are told. Who has a call at it comes again, and who is too many for one
    transaction. What is to be so `besides` is made in the same transaction, or alone where there is none or that is refused.
    """
    found = Followed()
    with ExitStack() as all_of_it, closing(Documents.open()) as documents:
        all_of_it.enter_context(reading_once(keep=True))
        way = _Way(found, documents.unfinished(), inside=False)
        wanted: list[_Wanted] = []
        stores = cache(lambda folder: _opened(folder, all_of_it))
        for item in items:
            if sum(it.lines for it in wanted) > _MOST:
                found.again.append(item)
                continue
            with _told(item, found):
                wanted += _wanted(item, stores(item.folder), all_of_it, way)
        if wanted:
            _make(documents, wanted, besides, found)
        else:
            found.besides = _refused_besides(besides)
    return found


def follow_inside(items: Iterable[Fed]) -> Followed:
    """The same of those that have their rules in their pods, for who may enter them: each in one transaction, and the sets there hold
    whom they mean by now.
    """
    found = Followed()
    with ExitStack() as all_of_it, closing(Documents.open()) as documents:
        all_of_it.enter_context(reading_once(keep=True))
        way = _Way(found, documents.unfinished(), inside=True)
        stores = cache(lambda folder: _opened(folder, all_of_it))
        for item in items:
            with _told(item, found), ExitStack() as own:
                for one in _wanted(item, stores(item.folder), own, way):
                    _make(documents, [one], (), found)
    return found


def question(items: Iterable[Fed]) -> bytes:
    """What `follow_inside` is asked about, for a process that may enter pods."""
    return json.dumps([item._replace(folder=str(item.folder)) for item in items]).encode()  # type: ignore[arg-type]


def answer(asked: bytes) -> bytes:
    """What became of it, by what is known of feeds; nothing of what is no such question."""
    try:
        items = [_fed(one) for one in decoded(asked)]
    except (ValueError, TypeError):
        return b""
    with going_by_what_is_known():
        found = follow_inside(items)
    at = {item: number for number, item in enumerate(items)}
    failed = {at[item]: error.msg[:_MOST_SAID] for item, error in found.failed.items()}
    return json.dumps([[at[item] for item in found.changed], [at[item] for item in found.again], failed]).encode()


def _fed(said: Sequence[Any]) -> Fed:
    feed, key, name, pod, place, netns = said
    if not all(isinstance(word, str) for word in (feed, *key, name, pod, netns)):
        raise TypeError
    return Fed(feed, Attachment(*key), name, pod, Path(place), netns)


def answered(items: Sequence[Fed], said: bytes) -> Followed:
    """The same, read. Raises Unavailable where nobody said anything."""
    if not said:
        raise Unavailable("the node agent did not answer")
    try:
        changed, again, failed = decoded(said)
        failures: dict[Fed, CniError] = {items[int(at)]: Incomplete(msg) for at, msg in failed.items()}
        return Followed([items[at] for at in changed], [items[at] for at in again], failures)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise Unavailable(f"the node agent said what is no answer: {said[:80]!r}") from None


def _what(item: Fed) -> str:
    """What an attachment is called where it is said that something was begun."""
    return f"{item.folder} {item.attachment} {item.plugin}"


def _whose(item: Fed) -> str:
    return f"{item.pod} ({item.attachment})"


@contextmanager
def _told(item: Fed, found: Followed) -> Iterator[None]:
    """What keeps one attachment from being held is told, and keeps no other."""
    try:
        with own_terms:
            yield
    except TryAgainLater:
        found.again.append(item)
        return
    except CniError as error:
        why = error.msg
    except (KeyError, TypeError, AttributeError):  # one odd record is not the whole node's
        why = "another release recorded what this one does not know"
    else:
        return
    found.failed[item] = Incomplete(f"{_whose(item)} is held to what was said before: {why}")


def _opened(folder: Path, until: ExitStack) -> Store | None:
    return until.enter_context(closing(Store.open(folder, _AT_ONCE))) if (folder / FILE).exists() else None


def _wanted(item: Fed, store: Store | None, until: ExitStack, way: _Way) -> Iterator[_Wanted]:
    """What is to be made of an attachment, which is held from now on; nothing where it is as it is to be, or is not there any more."""
    if store is None or item.plugin not in plugin.names():
        return
    found, inside, again = way.found, way.inside, _what(item) in way.unfinished
    with ExitStack() as own:
        node = own.enter_context(held(store, item.attachment, item.plugin, enters=inside))
        record = node.record
        if record is None or not is_fed(record) or (inside and node.world.netns is None):
            return
        if any(isinstance(it, NftRules) and it.netns for it in record.resources) is not inside:
            found.inside += () if inside else (item,)
            return
        resources = rules_of_today(_loaded(item.plugin), node, record, call_about(record, Call("REFRESH")))
        if again or resources != record.resources:
            rules = [it for it in resources if isinstance(it, NftRules) and it.mend == REFRESH and not it.configured]
            made = tuple(
                it for it in rules if again or it not in record.resources or (inside and isinstance(it, PeerSet))
            )
            sets = (it for it in made if isinstance(it, PeerSet) and not (again or inside))
            kept = frozenset(it for it in sets if store.is_used_on_node(key_of(it, record.lasting)))
            until.enter_context(own.pop_all())
            yield _Wanted(item, node, resources, made, kept)
        elif inside and _refilled(node.world, [it for it in resources if isinstance(it, PeerSet)]):
            found.changed.append(item)


def _refilled(world: World, sets: Iterable[PeerSet]) -> bool:
    """Have the sets that a pod has hold whom they mean by now; whether some did not."""
    with world.in_pod(), world.turn(PEERS):
        peers = world.peers()
        found = [it for one in sets if one.is_there() for it in one.changes(peers) if it.added or it.gone]
        ruleset.change(found)
    return bool(found)


def _make(documents: Documents, wanted: list[_Wanted], besides: Sequence[NftRules], found: Followed) -> None:
    """It is known to be begun until it is done, whoever is killed. Each record is of both, what was and what is to be, until the kernel
    has it: a DEL that comes between finds the chains of both.
    """
    documents.begin(_what(item.fed) for item in wanted)
    with ExitStack() as together:
        for store in {id(item.node.store): item.node.store for item in wanted}.values():
            store.lock.share_node()
            together.enter_context(store.transaction())
        for item in wanted:
            item.node.begin(item.resources)
    try:
        _apply(wanted, besides)
    except CniError as error:
        found.besides = _refused_besides(besides)
        refused = {wanted[0].fed: error} if len(wanted) == 1 and not besides else _refused_alone(wanted)
        found.again += (fed for fed, why in refused.items() if isinstance(why, TryAgainLater))
        for item in wanted:
            if item.fed in refused and item.fed not in found.again:
                found.failed[item.fed] = _shut(item, refused[item.fed])
    for item in wanted:
        if item.fed not in found.failed and item.fed not in found.again:
            try:
                item.node.keep_only(item.resources)
                found.changed.append(item.fed)
            except CniError as error:
                found.failed[item.fed] = error
    documents.end(_what(item.fed) for item in wanted if item.fed in found.changed)


def _refused_alone(wanted: list[_Wanted]) -> dict[Fed, CniError]:
    refused = {}
    for item in wanted:
        try:
            _apply([item])
        except CniError as error:
            refused[item.fed] = error
    return refused


def _refused_besides(besides: Sequence[NftRules]) -> CniError | None:
    try:
        with beside_calls() as world:
            engine.apply(besides, world)
    except CniError as error:
        return error
    return None


def _apply(wanted: list[_Wanted], besides: Sequence[NftRules] = ()) -> None:
    """One transaction: rules on the host are one batch, and what several share is made once."""
    node = wanted[0].node
    for item in wanted:
        assert item.node.record
        wait_for_retirements(item.node.store, item.node.record, item.rules)
    kept = {it for item in wanted for it in item.kept if isinstance(it, PeerSet) and it.is_there()}
    rules = dict.fromkeys(rule for item in wanted for rule in item.rules if rule not in kept)
    engine.apply((*rules, *besides), node.world)


def _shut(item: _Wanted, why: CniError) -> CniError:
    """Let nothing in and out where rules cannot be had; why not, by whose they are."""
    try:
        for rules in item.resources:
            if isinstance(rules, PodPolicy):
                rules.shut(item.node.world)
    except CniError as error:
        return Incomplete(f"{_whose(item.fed)} has the rules of before, and could not be shut: {why.msg}; {error.msg}")
    return Incomplete(f"{_whose(item.fed)} is shut: {why.msg}")


@cache
def _loaded(name: str) -> plugin.Plugin:
    """A plugin, once: this process goes when another release comes."""
    return plugin.load(name)
