"""How names are spelled: what may be one (RFC 1123, 2.1, and the underscore that containers have), and under which it is answered."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST = 253
#: What every resolver takes for something else without its domain: the host itself, and a proxy that browsers look for (VU#598349).
_NOBODYS = ("localhost", "wpad")


def is_name(text: str) -> bool:
    """Whether a text in lower case is a name, of one label or more."""
    return len(text) <= _LONGEST and bool(_NAME.fullmatch(text)) and not text.rpartition(".")[2].isdecimal()


def believed(said: Iterable[str]) -> list[str]:
    """What of names that another host says may be its pod's: whatever else it says would be a line of a file that others read."""
    return [word for word in said if is_name(word) and word not in _NOBODYS]


def known_as(words: Iterable[str], namespace: str, domain: str) -> tuple[str, ...]:
    """Under which names a pod is answered, the one that its address has first.

    In a namespace a word with a point is answered there alone: without it, it could be anybody's name, and who starts a pod
    chooses it. Without a namespace an operator does.
    """
    said = [word for word in dict.fromkeys(word.lower() for word in words) if is_name(word)]
    everywhere = [word for word in said if not namespace or "." not in word]
    found = [f"{word}.{namespace}.{domain}".lower() for word in said if namespace]
    found += [f"{word}.{domain}" for word in everywhere]
    return tuple(believed(dict.fromkeys([*found, *everywhere])))
