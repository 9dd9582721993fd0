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
_MODULES = ("calls", "kernel", "stores", "files", "state")
_STORIES = 4
_MEMORY = 4 << 30
#: Where what was found is kept, for `tests/fixtures/corpus` or for who looks.
FOUND = ROOT / ".cache/crash/inputs"


def doors() -> dict[str, Door]:
    """Every door by its name."""
    return {door.name: door for module in _MODULES for door in import_module(f"crash.doors.{module}").DOORS}


def stories() -> Iterable[str]:
    """Some for each door: its name, and a number that its inputs depend on."""
    return [f"{name} {number}" for name in doors() for number in range(1, _STORIES + 1)]


def tell(story: str, seed: str, many: int = 0) -> Told:
    """Give a door its inputs; each kind of fault is told once."""
    name, _, _ = story.rpartition(" ")
    door, random = doors()[name], Random(f"{seed} {story}")
    faults: dict[str, str] = {}
    with alone():
        kept = [file.read_bytes() for file in door.corpus]
        for data in (*kept, *(door.made(random) for _ in range(many or door.many))):
            if wrong := judged(door, data):
                faults.setdefault(
                    _kind(wrong),
                    f"{story}: {wrong}: .venv/bin/python3 tools/crash/inputs.py {name} {_keep(name, data)}",
                )
    return Told({"inputs": len(kept) + (many or door.many)}, list(faults.values()))


FIXED: tuple[str, ...] = ()


def _kind(wrong: str) -> str:
    """A fault without what differs from input to input."""
    return (
        wrong.rpartition(" at ")[2] if " at " in wrong else "".join(char for char in wrong if not char.isdigit())[:60]
    )


def _keep(name: str, data: bytes) -> Path:
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
        told = tell(f"{name} 1", os.environ.get("SEED", "1"), int(files[0]))
        print(*told.faults, told.counts, sep="\n")
        return bool(told.faults)
    with alone():
        told_of = {file: judged(doors()[name], (ROOT / file).read_bytes()) for file in files}
    wrong = [f"{file}: {said}" for file, said in told_of.items() if said]
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
