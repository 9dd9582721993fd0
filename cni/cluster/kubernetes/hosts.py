"""Hosts in the API: this host's own Node, which says of it what others are to know.

Kubelet keeps a Node alive, and says which machine and which boot of it lives under the name; so a session is a token on the Node, and
is lost when another one stands there, or the Node is another object. Nobody writes to say that nothing changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from cni.cluster.config import KubernetesConfig
from cni.cluster.fields import Malformed
from cni.cluster.kubernetes import items
from cni.cluster.kubernetes.api import Api, Overtaken
from cni.cluster.kubernetes.objects import NODES
from cni.cluster.kubernetes.objects import Node as Object
from cni.cluster.model import Block, Node
from cni.cluster.store import Session
from cni.errors import Conflict, NameTaken, SessionLost, Unavailable, Unreachable
from cni.kernel.clock import boottime

#: How often one looks and writes again where others change the Node, and how long one waits before, at first, in seconds.
_LOOKS, _PAUSE = 8, 0.05
#: A busy API may take so long; and of a quiet one the own Node is asked for so often, in seconds.
_PATIENCE, _QUIET = 10.0, 60.0

Annotations = Mapping[str, str | None]


class Hosts:
    """Who is there. See ClusterStore for each method."""

    def __init__(self, config: KubernetesConfig, me: str, seconds: float) -> None:
        self.api = Api(config, _PATIENCE)
        self.me, self._seconds = me, seconds
        #: This host's own Node as it was heard of last, and when.
        self._own: tuple[Object | None, float] = (None, 0.0)

    def saw(self, own: Object | None) -> None:
        """The own Node is so by now, as far as a watch knows."""
        self._own = own, boottime()

    def own(self, session: Session) -> Object:
        """The Node of a session, as it was a moment ago. Raises SessionLost."""
        known = self._known(session.node.name)
        self._unless_lost(session, known)
        assert known
        return known

    def reached_at(self, node: str) -> str:
        """See ClusterStore: kubelet, or a cloud's controller, says it of the Node."""
        known = self._known(node)
        return items.internal_address(known) if known else ""

    def look(self, name: str) -> Object | None:
        """The Node of a name, as it is now."""
        before = self._own
        found = self.api.get(NODES, name)
        node = found if isinstance(found, Object) else None
        self._answered(name, node, before)
        return node

    def write(self, name: str, said: Callable[[Object], Annotations]) -> Object:
        """Have a Node say what it is to, once it was looked at; it is looked at again when others changed it meanwhile. Raises what
        `said` does, and Unavailable where there is no such Node.
        """
        for number in range(_LOOKS):
            time.sleep(_PAUSE * number)
            if (node := self.look(name)) is None:
                raise Unavailable(
                    f"Kubernetes has no Node {name}: its kubelet makes it (NODE_NAME, or node of cluster.json, is its name)"
                )
            wanted = said(node)
            if all(items.said_by(node).get(key) == value for key, value in wanted.items()):
                return node
            before = self._own
            try:
                found = self.api.annotate(NODES, node, wanted)
            except Overtaken:
                continue
            assert isinstance(found, Object)
            self._answered(name, found, before)
            return found
        raise Unreachable(f"others write to the Node {name} all the time")

    def join(self, me: Node, token: str) -> Session:
        """See ClusterStore."""

        def said(node: Object) -> Annotations:
            _refuse_another(node, me, token)
            return items.annotated(me, token)

        return Session(me, token, _fence(self.write(me.name, said), token), "", self._seconds)

    def renew(self, session: Session) -> None:
        """See ClusterStore. What a watch heard of the Node a moment ago is as good as to ask; where somebody has it say of this host what
        is not so, it is said again: others send by it.
        """
        said = items.said_by(self.own(session))
        if any(said.get(key) != value for key, value in items.annotated(session.node, session.token).items()):
            self.announce(session, session.node)

    def speak(self, session: Session) -> None:
        """See ClusterStore. Of a machine that was cloned with its memory kubelet knows no more than this host does."""
        self.own(session)

    def announce(self, session: Session, me: Node) -> Session:
        """See ClusterStore."""

        def said(node: Object) -> Annotations:
            self._unless_lost(session, node)
            return items.annotated(me, session.token)

        self.write(session.node.name, said)
        return session._replace(node=me)

    def leave(self, session: Session) -> None:
        """See ClusterStore. Its blocks are the Node's still; nobody sends to them."""

        def said(node: Object) -> Annotations:
            host = _host_of(node)
            if host and (host.machine != session.node.machine or _fence(node, session.token) != session.fence):
                raise NameTaken(f"{session.node.name} is the name of another by now, whose blocks stay")
            if host and items.said_by(node).get(items.SESSION) != session.token:
                raise NameTaken(f"{session.node.name} is another life of this machine by now, whose blocks stay")
            return items.nothing()

        try:
            self.write(session.node.name, said)
        except Unavailable:  # the Node is gone, and all it said
            return

    def remove(self, node: str) -> list[Block]:
        """See ClusterStore. Raises Conflict: whoever may delete a Node may say this, too."""
        raise Conflict(
            f"{node} is a Node of Kubernetes, which gives its addresses to others once it is deleted: kubectl delete node {node}"
        )

    def turn(self, session: Session, what: str, seconds: float) -> bool:
        """See ClusterStore. Nothing is done here by one host for all."""
        self.own(session)
        return False

    def _known(self, name: str) -> Object | None:
        """A Node as it was a moment ago."""
        known, at = self._own
        is_fresh = known is not None and known.metadata.name == name and boottime() - at <= _QUIET
        return known if is_fresh else self.look(name)

    def _answered(self, name: str, node: Object | None, before: tuple[Object | None, float]) -> None:
        """A Node is so, says an answer to what was asked when the own one was known as `before`. What was heard of it meanwhile may be
        newer or older: where that says otherwise, the Node is to be asked for.
        """
        if name == self.me:
            self.saw(node if self._own is before or self._own[0] == node else None)

    def _unless_lost(self, session: Session, node: Object | None) -> None:
        is_there = node and items.said_by(node).get(items.SESSION) == session.token
        if not (is_there and node and _fence(node, session.token) == session.fence):
            raise SessionLost(f"the session of {session.node.name} has ended: its Node is another, or says another")


def _fence(node: Object, token: str) -> str:
    return f"{node.metadata.uid} {token}"


def _host_of(node: Object) -> Node | None:
    """The host a Node says it is; None also where that cannot be read, which nobody defends."""
    try:
        return items.host_of(node)
    except Malformed:
        return None


def _refuse_another(node: Object, me: Node, token: str) -> None:
    """Raise NameTaken where another machine has the name, unless its kubelet says that this one has it by now; and where another
    boot of this one has it, as kubelet says.
    """
    host, info = _host_of(node), node.status.node_info
    if host and host.machine != me.machine and not (info and info.machine_id == me.machine):
        raise NameTaken(f"{me.name} is the name of another machine of the cluster")
    boot = items.said_by(node).get(items.SESSION, "").partition(":")[0]
    if host and boot != token.partition(":")[0] and info and info.boot_id and info.boot_id == boot:
        raise NameTaken(f"{me.name} lives in the cluster, in another life: its kubelet speaks for boot {boot}")
