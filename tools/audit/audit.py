"""Ask what is known of every package that is pinned, and under which licence each of them is: make audit.

pip-audit asks PyPI's database. What that does not answer for (no network, a mirror that has packages only) is judged by the
kept list, which is as new as it says. Exits 1 where anything is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

import advisories
import licences
from packaging.utils import canonicalize_name
from pins import ROOT, installed, pins

PIP_AUDIT = ROOT / ".cache/audit/bin/pip-audit"

#: By package: the advisories of its pinned version.
Answers = dict[str, list[str]]


def answers(pinned: Mapping[str, str]) -> Answers:
    """What PyPI's database knows of pinned packages; without those that it does not answer for."""
    how = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "10")
    listed = "".join(f"{name}=={version}\n" for name, version in pinned.items())
    command = [PIP_AUDIT, "--requirement", "/dev/stdin", *how]
    done = subprocess.run(command, input=listed, capture_output=True, text=True, check=False)
    return understood(done.stdout)


def understood(said: str) -> Answers:
    """The same of pip-audit's words: nothing where the database could not be reached. It passes what a mirror does not know, and says so."""
    try:
        dependencies = json.loads(said)["dependencies"]
    except ValueError:
        return {}
    answered = (item for item in dependencies if "skip_reason" not in item)
    return {canonicalize_name(item["name"]): [known["id"] for known in item["vulns"]] for item in answered}


def faults(pinned: Mapping[str, str], answered: Answers, kept: Mapping[str, object]) -> list[str]:
    """What is wrong with the pinned versions: by the database, and by the kept list where that did not answer."""
    by_database = [f"{name} {pinned[name]}: {known}" for name in pinned for known in answered.get(name, ())]
    unanswered = {name: version for name, version in pinned.items() if name not in answered}
    return by_database + advisories.faults(kept, unanswered)


def main() -> int:
    """The exit code."""
    pinned, kept = pins(), json.loads(advisories.KEPT.read_text())
    answered = answers(pinned)
    wrong = [*faults(pinned, answered, kept), *licences.faults(installed())]
    asked = len(pinned.keys() & answered.keys())
    print(f"{len(pinned)} packages are pinned; PyPI's database answered for {asked}")
    if asked < len(pinned):
        newest = f"whose newest advisory of them is of {kept['newest'][:10]}"
        print(f"the others were looked up in {kept['source']} on {kept['asked']}, {newest}")
    print("\n".join(wrong) or "no known vulnerability in them, and every licence is allowed")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
