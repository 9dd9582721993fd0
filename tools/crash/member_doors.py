"""agent-cni with the doors of scenes/effects, and that to etcd: each write to the store is an effect, which may be the last.

python3 -I member_doors.py AGENT_CNI WORD...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "netns-tests/scenes"))

import effects

from cni.cluster.etcd.gateway import Gateway
from cni.errors import Unreachable


def _door(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(number: int) -> Any:
        raise Unreachable(f"etcd: {os.strerror(number)}")

    return lambda *a: effects.effect(f"store {name}", lambda: real(*a), refuse)


def main(words: list[str]) -> int:
    from cni.command.main import main as command

    for name in ("write", "lease", "end"):
        setattr(Gateway, name, _door(name, getattr(Gateway, name)))
    effects.install()
    effects.begin(os.environ)
    sys.argv = words
    return command()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
