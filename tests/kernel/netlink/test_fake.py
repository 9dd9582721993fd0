"""The fake that other tests build on keeps the contract the kernel is held to in netns-tests."""

from __future__ import annotations

import inspect

import pytest
import rtnl_contract
from rtnl import FakeRtnl

from cni.kernel.netlink.reachability import Asking

#: A process's own business, not a namespace's.
KEEPING = {"kept", "give_back"}


@pytest.mark.parametrize("holds", rtnl_contract.STATEMENTS, ids=lambda holds: holds.__name__)
def test_the_fake_keeps_it(holds: rtnl_contract.Statement):
    holds(FakeRtnl())


def test_the_fake_is_asked_as_the_kernel_is():
    public = [name for name in dir(Asking) if not name.startswith("_") and name not in KEEPING]
    for name in public:
        assert str(inspect.signature(getattr(FakeRtnl, name))) == str(inspect.signature(getattr(Asking, name))), name
