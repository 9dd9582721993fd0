"""Every door with the inputs that are kept, each of which was taken wrongly once or is as what comes really is, and with some new ones."""

from __future__ import annotations

from random import Random

import pytest
from crash import inputs
from crash.doors.door import judged

DOORS = inputs.doors()


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if not door.apart])
def test_a_door_takes_or_refuses_whatever_comes(name: str):
    door, random = DOORS[name], Random(name)
    with inputs.alone():
        for data in (*(file.read_bytes() for file in door.corpus), *(door.made(random) for _ in range(50))):
            assert not judged(door, data), data[:200]


def test_a_door_that_raises_or_hangs_is_told():
    raising = DOORS["netlink"]._replace(judged=lambda _: str(1 // 0))
    assert "ZeroDivisionError" in judged(raising, b"")
    hanging = DOORS["netlink"]._replace(judged=_for_ever)
    assert "processor time" in judged(hanging, b"")


def _for_ever(_: bytes) -> str:
    while True:
        continue
