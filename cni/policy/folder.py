"""A folder of Kubernetes objects, as an outside manager or ``kubectl get … -o yaml`` writes it.

Whatever in it is no object makes the folder unreadable: nobody knows then what it would have said.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from cni.errors import InvalidConfig
from cni.policy.kubernetes import Cluster
from cni.policy.manifest import cluster_of

_SUFFIXES = {".yaml", ".yml", ".json"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MOST_LEVELS, _MOST_BY_ALIASES = 100, 1_000_000
_TEXT = "tag:yaml.org,2002:str"
_TRIES, _PAUSE = 5, 0.02  # seconds

#: What was read within `reading_once`, by folder, or why it could not be; None where every `load` reads.
_known: ContextVar[dict[Path, Cluster | InvalidConfig] | None] = ContextVar("_known", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Within it each folder is read once."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def load(folder: Path) -> Cluster:
    """Read every object of a folder, lists taken apart. Raises InvalidConfig naming the file at fault."""
    known = _known.get()
    kept = {} if known is None else known
    if folder not in kept:
        try:
            kept[folder] = cluster_of(item for file, content in _contents(folder) for item in _placed(file, content))
        except InvalidConfig as error:
            kept[folder] = InvalidConfig("".join(char if char.isprintable() else "?" for char in error.msg))
    found = kept[folder]
    if isinstance(found, InvalidConfig):
        raise InvalidConfig(found.msg)
    return found


def _contents(folder: Path) -> list[tuple[Path, bytes]]:
    """All files as they were at one time: where something changes meanwhile, all of it is read again."""
    changing = str(folder)
    for _ in range(_TRIES):
        if not folder.is_dir():
            raise InvalidConfig(f"policyDir: {folder} is no folder")
        try:
            before = _listing(folder)
            found = [(file, _content(file)) for file, *_ in before]
            if _listing(folder) == before:
                return found
        except FileNotFoundError as error:
            changing = error.filename
        except OSError as error:
            raise InvalidConfig(f"policyDir: {error.filename or folder}: {error.strerror}") from None
        time.sleep(_PAUSE)
    raise InvalidConfig(f"policyDir: {changing}: is not there any more, or changes while it is read")


def _listing(folder: Path) -> list[tuple[Path, int, int, int]]:
    """Its files, each with what tells that it is another."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    return [(file, (status := file.stat()).st_ino, status.st_size, status.st_mtime_ns) for file in files]


def _content(file: Path) -> bytes:
    """What a file holds; a pipe would let us wait."""
    with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise InvalidConfig(f"policyDir: {file}: is no file")
        return opened.read()


def _placed(file: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    """The documents of a file, each with where it stands. A file without any says nothing, not even that there is nothing."""
    try:
        documents = list(_documents(content.decode("utf-16" if content[:2] in _UTF16 else "utf-8-sig")))
    except (ValueError, RecursionError, OverflowError) as error:
        said = "is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InvalidConfig(f"policyDir: {file}: {said}") from None
    if all(document is None for document in documents):
        raise InvalidConfig(f"policyDir: {file}: has no object; a file whose objects are gone is deleted")
    for number, document in enumerate(documents, 1):
        if document is not None:
            yield f"policyDir: {file}{f': document {number}' if len(documents) > 1 else ''}", document


def _documents(text: str) -> list[Any]:
    """JSON or YAML. Raises ValueError for what is neither."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)]
        except ValueError:
            pass  # YAML has braces too, and says where it fails
    import yaml  # only a configuration with a policyDir pays for it

    # cut off there, it would be YAML of another meaning: a key or an item without a value has null
    if text.rpartition("\n")[2].rstrip().endswith((":", "-")):
        raise ValueError("ends in the middle of a line")
    try:
        _refuse_beyond_json(yaml.parse(text, _loader()))
        return list(yaml.load_all(text, _loader()))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _refuse_beyond_json(events: Iterable[Any]) -> None:
    """Look at a text before anything is made of it: libyaml ends the process where it is nested deeply, and tags are
    taken at their word.

    Raises ValueError with the line for what is too deep, has a tag, or grows by its aliases beyond what anybody writes.
    """
    import yaml

    anchored: dict[str | None, int] = {}  # how many values each stands for
    within: list[tuple[str | None, int]] = []  # the anchors of what is open, each with how many values stand before it
    values = grown = 0
    for event in events:
        at = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in within):
                raise ValueError(f"{at}: *{event.anchor} stands within what it stands for")
            values += anchored.get(event.anchor, 0)
            grown += anchored.get(event.anchor, 0)
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            values += 1
            anchored[event.anchor] = 1
            if event.tag not in (None, _TEXT if isinstance(event, yaml.ScalarEvent) else None):
                raise ValueError(f"{at}: the tag {event.tag} is nothing an object has")
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, values - 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = within.pop()
            anchored[anchor] = values - before
        if len(within) > _MOST_LEVELS:
            raise ValueError(f"{at}: is nested more than {_MOST_LEVELS} levels deep")
        if grown > _MOST_BY_ALIASES:
            raise ValueError(f"{at}: grows by its aliases by more than {_MOST_BY_ALIASES} values")


@cache
def _loader() -> Any:
    """YAML's plain types; a key that comes twice is refused, as the API server does."""
    import yaml

    plain: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(plain):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in getattr(node, "value", ()) if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key, count in Counter(keys).items() if key != "<<" and count > 1), None)
            if twice is not None:
                raise yaml.YAMLError(f"{twice!r} stands twice in one object, line {node.start_mark.line + 1}")
            return super().construct_mapping(node, deep)

    return Loader


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
