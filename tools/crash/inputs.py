"""Anything as input: every door in this process, by inputs nobody should send; one alone again: `inputs.py DOOR FILE`."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / folder) for folder in ("", "tools", "netns-tests/scenes", "tests/fakes")
]  # what is tried is the sources

from crash.doors.door import Door, aside, digest, judged  # noqa: E402
from crash.story import Told  # noqa: E402

WHAT = "inputs nobody should send, by every door"
_MODULES = ("calls", "kernel", "stores", "files", "state", "wires", "executables")
FIXED = ("each door, what is kept and some new",)
#: How many fewer inputs each door has in the fixed story.
_FEWER = 50
_MEMORY = 4 << 30
#: Where what was found is kept, for `tests/fixtures/corpus` or for who looks.
FOUND = ROOT / ".cache/crash/inputs"


def doors() -> dict[str, Door]:
    """Every door by its name."""
    return {door.name: door for module in _MODULES for door in import_module(f"crash.doors.{module}").DOORS}


def stories() -> Iterable[str]:
    """Each door by its name, and some of all."""
    return [*FIXED, *doors()]


def tell(story: str, seed: str, many: int = 0) -> Told:
    """Give a door its inputs, or each of them some; each kind of fault is told once."""
    random = Random(f"{seed} {story}")
    faults: dict[str, str] = {}
    counted = 0
    for door in doors().values() if story in FIXED else [doors()[story]]:
        with alone():
            for data in _inputs(door, random, door.many // _FEWER if story in FIXED else many or door.many):
                counted += 1
                if wrong := judged(door, data):
                    again = f".venv/bin/python3 tools/crash/inputs.py {door.name} {keep(door.name, data)}"
                    faults.setdefault(f"{door.name} {kind(wrong)}", f"{door.name}: {wrong}: tools/isolated {again}")
    return Told({"inputs": counted}, list(faults.values()))


def _inputs(door: Door, random: Random, many: int) -> Iterator[bytes]:
    yield from (file.read_bytes() for file in door.corpus)
    yield from (door.made(random) for _ in range(many))


def kind(wrong: str) -> str:
    """A fault without what differs from input to input."""
    return (
        wrong.rpartition(" at ")[2] if " at " in wrong else "".join(char for char in wrong if not char.isdigit())[:60]
    )


def keep(name: str, data: bytes) -> Path:
    """Where an input is from now on."""
    file = FOUND / name / digest(data)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


@contextmanager
def alone() -> Iterator[None]:
    """In a folder of its own, with no more memory than a node would give."""
    before, here = resource.getrlimit(resource.RLIMIT_AS), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "here"
        place.mkdir()
        os.chdir(place)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, before[1]))
        try:
            with aside(Path(folder)), Path(os.devnull).open("w") as nobody, redirect_stderr(nobody):
                yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
            os.chdir(here)


def main(name: str, *files: str) -> int:
    """Judge inputs of files again, or with a number so many new ones."""
    if files and files[0].isdigit():
        told = tell(name, os.environ.get("SEED", "1"), int(files[0]))
        print(*told.faults, told.counts, sep="\n")
        return bool(told.faults)
    with alone():
        told_of = {file: judged(doors()[name], (ROOT / file).read_bytes()) for file in files}
    wrong = [f"{file}: {said}" for file, said in told_of.items() if said]
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
