"""A door: what may come in by it, and what is wrong with what becomes of that."""

from __future__ import annotations

import hashlib
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest import mock

from cni import log
from cni.kernel import gatedir, hostsdir

CORPUS = Path(__file__).resolve().parents[3] / "tests/fixtures/corpus"
#: Seconds of processor time for one input, and bytes that one more input may have the process grow by.
_SECONDS, _GROWTH = 2.0, 512 << 20


class Door(NamedTuple):
    """Where something comes in. `made` makes an input, `judged` says what is wrong with what becomes of one, or nothing; what
    it raises is wrong, too. `many` is how many a story gives it.
    """

    name: str
    made: Callable[[Random], bytes]
    judged: Callable[[bytes], str]
    many: int = 5000
    #: Whether it changes the kernel of whoever tries it.
    apart: bool = False

    @property
    def corpus(self) -> list[Path]:
        """Inputs that are kept: what was wrong with one once, and what is like what really comes."""
        return sorted((CORPUS / self.name).iterdir()) if (CORPUS / self.name).is_dir() else []


class Hangs(BaseException):
    """One input takes more processor time than anything may."""


def judged(door: Door, data: bytes) -> str:
    """What is wrong with what becomes of an input, in one line; nothing where nothing is."""
    before = _most()
    began = time.process_time()
    try:
        with bounded():
            wrong = door.judged(data)
    except Hangs:
        wrong = f"takes more than {_SECONDS:g} s of processor time"
    except BaseException as error:
        wrong = told(error)
    if not wrong and _most() - before > _GROWTH:
        wrong = f"takes {_most() - before >> 20} MiB"
    if not wrong and time.process_time() - began > _SECONDS:
        wrong = f"takes {time.process_time() - began:.1f} s of processor time"
    return wrong


def told(error: BaseException) -> str:
    """An error and where it comes from."""
    steps = [step for step in traceback.extract_tb(error.__traceback__) if "/cni/" in step.filename]
    at = f" at {steps[-1].filename.rpartition('/cni/')[2]}:{steps[-1].lineno}" if steps else ""
    return f"{type(error).__name__}: {str(error)[:200]}{at}"


@contextmanager
def bounded() -> Iterator[None]:
    """Have what takes too long raise Hangs."""

    def hangs(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGPROF, hangs)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def aside(folder: Path) -> Iterator[None]:
    """Have all that the suite keeps on a node be in a folder, and signals be nobody's."""
    put = {
        "cni.node.DEFAULT_FOLDER": folder / "state", "cni.state.uses.DEFAULT_FOLDER": folder / "state",
        "cni.kernel.signals.handle": lambda *_: None, "cni.kernel.signals.ignore": lambda: None,
    }  # fmt: skip
    with ExitStack() as patched:
        for module, name, value in (
            (log, "FOLDER", Path("/dev/null/log")),
            (hostsdir, "FOLDER", folder / "names"),
            (gatedir, "FOLDER", folder / "dns"),
        ):
            patched.enter_context(mock.patch.object(module, name, value))
        for name, value in put.items():
            patched.enter_context(mock.patch(name, value))
        yield


def digest(data: bytes) -> str:
    """What an input is called among those that are kept."""
    return hashlib.sha256(data).hexdigest()[:12]


def _most() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
