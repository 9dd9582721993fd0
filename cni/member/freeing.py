"""Blocks of a host that said it would have given them up by itself by now (freeAfter), freed for others.

Of two sightings so far apart the second is the store's own: whether the host is alive is compared in the transaction that frees.
"""

from __future__ import annotations

from cni import log
from cni.cluster.store import ClusterStore, Session
from cni.errors import NameTaken
from cni.member.ledger import Ledger

_TURN, _TURN_SECONDS = "free", 60.0


def free(store: ClusterStore, session: Session, ledger: Ledger) -> None:
    """Free what is due, if it is this host's turn. Raises Unreachable and SessionLost."""
    due = [node for node, seconds in ledger.silent() if node.fences and seconds > node.fences]
    if not due or not store.turn(session, _TURN, _TURN_SECONDS):
        return
    for node in due:
        try:
            blocks = store.remove(node.name)
        except NameTaken:  # it is back, and the watch will say so
            continue
        ledger.note(gone=[node.key, *(block.key for block in blocks)])
        spans = ", ".join(f"{block.span} of {block.network}" for block in blocks) or "it had none"
        log.warning("member", f"{node.name} was not heard of for {node.fences} s: its blocks are free, {spans}")
