"""Interception as resources of a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.result import Result
from cni.resources import Host, Resource

if TYPE_CHECKING:
    from cni.sidecar.model import Interception


def intercepting(wanted: Interception | None, link: str, attached: Result, host: Host) -> tuple[Resource, ...]:
    """What interception needs in a pod whose addresses and resolvers `attached` says: it must be there
    before its `link` is up.

    Every family the pod has is captured, by its addresses or because the kernel speaks it. Raises Conflict
    where another attachment of the pod has other rules.
    """
    if wanted is None or not wanted.wanted or host.unleased:
        return ()
    from cni.sidecar.captured import captured  # a call without interception loads nothing of it

    return captured(wanted, link, attached, host)
