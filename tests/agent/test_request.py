from __future__ import annotations

import os
import sys

import pytest

from cni import __version__
from cni.agent.request import PROTOCOL, Refused, read


def packet(*texts: str, protocol: str = PROTOCOL, version: str = __version__, prefix: str = sys.prefix) -> bytes:
    return "".join(f"{text}\0" for text in (protocol, version, prefix, *texts)).encode()


def test_a_request_is_read():
    request = read(packet("/opt/cni/bin/macvlan", "CNI_COMMAND=ADD", "EMPTY=", "A=b=c"))
    assert request.script == "/opt/cni/bin/macvlan"
    assert request.environ == {"CNI_COMMAND": "ADD", "EMPTY": "", "A": "b=c"}
    request.equip(b"Gp2", [7, 8])
    assert request.fds == {"p": 7, "2": 8}


def test_bytes_that_are_no_text_arrive_as_a_process_of_its_own_would_have_them():
    request = read(packet("/x") + b"NAME=\xff\0")
    assert os.fsencode(request.environ["NAME"]) == b"\xff"


def test_of_two_entries_the_first_counts_and_what_is_none_is_left_out():
    assert read(packet("/x", "A=1", "A=2", "nothing", "=x")).environ == {"A": "1"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut off"),
        (packet("/x")[:-1], "cut off"),
        (packet(), "cut off"),
        (packet("/x", protocol="agent-cni/1"), "agent-cni/1"),
        (packet("/x", version="0.0.1"), "release 0.0.1"),
        (packet("/x", prefix="/"), "installation in /"),
        (packet("/x", prefix="/none"), "installation in /none"),
    ],
)
def test_what_no_launcher_of_ours_sends_is_refused(data: bytes, said: str):
    with pytest.raises(Refused, match=said):
        read(data)


@pytest.mark.parametrize("go", [b"", b"S", b"G", b"G0", b"G000", b"G0z", b"G01", b"X02", b"G02p", b"G0\xff"])
def test_descriptors_without_a_go_that_names_them_are_closed(go: bytes):
    fds = list(os.pipe())
    with pytest.raises(Refused):
        read(packet("/x")).equip(go, fds)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_what_is_opened_by_name_is_known_from_the_environment():
    request = read(packet("/x", "CNI_PATH=/opt/cni/bin::relative:/usr/lib/cni"))
    assert request.paths == [sys.prefix, "/run/agent-cni", "/opt/cni/bin", "/usr/lib/cni"]


def test_closing_closes_every_descriptor_once():
    one, other = os.pipe()
    request = read(packet("/x"))
    request.equip(b"G02", [one, other])
    request.close()
    request.close()
    for fd in (one, other):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
