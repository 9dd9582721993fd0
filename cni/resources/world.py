"""Where resources act: the host's namespace, the pod's, and what the running call has created."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cni.errors import InvalidNetns, KernelRefused, Unfinished, own_terms
from cni.kernel.locks import LockFile
from cni.kernel.netns import Netns, own_fd
from cni.naming import digest_of

if TYPE_CHECKING:
    from cni.kernel.netlink import Rtnl
    from cni.resources.base import Resource


#: The turn in which elements of peers' sets are looked at and changed.
PEERS = "peers of policies"


class Said(NamedTuple):
    """What a network's configuration makes of what follows it; `in_use` by an attachment of this node."""

    network: str
    resources: tuple[Resource, ...]
    in_use: bool


class Peers(Protocol):
    """Whom policies select, as the state and the feeds say now; to be asked within the turn in which sets change."""

    def members(self, selection: str, family: int) -> frozenset[bytes] | None:
        """The elements a selection's set is to have, as the kernel keeps them; None where nobody knows any."""

    def entries(self, addresses: Iterable[str]) -> Mapping[str, frozenset[bytes]]:
        """Of each set of the node that somebody uses, by name, the elements it is to have of these addresses."""


class _Nobody:
    """No peers."""

    def members(self, selection: str, family: int) -> None:
        return None

    def entries(self, addresses: Iterable[str]) -> Mapping[str, frozenset[bytes]]:
        return {}


class World:
    """One call's view of the node. Doors open when first used and close with the world.

    `netns` is None where the pod's namespace is gone or was never named.
    `undo` holds, in order of creation, how to take back what this call created.
    """

    def __init__(self, netns: Netns | None, lock: LockFile) -> None:
        self.netns = netns
        self.undo = ExitStack()
        #: What other attachments share, None where nobody can say; for the undo, when no other call runs.
        self.others: Callable[[], frozenset[Resource] | None] = frozenset
        #: What the node's other networks say now of what follows their configuration.
        self.networks: Callable[[], Sequence[Said]] = tuple
        #: Whether this network said the same when an ADD of it last ended well.
        self.settled = False
        #: What other attachments of the node have that mention a value, as far as no call is at them.
        self.at_rest: Callable[[str], Iterable[Resource]] = lambda _: ()
        #: Whom policies select, and whether any does: who asks that after the state says what he has or has no more is seen by the first.
        self.peers: Callable[[], Peers] = _Nobody
        self.selecting: Callable[[], bool] = lambda: False
        #: Have the state say that the call's attachment has some addresses no more.
        self.withdraw: Callable[[Iterable[str]], None] = lambda _: None
        #: Whether what exists is compared with what feeds say now, too, and not only with what was recorded.
        self.current = False
        #: Whether rtnetlink is read once, for who asks about much of a namespace and changes nothing.
        self.at_once = False
        self._lock = lock
        self._doors = ExitStack()

    def close(self) -> None:
        """Close the doors."""
        self._doors.close()

    @cached_property
    def host(self) -> Rtnl:
        """Rtnetlink in the host's namespace, by a socket the process keeps."""
        from cni.kernel.netlink import Rtnl  # a call that asks the kernel nothing does not load it

        rtnl = _at_once() if self.at_once else Rtnl.kept()
        self._doors.callback(rtnl.close if self.at_once else rtnl.give_back)
        return rtnl

    @contextmanager
    def beside(self, netns: Netns) -> Iterator[World]:
        """The same node, and another pod."""
        other = World(netns, self._lock)
        other.host, other.current, other.at_once = self.host, self.current, self.at_once
        other.peers, other.selecting = self.peers, self.selecting
        try:
            yield other
        finally:
            other.close()

    @cached_property
    def pod(self) -> Rtnl:
        """Rtnetlink in the pod's namespace."""
        from cni.kernel.netlink.rtnl import OfPod

        with self.in_pod():
            rtnl = _at_once() if self.at_once else OfPod(self.in_pod)
        self._doors.callback(rtnl.close)
        return rtnl

    @contextmanager
    def in_pod(self) -> Iterator[None]:
        """Be in the pod's namespace, for sockets and settings. Raises InvalidNetns without one."""
        if self.netns is None:
            raise InvalidNetns("CNI_NETNS: the pod's namespace is gone")
        with self.netns.entered():
            yield

    @contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """Hold what calls must do one after another, such as look at rules and then change them."""
        with self._lock.exclusive(digest_of(what), what):
            yield

    @contextmanager
    def host_netns(self) -> Iterator[int]:
        """A descriptor of the host's namespace, for requests made in the pod's."""
        fd = own_fd()
        try:
            yield fd
        finally:
            os.close(fd)

    def created(self, resource: Resource) -> None:
        """Remember that this call created a resource, so that a failure takes it back."""
        self.undo.callback(self._take_back, resource)

    def make(self, resource: Resource, request: Callable[[], None]) -> bool:
        """Ask for a thing and remember that it is ours; where another call was quicker, it is not. Whether it is."""
        try:
            request()
        except Unfinished:
            self.created(resource)
            raise
        except KernelRefused as error:
            if error.errno != errno.EEXIST:
                raise
            return False
        self.created(resource)
        return True

    def changed(self, resource: Resource, back: Callable[[], None]) -> None:
        """Remember how to change back what a shared resource was before."""

        def change_back() -> None:
            if self._is_nobody_elses(resource):
                with own_terms:
                    back()

        self.undo.callback(change_back)

    def _take_back(self, resource: Resource) -> None:
        if not resource.shared or self._is_nobody_elses(resource):
            with own_terms:
                resource.remove(self)

    def _is_nobody_elses(self, resource: Resource) -> bool:
        """Whether nobody has a shared resource who attached meanwhile, and nobody may begin to: no other call runs."""
        others = self.others() if self._lock.alone() else None
        return others is not None and resource not in others


def _at_once() -> Rtnl:
    from cni.kernel.netlink.at_once import AtOnce

    return AtOnce()
