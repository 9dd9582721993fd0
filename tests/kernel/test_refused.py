"""What the system refuses at the other doors is an error of ours that names it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cni.errors import KernelRefused, Lacking, ToolFailed, TryAgainLater, Unavailable, refusal
from cni.kernel import locks, netfilter, netns, process, sysctl
from cni.kernel.locks import LockFile
from cni.kernel.waiting import Waiting


def refuse(number: int) -> Any:
    def refused(*args: Any, **_: Any) -> None:
        raise OSError(number, os.strerror(number), args[0])

    return refused


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EPERM, errno.EIO])
def test_a_setting(monkeypatch: pytest.MonkeyPatch, number: int):
    monkeypatch.setattr(os, "open", refuse(number))
    for act in (lambda: sysctl.read("net.ipv4.ip_forward"), lambda: sysctl.write("net.ipv4.ip_forward", "1")):
        with pytest.raises(KernelRefused, match=r"sysctl net\.ipv4\.ip_forward") as caught:
            act()
        assert caught.value.errno == number


def test_a_setting_this_kernel_lacks_is_none():
    assert sysctl.read("net.ipv4.nonsense") is None


def test_our_own_namespace(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(netns, "OWN", "/nowhere/ns/net")
    netns.home.cache_clear()
    try:
        with pytest.raises(KernelRefused, match=r"/nowhere/ns/net: No such file or directory; is /proc mounted\?"):
            netns.home()
        with pytest.raises(KernelRefused, match=r"is /proc mounted\?"):
            netns.own_fd()
    finally:
        netns.home.cache_clear()


def test_the_legacy_tables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "read_text", refuse(errno.EIO))
    with pytest.raises(KernelRefused, match="ip_tables_names: Input/output error"):
        netfilter.legacy_in_use()


def test_a_thread(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refused)
    with pytest.raises(TryAgainLater, match="clone: can't start new thread"):
        process.together([lambda: 1, lambda: 2])


def test_a_thread_that_would_have_waited(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refused)
    done: list[str] = []
    waiting = Waiting()
    assert not waiting.begin(lambda: done.append("it"), "a thread").is_alive()
    waiting.end()
    assert (done, waiting.pending) == (["it"], 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.ELOOP, errno.EROFS])
def test_a_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    monkeypatch.setattr(locks.os, "open", refuse(number))
    with pytest.raises(Unavailable, match=f"the lock file {tmp_path}/lock cannot be opened: {os.strerror(number)}"):
        LockFile(tmp_path / "lock")


def test_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock = LockFile(tmp_path / "lock")
    monkeypatch.setattr(locks.fcntl, "fcntl", refuse(errno.ENOLCK))
    with pytest.raises(KernelRefused, match="No locks available"):
        lock.alone()
    with pytest.raises(KernelRefused, match="No locks available"), lock.exclusive("1f", "it", 0):
        pass
    lock.close()


def test_a_program_that_says_what_is_no_utf_8():
    assert process.run(["/bin/printf", r"a\377b"]).stdout == r"a\xffb"


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/etc/x"), Lacking, "Too many open files: /etc/x (in cni)"),
        (OSError(errno.EROFS, "Read-only file system"), KernelRefused, "Read-only file system (in cni)"),
        (MemoryError(), Lacking, "Cannot allocate memory (in cni)"),
        (ImportError("x.so: failed to map segment"), Lacking, "x.so: failed to map segment (in cni)"),
        (
            ModuleNotFoundError("No module named 'x'"),
            ToolFailed,
            "No module named 'x' (in cni): the installation is not whole, or cannot be read",
        ),
        (ValueError("a bug"), type(None), ""),
        (KeyboardInterrupt(), type(None), ""),
    ],
)
def test_what_the_machine_refuses_where_nobody_expects_it(raised: BaseException, kind: type, said: str):
    found = refusal(raised)
    assert type(found) is kind
    assert (found.msg if found else "") == said
