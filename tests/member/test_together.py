"""What is held together, and who holds nobody up."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cni.errors import Unavailable
from cni.naming import Attachment
from cni.state import Record, Store
from cni.together import answer, answered, follow


def test_a_record_that_nobody_can_read_is_named_and_ends_nothing(tmp_path: Path, no_node: Path):
    config = {"name": "net", "vxlan": "of another release", "policy": {"policyDir": str(tmp_path)}}
    record = Record(Attachment("net", "c", "eth0"), "bridge-vxlan", "", "shop/web", config, complete=True)
    with closing(Store.open(no_node)) as store:
        with store.transaction():
            store.put(record)
        items = [it for it in store.fed().values() if it]
    found = follow(items)
    assert [error.msg for error in found.failed.values()] == [
        "shop/web (net/c/eth0) is held to what was said before: another release recorded what this one does not know"
    ]


def test_whoever_follows_again_and_again_opens_no_more(no_node: Path):
    opened = []
    for _ in range(5):
        follow([])
        opened.append(len(list(Path("/proc/self/fd").iterdir())))
    assert opened[1:] == opened[:1] * 4


@pytest.mark.parametrize("asked", [b"", b"[5]", b"[" * 5000, b'[["a"]]', b"\xff"])
def test_an_errand_that_is_none_is_answered_by_nothing(asked: bytes):
    """It ended the worker that was asked."""
    assert answer(asked) == b""


@pytest.mark.parametrize(
    "said", [b"{}", b"[]", b"[[5], [], {}]", b'[[], [], {"x": "y"}]', b"[[], [], []]", b"[" * 5000]
)
def test_an_answer_that_is_none_is_no_answer(said: bytes):
    with pytest.raises(Unavailable, match="said what is no answer"):
        answered([], said)
