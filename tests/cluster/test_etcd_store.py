"""What of etcd needs no etcd."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from cni.cluster.config import EtcdConfig
from cni.cluster.etcd import EtcdStore, store


@pytest.mark.parametrize("session", [15, 51, 3600])
def test_a_quiet_cluster_is_heard_twice_before_a_ledger_is_deaf(monkeypatch: pytest.MonkeyPatch, session: int):
    """With a session of a minute it was not, and freeAfter freed nobody where nothing else happened."""
    asked = list[float]()

    def watch(gateway: object, keys: object, silence: float, *_: object) -> SimpleNamespace:
        asked.append(silence)
        return SimpleNamespace(told=lambda: iter(()))

    monkeypatch.setattr(store, "Watch", watch)
    changes: Iterator[object] = EtcdStore(EtcdConfig(("http://[::1]:1",)), session).changes()
    assert list(changes) == []
    assert 0 < asked[0] <= 5
