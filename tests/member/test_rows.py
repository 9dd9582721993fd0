"""What the kernel does not say of one table is in no other's way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cni.errors import CniError, KernelRefused
from cni.member.rows import KernelRows
from cni.resources import PeerNeighbour, PeerRoute, PeerRow


@pytest.mark.parametrize("code", [19, 4], ids=["a link that goes", "a list that is interrupted"])
def test_a_table_that_cannot_be_read_is_tried_again_and_the_others_are_done(code: int, monkeypatch: pytest.MonkeyPatch):
    refused, asked = list[CniError](), list[str]()

    def link_by_name(name: str) -> None:
        asked.append(name)
        if name == "vxlan100":
            raise KernelRefused("netlink: it does not say", code)

    world: Any = SimpleNamespace(host=SimpleNamespace(link_by_name=link_by_name))
    rows = KernelRows(world, refused.append)
    tables = {(PeerRow, "vxlan100"): {"a": "b"}, (PeerNeighbour, "br0"): {"a": "b"}, (PeerRoute, "br0"): {}}
    overlay = SimpleNamespace(device="vxlan100", bridge="br0")
    peers: Any = SimpleNamespace(
        links_of=lambda kind: ("vxlan100" if kind is PeerRow else "br0",), tables={}, overlay=overlay
    )
    monkeypatch.setattr("weakref.WeakSet.update", lambda *_: None)
    assert rows.mend(tables) == 0
    assert asked == ["vxlan100", "br0", "br0"]
    asked.clear()
    assert rows.compare([peers]) == 0
    assert {"lo", "vxlan100", "br0"} == {*asked}
    assert [error.msg for error in refused] == ([] if code == 19 else ["netlink: it does not say"] * 2)
