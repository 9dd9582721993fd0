"""Draw a bench's figures: plot.py RESULTS.json PICTURE.png. Each bar is a ratio to the reference plugins."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

WARM, COLD, INK = "#2a7f62", "#c9c4b8", "#333333"


def main(results: Path, picture: Path) -> None:
    rows = _rows(json.loads(results.read_text()))
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(rows) + 1.6))
    seen = False
    for place, (_, warm, cold) in enumerate(rows):
        axes.barh(place + 0.19, warm, 0.38, color=WARM, label="with the node agent" if not place else None)
        axes.text(warm * 1.04, place + 0.19, f"{warm:.2f}", va="center", fontsize=8, color=INK)
        if cold:
            axes.barh(place - 0.19, cold, 0.38, color=COLD, label=None if seen else "without")
            seen = True
            axes.text(cold * 1.04, place - 0.19, f"{cold:.1f}", va="center", fontsize=8, color=INK)
    axes.axvline(1, color=INK, linewidth=1)
    axes.text(1, len(rows) - 0.35, " reference plugins", fontsize=8, color=INK)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=9)
    axes.set_xlabel("time of a call, as a ratio to the reference's (less is better)", fontsize=9)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=130)


def _rows(results: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Label, warm ratio and cold ratio (0: not measured), the first row at the top."""
    taken = results["calls"] | results["fill"] | results["crowd"]
    found = [(label, _ratio(row, "warm"), _ratio(row, "cold")) for label, row in taken.items()]
    return found[::-1]


def _ratio(row: dict[str, list[float]], side: str) -> float:
    return statistics.median(row[side]) / statistics.median(row["reference"]) if side in row else 0.0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
