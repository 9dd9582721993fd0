"""A folder of Kubernetes objects, as an outside manager or ``kubectl get … -o yaml`` writes it.

Whatever in a file is no object makes the file unreadable: nobody knows then what it would have said.
"""

from __future__ import annotations

import math
import os
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cni.decoding import decoded
from cni.errors import InvalidConfig
from cni.policy.manifest import Item, items_of, refuse_two_meanings

#: What a folder is named by in a configuration.
_KEY = "policyDir: "
_SUFFIXES = {".yaml", ".yml", ".json"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MOST_LEVELS, _MOST_BY_ALIASES = 100, 1_000_000
_LONGEST, _TOO_LONG = 256 << 20, "is larger than 256 MiB"
_TEXT = "tag:yaml.org,2002:str"
_TRIES, _PAUSE = 5, 0.02  # seconds
_NOT_MOUNTED = (
    "is another folder than the one that was read last, and has no file: what that one said holds until a file is here"
)

#: A file that was written so shortly before it was read may be written again, and nothing tell: the kernel's clock of files ticks.
_TICK = 50_000_000  # nanoseconds


class Read(NamedTuple):
    """What was read of a folder, known by its `place`: `seen` are its files, each with what tells that it is another, or nothing where that may not do;
    `items` and `faults` are what those hold that are not as they were `known`, and why they cannot be read.
    """

    seen: dict[str, str]
    items: dict[str, list[Item]]
    faults: dict[str, str]
    place: str


def identity(folder: Path) -> str:
    """What tells which folder is at a path: one that is mounted there is another; nothing where there is none."""
    try:
        status = folder.stat()
    except OSError:
        return ""
    return f"{status.st_dev} {status.st_ino}"


def listing(
    folder: Path, known: Mapping[str, str] | None = None, names: Collection[str] | None = None
) -> dict[str, str]:
    """Its files, each with what tells that it is another; with `names`, of those only, the rest is as it is `known`.

    Raises InvalidConfig for what is no folder, and for a file whose name nobody could keep.
    """
    if not folder.is_dir():
        raise InvalidConfig(f"policyDir: {folder} is no folder")
    try:
        if names is None or known is None:
            return _seen(sorted(file for file in folder.iterdir() if _is_ours(file)))
        files = [folder / name for name in names]
        now = _seen([file for file in files if _is_ours(file) and os.path.lexists(file)])
        return dict(sorted({**{name: how for name, how in known.items() if name not in names}, **now}.items()))
    except OSError as error:
        raise InvalidConfig(f"policyDir: {error.filename or folder}: {error.strerror}") from None


def read(folder: Path, known: Mapping[str, str], names: Collection[str] | None = None, origin: str = "") -> Read:
    """All files as they were at one time, but for those that are as they are `known`: where something changes meanwhile, that is read
    again. With `names` the other files are taken to be as they are known, but for those of which nobody can tell.

    Raises InvalidConfig where something changes all the time, or nobody can look, and where the folder, which is not the `origin` of what
    is known, has no file: what is mounted there may not be.
    """
    if names is not None:
        names = {*names, *(name for name, how in known.items() if not how)}
    contents: dict[str, tuple[str, bytes | InvalidConfig]] = {}
    began, place, seen = 0, identity(folder), listing(folder, known, names)
    for _ in range(_TRIES):
        began = time.time_ns()
        changed = {name: how for name, how in seen.items() if known.get(name) != how}
        for name, how in changed.items():
            if contents.get(name, ("",))[0] != how:
                contents[name] = how, _content(folder / name)
        before = place, seen
        place, seen = identity(folder), listing(folder, known, names)
        if (place, seen) == before:
            if known and not seen and place != origin:
                raise InvalidConfig(f"policyDir: {folder}: {_NOT_MOUNTED}")
            return _judged(folder, place, seen, {name: contents[name][1] for name in changed}, began)
        time.sleep(_PAUSE)
    raise InvalidConfig(f"policyDir: {folder}: changes while it is read")


def items_in(place: Path) -> list[Item]:
    """The objects in a file, or in all of a folder, which is nobody's `policyDir`. Raises InvalidConfig naming what cannot be read."""
    try:
        files = [place / name for name in listing(place)] if place.is_dir() else [place]
        found = [item for file in files for item in _items(file, _content(file))]
    except InvalidConfig as error:
        raise InvalidConfig(error.msg.removeprefix(_KEY)) from None
    return [item._replace(where=item.where.removeprefix(_KEY)) for item in found]


def _judged(
    folder: Path, place: str, seen: dict[str, str], contents: Mapping[str, bytes | InvalidConfig], began: int
) -> Read:
    items: dict[str, list[Item]] = {}
    faults: dict[str, str] = {}
    for name, content in contents.items():
        try:
            items[name] = list(_items(folder / name, content))
        except InvalidConfig as error:
            faults[name] = error.msg
        if int(seen[name].rpartition(" ")[2] or 0) > began - _TICK:
            seen[name] = ""
    return Read(seen, items, faults, place)


def _is_ours(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES


def _seen(files: Iterable[Path]) -> dict[str, str]:
    found = {}
    for file in files:
        if file.name.encode(errors="ignore").decode() != file.name:
            raise InvalidConfig(f"policyDir: {file.parent}: the name of {file.name!a} is no UTF-8")
        try:
            status = file.stat()
        except OSError as error:
            found[file.name] = f"{error.strerror} 0"
            continue
        found[file.name] = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return found


def _items(file: Path, content: bytes | InvalidConfig) -> Iterator[Item]:
    """The objects of a file, each name once."""
    if isinstance(content, InvalidConfig):
        raise content
    found: dict[tuple[str, str, str], Item] = {}
    for where, document in _placed(file, content):
        for item in items_of(where, document):
            first = found.setdefault((item.kind, item.namespace, item.name), item) if item.name else item
            if first is item:
                yield item
            else:
                refuse_two_meanings(item, first.read, first.where)


def _content(file: Path) -> bytes | InvalidConfig:
    """What a file holds, or why nobody can say; a pipe would let us wait."""
    try:
        with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
            status = os.fstat(opened.fileno())
            if stat.S_ISREG(status.st_mode):
                content = opened.read(
                    min(status.st_size, _LONGEST) + 1
                )  # which is asked of memory before anything is read
                return content if len(content) <= _LONGEST else InvalidConfig(f"policyDir: {file}: {_TOO_LONG}")
    except OSError as error:
        return InvalidConfig(f"policyDir: {file}: {error.strerror}")
    return InvalidConfig(f"policyDir: {file}: is no file")


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
            return [decoded(text, _unique)]
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
        raise ValueError(str(error).replace(' in "<unicode string>",', ",")) from None


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

        def construct_yaml_float(self, node: Any) -> float:
            number = float(super().construct_yaml_float(node))
            if not math.isfinite(number):
                raise yaml.YAMLError(f"{node.value[:40]!r} is no number of JSON, line {node.start_mark.line + 1}")
            return number

    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_yaml_float)

    return Loader


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found
