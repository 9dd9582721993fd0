"""By which name the kernel tells of what we change in nf_tables (NFTA_GEN_PROC_NAME): the calling thread's, which is ours from then on.

Who watches rules tells our changes from others' by it, and need not look at each ADD and DEL. It keeps no secret: who may change rules may
call itself anything.
"""

from __future__ import annotations

from _thread import get_ident
from contextlib import suppress
from functools import cache
from pathlib import Path

NAME = "agent-cni"
_OWN = Path("/proc/thread-self/comm")


def sign() -> None:
    """Be known by that name; who cannot be is taken for somebody else, whose changes are looked at."""
    _signed(get_ident())


@cache
def _signed(_: int) -> None:
    with suppress(OSError):
        _OWN.write_text(NAME)
