"""Other programs and processes: the only place that starts one."""

from __future__ import annotations

import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cni.errors import CniError, Lacking, ToolFailed, TryAgainLater, refusal
from cni.kernel import locks, signals

if TYPE_CHECKING:
    from subprocess import CompletedProcess

T = TypeVar("T")

_STEP = 0.002  # between two looks at a child, in seconds
_PR_SET_PDEATHSIG = 1
_CAPABILITY_VERSION_3 = 0x20080522
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
#: Bytes, as at first (DEFAULT_MMAP_THRESHOLD_MIN): more than what is read from a socket, which would be mapped for each datagram.
_LARGE = 1 << 17

#: Where system programs are, whatever PATH a runtime has.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRON = {"PATH": SYSTEM_PATH, "LC_ALL": "C"}


def load() -> None:
    """Import what finding and running programs takes, for those who fork from this process."""
    import shutil  # noqa: F401
    import subprocess  # noqa: F401


def find(program: str, before: str = "") -> str | None:
    """The path of a system program: runtimes start plugins with any PATH, so ours is fixed. `before` is looked into first, as far
    as it names folders absolutely: a PATH that an operator gave to what he started.
    """
    import shutil  # of no use to most calls, like subprocess

    folders = [folder for folder in before.split(":") if folder.startswith("/")]
    return shutil.which(program, path=":".join([*folders, SYSTEM_PATH]))


def own() -> list[int]:
    """The descriptor by which the launcher holds the installation this process is of, where it does: by that its interpreter is named,
    so whoever is started with that has to have it.
    """
    _, held, number = sys.prefix.partition("/proc/self/fd/")
    return [int(number)] if held else []


def run(
    argv: Sequence[str],
    stdin: str = "",
    environ: Mapping[str, str] | None = None,
    seconds: float = 60,
    keep: Sequence[int] = (),
) -> CompletedProcess[str]:
    """Run a program to its end and return what it said, whatever its exit code; it has the descriptors of `keep`, and holds what
    this call holds (`locks.held`): nobody ends it when the call is killed, and it may give an address then, or make a rule.

    Raises ToolFailed when it cannot be started, Lacking when the machine has too little for it, and TryAgainLater when it outlives `seconds`.
    """
    import subprocess

    try:
        return subprocess.run(
            argv,
            input=stdin,
            env=dict(_ENVIRON if environ is None else environ),
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=seconds,
            check=False,
            pass_fds=(*keep, *locks.held.get()),
        )
    except OSError as error:
        raise _refused(argv[0], error) from None
    except subprocess.TimeoutExpired:
        raise TryAgainLater(f"{argv[0]} did not end within {seconds:g} s") from None


def run_apart(argv: Sequence[str], seconds: float) -> CompletedProcess[str]:
    """The same of a program that leaves another running: both are in a session of their own and hear every signal, whatever is
    held back here, so that nothing ends them with us.
    """
    from subprocess import CompletedProcess

    said = os.memfd_create("stderr")
    try:
        nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)]
        to_file = (os.POSIX_SPAWN_DUP2, said, 2)
        child = os.posix_spawn(
            argv[0], list(argv), _ENVIRON, file_actions=[*nothing, to_file], setsid=True, setsigmask=[]
        )
        return CompletedProcess(
            argv, _ended(child, argv[0], seconds), "", os.pread(said, 1 << 16, 0).decode("utf-8", "replace")
        )
    except OSError as error:
        raise _refused(argv[0], error) from None
    finally:
        os.close(said)


class Beside(NamedTuple):
    """A program that goes on beside us: its process, a descriptor that can be read once it has ended (pidfd_open(2)), and one of what it
    says.
    """

    pid: int
    ends: int
    says: int


def start(argv: Sequence[str]) -> Beside:
    """Start a program that goes on, and hears every signal. Raises ToolFailed."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    files += [(os.POSIX_SPAWN_DUP2, writing, number) for number in (1, 2)]  # type: ignore[misc]
    try:
        child = os.posix_spawn(argv[0], list(argv), _ENVIRON, file_actions=files, setsigmask=[])
    except OSError as error:
        os.close(reading)
        raise _refused(argv[0], error) from None
    finally:
        os.close(writing)
    os.set_blocking(reading, False)
    return Beside(child, os.pidfd_open(child), reading)


def has_ended(program: Beside) -> bool:
    """Whether a program that went on does not any more."""
    return bool(select.select([program.ends], [], [], 0)[0])


def end(program: Beside, seconds: float) -> int:
    """End a program that may have ended, as it wishes within so many seconds; its exit code."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        if not has_ended(program):
            signal.pidfd_send_signal(program.ends, ending)
            select.select([program.ends], [], [], seconds)
    _, status = os.waitpid(program.pid, 0)
    for descriptor in (program.ends, program.says):
        os.close(descriptor)
    return os.waitstatus_to_exitcode(status)


def as_nobody(argv: Sequence[str], capability: str) -> list[str]:
    """The command of a program that is nobody's, has one capability, may get no other, and ends with the thread that starts it (setpriv(1)).
    Raises ToolFailed.
    """
    import pwd

    try:
        user = pwd.getpwnam("nobody")
    except KeyError:
        raise ToolFailed("there is no user nobody") from None
    if not (setpriv := find("setpriv")):
        raise ToolFailed("there is no setpriv (util-linux)")
    ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    few = (f"--inh-caps=-all,+{capability}", f"--ambient-caps=-all,+{capability}", "--no-new-privs")
    return [setpriv, *ids, *few, "--pdeathsig=TERM", *argv]


def running(program: str, word: str) -> Iterator[int]:
    """The processes of a program in this network namespace with a word on the command line; none of whom we may not see his namespace
    (ptrace(2), PTRACE_MODE_READ).
    """
    here = Path("/proc/self/ns/net").stat()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # he is gone meanwhile
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if words[0].rpartition(b"/")[2] != program.encode() or word.encode() not in words[1:]:
                continue
            if os.path.samestat(here, (folder / "ns/net").stat()):
                yield int(folder.name)


def kill(program: str, word: str) -> bool:
    """End whoever runs a program here (see `running`) and does not listen; whether anybody did."""
    found = list(running(program, word))
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def _refused(program: str, error: OSError) -> CniError:
    """Why a program cannot be run: it is none, or the machine has too little for one more."""
    kind = Lacking if isinstance(refusal(error), Lacking) else ToolFailed
    return kind(f"{program} cannot be run: {error.strerror}")


def _ended(child: int, name: str, seconds: float) -> int:
    """A child's exit code. Raises TryAgainLater, and there is no child."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_STEP)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TryAgainLater(f"{name} did not end within {seconds:g} s")


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What calls that wait for programs return, made at the same time, in this thread's namespace each.

    Nobody else starts threads. One begins with the signals held back that end a call: the kernel gives a process's signal to
    any thread that takes it (signal(7)), so one that did would end what the main thread holds back.
    All end before the first that failed raises. Raises TryAgainLater where no thread can be started.
    """
    from concurrent.futures import ThreadPoolExecutor  # takes 10 ms to import
    from contextvars import copy_context

    with ThreadPoolExecutor(len(calls)) as threads:
        try:
            with signals.uninterrupted():
                running = [threads.submit(copy_context().run, call) for call in calls]
        except RuntimeError as error:
            raise TryAgainLater(f"clone: {error}") from None
    return [call.result() for call in running]


def end_with(parent: int) -> None:
    """Have this process killed when the one that started it dies (PR_SET_PDEATHSIG), also if it is dead by now.

    A DEL that follows a killed call finds nobody who still works for that one.
    """
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def capabilities(pid: int) -> int:
    """The effective capabilities of a process (capget(2)), a bit each. ProcessLookupError where there is none we can see."""
    import ctypes

    header, data = struct.pack("=Ii", _CAPABILITY_VERSION_3, pid), ctypes.create_string_buffer(24)
    if pid <= 0 or _libc().capget(header, data):
        raise ProcessLookupError(f"no process {pid} is to be seen from here")
    low, high = struct.unpack("=I8xI8x", data)
    return int(high << 32 | low)


def be_nice(most: int) -> None:
    """Leave the processor to others, as far as that goes (nice(2), 19 is all the way)."""
    os.setpriority(os.PRIO_PROCESS, 0, most)


def keep_little_memory() -> None:
    """Have memory that is let go be the system's again (mallopt(3)): of this process tables come and go that are large. The C library
    raises what it counts as large with each of them, up to 32 MiB, and has some more ready for each thread. musl does neither.
    """
    if mallopt := getattr(_libc(), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 1)


@cache
def _libc() -> Any:
    import ctypes  # of no use to most calls

    return ctypes.CDLL(None)
