"""Whether the pod of a record is still there, by proof and not by a path: paths are hidden, removed and given again."""

from __future__ import annotations

from contextlib import closing
from enum import Enum
from functools import cached_property
from pathlib import Path

from cni.kernel.netlink import Rtnl
from cni.kernel.netns import Netns, everywhere, home_identity, is_own, sees_every_process, whereabouts
from cni.resources import AntiSpoof, Gate, PortOpening, VethPair
from cni.state import Record


class Liveness(Enum):
    """What can be said of a pod from where we look."""

    ALIVE = "alive"
    GONE = "gone"
    UNSEEN = "unseen"


#: What a complete attachment is called then.
STATES = {Liveness.ALIVE: "attached", Liveness.GONE: "stale", Liveness.UNSEEN: "unseen"}


class Witness:
    """What one command sees of this node, looked at once."""

    def of(self, record: Record) -> Liveness:
        """ALIVE and GONE are proven. A veth lives as long as both its namespaces; a namespace lives where a process or a mount
        holds it; another boot is another world. UNSEEN is everything else.
        """
        if record.netns_id and record.netns_id.partition(":")[0] != home_identity().partition(":")[0]:
            return Liveness.GONE
        if self._is_there(record):
            return Liveness.ALIVE
        if _its_host(record) not in ("", home_identity()):
            return Liveness.UNSEEN
        return Liveness.GONE if self._would_be_seen(record) else Liveness.UNSEEN

    def _is_there(self, record: Record) -> bool:
        """Whether its namespace is found, under its path or anywhere, or the host's end of its veth."""
        netns = Netns.if_there(record.netns)
        if netns:
            with closing(netns):
                may_be = not (record.netns_id or is_own(record.netns))  # no pod's path led to the node's own namespace
                if may_be or record.netns_id == netns.identity != "":
                    return True
        if _host_ends(record) & self._veths:
            return True
        return bool(record.netns_id) and record.netns_id in self._namespaces

    def _would_be_seen(self, record: Record) -> bool:
        """Whether a namespace that was not found would have been.

        An empty file where a namespace was mounted is how its folder looks to who does not share the mounts; an empty folder
        proves something only to who sees the same processes as the ADD did, and so what they have mounted. Of a pod whose
        namespace was gone when its record was brought up nobody knows who saw it: there a folder that has others is the proof.
        """
        if _its_host(record) and _host_ends(record):
            return True
        path, akin = Path(record.netns), bool(record.netns_id) and record.home == whereabouts()
        if path.is_relative_to("/proc"):
            return akin or (not record.home and sees_every_process())
        seen = path.parent.is_dir() and (akin or any(map(Netns.is_at, path.parent.iterdir())))
        return seen and (not path.exists() or Netns.is_at(path))

    @cached_property
    def _veths(self) -> set[str]:
        with closing(Rtnl()) as rtnl:
            return {link.name for link in rtnl.links() if link.kind == "veth"}

    @cached_property
    def _namespaces(self) -> set[str]:
        return set(everywhere())


def _its_host(record: Record) -> str:
    """The identity of the host's namespace at its ADD; nothing where nobody knows."""
    return record.home.split(" ")[0]


def _host_ends(record: Record) -> set[str]:
    """The veths on the host that a record's attachment made, or was lent by a plugin before it."""
    made = {item.host for item in record.resources if isinstance(item, VethPair)}
    return made | {item.link for item in record.resources if isinstance(item, AntiSpoof | Gate | PortOpening)}
