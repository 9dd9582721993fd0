"""The effects of a call, numbered: whatever it changes outside itself, each at its door, and what befalls it there.

`install` wraps the doors of this process, without a line in cni/. Then a call's environment says what is to happen (`Order`): each effect is
written down, by its number and name, before it happens; before or after one of them the process kills itself, or is told of an error.
A cold call runs this file in place of its executable, a warm one is forked from a nursery that has installed the doors:

    python3 -I effects.py EXECUTABLE                # or agent-cni ARGUMENT...
    warm.Nursery(python, seam=True)

An effect is a system call, or what happens in one: a packet of rtnetlink messages that change something, a transaction of rules, one of SQLite,
a program from its start to its end, a file or a setting. What is of this process alone is none, nor is what it only asks.
"""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import re
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

ENVIRON = "EFFECTS"
#: By how many seconds the clock of the day of a call is wrong.
CLOCK = "EFFECTS_CLOCK"
BEFORE, AFTER, DURING, UNHEARD, TORN = "before", "after", "during", "unheard", "torn"
#: What runs a program for a call that is killed while it runs: it goes on when it is told to (SIGCONT), with all it was given.
_ORPHAN = 'cat >"$0"; echo $$ >"$1.pid"; kill -KILL $PPID; kill -STOP $$; shift; exec "$@" <"$0"'
_HEADER = struct.Struct("=IHHII")
_ACK, _DUMP, _DUMP_INTR, _NLMSG_ERROR = 0x04, 0x300, 0x10, 2
_SUBJECTS = {
    16: "LINK",
    20: "ADDR",
    24: "ROUTE",
    28: "NEIGH",
    32: "RULE",
    36: "QDISC",
    44: "TFILTER",
    64: "NEIGHTBL",
    88: "NSID",
    104: "NEXTHOP",
}
_NF_TABLES, _CTNETLINK, _END_OF_BATCH = 10, 1, 17
_OWN_FILES = ("/proc/self", "/proc/thread-self", "/memfd:", "/dev/", "pipe:", "socket:", "anon_inode:")
_WRITTEN = os.O_CREAT | os.O_TRUNC

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """Write effects into `log`, one a line; at `number` end this process, or with an `error` (errno) have it told of one: `before` in place of
    the effect, `after` though it happened; with `lasting` of each that follows, too, but the answer. A program can be killed `during`: it stands still, as LOG.pid, and its call is dead.
    With a `signal` it hears that one there and goes on. What the kernel did may be `unheard`: its answer comes when nobody waits for it any more. With `torn` the dumps of netlink are
    counted instead: something changed while it was read.
    """

    log: Path
    number: int = 0
    when: str = AFTER
    error: int = 0
    lasting: bool = False
    signal: int = 0

    @property
    def environ(self) -> dict[str, str]:
        """What makes a call obey."""
        return {ENVIRON: f"{self.log}\t{self.number}\t{self.when}\t{self.error}\t{int(self.lasting)}\t{self.signal}"}

    def told(self) -> list[str]:
        """The effects so far, each as ``17 NEWLINK veth1``."""
        return self.log.read_text().splitlines() if self.log.exists() else []


class _Call:
    """What there is of one call: its order, and how many effects it had."""

    def __init__(self, said: str) -> None:
        log, number, self.when, error, lasting, to_hear = said.split("\t")
        self.log, self.number, self.error, self.lasting = log, int(number), int(error), lasting == "1"
        self.signal = int(to_hear)
        self._count = itertools.count(1)
        self._file = _OPEN(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def begins(self, name: str) -> bool:
        """Write an effect down; whether it is the one."""
        number = next(self._count)
        _WRITE(self._file, f"{number} {name}\n".encode(errors="replace"))
        return number == self.number or (self.lasting and 0 < self.number < number and name != "the answer")


_OPEN, _WRITE, _TIME = os.open, os.write, time.time
_call: _Call | None = None


def begin(environ: Any) -> None:
    """From now on this process works at the call of this environment."""
    global _call  # noqa: PLW0603 - a process works at one call
    if _call:
        os.close(_call._file)
    wrong = float(environ.get(CLOCK, 0))
    time.time = lambda: _TIME() + wrong
    said = environ.get(ENVIRON)
    _call = _Call(said) if said else None


def effect(name: str, perform: Callable[[], T], refuse: Callable[[int], T], during: Callable[[], T] | None = None) -> T:
    """Do something, or what the order says. `refuse` says of an errno what its door says of it."""
    if _call is None or _call.when == TORN:
        return perform()
    due = _call.begins(name)
    if due and _call.signal:
        os.kill(os.getpid(), _call.signal)
        return perform()
    if due and _call.when == BEFORE:
        return _befall(refuse)
    done = during() if during and due and _call.when == DURING else perform()
    return _befall(refuse) if due and _call.when in (AFTER, UNHEARD) else done


def _befall(refuse: Callable[[int], T]) -> T:
    assert _call
    if not _call.error:
        os.kill(os.getpid(), signal.SIGKILL)
    return refuse(_call.error)


def install() -> None:
    """Wrap the doors."""
    import cni.main as main
    from cni.kernel import announcements, nftables, process
    from cni.kernel.netlink import channel

    opened, said = channel._opened, main.Stdout.write
    channel._opened = lambda protocol: _Netlink(opened(protocol))
    main.Stdout.write = lambda self, *a: effect(
        "the answer", lambda: said(self, *a), lambda number: _raised(number, "stdout")
    )
    nftables.Context.run = _libnftables(nftables.Context.run, nftables.Answer)
    announcements._Announcement.say = _packets(announcements._Announcement.say)
    for name in ("run", "run_apart", "start"):
        setattr(process, name, _program(getattr(process, name)))
    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **more: connect(*a, **{"factory": _State} | more)
    for name, names_fd in _FILES.items():
        setattr(os, name, _file(name, getattr(os, name), names_fd))
    io.open = builtins.open = _opening(io.open)


def install_in_workers() -> None:
    """The same for what is forked from this process: each call says its own."""
    from cni.agent import worker

    served = worker.main

    def serve(executable: str, environ: Any, stdout: Any) -> int:
        begin(environ)
        return served(executable, environ, stdout)

    worker.main = serve
    install()


class _Netlink:
    """A netlink socket (cni.kernel.netlink.channel)."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._said: list[bytes] = []
        self._torn: set[int] = set()
        self._deaf = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def sendall(self, data: bytes) -> None:
        """An effect where a message changes something."""
        if names := list(_changes(data, self._real.proto)):
            effect(
                ", ".join(dict.fromkeys(names)),
                lambda: self._real.sendall(data),
                lambda number: self._refuse(data, number),
            )
        else:
            self._torn |= set(_torn(data))
            self._real.sendall(data)

    def recv(self, size: int) -> bytes:
        """What the kernel answers, or would where it refused, or where something changed meanwhile."""
        if self._deaf:
            self._deaf = False
            raise BlockingIOError(errno.EAGAIN, "nothing came in time")
        data = self._said.pop(0) if self._said else self._real.recv(size)
        return b"".join(map(self._marked, _messages(data))) if self._torn else data

    def _marked(self, message: bytes) -> bytes:
        length, kind, flags, sequence, port = _HEADER.unpack_from(message)
        flags |= _DUMP_INTR if sequence in self._torn else 0
        return _HEADER.pack(length, kind, flags, sequence, port) + message[_HEADER.size :]

    def _refuse(self, data: bytes, number: int) -> None:
        if _call and _call.when == UNHEARD:
            self._deaf = True
            return
        for message in _messages(data):
            _, _, flags, sequence, port = _HEADER.unpack_from(message)
            if flags & _ACK:
                head = struct.pack("=i", -number) + message[: _HEADER.size]
                self._said.append(_HEADER.pack(_HEADER.size + len(head), _NLMSG_ERROR, 0x100, sequence, port) + head)


def _torn(data: bytes) -> Iterator[int]:
    """The dumps of these that something befalls, by their sequence numbers."""
    if _call is None or _call.when != TORN:
        return
    for message in _messages(data):
        _, kind, flags, sequence, _ = _HEADER.unpack_from(message)
        if flags & _DUMP == _DUMP and _call.begins(f"dump {_SUBJECTS.get(kind & ~3, kind)}"):
            yield sequence


def _messages(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length = _HEADER.unpack_from(data, at)[0]
        yield data[at : at + ((length + 3) & ~3)]
        at += (length + 3) & ~3


def _changes(data: bytes, protocol: int) -> Iterator[str]:
    """What messages change: of nf_tables a transaction is one, named by what ends it."""
    for message in _messages(data):
        kind = _HEADER.unpack_from(message)[1]
        if protocol == 0 and kind % 4 != 2:
            verb = ("NEW", "DEL", "GET", "SET")[kind % 4]
            yield f"{verb}{_SUBJECTS.get(kind & ~3, kind & ~3)} {_link_in(message) if kind & ~3 == 16 else ''}".rstrip()
        elif protocol != 0 and kind == _END_OF_BATCH:
            yield f"rules ({len(data)} bytes)"
        elif protocol != 0 and kind >> 8 == _CTNETLINK and kind & 0xFF in (0, 2):
            yield "connections"


def _link_in(message: bytes) -> str:
    """The name in a link's message (IFLA_IFNAME), else its index."""
    at = _HEADER.size + 16
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind & 0x3FFF == 3:
            return message[at + 4 : at + length].rstrip(b"\0").decode()
        at += (length + 3) & ~3 or 4
    return str(struct.unpack_from("=i", message, _HEADER.size + 4)[0])


def _libnftables(run: Any, answer: Any) -> Any:
    def wrapped(self: Any, commands: str) -> Any:
        if commands.lstrip().startswith("list"):
            return run(self, commands)

        def refuse(number: int) -> Any:
            return answer(False, "", f"Error: Could not process rule: {os.strerror(number)}\n")

        return effect(f"nft {' '.join(commands.split())[:60]}", lambda: run(self, commands), refuse)

    return wrapped


def _packets(say: Any) -> Any:
    return lambda self: effect("announcement", lambda: say(self), lambda _: None)


def _program(start: Any) -> Any:
    from cni.errors import ToolFailed

    @wraps(start)
    def wrapped(argv: Any, *rest: Any, **more: Any) -> Any:
        if any(word.endswith("-save") for word in argv[:1]):
            return start(argv, *rest, **more)

        def refuse(number: int) -> Any:
            raise ToolFailed(f"{argv[0]} cannot be run: {os.strerror(number)}")

        def orphan() -> Any:
            assert _call
            return start(["/bin/sh", "-c", _ORPHAN, f"{_call.log}.in", _call.log, *argv], *rest, **more)

        said = " ".join(["run", Path(argv[0]).name, *map(str, argv[1:])])
        return effect(said[:80], lambda: start(argv, *rest, **more), refuse, orphan)

    return wrapped


class _State(sqlite3.Connection):
    """A file of SQLite's: an effect is a transaction that changed something, or what is written outside of one."""

    _since: int | None = None
    _touched: dict[str, None]

    def __init__(self, path: Any, *rest: Any, **more: Any) -> None:
        super().__init__(path, *rest, **more)
        self._in_file = str(path) != ":memory:"

    def execute(self, sql: str, *rest: Any) -> Any:
        word = sql.split(None, 1)[0].upper()
        if word == "BEGIN":
            self._since, self._touched = self.total_changes, {}
        elif word == "COMMIT":
            done, self._since = self._since, None
            if done != self.total_changes or "" in self._touched:
                return effect(
                    f"commit {' '.join(filter(None, self._touched))}", lambda: super(_State, self).execute(sql), _disk
                )
        elif word in ("INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER"):
            if self._since is None:
                return effect(sql[:40], lambda: super(_State, self).execute(sql, *rest), _disk)
            rows = re.match(r"(?:INSERT|REPLACE|DELETE|UPDATE)\b(?: OR \w+)?(?: INTO| FROM)? (\w+)", sql)
            self._touched[rows[1] if rows else ""] = None
        elif sql.startswith("PRAGMA journal_mode"):
            return effect("journal_mode", lambda: super(_State, self).execute(sql), _disk)
        return super().execute(sql, *rest)

    def close(self) -> None:
        """Who is the last puts what was committed into the file, and takes away what it stood in (sqlite.org/wal.html); where the disk
        refuses that he is told nothing.
        """
        if self._in_file:
            effect("checkpoint", super().close, lambda _: super(_State, self).close())
        else:
            super().close()

    def executescript(self, sql: str) -> Any:
        if "COMMIT" in sql:
            return effect("layout", lambda: super(_State, self).executescript(sql), _disk)
        return super().executescript(sql)


def _disk(number: int) -> Any:
    raise sqlite3.OperationalError("database or disk is full" if number == errno.ENOSPC else "disk I/O error")


def _raised(number: int, *path: str) -> Any:
    raise OSError(number, os.strerror(number), *path)


#: What changes files: whether it says which one by a descriptor.
_FILES = dict.fromkeys(
    ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "symlink", "link", "chmod", "truncate", "open"), False
)
_FILES |= dict.fromkeys(("write", "pwrite", "fchmod", "ftruncate"), True)


def _file(name: str, real: Any, by_descriptor: bool) -> Any:
    @wraps(real)
    def wrapped(*a: Any, **more: Any) -> Any:
        if _call is None or not (what := _written(a[0]) if by_descriptor else _changed(name, a, more)):
            return real(*a, **more)
        return effect(f"{name} {what}", lambda: real(*a, **more), lambda number: _raised(number, what))

    return wrapped


def _written(descriptor: int) -> str:
    """The file behind a descriptor, where others see it."""
    path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    return "" if descriptor <= 2 or path.startswith(_OWN_FILES) else path


def _changed(name: str, a: Any, more: dict[str, Any]) -> str:
    """The path that a call names, where it makes or takes away something there."""
    path = os.fsdecode(a[1] if name in ("symlink", "link") else a[0]) if not isinstance(a[0], int) else ""
    there = os.path.lexists(path)
    made = there if name in ("unlink", "remove", "rmdir", "rename", "replace", "chmod", "truncate") else not there
    if name == "open":
        flags = a[1] if len(a) > 1 else more["flags"]
        made = bool(flags & os.O_TRUNC and there) or bool(flags & os.O_CREAT and not there)
    return path if made and not path.startswith(_OWN_FILES) else ""


def _opening(real: Any) -> Any:
    @wraps(real)
    def wrapped(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if _call is None or isinstance(file, int) or not set(mode) & set("wax+") or str(file).startswith(_OWN_FILES):
            return real(file, mode, *rest, **more)
        return effect(
            f"open {file}", lambda: real(file, mode, *rest, **more), lambda number: _raised(number, str(file))
        )

    return wrapped


def main(argv: list[str]) -> int:
    """Run a plugin's executable, or the command, with its doors wrapped."""
    install()
    begin(os.environ)
    if argv[0] == "agent-cni":
        from cni.command.main import main as command

        sys.argv = argv
        return command()
    from cni.main import cold

    return cold(argv[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
