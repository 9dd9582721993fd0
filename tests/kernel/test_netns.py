"""What CNI_NETNS may lead to: opening anything else neither waits nor does anything."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from cni.errors import InvalidNetns, KernelRefused
from cni.kernel import netns
from cni.kernel.netns import OWN, Netns, everywhere, foreign_users, is_at_home, is_own


def fifo(place: Path) -> Path:
    os.mkfifo(place)
    return place


def listener(place: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(place))
    return place


def link_to_a_fifo(place: Path) -> Path:
    place.symlink_to(fifo(place.with_name("fifo")))
    return place


def empty(place: Path) -> Path:
    place.touch()
    return place


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


OTHERS: dict[str, Callable[[Path], Path]] = {
    "a pipe": fifo,
    "a link to a pipe": link_to_a_fifo,
    "a socket": listener,
    "an empty file": empty,
    "a folder": lambda place: place.parent,
    "a device": lambda place: Path("/dev/zero"),
    "a terminal": lambda place: Path("/dev/ptmx"),
    "another kind of namespace": lambda place: Path("/proc/self/ns/uts"),
    "nothing": lambda place: place,
    "a link in a circle": lambda place: (place.symlink_to(place), place)[1],
    "below a file": lambda place: empty(place) / "netns",
    "too long": lambda place: Path("/" + "x" * 5000),
}


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Whoever waits for a pipe is ended."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_network_namespace_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.chdir(tmp_path)
    path = OTHERS[kind](tmp_path / "netns")
    before = open_files()
    with pytest.raises(InvalidNetns, match=r"^CNI_NETNS: '/"):
        Netns(str(path))
    assert Netns.if_there(str(path)) is None
    assert open_files() <= before  # what other tests left to threads may be closed meanwhile
    assert not is_own(str(path))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_is_no_path_is_refused(text: str):
    with pytest.raises(InvalidNetns, match="CNI_NETNS"):
        Netns(text)
    assert not is_own(text)


def test_a_network_namespace_is_opened():
    with closing(Netns(OWN)) as opened:
        assert os.path.samestat(os.fstat(opened.fd), Path(OWN).stat())
    assert is_own(OWN)


@pytest.mark.parametrize("missing", ["OWN", "_OWN_USERS"])
def test_whose_a_namespace_is_cannot_be_known_without_proc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
):
    monkeypatch.setattr(netns, missing, str(tmp_path / "gone"))
    before = open_files()
    with pytest.raises(KernelRefused, match=r"gone: No such file or directory; is /proc mounted\?$"), foreign_users():
        pass
    assert open_files() <= before  # what other tests left to threads may be closed meanwhile
    assert (missing == "_OWN_USERS") == is_at_home()


def test_a_namespace_that_lets_nobody_in_hides_no_other(monkeypatch: pytest.MonkeyPatch):
    looked: list[str] = []

    def identity(self: Netns) -> str:
        looked.append(self.path)
        if len(looked) == 1:
            raise KernelRefused("setns: Operation not permitted", errno.EPERM)
        return "boot:1"

    found = [Path("/proc/1/ns/net"), Path("/proc/2/ns/net")]
    monkeypatch.setattr(Netns, "identity", property(identity))
    monkeypatch.setattr(
        Netns, "__init__", lambda self, path: vars(self).update(path=path, fd=os.open("/", os.O_RDONLY))
    )
    monkeypatch.setattr(netns, "_mounted", lambda process: iter(()))
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [path.parent.parent for path in found])
    numbers = itertools.count()
    monkeypatch.setattr(Path, "stat", lambda self: SimpleNamespace(st_dev=1, st_ino=next(numbers)))
    before = open_files()
    assert list(everywhere()) == ["boot:1"]
    assert looked == ["/proc/1/ns/net", "/proc/2/ns/net"]
    assert open_files() <= before  # what other tests left to threads may be closed meanwhile


def test_a_reason_that_is_everybodys_makes_nobody_look_gone(monkeypatch: pytest.MonkeyPatch):
    def identity(self: Netns) -> str:
        raise KernelRefused("too many open files", errno.EMFILE)

    monkeypatch.setattr(Netns, "identity", property(identity))
    with pytest.raises(KernelRefused, match="too many"):
        list(everywhere())
