"""Anything as input: every door in this process, by inputs nobody should send; one alone again: `inputs.py DOOR FILE`.

Each door has three stories: inputs by chance; hypothesis' chance, which makes the least input of a fault; and where there is atheris
(`tools/bootstrap --atheris`), inputs by the code they reach (`doors/guided.py`).
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
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

import hypothesis  # noqa: E402
from hypothesis import HealthCheck, strategies  # noqa: E402

from crash.doors.door import Door, aside, digest, judged  # noqa: E402
from crash.story import Told  # noqa: E402

WHAT = "inputs nobody should send, by every door"
_MODULES = ("calls", "kernel", "stores", "files", "state", "wires", "executables")
FIXED = ("each door, what is kept and some new",)
HYPOTHESIS, GUIDED = " by hypothesis", " guided"
#: How many fewer inputs each door has in the fixed story.
_FEWER = 50
_MEMORY = 4 << 30
#: Where atheris is, if it could be built, and for how many seconds a door is searched by it.
ATHERIS, _GUIDED_FOR = ROOT / ".cache/atheris", 60
#: Where what was found is kept, for `tests/fixtures/corpus` or for who looks.
FOUND = ROOT / ".cache/crash/inputs"


def doors() -> dict[str, Door]:
    """Every door by its name."""
    return {door.name: door for module in _MODULES for door in import_module(f"crash.doors.{module}").DOORS}


def stories() -> Iterable[str]:
    """Each door by its name, and some of all; those that change the kernel are not searched."""
    sorts = ("", HYPOTHESIS, *([GUIDED] if ATHERIS.is_dir() else []))
    return [*FIXED, *(name + sort for sort in sorts for name, door in doors().items() if not (sort and door.apart))]


def tell(story: str, seed: str, many: int = 0) -> Told:
    """Give a door its inputs, or each of them some; each kind of fault is told once."""
    if story.endswith(HYPOTHESIS):
        return _by_hypothesis(doors()[story.removesuffix(HYPOTHESIS)], seed, many)
    if story.endswith(GUIDED):
        return _guided(story.removesuffix(GUIDED))
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


def _by_hypothesis(door: Door, seed: str, many: int) -> Told:
    """A fault's input is the least that hypothesis finds; it goes on to others of its kind no further."""
    counted, faults = 0, dict[bytes, str]()

    @hypothesis.seed(f"{seed} {door.name}")
    @hypothesis.settings(max_examples=many or door.many // 5, database=None, deadline=None, suppress_health_check=[*HealthCheck], report_multiple_bugs=False)  # fmt: skip
    @hypothesis.given(strategies.randoms(use_true_random=False))
    def judge(random: Random) -> None:
        nonlocal counted
        counted += 1
        data = door.made(random)
        if wrong := judged(door, data):
            faults[data] = wrong
            raise AssertionError(wrong)

    try:
        with alone():
            judge()
    except AssertionError:
        data, wrong = list(faults.items())[-1]  # what it ended with is tried once more
        again = f".venv/bin/python3 tools/crash/inputs.py {door.name} {keep(door.name, data)}"
        return Told({"inputs": counted}, [f"{door.name}{HYPOTHESIS}: {wrong}: tools/isolated {again}"])
    return Told({"inputs": counted})


def _guided(name: str) -> Told:
    """What atheris, in a process of its own, tells."""
    command = (sys.executable, ROOT / "tools/crash/doors/guided.py", name, _GUIDED_FOR)
    done = subprocess.run(list(map(str, command)), env=os.environ | {"PYTHONPATH": str(ATHERIS)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)  # fmt: skip
    told = re.search(r": (\d+) inputs, ", done.stdout)
    faults = [f"{name}{GUIDED}: {line}" for line in done.stdout.splitlines() if line.startswith("FAULT ")]
    return Told({"inputs": int(told[1]) if told else 0}, faults if told else [*faults, f"{name}{GUIDED} ended with {done.returncode}"])  # fmt: skip


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
