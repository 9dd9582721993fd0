"""What libcni remembers of an attachment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.command.libcni import ports_of, result_of
from cni.naming import Attachment

WHO = Attachment("net", "c1", "eth0")


def remembered(cache: Path, content: Any) -> None:
    (cache / "results").mkdir()
    (cache / "results/net-c1-eth0").write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_result_of_a_list_and_the_ports_that_were_asked_for(tmp_path: Path):
    ports = [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"HostPort": 53, "ContainerPort": 5353, "Protocol": "udp"},
    ]
    asked = {"portMappings": [*ports, {"hostPort": 1, "containerPort": 2}]}
    remembered(tmp_path, {"kind": "cniCacheV1", "result": {"ips": []}, "capabilityArgs": asked})
    assert result_of(WHO, tmp_path) == {"ips": []}
    assert ports_of(WHO, tmp_path) == ["8080→80/tcp", "53→5353/udp", "1→2/tcp"]


@pytest.mark.parametrize("content", ["{", "[]", {"kind": "other", "result": {}}, {"kind": "cniCacheV1", "result": [], "capabilityArgs": {"portMappings": "x"}}])  # fmt: skip
def test_what_cannot_be_read_says_nothing(tmp_path: Path, content: Any):
    remembered(tmp_path, content)
    assert (result_of(WHO, tmp_path), ports_of(WHO, tmp_path)) == ({}, [])
    assert ports_of(WHO, tmp_path / "none") == []
