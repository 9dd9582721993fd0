"""etcd keeps the contract that the store in memory is held to, and what befalls an etcd befalls nobody's addresses."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cluster_contract
import pytest
from etcd import Etcd

from cni.cluster.etcd import EtcdStore
from cni.cluster.etcd.gateway import Gateway, Refused
from cni.cluster.etcd.keys import Keys
from cni.cluster.model import Key

#: etcd keeps no lease for less than two, and a busy machine may take one for a few requests.
SECONDS = 3.0
_numbers = itertools.count()
pytestmark = pytest.mark.sweep  # no call of a plugin is made here: with the node agent it would be the same


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    """Three members, with TLS and users; each test has a prefix of its own."""
    with Etcd(Path(f"/run/etcd-contract-{os.getpid()}"), 3, tls=True, users=True) as made:
        yield made


@pytest.fixture
def alone() -> Iterator[Etcd]:
    """One member, as somebody tries it first."""
    with Etcd(Path(f"/run/etcd-alone-{os.getpid()}")) as made:
        yield made


class InEtcd:
    def __init__(self, etcd: Etcd) -> None:
        self.etcd, self.seconds = etcd, SECONDS
        self.prefix = f"/agent-cni/{next(_numbers)}"

    def store(self) -> EtcdStore:
        return EtcdStore(self.etcd.config(prefix=self.prefix), self.seconds)

    def pass_time(self, seconds: float) -> None:
        """Leases that would end meanwhile end now: that they do by themselves is seen where one waits for it."""
        store = self.store()
        store.gateway.look(store.keys.all().first)  # has who answers catch up: each member lists the leases it knows
        while ending := [lease for lease in self._leases(store.gateway) if self._left(store.gateway, lease) < seconds]:
            for lease in ending:
                with suppress(Refused):  # it has ended
                    store.gateway.end(lease)

    @staticmethod
    def _leases(gateway: Gateway) -> list[str]:
        return [lease["ID"] for lease in gateway._ask("/v3/lease/leases", {}, dict).get("leases", [])]

    @staticmethod
    def _left(gateway: Gateway, lease: str) -> float:
        """Whole seconds; -1 of one that is over, which etcd takes away in the next half a second, with what goes with it."""
        return float(gateway._ask("/v3/lease/timetolive", {"ID": lease}, dict).get("TTL", 0))

    def put_text(self, key: Key, text: str) -> None:
        self.etcd.put(Keys(self.prefix).of(key).decode(), text)

    def compact(self) -> None:
        self.etcd.compact()


@pytest.mark.parametrize("holds", cluster_contract.STATEMENTS, ids=lambda holds: holds.__name__)
def test_three_members_keep_it(etcd: Etcd, holds: cluster_contract.Statement):
    holds(InEtcd(etcd))


def test_one_member_keeps_it(alone: Etcd):
    for holds in (
        cluster_contract.who_joins_is_known_and_alive,
        cluster_contract.one_of_many_who_want_a_block_has_it,
        cluster_contract.what_changes_is_told_after_all_there_is,
        cluster_contract.who_leaves_leaves_nothing_and_others_keep_all,
    ):
        holds(InEtcd(alone))
