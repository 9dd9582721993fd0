"""The feed that is the cluster's: what its store says of documents, told by the member as it hears it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cni.errors import InvalidConfig
from cni.naming import CLUSTER
from cni.policy.feeds import document_of, plain
from cni.policy.manifest import items_of
from cni.state.documents import Document, Documents, Source

#: By what a document is known that a store has lost.
_LOST = "lost"


class AsOf(NamedTuple):
    """When the cluster's store said something: whose revisions they are, empty where they do not go on from one listing to the next, and which;
    `replaced` where it is known that the store is not the one that was heard before.
    """

    origin: str = ""
    revision: int = 0
    replaced: bool = False

    def forgot(self, before: str) -> bool:
        """Whether the store does not go on from what it said `before`, as a feed's origin."""
        origin, _, revision = before.rpartition(" ")
        return self.replaced or bool(
            origin and self.origin and (origin != self.origin or self.revision < int(revision))
        )


#: Nothing is known of when.
_UNKNOWN = AsOf()


def told(
    documents: Documents,
    there: Mapping[str, tuple[str, Any]],
    gone: Iterable[str] = (),
    *,
    whole: bool = False,
    as_of: AsOf = _UNKNOWN,
) -> int:
    """Know what the cluster's store says of some documents, by their names there: each with what it is to be, ``kind namespace/name``,
    and the object; `whole` if there are no others. How many became others or went. One that cannot be read stays as it was, and is named;
    before all of them could be read nobody knows what it would have forbidden. So does one that a store lost with its memory, until it is
    put again, or somebody deletes it.

    Raises TryAgainLater.
    """
    with documents.turn(CLUSTER), documents.transaction():
        known, before = documents.sources(CLUSTER), documents.feed(CLUSTER)
        missing = known.keys() - there.keys() if whole else ()
        lost = {name for name in missing if known[name].seen == _LOST or as_of.forgot(before.origin)}
        left = [name for name in (missing if whole else gone) if name in known and name not in lost]
        read = {name: _told(name, *item) for name, item in there.items()}
        sources = {name: Source("told", found if isinstance(found, str) else "") for name, found in read.items()}
        sources |= {name: Source(_LOST, _why_lost(name)) for name in lost}
        heard = whole or bool(before.seen)
        by_now = {**known, **sources}
        unread = any(by_now[name].fault for name in by_now.keys() - set(left))
        now = before._replace(whole=before.whole or (heard and not unread), seen="told" if heard else "", fault="")
        now = now._replace(origin=f"{as_of.origin} {as_of.revision}" if as_of.origin else before.origin)
        documents.put(CLUSTER, now, sources, left)
        changed = {name: [found] for name, found in read.items() if not isinstance(found, str)}
        return documents.replace(CLUSTER, {**changed, **{name: [] for name in left}})


def _told(source: str, what: str, raw: Any) -> Document | str:
    """A document, or why it is none."""
    where = f"cluster: {what}"
    try:
        items = list(items_of(where, raw))
    except InvalidConfig as error:
        return plain(error.msg)
    if [f"{item.kind} {item.namespace}/{item.name}" for item in items] != [what]:
        return plain(f"{where}: is another object, or none")
    return document_of(source, 0, items[0])


def _why_lost(source: str) -> str:
    kind, namespace, name = source.split(" ")
    what = f"{kind} {namespace}/{name}"
    return f"cluster: {what}: the store has lost it, and what it said holds: apply it again, and delete it then if it is to go"
