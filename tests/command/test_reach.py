"""The last word of `reach`, where a packet says other than was expected."""

from __future__ import annotations

import pytest

from cni.command.reach import reach
from cni.command.reach.ends import End
from cni.kernel.listening import ANSWERED, REFUSED, SILENT
from cni.reach.packet import asked
from cni.reach.verdict import LOST, UNKNOWN, Verdict

ASKED = reach._Asked(End("shop/web"), End("192.0.2.9"), "192.0.2.9", "tcp", 80)


@pytest.mark.parametrize(
    ("sent", "state"), [(ANSWERED, UNKNOWN), (REFUSED, LOST), (SILENT, UNKNOWN), ("", UNKNOWN), ("ECONNRESET", LOST)]
)
def test_what_a_proxy_answers_proves_that_it_took_it_and_no_more(sent: str, state: str):
    why = "it is redirected to port 15001 of its own: what follows is the proxy's"
    found = Verdict(UNKNOWN, why, asked("", "192.0.2.9", "tcp", 80), listens=True, intercepted=15001)
    assert reach._last(ASKED, found, (), sent)[0] == state


@pytest.mark.parametrize("text", ["shop/web:abc", "shop/web:80x", "web:http/tcp"])
def test_a_port_that_is_none_is_no_part_of_a_name(text: str):
    assert reach._is_no_end(text)


@pytest.mark.parametrize("text", ["shop/web", "fd00::1", "[fd00::1]", "10.1.0.2", "web.example"])
def test_names_and_addresses_are_ends(text: str):
    assert not reach._is_no_end(text)
