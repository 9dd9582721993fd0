"""Who is fed by which feed, asked of every folder of the node's state."""

from __future__ import annotations

import math
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cni.errors import CniError
from cni.naming import CLUSTER
from cni.state import Store
from cni.state.fed import Fed, Feedable
from cni.state.uses import other_folders

#: Seconds between two questions.
_LEAST = 1.0


class _Answer(NamedTuple):
    """The version of a folder's state, and its attachments then, each with what it follows, if anything."""

    version: object
    said: dict[Feedable, Fed | None]

    @property
    def fed(self) -> list[Fed]:
        """Those that follow something."""
        return [item for item in self.said.values() if item]


class Following:
    """The attachments that are fed, by feed and the namespace of their pods, and the `folders` that feed them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fed: dict[str, dict[str, list[Fed]]] = {}
        self.folders: frozenset[Path] = frozenset()
        self._answers: dict[Path, _Answer] = {}
        self._asked_at = -math.inf

    def ask(self, *, at_once: bool) -> tuple[list[Fed], list[CniError]]:
        """Who is fed since, asked now and then or `at_once`, and why some folders of state cannot be asked, of which counts what they said
        last. One that comes was held by its ADD to what was said when that began.
        """
        if not at_once and time.monotonic() < self._asked_at + _LEAST:
            return [], []
        self._asked_at = time.monotonic()
        found: dict[Path, _Answer] = {}
        troubles = list[CniError]()
        for folder in (self._folder, *other_folders(self._folder)):
            known = self._answers.get(folder)
            try:
                answer = _answer(folder, known)
            except CniError as error:
                troubles.append(error)
                answer = known
            found |= {folder: answer} if answer else {}
        return self._known(found) if found != self._answers else [], troubles

    def _known(self, answers: dict[Path, _Answer]) -> list[Fed]:
        """Go by these; who is new among them."""
        before, every = ([item for answer in some.values() for item in answer.fed] for some in (self._answers, answers))
        self._answers = answers
        if every == before:  # as a rule it is the member's own doing that the state is another
            return []
        self.fed = {}
        for item in every:
            self.fed.setdefault(item.feed, {}).setdefault(item.pod.partition("/")[0], []).append(item)
        self.folders = frozenset(place_of(feed) for feed in self.fed if feed != CLUSTER)
        known = set(before)
        return [item for item in every if item not in known]


def place_of(feed: str) -> Path:
    """The folder that a feed is."""
    return Path(feed.removeprefix("folder "))


def _answer(folder: Path, known: _Answer | None) -> _Answer | None:
    """What a folder of state says: what is known where nobody changed it since; None where there is no state."""
    store = Store.reading(folder)
    if store is None:
        return None
    with closing(store):
        version = store.version
        return known if known and known.version == version else _Answer(version, store.fed(known.said if known else {}))
