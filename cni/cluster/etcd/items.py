"""Rows of etcd as items of the cluster. What is not what its key says is named, and nothing ends for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cni.cluster.etcd.gateway import Row
from cni.cluster.etcd.keys import Keys
from cni.cluster.fields import Malformed
from cni.cluster.model import Item, Key, read
from cni.decoding import decoded


class Told(NamedTuple):
    """What rows say: items, the keys of what is gone, or was before it came again, and what could not be read."""

    items: tuple[Item, ...]
    gone: tuple[Key, ...]
    refused: tuple[str, ...]


def told(keys: Keys, rows: Iterable[Row | bytes]) -> Told:
    """What the newest row of each key says; a key alone says that it is gone."""
    newest, left = dict[bytes, Row | None](), dict[bytes, None]()
    for row in rows:
        if isinstance(row, Row):
            newest[row.key] = row
        else:
            newest[row] = left[row] = None
    items, gone, refused = list[Item](), list[Key](), list[str]()
    for at, put in newest.items():
        try:
            if at in left:
                gone.append(keys.key(at))
            if put and (item := item_of(keys, put)):
                items.append(item)
        except Malformed as error:
            refused.append(str(error))
    return Told(tuple(items), tuple(gone), tuple(refused))


def item_of(keys: Keys, row: Row) -> Item | None:
    """The item in a row; None in a room of a later release. Raises Malformed."""
    try:
        raw = decoded(row.value)
    except ValueError:
        raw = row.value  # which is nothing to be read, unless nobody has to
    return read(keys.key(row.key), raw)
