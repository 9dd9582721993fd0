"""A cluster's store in etcd."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cni.cluster.config import EtcdConfig
from cni.cluster.model import Block, Endpoint, Network, Node
from cni.cluster.store import Change, Listing, Session
from cni.errors import Unreachable


class EtcdStore:
    """See ClusterStore. A session lives for `seconds` unheard."""

    def __init__(self, config: EtcdConfig, seconds: float) -> None:
        self._config, self._seconds = config, seconds

    def join(self, me: Node, token: str) -> Session:
        """See ClusterStore."""
        raise self._silent()

    def renew(self, session: Session) -> None:
        """See ClusterStore."""
        raise self._silent()

    def announce(self, session: Session, me: Node) -> Session:
        """See ClusterStore."""
        raise self._silent()

    def leave(self, session: Session) -> None:
        """See ClusterStore."""
        raise self._silent()

    def remove(self, node: str) -> list[Block]:
        """See ClusterStore."""
        raise self._silent()

    def declare(self, session: Session, network: Network) -> Network:
        """See ClusterStore."""
        raise self._silent()

    def claim(self, session: Session, block: Block) -> bool:
        """See ClusterStore."""
        raise self._silent()

    def give_up(self, session: Session, block: Block) -> bool:
        """See ClusterStore."""
        raise self._silent()

    def publish(self, session: Session, block: Block, there: Sequence[Endpoint], gone: Sequence[Endpoint]) -> bool:
        """See ClusterStore."""
        raise self._silent()

    def listing(self) -> Listing:
        """See ClusterStore."""
        raise self._silent()

    def changes(self) -> Iterator[Listing | Change]:
        """See ClusterStore."""
        raise self._silent()

    def turn(self, session: Session, what: str, seconds: float) -> bool:
        """See ClusterStore."""
        raise self._silent()

    def _silent(self) -> Unreachable:
        return Unreachable(f"{', '.join(self._config.endpoints)}: no answer")
