"""What a service says of itself, whatever somebody else had it say."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cni.kernel.notify import notify


@pytest.mark.threat
@pytest.mark.parametrize("said", ["gone\nMAINPID=1\nSTOPPING=1", "\ud800", "a\0b"])
def test_an_answer_that_is_told_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str):
    """Why a store is not reached may be what answered in its place."""
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        assert notify("READY=1", f"STATUS={said}")
        heard = manager.recv(1 << 12).decode().split("\n")
    assert [line.partition("=")[0] for line in heard] == ["READY", "STATUS"]
