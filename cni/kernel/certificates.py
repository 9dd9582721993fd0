"""Until when certificates are good, by their files of PEM.

Python's ssl says it of the other side of a connection only; of a file it is read here: a certificate is DER (X.690), and where its
validity stands says RFC 5280, section 4.1.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _TIME = 0x30, 0xA0, 0x17, 0x18
_LONG, _LENGTH = 0x80, 0x7F
#: Before its validity: serial number, algorithm and issuer.
_BEFORE_VALIDITY = 3
#: A year of two digits is of this century below it.
_CENTURY = 50


def ends(file: Path) -> list[datetime]:
    """When each certificate of a file ends, in its order. Raises OSError, and ValueError where one is none."""
    found = [_end(text) for text in _PEM.findall(file.read_bytes())]
    if not found:
        raise ValueError("there is no certificate in it")
    return found


def _end(text: bytes) -> datetime:
    try:
        ((_, certificate),) = _parts(b64decode(text))
        (_, signed), *_ = _parts(certificate)
        parts = [part for part in _parts(signed) if part[0] != _VERSION]
        tag, validity = parts[_BEFORE_VALIDITY]
        if tag == _SEQUENCE:
            _, (tag, text) = _parts(validity)
            return _time(tag, text.decode("ascii"))
    except (IndexError, ValueError):
        pass
    raise ValueError("a certificate in it cannot be read")


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """What stands one after the other: the tag of each, of which here all have one byte, and its content."""
    while der:
        tag, length, begins = der[0], der[1], 2
        if length & _LONG:
            begins += length & _LENGTH
            length = int.from_bytes(der[2:begins])
        if len(der) < begins + length:
            raise ValueError("it is cut off")
        yield tag, der[begins : begins + length]
        der = der[begins + length :]


def _time(tag: int, text: str) -> datetime:
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < _CENTURY else "19") + text
    elif tag != _TIME:
        raise ValueError("it is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
