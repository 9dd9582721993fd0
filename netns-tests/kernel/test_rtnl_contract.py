"""The kernel keeps the contract the fake is held to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import rtnl_contract

from cni.kernel import netns
from cni.kernel.netlink.reachability import Asking


@pytest.fixture
def rtnl() -> Iterator[Asking]:
    """That of a namespace nobody else knows, which goes with its socket."""
    with netns.fresh():
        made = Asking()
    with closing(made):
        yield made


@pytest.mark.parametrize("holds", rtnl_contract.STATEMENTS, ids=lambda holds: holds.__name__)
def test_the_kernel_keeps_it(rtnl: Asking, holds: rtnl_contract.Statement):
    holds(rtnl)
