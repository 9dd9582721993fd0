"""Run tests in parallel, and what failed once more, alone: six at once on two processors are a load that no test is about.

    tools/asked_again.py PROCESSES [--isolated] PYTEST-ARGUMENT ...

Both answers are printed. Who fails alone, too, fails; so does the run where so many fail that it is no chance. Each of the two has, where it is
`--isolated`, namespaces of its own: what failed may have left something.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: More are not asked again.
_FEW = 5
_SOME_FAILED = 1


def main(processes: str, *asked: str) -> int:
    isolated = [str(ROOT / "tools/isolated")] if "--isolated" in asked else []
    with tempfile.TemporaryDirectory() as cache:
        chosen = [word for word in asked if word != "--isolated"]
        pytest = [*isolated, sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *chosen]
        code = subprocess.run([*pytest, "--numprocesses", processes, "--dist", "worksteal"], check=False).returncode
        failed = Path(cache, "v/cache/lastfailed")
        names = list(json.loads(failed.read_text())) if failed.exists() else []
        if code != _SOME_FAILED or not 0 < len(names) <= _FEW:
            return code
        print(f"\n{len(names)} failed among others, and are asked once more, alone:", *names, sep="\n  ", flush=True)
        code = subprocess.run([*pytest, "--last-failed", "--last-failed-no-failures", "none"], check=False).returncode
        if not code:
            print("they pass alone: what they wait for takes longer under this load, or they are not apart from others")
        return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
