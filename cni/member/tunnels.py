"""The tunnels of an encrypted cluster, seen to by the hand: they follow the hosts there are, and the state says whether they are there."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from cni.cluster.config import ClusterConfig
from cni.errors import CniError
from cni.member.encryption import Encryption
from cni.member.key import Key
from cni.member.ledger import Ledger
from cni.member.session import SessionKeeper
from cni.member.trouble import Trouble
from cni.state import Store

_LOOKED_AT_EVERY = 1.0


class Tunnels:
    """What of them is asked for with each beat."""

    def __init__(self, config: ClusterConfig, keeper: SessionKeeper, ledger: Ledger, folder: Path, key: Key) -> None:
        self._keeper, self._ledger, self._folder, self._key = keeper, ledger, folder, key
        self._encryption = Encryption(config.node, config.wireguard_port, key)
        self._trouble, self._refused = Trouble("encryption"), Trouble("peers")
        self._followed = -1
        self._underlay = ""
        self._next = 0.0
        self._said: str | None = None

    def beat(self) -> None:
        """Have them as they are to be; without news of hosts it costs a look once a second."""
        host, news, now = self._keeper.host, self._ledger.hosts, time.monotonic()
        if host is None:
            return
        is_news = (news, host.underlay) != (self._followed, self._underlay)
        if not is_news and now < self._next:
            return
        self._next = now + _LOOKED_AT_EVERY
        if is_news or self._encryption.look():
            self._encryption.ensure(host.underlay, self._ledger.nodes())
            self._followed, self._underlay = news, host.underlay
        self._announce()
        self._tell()

    def compare(self) -> None:
        """Have every peer compared, too."""
        self._followed = -1
        self.beat()

    def _announce(self) -> None:
        """Have the others know of a key that is another by now."""
        session = self._keeper.session
        if session and session.node.wireguard != self._key.public:
            self._keeper.hasten()

    def _tell(self) -> None:
        """Have people, and calls, know why there is none."""
        why = self._encryption.trouble
        for trouble, text in ((self._trouble, why), (self._refused, "; ".join(self._encryption.refused))):
            trouble.is_so(text) if text else trouble.over()
        if why == self._said:
            return
        try:
            with closing(Store.open(self._folder)) as state, state.transaction():
                state.say_tunnels(why)
        except CniError:
            return  # said with the next beat
        self._said = why


def without(config: ClusterConfig, folder: Path) -> None:
    """Have no tunnel of an encrypted cluster, which this host has left, or which is encrypted no more. Raises as Encryption.remove."""
    Encryption(config.node, config.wireguard_port, Key(folder)).remove()
