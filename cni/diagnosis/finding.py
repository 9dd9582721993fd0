"""Something wrong on a node: how bad it is, the cause by a word of its own, whom it is about, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from cni.values import dataclass

#: How many pods a sentence names.
_NAMED = 3


class Severity(IntEnum):
    """How bad it is, the worst last."""

    #: Nothing is wrong; somebody may want to know.
    NOTE = 0
    #: Pods go on as they are; something is left over, slower than need be, or will be wrong.
    WARNING = 1
    #: Pods lose traffic, or cannot be attached.
    BROKEN = 2
    #: What is to be kept from a pod, or within it, is not.
    OPEN = 3

    @property
    def word(self) -> str:
        """As it is said."""
        return self.name.lower()

    @property
    def status(self) -> int:
        """The exit code: 1 is what every command says that found something, 2 is wrong usage."""
        return (0, 1, 3, 4)[self]


@dataclass(frozen=True)
class Finding:
    """One cause. `what` says it without its `pods`, which are those it is about, but for one that `counts` them itself; `symptoms` are
    lines of what follows from it.
    """

    what: str
    mend: str
    severity: Severity = Severity.BROKEN
    cause: str = ""
    pods: tuple[str, ...] = ()
    symptoms: tuple[str, ...] = ()
    counts: bool = False

    @property
    def text(self) -> str:
        """The sentence: one pod first, and of several how many, and some of their names."""
        pods = list(dict.fromkeys(self.pods))
        if not pods:
            return self.what
        if len(pods) == 1 and not self.counts:
            return f"{pods[0]}: {self.what}"
        many = "" if self.counts else f"{len(pods)} pods: "
        more = f" and {len(pods) - _NAMED} more" if len(pods) > _NAMED else ""
        return f"{self.what} ({many}{', '.join(pods[:_NAMED])}{more})"

    def said(self) -> dict[str, Any]:
        """As JSON: `what` is the whole sentence."""
        return {
            "what": self.text, "mend": self.mend, "severity": self.severity.word, "cause": self.cause, "pods": [*self.pods],
            "symptoms": [*self.symptoms],
        }  # fmt: skip


def worst(found: Iterable[Finding]) -> Severity:
    """The worst of them; a note where there are none."""
    return max((item.severity for item in found), default=Severity.NOTE)
