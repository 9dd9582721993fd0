"""Which connections a namespace has, as the kernel's tables print them."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from cni.errors import KernelRefused
from cni.kernel import connections
from cni.kernel.connections import Connection

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "00000000:00000000 00:00000000 00000000     0        0 1 1 0 20 4 30 10 -1"
LISTENING, ESTABLISHED, CLOSE_WAIT, TIME_WAIT = "0A", "01", "08", "06"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(connections, "_OWN", tmp_path)
    return tmp_path


def words(text: str) -> str:
    """An address in words of the machine's byte order."""
    packed = ip_address(text).packed
    return "".join(f"{int.from_bytes(packed[at : at + 4], sys.byteorder):08X}" for at in range(0, len(packed), 4))


def line(local: str, port: int, remote: str, other: int, state: str) -> str:
    return f"   0: {words(local)}:{port:04X} {words(remote)}:{other:04X} {state} {REST}\n"


def test_a_kernel_without_tables_has_none(proc: Path):
    assert list(connections.here()) == []
    assert not connections.possible()


@pytest.mark.parametrize("name", ["sockstat", "sockstat6", "tcp", "tcp6"])
def test_a_table_that_cannot_be_read_is_named(proc: Path, name: str):
    (proc / name).mkdir()
    with pytest.raises(KernelRefused, match=f"{proc}/{name}: Is a directory"):
        list(connections.here()) if name.startswith("tcp") else connections.possible()


@pytest.mark.parametrize(
    ("four", "six", "possible"),
    [
        ("TCP: inuse 0 orphan 0", "TCP6: inuse 0", False),
        ("TCP: inuse 2", "TCP6: inuse 0", True),
        ("TCP: inuse 0", "TCP6: inuse 1", True),
    ],
)
def test_whether_there_are_any_costs_no_look_at_each(proc: Path, four: str, six: str, possible: bool):
    (proc / "sockstat").write_text(f"sockets: used 7\n{four} tw 0\nUDP: inuse 3\n")
    (proc / "sockstat6").write_text(f"{six}\nUDP6: inuse 1\n")
    assert connections.possible() is possible


def test_those_with_others_that_both_ends_know_of(proc: Path):
    (proc / "tcp").write_text(
        HEAD
        + line("0.0.0.0", 80, "0.0.0.0", 0, LISTENING)
        + line("10.1.0.2", 40000, "10.1.0.3", 80, ESTABLISHED)
        + line("10.1.0.2", 40001, "10.1.0.3", 80, TIME_WAIT)
        + line("127.0.0.1", 40002, "127.0.0.1", 80, ESTABLISHED)
    )
    (proc / "tcp6").write_text(
        HEAD
        + line("fd00::2", 80, "fd00::3", 40000, CLOSE_WAIT)
        + line("::ffff:10.1.0.2", 8080, "::ffff:10.1.0.3", 40003, ESTABLISHED)
    )
    assert list(connections.here()) == [
        Connection((ip_address("10.1.0.2"), 40000), (ip_address("10.1.0.3"), 80)),
        Connection((ip_address("fd00::2"), 80), (ip_address("fd00::3"), 40000)),
        Connection((ip_address("10.1.0.2"), 8080), (ip_address("10.1.0.3"), 40003)),
    ]


@pytest.mark.parametrize("address", ["10.1.0.2", "fd00::2"])
def test_what_conntrack_is_told_names_both_directions(address: str):
    own, other = (ip_address(address), 40000), (ip_address(address) + 1, 80)
    told = connections._told(Connection(own, other))
    assert told.count(own[0].packed) == told.count(other[0].packed) == 2
    assert len(told) % 4 == 0
