"""What nobody outside is to read, left out of texts: keys, tokens, passwords, whatever file or message they stand in.

Rather too much than too little: a word of the right shape goes, also where it is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: What stands where something was.
LEFT_OUT = "(left out)"

#: Names after which a value is nobody's business; what is a path stays, because it says which file and not what is in it.
_NAMED = (
    r"(?:[\w.-]*(?:passw(?:or)?d|secret|token|credential|authorization|cookie|api[_-]?key|private[_-]?key|access[_-]?key|"
    r"key-data|preshared|headers?)[\w.-]*|key|auth)"
)
_SHAPES = tuple(
    re.compile(shape, re.IGNORECASE | re.MULTILINE | re.DOTALL)
    for shape in (
        # PEM, whole, as lines or with the line ends of JSON; a cut one to the end
        r"(?P<value>-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z))",
        # user and password of a URL, whatever its scheme
        r"\b[a-z][\w+.-]*://(?P<value>[^/\s\"'@]*)@",
        r"[?&][\w-]*(?:token|key|secret|password|sig|signature|auth)[\w-]*=(?P<value>[^&\s\"']+)",
        r"\b(?:Bearer|Basic|Digest)\s+(?P<value>[\w+/=.~:-]{4,})",
        # "name": "value", also where the text ends in it, a list, an object, a number
        rf"[\"']{_NAMED}[\"']\s*:\s*(?P<value>\"(?!/)(?:[^\"\\\n]|\\.)+\"?|\[[^\]]*\]|\{{[^}}]*\}}|-?\d[\d.]*)",
        # the same in a text within JSON
        rf"\\+[\"']{_NAMED}\\+[\"']\s*:\s*\\+[\"'](?P<value>(?!/)[^\"\\]+)",
        # name: value, name=value, and what a schema says of a key it does not know
        rf"(?:^|[\s,;(\"'.]){_NAMED}(?:\s*[=:]\s*|: unknown key, value )(?P<value>(?![/\[{{(\s\"']|unknown key)[^\s,;\"'\\]+|\\*(?P<quote>[\"'])(?!/)[^\"']+)",
        # a JSON web token, and 32 bytes in base64, as WireGuard's keys are
        r"\b(?P<value>eyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?)",
        r"(?<![a-z0-9+/])(?P<value>[a-z0-9+/]{43}=)(?![a-z0-9+/=])",
    )
)  # fmt: skip
#: A shorter value may be a word that stands elsewhere by itself.
_LEAST = 8


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """A text without its secrets, nor those that are `known` from elsewhere."""
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, LEFT_OUT)
    for shape in _SHAPES:
        text = shape.sub(_without, text)
    return text


def secrets_in(text: str) -> set[str]:
    """What is left out of a text and long enough to be looked for in others."""
    found = {match["value"].strip("\\\"' ") for shape in _SHAPES for match in shape.finditer(text)}
    return {value for value in found if len(value) >= _LEAST and LEFT_OUT not in value}


def _without(match: re.Match[str]) -> str:
    if LEFT_OUT in match["value"]:
        return match[0]
    start, end = (at - match.start() for at in match.span("value"))
    whole = match[0]
    instead = f'"{LEFT_OUT}"' if whole[start:end].startswith(('"', "[", "{")) else LEFT_OUT
    return whole[:start] + instead + whole[end:]
