"""What is said of a pod that became another by its probes: in the file of its names, and in a cluster to its other hosts."""

from __future__ import annotations

from contextlib import closing

from cni.kernel import hostsdir
from cni.kernel.hostsdir import NOT_PROBED, Entry
from cni.kernel.locks import LockFile
from cni.state import DEFAULT_FOLDER, Store
from cni.state.store import FILE
from cni.state.uses import node_lock
from cni.values import replace


def say(before: Entry, after: Entry) -> bool:
    """Have an attachment's names be as they are to be, in its turn, if they are still as they were, whatever was said of its health since:
    who was told of an error may have said it all the same. Else a call has changed or taken them, and this returns False.

    Raises TryAgainLater at once where a call is at it, and Unavailable.
    """
    attachment = before.attachment
    with closing(LockFile(node_lock())) as lock, lock.exclusive(attachment.digest, str(attachment), patience=0):
        found = Entry.read(attachment.network, hostsdir.read(before.path))
        if found not in (before, after) and not (found and _was_said(found, before)):
            return False
        _tell_others(after)
        if after != found:
            hostsdir.put(after.path, after.text)
    return True


def _was_said(found: Entry, before: Entry) -> bool:
    """Whether it was us: a call says that a pod is not probed yet."""
    return replace(found, unhealthy=before.unhealthy) == before and not found.unhealthy.endswith(NOT_PROBED)


def _tell_others(entry: Entry) -> None:
    """A folder without a state is of a host in no cluster."""
    if (DEFAULT_FOLDER / FILE).exists():
        with closing(Store.open(DEFAULT_FOLDER)) as state, state.transaction():
            state.say_health(entry.attachment.network, entry.addresses, unhealthy=bool(entry.unhealthy))
