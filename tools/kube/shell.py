"""Where the rig has its things, and how it runs programs and waits."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: What a checkout has of its own: the product as nodes get it, images, and a folder per run.
HOME = ROOT / ".cache/kube"
#: What is built once: Kubernetes' parts, Debian's. Checkouts may share it.
BUILT = Path(os.environ.get("KUBE_RIG") or HOME).resolve()
BIN = BUILT / "bin"


def sh(*argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is in the error when it fails."""
    options = {"stdin": subprocess.DEVNULL} | options if "input" not in options else options
    words = list(map(str, argv))
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, **options)
    if check and done.returncode:
        said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise RuntimeError(f"{' '.join(words)} -> {done.returncode}\n{said}")
    return done


def eventually(ask: Callable[[], Any], seconds: float = 60, pause: float = 0.1) -> Any:
    """Ask until the answer is true, with a bound; the last answer. A failed question is no answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = None
        with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException, subprocess.TimeoutExpired):
            answer = ask()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(pause)
