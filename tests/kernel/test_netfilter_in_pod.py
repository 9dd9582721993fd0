"""Which tables a pod's rules go to, and how they get there."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from cni.errors import ToolFailed, TryAgainLater, Unavailable
from cni.kernel import netfilter, nftables, process

LEGACY = [sys.executable, "-I", "-m", "cni.kernel.legacy", "6", str(os.getpid())]


@pytest.fixture(autouse=True)
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A namespace without legacy tables; writing the file brings them into use."""
    names = tmp_path / "ip_tables_names"
    monkeypatch.setattr(netfilter, "_LEGACY_TABLES", names)
    monkeypatch.setattr(process, "find", lambda name: f"/sbin/{name}")
    return names


@pytest.mark.parametrize(
    ("wanted", "legacy_here", "node_is_legacy", "nft_here", "chosen"),
    [
        ("", False, False, "", "iptables-nft"),
        ("", True, False, "", "iptables-legacy"),
        ("", False, True, "", "iptables-legacy"),
        ("", False, True, "table ip nat", "iptables-nft"),
        ("iptables-nft", True, True, "", "iptables-nft"),
        ("iptables-legacy", False, False, "", "iptables-legacy"),
    ],
)
def test_a_pod_keeps_to_what_it_uses_else_to_what_its_node_uses(
    monkeypatch: pytest.MonkeyPatch,
    pod: Path,
    wanted: str,
    legacy_here: bool,
    node_is_legacy: bool,
    nft_here: str,
    chosen: str,
):
    monkeypatch.setattr(nftables, "run", {"list tables": nftables.Answer(True, nft_here, "")}.__getitem__)
    if legacy_here:
        pod.write_text("filter\n")
    assert netfilter.choose_in_pod(wanted, node_is_legacy) == chosen


def test_without_python_iptables_legacy_tables_are_unavailable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="python-iptables is not installed"):
        netfilter.choose_in_pod("iptables-legacy", node_is_legacy=False)


def test_without_its_program_nf_tables_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "find", lambda name: None)
    with pytest.raises(Unavailable, match="iptables-nft-restore is not installed"):
        netfilter.choose_in_pod("iptables-nft", node_is_legacy=False)


def test_legacy_tables_change_in_a_process_of_their_own(fp: FakeProcess):
    fp.register(LEGACY, stdout="")
    netfilter.restore_in_pod("iptables-legacy", 6, "*nat\nCOMMIT\n")
    assert fp.call_count(LEGACY) == 1


def test_tables_that_changed_meanwhile_are_tried_again(fp: FakeProcess):
    fp.register(LEGACY, returncode=75, occurrences=2)
    fp.register(LEGACY)
    netfilter.restore_in_pod("iptables-legacy", 6, "")
    assert fp.call_count(LEGACY) == 3


def test_tables_that_never_rest_are_for_the_runtime_to_try_again(fp: FakeProcess):
    fp.register(LEGACY, returncode=75, occurrences=9)
    with pytest.raises(TryAgainLater):
        netfilter.restore_in_pod("iptables-legacy", 6, "")
    assert fp.call_count(LEGACY) == 5


def test_a_refusal_is_told_in_the_programs_own_words(fp: FakeProcess):
    fp.register(LEGACY, returncode=1, stderr="can't find target REDIRECT\n")
    with pytest.raises(ToolFailed, match=r"can't find target REDIRECT$"):
        netfilter.restore_in_pod("iptables-legacy", 6, "")


@pytest.mark.parametrize(
    ("backend", "names", "program"),
    [
        ("iptables-legacy", "", "/sbin/iptables-nft-save"),
        ("iptables-nft", "nat\n", "/sbin/iptables-legacy-save"),
    ],
)
def test_the_other_backend_is_looked_at(
    fp: FakeProcess, monkeypatch: pytest.MonkeyPatch, pod: Path, backend: str, names: str, program: str
):
    monkeypatch.setattr(nftables, "run", {"list tables ip": nftables.Answer(True, "table ip nat", "")}.__getitem__)
    pod.write_text(names)
    fp.register([program], stdout="*nat\n")
    assert netfilter.saved_elsewhere(backend, 4) == ["*nat"]


def test_where_there_is_no_table_no_program_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nftables, "run", {"list tables ip6": nftables.Answer(True, "", "")}.__getitem__)
    assert netfilter.saved("iptables-nft", 6) == []


def test_looking_at_legacy_tables_does_not_bring_them_into_use(fp: FakeProcess):
    assert netfilter.saved_elsewhere("iptables-nft", 4) == []
