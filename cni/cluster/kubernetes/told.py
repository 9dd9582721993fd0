"""What was told of the API's objects, so that what is told next is the difference."""

from __future__ import annotations

from collections.abc import Iterable

from cni.cluster.model import Block, Endpoint, Item, Key

#: An object: its kind, namespace and name.
Place = tuple[str, str, str]


class Told:
    """By what each object said. Two may say something of one key: of a block the one that said it first counts, of an address, which
    may be given again before its former pod's object has gone, who said it last.
    """

    def __init__(self) -> None:
        self._keys: dict[Place, dict[Key, int]] = {}
        self._claims: dict[Key, dict[Place, Item]] = {}

    def places(self, kind: str) -> set[Place]:
        """The objects of a kind."""
        return {place for place in self._keys if place[0] == kind}

    def holders(self, key: Key) -> list[Place]:
        """Who says something of a key, who counts first."""
        return list(self._claims.get(key, ()))

    def put(self, place: Place, items: Iterable[Item]) -> tuple[list[Item], list[Key]]:
        """Know what an object says now: what is otherwise than it was, and what is gone."""
        now = {item.key: item for item in items}
        before = self._keys.pop(place, {})
        if now:
            self._keys[place] = {key: hash(item) for key, item in now.items()}
        put, gone = list[Item](), list[Key]()
        for key in [key for key in before if key not in now]:
            heir, is_left = self._release(place, key)
            put += [heir] if heir else []
            gone += [] if is_left else [key]
        for key, item in now.items():
            if self._counts(place, item) and before.get(key) != hash(item):
                put.append(item)
        return put, gone

    def _counts(self, place: Place, item: Item) -> bool:
        if not isinstance(item, Block | Endpoint):
            return True
        claims = self._claims.setdefault(item.key, {})
        if isinstance(item, Endpoint) and place not in claims:
            self._claims[item.key] = {place: item, **claims}
            return True
        claims[place] = item
        return next(iter(claims)) == place

    def _release(self, place: Place, key: Key) -> tuple[Item | None, bool]:
        """Who counts now that an object does not any more, where that is another than before, and whether anybody does."""
        claims = self._claims.get(key, {})
        was_first = next(iter(claims), None) == place
        claims.pop(place, None)
        if not claims:
            self._claims.pop(key, None)
            return None, False
        return next(iter(claims.values())) if was_first else None, True
