"""Kinds of objects followed at the same time: a thread for each waits, and what it hears comes in one queue.

A stream that ends goes on from where it was; one that the API forgot begins with a list of its kind, which finds what was deleted
meanwhile. So who listens is never told to begin anew, however long the API was away.
"""

from __future__ import annotations

import random
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import NamedTuple

from cni.cluster.kubernetes.api import Absent, Api, Heard, Listed, Watching
from cni.cluster.kubernetes.objects import Kind, Object
from cni.errors import Compacted, Forbidden, Unreachable

#: Seconds: the API marks how far a quiet watch is every minute; what says nothing for longer is none.
SILENCE = 150.0
#: How long to wait before a stream is begun again, at first and at the most, before a kind that is not to be seen is asked for again,
#: and between two looks whether one is served by now: whoever adds a kind goes on to forbid something by it.
_AGAIN, _AGAIN_AT_MOST, _LATER, _SERVED = 0.2, 15.0, 120.0, 30.0
#: Seconds for each object there was, over which hosts list a kind anew that the API forgot: it tells all of them at the same time, and
#: where there are many objects there are many hosts.
_EACH = 0.001
#: Seconds between two looks whether anybody still listens.
_ROOM = 1.0
#: What is told at once, of what has come; and how much may wait for who listens. What is more the API keeps, as long as it does.
_MOST, _WAITING = 500, 1000


class News(NamedTuple):
    """What was heard of a kind: objects that are so now, the names (namespace, name) of those that are gone; with `whole` there are no
    others. `why` a kind may not be heard, empty if it may; one that is `unheard` for now tells nothing.
    """

    kind: Kind
    served: str
    put: tuple[Object, ...] = ()
    gone: tuple[tuple[str, str], ...] = ()
    whole: bool = False
    refused: tuple[str, ...] = ()
    why: str = ""
    unheard: bool = False


class _Place(NamedTuple):
    """Where a watch of a kind goes on, after how many objects were listed."""

    served: str
    version: str
    many: int


class Streams:
    """It, from the lists there were of each kind; None is a kind that could not be listed."""

    def __init__(self, api: Api, listed: dict[Kind, Listed | None], silence: float = SILENCE) -> None:
        self._api, self._silence = api, silence
        self._queue: Queue[News | BaseException] = Queue(_WAITING)
        self._ends = Event()
        self._open: dict[Kind, Watching] = {}
        for kind, known in listed.items():
            place = _Place(known.served, known.version, len(known.objects)) if known else None
            Thread(target=self._follow, args=(kind, place), name=f"watch-{kind.plural}", daemon=True).start()

    def close(self) -> None:
        """Hear no more; who waits ends."""
        self._ends.set()
        for watching in list(self._open.values()):
            watching.end()

    def wait(self, seconds: float) -> list[News]:
        """What has come, in order; nothing after so many seconds. Raises what ended a thread."""
        found = list[News]()
        try:
            while len(found) < _MOST:
                item = self._queue.get(timeout=seconds) if not found else self._queue.get_nowait()
                if isinstance(item, BaseException):
                    raise item
                found.append(item)
        except Empty:
            pass
        return found

    def _follow(self, kind: Kind, place: _Place | None) -> None:
        try:
            pause = _AGAIN
            while not self._ends.is_set():
                begins = place or self._listed(kind)
                place = self._watched(kind, begins) if begins else None
                pause = _AGAIN if place and place != begins else min(2 * pause, _AGAIN_AT_MOST)
                forgotten = begins.many if begins and not place else 0
                self._rest(max(pause, min(forgotten * _EACH, _AGAIN_AT_MOST)))
        except BaseException as error:  # noqa: BLE001  whatever it is, who listens ends with it
            self._bring(error)

    def _bring(self, item: News | BaseException) -> None:
        """Have it told, when there is room for it."""
        while not self._ends.is_set():
            with suppress(Full):
                self._queue.put(item, timeout=_ROOM)
                return

    def _rest(self, seconds: float) -> None:
        """All hosts lose their streams at the same time, and are not to come back so."""
        self._ends.wait(seconds * random.uniform(0.5, 1.0))  # noqa: S311

    def _rest_until_served(self, kind: Kind) -> None:
        with suppress(Forbidden, Unreachable):  # the list will say so
            while not self._ends.is_set():
                self._rest(_SERVED)
                if self._api.is_served(kind):
                    return

    def _listed(self, kind: Kind) -> _Place | None:
        """Where a watch begins, after what there is was told; None while that cannot be known."""
        try:
            found = self._api.list(kind)
        except Absent:
            self._bring(News(kind, "", whole=True))
            self._rest_until_served(kind)
            return None
        except Forbidden as error:
            self._bring(News(kind, "", why=error.msg))
            self._rest(_LATER)
            return None
        except Unreachable:  # the session says so
            return None
        self._bring(News(kind, found.served, tuple(found.objects), whole=True, refused=tuple(found.refused)))
        return _Place(found.served, found.version, len(found.objects))

    def _watched(self, kind: Kind, place: _Place) -> _Place | None:
        """How far one watch has come when it ends; None where all is to be listed."""
        served, version = place.served, place.version
        try:
            with self._api.watch(kind, served, version, self._silence) as watching:
                self._open[kind] = watching
                for line in watching.lines if not self._ends.is_set() else ():
                    self._bring(_news(kind, served, line))
                    version = line.version
        except (Compacted, Absent):
            self._bring(News(kind, served, unheard=True))
            return None
        except Forbidden as error:
            self._bring(News(kind, served, why=error.msg))
        except Unreachable:  # the session says so; and the API ends each watch now and then
            self._bring(News(kind, served, unheard=True))
        return place._replace(version=version)


def _news(kind: Kind, served: str, line: Heard) -> News:
    if line.found is None:
        return News(kind, served, refused=(line.refused,) if line.refused else ())
    metadata = line.found.metadata
    if line.gone:
        return News(kind, served, gone=((metadata.namespace, metadata.name),))
    return News(kind, served, (line.found,))
