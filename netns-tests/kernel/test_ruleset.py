"""What nf_tables holds, asked for by key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cni.kernel import kept, netns, nftables, ruleset
from cni.kernel.ruleset import Element

THERE, ABSENT = bytes([10, 1, 0, 5]), bytes([10, 1, 0, 6])


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    with netns.fresh():
        yield
        kept.let_go()


def test_of_several_elements_each_is_there_or_not():
    asked = [Element(f"inet t {name}", key) for name in ("held", "led", "nothing") for key in (THERE, ABSENT)]
    assert ruleset.which_there(asked) == [False] * 6, "there is no table"
    script = (
        "add table inet t\nadd chain inet t c\n"
        "add set inet t held { type ipv4_addr; }\nadd map inet t led { type ipv4_addr : verdict; }\n"
        "add element inet t held { 10.1.0.5 }\nadd element inet t led { 10.1.0.5 : jump c }\n"
    )
    assert nftables.run(script).done
    assert ruleset.which_there(asked) == [True, False, True, False, False, False]
    assert ruleset.which_there(asked) == [ruleset.has_element(item) for item in asked]
