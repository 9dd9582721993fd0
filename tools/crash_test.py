"""make crash-test: everything that can go wrong, enumerated; hours, told as they go, and gone on with where they were ended.

    .venv/bin/python3 tools/crash_test.py [PART ...] [--seed S] [--stories SUBSTRING] [--again] [--list] [--report]

Each story runs in namespaces of its own. What was told stands in `.cache/crash/journal.jsonl`, and is not told again while the
sources (cni, plugins, launcher) and the seed are the same. The table of docs/reliability.md is written from that journal alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "netns-tests/scenes")]

from crash.story import Entry, Journal, Part, Told, row, today  # noqa: E402

JOURNAL = Journal(ROOT / ".cache/crash/journal.jsonl")
PAGE = ROOT / "docs/reliability.md"
TABLE = re.compile(r"(<!-- counts -->\n).*?(<!-- /counts -->)", re.DOTALL)
HEAD = "| part | what | counted | faults left | took | when, at | again by |\n|---|---|---|---|---|---|---|\n"
#: Seconds after which a story hangs.
PATIENCE = 3 * 3600


def parts() -> dict[str, Part]:
    """The modules that tell stories, by name."""
    names = sorted(file.stem for file in (ROOT / "tools/crash").glob("*.py"))
    modules = {name: importlib.import_module(f"crash.{name}") for name in names if name != "__init__"}
    return {name: cast("Part", module) for name, module in modules.items() if hasattr(module, "stories")}


def sources() -> str:
    """A digest of what is tried."""
    digest = hashlib.sha256()
    for folder in ("cni", "plugins", "launcher"):
        for file in sorted(file for file in (ROOT / folder).rglob("*") if file.is_file() and file.suffix != ".pyc"):
            digest.update(f"{file.relative_to(ROOT)} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def told_apart(part: str, story: str, seed: str) -> Told:
    """Tell a story in a process and namespaces of its own; one that does not end, or raises, is a fault."""
    answer, log = (JOURNAL.file.with_name(f"{part}-{os.getpid()}.{what}") for what in ("answer", "log"))
    answer.parent.mkdir(parents=True, exist_ok=True)
    words = (ROOT / "tools/isolated", sys.executable, __file__, "--tell", part, story, seed, answer)
    with log.open("w") as said:
        try:
            subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=PATIENCE, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            return Told({}, [f"{story}: did not end within {PATIENCE} s"])
    if not answer.exists():
        return Told({}, [f"{story}: {(log.read_text(errors='replace').splitlines() or ['nothing was said'])[-1]}"])
    told = Told(**json.loads(answer.read_text()))
    answer.unlink()
    if not told.faults:
        log.unlink()
    return told


def tell(part: str, story: str, seed: str, answer: Path) -> None:
    """The other side of it."""
    try:
        told = parts()[part].tell(story, seed)
    except Exception as error:
        traceback.print_exc()
        told = Told({}, [f"{story}: {type(error).__name__}: {error}"])
    answer.write_text(json.dumps(asdict(told)))


def run(chosen: dict[str, Part], seed: str, wanted: str, again: bool) -> int:
    """Tell what is to be told; how many faults there are."""
    digest, faults = sources(), 0
    git = ("git", "-C", str(ROOT))
    commit = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
    # the table, which is written as stories are told, tries nothing
    commit += "-dirty" * bool(
        subprocess.check_output([*git, "status", "--porcelain", "--", ".", f":!{PAGE.relative_to(ROOT)}"])
    )
    done = {(it.part, it.story): it for it in JOURNAL if (it.sources, it.seed) == (digest, seed) and not again}
    for name, part in chosen.items():
        stories = [story for story in part.stories() if wanted in story]
        for number, story in enumerate(stories, 1):
            found = done.get((name, story))
            if not found:
                began = time.monotonic()
                told = told_apart(name, story, seed)
                found = Entry(name, story, seed, digest, commit, today(), round(time.monotonic() - began), told)
                JOURNAL.write(found)
            faults += len(found.told.faults)
            counts = ", ".join(f"{number:,} {name}" for name, number in found.told.counts.items())
            print(f"[{number:3}/{len(stories)}] {name}: {story}: {counts} ({found.seconds} s)", flush=True)
            for fault in found.told.faults:
                print(f"          FAULT {fault}", flush=True)
    return faults


def report() -> None:
    """Write the table of what was counted."""
    modules, entries = parts(), list(JOURNAL)
    rows = [row(name, part.WHAT, len(list(part.stories())), mine) for name, part in modules.items() if (mine := [it for it in entries if it.part == name])]  # fmt: skip
    PAGE.write_text(TABLE.sub(lambda found: found[1] + HEAD + "".join(f"{line}\n" for line in rows) + found[2], PAGE.read_text()))  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts()))
    options.add_argument("--seed", default="1")
    options.add_argument("--stories", default="", help="only those whose name has this")
    options.add_argument("--again", action="store_true", help="also what was told already")
    options.add_argument("--list", action="store_true", help="only their names")
    options.add_argument("--report", action="store_true", help="only write the table of docs/reliability.md")
    options.add_argument("--tell", nargs=4, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.tell:
        tell(*asked.tell[:3], Path(asked.tell[3]))
        return 0
    if unknown := set(asked.parts) - set(parts()):
        options.error(f"there is no part {', '.join(unknown)}")
    chosen = {name: part for name, part in parts().items() if not asked.parts or name in asked.parts}
    if asked.list:
        print("\n".join(f"{name}: {story}" for name, part in chosen.items() for story in part.stories()))
        return 0
    faults = 0 if asked.report else run(chosen, asked.seed, asked.stories, asked.again)
    report()
    print(f"{faults} faults" if not asked.report else f"wrote {PAGE.relative_to(ROOT)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
