"""The store other tests build on keeps the contract that etcd is held to in netns-tests."""

from __future__ import annotations

import inspect

import cluster_contract
import pytest
from cluster_memory import Memory, MemoryStore

from cni.cluster.store import ClusterStore


class InMemory:
    def __init__(self) -> None:
        self.memory = Memory()
        self.seconds = 2.0  # of a busy machine too
        self.pass_time, self.put_text, self.compact = self.memory.pass_time, self.memory.put_text, self.memory.compact

    def store(self) -> ClusterStore:
        return MemoryStore(self.memory, self.seconds)


@pytest.mark.parametrize("holds", cluster_contract.STATEMENTS, ids=lambda holds: holds.__name__)
def test_memory_keeps_it(holds: cluster_contract.Statement):
    holds(InMemory())


def test_memory_is_asked_as_every_store_is():
    for name, method in inspect.getmembers(ClusterStore, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(MemoryStore, name)) == inspect.signature(method), name
