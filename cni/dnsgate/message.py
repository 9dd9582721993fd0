"""DNS messages as far as the gate goes by them (RFC 1035, 6891, 8914): dnspython reads them but answers' names, and the only place that
asks it.

A name is its labels, in lower case, from the first to the one before the root: bytes, for a label may hold any.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import dns.exception
import dns.wire

Name = tuple[bytes, ...]

NOERROR, FORMERR, NXDOMAIN, REFUSED = 0, 1, 3, 5
A, CNAME, AAAA = 1, 5, 28

_HEADER, _KIND, _RECORD = "!HHHHHH", "!HH", "!HHIH"
_RESPONSE, _RECURSION_WANTED, _RECURSION_AVAILABLE = 0x8000, 0x0100, 0x0080
_OPCODE, _RCODE = 0x7800, 0x000F
_OPT, _IN = 41, 1
_EXTENDED_ERROR, _PROHIBITED = 15, 18
_SIZE = {A: 4, AAAA: 16}
_LONGEST_TTL = 0x7FFFFFFF
#: Of a label that is a reference the first byte at least; the longest label, and name with the lengths of its labels and the root's.
_REFERS, _LONGEST_LABEL, _LONGEST_NAME = 0xC0, 63, 255
_MOST_ALIASES = 16
#: What may stand behind a question: OPT, and who signs it (RFC 8945).
_MOST_ADDITIONAL = 2


class Question(NamedTuple):
    """A message that asks one thing. `raw` is the question's own bytes, behind the header; `edns` says that its asker knows EDNS."""

    id: int
    flags: int
    name: Name
    kind: int
    raw: bytes
    edns: bool

    def asks_as(self, other: Question) -> bool:
        """Whether it asks the same, in whatever case."""
        return (self.id, self.name, self.kind) == (other.id, other.name, other.kind)


class Answer(NamedTuple):
    """A response and what it tells: the question it repeats, its code, and the addresses that are the asked name's, packed, with
    the least TTL in seconds on the way there.
    """

    question: Question
    code: int
    addresses: tuple[tuple[bytes, int], ...]


def question(wire: bytes) -> Question | None:
    """What a client asks; None where that is not one plain question, and nothing else."""
    try:
        parser = dns.wire.Parser(wire)
        number, flags, questions, answers, authorities, additional = parser.get_struct(_HEADER)
        if flags & (_RESPONSE | _OPCODE) or (questions, answers, authorities) != (1, 0, 0):
            return None
        found, kind = _asked(parser, number, flags, decompress=False)  # nothing stands before it that it could refer to
        edns = False
        for _ in range(additional if additional <= _MOST_ADDITIONAL else 0):
            edns |= _kind_of_additional(parser) == _OPT
        if additional > _MOST_ADDITIONAL or parser.remaining() or kind != _IN:
            return None
    except (dns.exception.DNSException, struct.error):
        return None
    return found._replace(edns=edns)


def answer(wire: bytes) -> Answer | None:
    """What a server answers; None where that is no response, or not to be read."""
    try:
        parser = dns.wire.Parser(wire)
        number, flags, questions, answers, _, _ = parser.get_struct(_HEADER)
        if not flags & _RESPONSE or flags & _OPCODE or questions != 1:
            return None
        asked, _ = _asked(parser, number, flags, decompress=True)
        names = _Names(wire)
        aliases: dict[Name, tuple[Name, int]] = {}
        addresses: list[tuple[Name, bytes, int]] = []
        for _ in range(answers):
            if parser.remaining() == 0 and flags & 0x0200:
                break  # cut off to fit
            owner, kind, ttl, data = _record(parser, names)
            if kind == CNAME:
                aliases.setdefault(owner, (names.within(parser.current - len(data), parser.current), ttl))
            elif len(data) == _SIZE.get(kind):
                addresses.append((owner, data, ttl))
    except (dns.exception.DNSException, struct.error, IndexError):
        return None
    known = dict(_followed(asked.name, aliases))
    its = ((data, min(ttl, known[owner])) for owner, data, ttl in addresses if owner in known)
    return Answer(asked, flags & _RCODE, tuple(its))


def response(asked: Question, code: int, why: str = "") -> bytes:
    """What tells a client a code, and who can hear it why (RFC 8914)."""
    flags = _RESPONSE | _RECURSION_AVAILABLE | (asked.flags & _RECURSION_WANTED) | code
    head = struct.pack(_HEADER, asked.id, flags, 1, 0, 0, int(asked.edns)) + asked.raw
    if not asked.edns:
        return head
    said = struct.pack("!HHH", _EXTENDED_ERROR, 2 + len(why.encode()), _PROHIBITED) + why.encode() if why else b""
    return head + b"\0" + struct.pack(_RECORD, _OPT, 1232, 0, len(said)) + said


def malformed(wire: bytes) -> bytes:
    """What tells a client that it was not understood, if it is told by a number at all."""
    if len(wire) < 12:
        return b""
    number, flags = struct.unpack_from("!HH", wire)
    return struct.pack(_HEADER, number, _RESPONSE | (flags & (_OPCODE | _RECURSION_WANTED)) | FORMERR, 0, 0, 0, 0)


def is_question(wire: bytes) -> bool:
    """Whether something may ask: it is no response."""
    return len(wire) >= 12 and not wire[2] & 0x80


def text_of(name: Name) -> str:
    """A name for people, a label's odd bytes escaped (RFC 4343, 2.1)."""
    return ".".join("".join(_shown(byte) for byte in label) for label in name) or "."


def _shown(byte: int) -> str:
    char = chr(byte)
    return char if char.isascii() and (char.isalnum() or char in "-_*") else f"\\{byte:03d}"


def _asked(parser: dns.wire.Parser, number: int, flags: int, *, decompress: bool) -> tuple[Question, int]:
    begin = parser.current
    name = _name(parser, decompress=decompress)
    kind, class_ = parser.get_struct(_KIND)
    return Question(number, flags, name, kind, parser.wire[begin : parser.current], edns=False), class_


def _name(parser: dns.wire.Parser, *, decompress: bool = True) -> Name:
    labels = parser.get_name(decompress=decompress).labels
    return tuple(label.lower() for label in labels[:-1])


class _Names:
    """Names in a message by where they begin. Each label is read once: of thousands that refer to a long one (RFC 1035, 4.1.4) each would
    be read whole.
    """

    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self._known: dict[int, Name] = {}

    def read(self, at: int) -> tuple[Name, int]:
        """A name and where what is behind it begins. Raises FormError and IndexError."""
        wire, begun, end, size, name, before = self._wire, list[tuple[int, bytes]](), 0, 0, Name(), at
        while length := wire[at]:
            if length >= _REFERS:
                end = end or at + 2
                at = (length - _REFERS) << 8 | wire[at + 1]
                if at >= before:
                    raise dns.exception.FormError
                before = at
                if at in self._known:
                    name = self._known[at]
                    break
                begun.append((at, b""))
                continue
            size += length + 1
            if length > _LONGEST_LABEL or size > _LONGEST_NAME:
                raise dns.exception.FormError
            begun.append((at, wire[at + 1 : at + 1 + length].lower()))
            at += length + 1
        for place, label in reversed(begun):
            self._known[place] = name = (label, *name) if label else name
        if sum(map(len, name)) + len(name) >= _LONGEST_NAME:
            raise dns.exception.FormError
        return name, end or at + 1

    def within(self, at: int, end: int) -> Name:
        """A name that ends before something else does. Raises likewise."""
        name, its_end = self.read(at)
        if its_end > end:
            raise dns.exception.FormError
        return name


def _record(parser: dns.wire.Parser, names: _Names) -> tuple[Name, int, int, bytes]:
    owner, end = names.read(parser.current)
    parser.seek(end)
    kind, class_, ttl, length = parser.get_struct(_RECORD)
    data = parser.get_bytes(length)
    return owner, kind if class_ == _IN else 0, ttl if ttl <= _LONGEST_TTL else 0, data


def _kind_of_additional(parser: dns.wire.Parser) -> int:
    """OPT has a size for its class."""
    _name(parser)
    kind, _, _, length = parser.get_struct(_RECORD)
    parser.get_bytes(length)
    return int(kind)


def _followed(name: Name, aliases: dict[Name, tuple[Name, int]]) -> Iterator[tuple[Name, int]]:
    """A name and what it is another name for, in order, with the least TTL on the way."""
    ttl = _LONGEST_TTL
    for _ in range(_MOST_ALIASES):
        yield name, ttl
        if name not in aliases:
            return
        name, of = aliases[name]
        ttl = min(ttl, of)
