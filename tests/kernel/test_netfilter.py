from __future__ import annotations

import errno
import os
import signal
from functools import partial
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from cni.errors import Lacking, ToolFailed, TryAgainLater, Unavailable
from cni.kernel import netfilter, nftables, process, signals, sysctl


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A node that has some programs and, or not, legacy tables in use."""

    def having(*programs: str, legacy: str | None = None) -> None:
        names = tmp_path / "ip_tables_names"
        if legacy is not None:
            names.write_text(legacy)
        monkeypatch.setattr(netfilter, "_LEGACY_TABLES", names)
        monkeypatch.setattr(process, "find", lambda name: f"/usr/sbin/{name}" if name in programs else None)
        monkeypatch.setattr(nftables, "present", lambda: nftables.LIBRARY in programs)

    return having


ALL = (nftables.LIBRARY, "iptables-nft-restore", "iptables-legacy-restore")


@pytest.mark.parametrize(
    ("wanted", "programs", "legacy", "chosen"),
    [
        ("", ALL, None, "nftables"),
        ("", ALL, "", "nftables"),
        ("", ALL, "filter\n", "nftables"),
        ("", ALL, "nat\nfilter\n", "iptables-legacy"),
        ("", ALL[1:], None, "iptables-nft"),
        ("nftables", ALL, "nat\n", "nftables"),
        ("iptables", ALL, None, "iptables-nft"),
        ("iptables", ALL, "nat\n", "iptables-legacy"),
    ],
)
def test_the_backend_is_the_one_the_node_uses(node, wanted: str, programs: tuple[str, ...], legacy: str, chosen: str):
    node(*programs, legacy=legacy)
    assert netfilter.choose(wanted) == chosen


@pytest.mark.parametrize(
    ("wanted", "programs", "legacy", "missing"),
    [
        ("nftables", ALL[1:], None, nftables.LIBRARY),
        ("iptables", ALL[:1], None, "iptables-nft-restore"),
        ("", ALL[:2], "nat\n", "iptables-legacy-restore"),
        ("", (), None, "iptables-nft-restore"),
    ],
)
def test_a_missing_program_makes_us_unavailable(
    node, wanted: str, programs: tuple[str, ...], legacy: str, missing: str
):
    node(*programs, legacy=legacy)
    with pytest.raises(Unavailable, match=f"but {missing} is not installed$"):
        netfilter.choose(wanted)


def test_a_library_that_cannot_be_loaded_now_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine without memory for it would have its rules made by iptables otherwise, whatever the node uses."""
    nftables._library.cache_clear()
    (tmp_path / "half.so").write_bytes(b"\x7fELF")
    monkeypatch.setattr(nftables, "LIBRARY", str(tmp_path / "half.so"))
    with pytest.raises(Lacking, match=r"half\.so: file too short"):
        nftables.present()
    monkeypatch.setattr(nftables, "LIBRARY", "libnowhere.so.1")
    assert not nftables.present()


def test_what_nft_does_not_have_is_listed_as_nothing(monkeypatch: pytest.MonkeyPatch):
    answers = iter(["Error: No such file or directory; did you mean…\n", "Error: Operation not permitted\n"])
    monkeypatch.setattr(nftables, "run", lambda _: nftables.Answer(False, "", next(answers)))
    assert netfilter.nft_list("table ip x") == ""
    with pytest.raises(ToolFailed, match=r"^nft list table ip x: Error: Operation not permitted$"):
        netfilter.nft_list("table ip x")


LISTED = """table inet t {
\tset own4 {
\t\ttype ipv4_addr
\t}

\tchain in {
\t\ttype filter hook input priority 0; policy accept;
\t\tip saddr { 10.0.0.1,
\t\t\t   10.0.0.2 } return
\t}

\tchain in-a {
\t}
}
"""


def test_chains_are_listed_a_table_at_a_time_and_each_as_it_is_alone(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(nftables, "run", lambda what: asked.append(what) or nftables.Answer(True, LISTED, ""))
    with netfilter.Chains():
        found = [netfilter.nft_list(f"chain inet t {name}") for name in ("in", "in-a", "gone")]
        assert netfilter.nft_list("tables") == LISTED, "what is no chain is asked each time"
    head, rules = "table inet t {\n", LISTED.partition("\n\n")[2].partition("\n\n")[0]
    assert found == [f"{head}{rules}\n}}\n", f"{head}\tchain in-a {{\n\t}}\n}}\n", ""]
    assert asked == ["list table inet t", "list tables"]
    netfilter.nft_list("chain inet t in")
    assert asked[2:] == ["list chain inet t in"], "it is what is there again"


def test_nft_says_in_its_own_words_why_it_refuses(monkeypatch: pytest.MonkeyPatch):
    complaint = "\nError: Operation not permitted\nmore\n"
    monkeypatch.setattr(nftables, "run", lambda _: nftables.Answer(False, "", complaint))
    for door in (netfilter.nft, netfilter.nft_if_there):
        with pytest.raises(ToolFailed, match=r"^nft refused a transaction: Error: Operation not permitted$"):
            door("add table ip x")


def test_what_is_said_of_something_that_is_gone_is_not_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nftables, "run", lambda _: nftables.Answer(False, "", "Error: No such file or directory\n"))
    assert not netfilter.nft_if_there("add element ip x y { 1 }")
    with pytest.raises(ToolFailed, match="No such file"):
        netfilter.nft("add element ip x y { 1 }")


def test_programs_start_with_a_fixed_environment(fp: FakeProcess):
    recorder = fp.register(["tool"], stdout="said")
    done = process.run(["tool"], "asked")
    assert (done.returncode, done.stdout) == (0, "said")
    assert set(recorder.first_call.kwargs["env"]) == {"PATH", "LC_ALL"}


def test_a_program_that_cannot_be_started_is_named():
    with pytest.raises(ToolFailed, match=r"^/nowhere/tool cannot be run: No such file or directory$"):
        process.run(["/nowhere/tool"])


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE], ids=errno.errorcode.get)
def test_a_program_for_which_the_machine_has_too_little_is_tried_again_later(fp: FakeProcess, number: int):
    """A control group that may have no process more says EAGAIN (fork(2))."""

    def refused(_: object) -> None:
        raise OSError(number, os.strerror(number))

    fp.register(["tool"], callback=refused)
    with pytest.raises(Lacking, match=rf"^tool cannot be run: {os.strerror(number)}$"):
        process.run(["tool"])


def test_a_program_that_does_not_end_is_tried_again_later():
    with pytest.raises(TryAgainLater, match=r"^sleep did not end within 0\.01 s$"):
        process.run(["sleep", "60"], seconds=0.01)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv6.conf.eth0%100.disable_ipv6", "net/ipv6/conf/eth0.100/disable_ipv6"),
    ],
)
def test_a_setting_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, path: str):
    root = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(sysctl._PROC, "root", lambda: root)
    assert sysctl.read(key) is None
    path = f"sys/{path}"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("0\n")
    sysctl.write(key, "1")
    assert sysctl.read(key) == "1"


def test_what_is_done_together_ends_before_a_failure_is_told():
    ended = []

    def fail() -> None:
        raise ToolFailed("one")

    with pytest.raises(ToolFailed, match="one"):
        process.together([fail, lambda: ended.append("other")])
    assert ended == ["other"]


def test_a_signal_that_ends_a_call_is_never_a_threads():
    outside = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    masks = process.together([partial(signal.pthread_sigmask, signal.SIG_BLOCK, ())] * 2)
    assert all(mask >= signals.ENDING for mask in masks)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == outside
