"""The daemons of a host: of each kind there is one, which holds a byte of the node's lock file for as long as it lives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from cni.errors import Busy, Conflict
from cni.kernel.files import private_folder
from cni.kernel.locks import LockFile
from cni.naming import digest_of
from cni.state.uses import node_lock

MEMBER, NAMES, FLOWS, GATE = "member", "server of names", "recorder of flows", "DNS gate"
GUARD = "guard of rules"


@contextmanager
def alone(kind: str) -> Iterator[None]:
    """Be the only one of a kind on this host. Raises Conflict."""
    private_folder(node_lock().parent)
    with closing(LockFile(node_lock())) as lock, ExitStack() as held:
        try:
            held.enter_context(lock.exclusive(digest_of(kind), f"the {kind}", patience=0))
        except Busy as error:
            raise Conflict(f"a {kind} runs on this host already") from error
        yield


def is_running(kind: str) -> bool:
    """Whether there is one of a kind, or is about to be."""
    if not node_lock().exists():
        return False
    with closing(LockFile(node_lock())) as lock:
        try:
            lock.wait_for(digest_of(kind), f"the {kind}", patience=0)
        except Busy:
            return True
    return False
