"""Inputs that go by what code they reach, for the doors of `inputs`: tools/isolated .venv/bin/python3 tools/crash/doors/guided.py DOOR SECONDS

It takes atheris, which nothing else here does: `tools/bootstrap --atheris`, and PYTHONPATH=.cache/atheris. What reaches more
is kept in .cache/crash/guided/DOOR, from where the next run goes on; what is wrong is told and kept as the others' is.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from random import Random

import atheris  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

with atheris.instrument_imports(include=["cni", "dns"]):
    from crash import inputs
    from crash.doors import calls
    from crash.doors.door import digest, judged


#: An input that is no input of the door, says the door: nothing of ours was asked.
_STRANGE = re.compile(r"\w+(Error|Exception): (?!.* at [\w/]+\.py:)", re.DOTALL)


def main(name: str, seconds: str) -> None:
    """Try a door for so long."""
    door, counted, began = inputs.doors()[name], 0, time.monotonic()
    faults: dict[str, str] = {}
    head = (
        calls.packed("bridge-vxlan", calls.ENVIRON | {"CNI_COMMAND": "ADD"}, b"")
        if door.judged is calls.judged
        else b""
    )
    seeds = inputs.FOUND.parent / "guided" / name
    seeds.mkdir(parents=True, exist_ok=True)
    random = Random(name)
    for data in (*(file.read_bytes() for file in door.corpus), *(door.made(random) for _ in range(200))):
        (seeds / digest(data)).write_bytes(data.partition(b"\n")[2] if head else data)

    def one(data: bytes) -> None:
        nonlocal counted
        counted += 1
        wrong = judged(door, head + data)
        if wrong and not _STRANGE.match(wrong) and (kind := inputs.kind(wrong)) not in faults:
            faults[kind] = f"{wrong}: {inputs.keep(name, head + data)}"
            print(f"FAULT {faults[kind]}", file=sys.__stdout__, flush=True)
        if time.monotonic() - began > float(seconds):
            print(f"{name}: {counted} inputs, {len(faults)} faults", file=sys.__stdout__, flush=True)
            os._exit(0)  # sys.exit is a crash to libFuzzer

    with inputs.alone():
        atheris.Setup([sys.argv[0], "-rss_limit_mb=0", "-timeout=60", f"-artifact_prefix={seeds}-", str(seeds)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
