"""Compare what the plugins answered with node agents and without, of each test that ran both ways, byte for byte.

Both runs have written transcripts; only clock readings, temporary folders, and MACs and veths
that somebody else named at random are set equal in them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "netns-tests/scenes"))

from warm import TRANSCRIPTS, differences


def main() -> int:
    compared = [json.loads(file.read_text()) for file in (TRANSCRIPTS / "warm").glob("*.json")]
    found = differences()
    for line in found:
        print(line)
    print(
        f"{sum(map(len, compared))} calls of {len(compared)} tests, with and without agents: {len(found)} tests differ"
    )
    return 1 if found or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
