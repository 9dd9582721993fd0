"""What goes with the last attachment that uses it, and how nobody who comes meanwhile loses it.

The record is the mark. Who is the last takes a thing away while the record still says that it has it, and the record changes
after that: what a killed call has left undone is found with it by the next DEL or GC. Meanwhile the state is not locked, but a
byte of the thing's own is. An ADD records what it will use, then waits for the holder of that byte, then makes it: either
who retires it sees the ADD's record, or it is gone before it is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from cni import engine, log
from cni.naming import digest_of
from cni.resources import Resource, World, key_of
from cni.state import Record, Store


def wait_for_retirements(store: Store, record: Record, resources: Iterable[Resource]) -> None:
    """Return when nobody takes away what is to be used of these; `record` has them by now. Raises TryAgainLater."""
    for item in resources:
        if item.retires:
            store.lock.wait_for(*_byte(key_of(item, record.lasting)), store.patience)


def end_use(store: Store, world: World, record: Record, gone: Sequence[Resource], end: Callable[[], object]) -> None:
    """Retire what of `gone` only this attachment has, then call `end`, which has the state say so.

    That nobody else became the last meanwhile is seen in the transaction that ends the use. Raises as `engine.retire` does,
    and TryAgainLater; the state is as before then.
    """
    shared = [(key_of(item, record.lasting), item) for item in gone if item.retires]
    keys = {key for key, _ in shared}
    settled: set[str] = set()
    with ExitStack() as locks:
        while orphans := _end_unless_orphans(store, record, keys - settled, end):
            for key in sorted(orphans):
                locks.enter_context(store.lock.exclusive(*_byte(key), store.patience))
            orphans -= store.used_by_others(record, orphans)  # an ADD may have come before its byte was ours
            store.look_elsewhere()
            unused = orphans - store.used_elsewhere(orphans)
            _retire(store, world, record, [item for key, item in shared if key in unused])
            settled |= orphans


def _end_unless_orphans(store: Store, record: Record, keys: set[str], end: Callable[[], object]) -> set[str]:
    """What of `keys` would be left without a user in this folder; only where that is nothing, the use is ended."""
    with store.transaction():
        orphans = keys - store.used_by_others(record, keys)
        if not orphans:
            end()
    return orphans


def _retire(store: Store, world: World, record: Record, unused: Sequence[Resource]) -> None:
    """Where not everybody on the node can be asked, it stays."""
    if unused and (unasked := store.unasked):
        told = f"{record.attachment}: what it shared is left as it is, for nobody can say who uses it"
        log.warning(record.plugin, f"{told}: {'; '.join(unasked)}", **record.attachment._asdict())
        return
    engine.retire(unused, world)


def _byte(key: str) -> tuple[str, str]:
    """Which byte of the lock file is a thing's, and what to call it."""
    return digest_of(key), key.strip()
