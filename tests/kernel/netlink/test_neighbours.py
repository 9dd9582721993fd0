"""Neighbours and FDB rows: what is asked is what pyroute2 makes of the same, and what is read is what was said."""

from __future__ import annotations

from typing import Any

import netlink_line as line
import pyroute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.kernel.netlink.wire import APPEND, CREATE, DUMP, REPLACE
from cni.kernel.view import MEMBER, LinkRef

VX = LinkRef(5, "vx")
MACS = st.binary(min_size=6, max_size=6).filter(any).map(lambda raw: raw.hex(":"))
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
ZERO = "00:00:00:00:00:00"
BRIDGE, SELF, STATIC, PERMANENT, REACHABLE = 7, 2, 0xC0, 0x80, 0x02
MASTER, EXT_LEARNED, NOARP = 0x04, 0x10, 0x40


def neighbour(verb: int, how: int, address: str, mac: str | None, state: int = 0, link: int = 5) -> bytes:
    said = [("NDA_DST", address), ("NDA_LLADDR", mac)]
    fields = {"family": 10 if ":" in address else 2, "ifindex": link, "state": state}
    return pyroute.encoded(pyroute.NEIGHBOUR, verb, how, said, **fields)


def row(verb: int, how: int, mac: str, vtep: str | None, state: int = 0, link: int = 5) -> bytes:
    said = [("NDA_DST", vtep), ("NDA_LLADDR", mac)]
    fields = {"family": BRIDGE, "ifindex": link, "flags": SELF, "state": state}
    return pyroute.encoded(pyroute.NEIGHBOUR, verb, how, said, **fields)


@given(ADDRESSES, MACS)
def test_a_neighbour(address: str, mac: str):
    added = line.request_of(lambda rtnl: rtnl.add_neighbour(VX, address, mac))
    assert added == neighbour(pyroute.NEW, CREATE | REPLACE, address, mac, PERMANENT)
    deleted = line.request_of(lambda rtnl: rtnl.delete_neighbour(VX, address))
    assert deleted == neighbour(pyroute.DELETE, 0, address, None)


@given(MACS, ADDRESSES)
def test_an_fdb_row(mac: str, vtep: str):
    added = line.request_of(lambda rtnl: rtnl.add_fdb_row(VX, mac, vtep))
    assert added == row(pyroute.NEW, CREATE | REPLACE, mac, vtep, STATIC)
    deleted = line.request_of(lambda rtnl: rtnl.delete_fdb_row(VX, mac, vtep))
    assert deleted == row(pyroute.DELETE, 0, mac, vtep)


@given(ADDRESSES, MACS)
def test_a_neighbour_says_who_made_it(address: str, mac: str):
    added = line.request_of(lambda rtnl: rtnl.add_neighbour(VX, address, mac, protocol=MEMBER))
    said = [("NDA_DST", address), ("NDA_LLADDR", mac), ("NDA_PROTOCOL", MEMBER)]
    fields = {"family": 10 if ":" in address else 2, "ifindex": 5, "state": PERMANENT}
    assert added == pyroute.encoded(pyroute.NEIGHBOUR, pyroute.NEW, CREATE | REPLACE, said, **fields)


@given(MACS, ADDRESSES)
def test_a_row_of_a_control_plane_is_one_of_the_device_and_one_of_its_bridge(mac: str, vtep: str):
    added = line.request_of(lambda rtnl: rtnl.add_peer_row(VX, mac, vtep))
    said, place = [("NDA_DST", vtep), ("NDA_LLADDR", mac)], {"family": BRIDGE, "ifindex": 5}
    fields = place | {"flags": SELF | MASTER | EXT_LEARNED, "state": REACHABLE | NOARP}
    assert added == pyroute.encoded(pyroute.NEIGHBOUR, pyroute.NEW, CREATE | REPLACE, said, **fields)
    kernel = line.Line()
    line.speaking(kernel).delete_peer_row(VX, mac, vtep)
    of_bridge = pyroute.encoded(pyroute.NEIGHBOUR, pyroute.DELETE, 0, [("NDA_LLADDR", mac)], **place, flags=MASTER)
    assert kernel.requests == [row(pyroute.DELETE, 0, mac, vtep), of_bridge]


@given(ADDRESSES)
def test_a_flood_target_is_one_row_more_for_no_mac(vtep: str):
    added = line.request_of(lambda rtnl: rtnl.add_flood_target(VX, vtep))
    assert added == row(pyroute.NEW, CREATE | APPEND, ZERO, vtep, STATIC)
    again = line.request_of(lambda rtnl: rtnl.add_given_row(VX, ZERO, vtep))
    assert again == added
    deleted = line.request_of(lambda rtnl: rtnl.delete_flood_target(VX, vtep))
    assert deleted == row(pyroute.DELETE, 0, ZERO, vtep)


def test_the_permanent_neighbours_of_a_link_are_read():
    kernel = line.Line(
        neighbour(pyroute.NEW, 0, "10.0.0.2", "0a:00:00:00:00:02", PERMANENT),
        neighbour(pyroute.NEW, 0, "10.0.0.3", "0a:00:00:00:00:03", REACHABLE),
        neighbour(pyroute.NEW, 0, "fd00::2", "0a:00:00:00:00:02", PERMANENT),
        neighbour(pyroute.NEW, 0, "10.0.0.4", "0a:00:00:00:00:04", PERMANENT, link=6),
    )
    found = line.speaking(kernel).neighbours(VX)
    assert found == {"10.0.0.2": "0a:00:00:00:00:02", "fd00::2": "0a:00:00:00:00:02"}
    assert kernel.requests == [pyroute.encoded(pyroute.NEIGHBOUR, pyroute.GET, DUMP, [("NDA_IFINDEX", 5)])]


def test_fdb_rows_and_flood_targets_are_read_apart():
    rows = (
        row(pyroute.NEW, 0, "0a:00:00:00:00:02", "192.0.2.1", STATIC),
        row(pyroute.NEW, 0, "0a:00:00:00:00:03", "fd00::1", REACHABLE),
        row(pyroute.NEW, 0, ZERO, "192.0.2.1", STATIC),
        row(pyroute.NEW, 0, ZERO, "fd00::9", STATIC),
        row(pyroute.NEW, 0, "0a:00:00:00:00:04", None, PERMANENT),
        row(pyroute.NEW, 0, "0a:00:00:00:00:05", "192.0.2.1", STATIC, link=6),
    )
    found = line.speaking(line.Line(*rows)).fdb(VX)
    assert found == {"0a:00:00:00:00:02": "192.0.2.1", "0a:00:00:00:00:03": "fd00::1"}
    assert line.speaking(line.Line(*rows)).flood_targets(VX) == {"192.0.2.1", "fd00::9"}
    given = [("0a:00:00:00:00:02", "192.0.2.1"), (ZERO, "192.0.2.1"), (ZERO, "fd00::9")]
    assert line.speaking(line.Line(*rows)).given_rows(VX) == given


@pytest.mark.parametrize("speak", [lambda rtnl: rtnl.fdb(VX), lambda rtnl: rtnl.flood_targets(VX)])
def test_a_dump_names_what_it_is_about(speak: Any):
    kind, how, message = pyroute.decoded(line.request_of(speak))
    assert (kind, how, message["family"], pyroute.said(message)) == (30, 0x305, 7, {"IFINDEX": 5})
