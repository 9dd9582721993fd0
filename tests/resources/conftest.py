"""A host and a pod whose kernel is a few dataclasses; requests are noted as the kernel would be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rtnl import FakeRtnl

from cni.kernel.locks import LockFile
from cni.resources import World


@pytest.fixture
def host() -> FakeRtnl:
    return FakeRtnl()


@pytest.fixture
def pod() -> FakeRtnl:
    return FakeRtnl()


@pytest.fixture
def world(tmp_path: Path, host: FakeRtnl, pod: FakeRtnl) -> Iterator[World]:
    lock = LockFile(tmp_path / "lock")
    made = World(SimpleNamespace(fd=9, path="/run/netns/c1"), lock)
    made.__dict__ |= {"host": host, "pod": pod}
    yield made
    lock.close()


@pytest.fixture
def undone(world: World, host: FakeRtnl) -> Callable[[], list[str]]:
    """Take back what was created; returns what that asked of the host."""

    def undo() -> list[str]:
        before = len(host.asked)
        world.undo.close()
        return host.asked[before:]

    return undo
