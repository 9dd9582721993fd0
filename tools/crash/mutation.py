"""Inputs nobody should send, made of ones that somebody does: bytes, JSON, and texts of words. All chance is a `Random`'s."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

#: JSON texts for a value, because some of them no JSON module writes.
NASTY = (
    *("null", "true", "false", "0", "-1", "1", "68", "65535", "65536", "2147483648", "4294967296", "9223372036854775808"),
    *("-9223372036854775809", "1.5", "-0.0", "1e3", "1e400", "-1e400", "1e-400", "9" * 308, "9" * 400, "9" * 5000, "NaN"),
    *("Infinity", "-Infinity", '""', '" "', '"foo"', '"a\\u0000b"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u001b[2J"'),
    *('"a\\nb"', '"../x"', f'"{"x" * 5000}"', '"+"', '"é"', '"%s"', '"{0}"', '"a b; c"', "'x'", '"10.9.0.1"', '"10.9.0.1/24"'),
    *('"10.9.0.0/24"', '"10.9.0.1/33"', '"010.9.0.1"', '"0.0.0.0/0"', '"::/0"', '"::"', '"::ffff:10.9.0.1"', '"fe80::1%eth0"'),
    *('"::ffff:10.9.0.0/120"', '"255.255.255.255"', '"224.0.0.1/24"', '"00:00:00:00:00:00"', '"ff:ff:ff:ff:ff:ff"', "[]"),
    *("[[]]", "[null]", "[1]", '["foo"]', "[{}]", "{}", '{"a": 1}', '{"": null}', '{"\\ud800": 1}', '["::ffff:10.9.0.1"]'),
    *("[1e400]", "[" * 60 + "]" * 60, "[" * 990 + "]" * 990, '{"a":' * 990 + "1" + "}" * 990, "[" * 100_000, '{"a":1,"a":2}'),
    *('"2026-01-01T00:00:00Z"', '"1h"', '"-1"', '"0"', '"18446744073709551616"', '"true"', '"=="', '"AAAA"', "[1,[2,[3]]]"),
)  # fmt: skip
_MARK = "\x07%d\x07"
_ODD_BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f",
    b"\x80",
    b"\xef\xbb\xbf",
    b"{",
    b"]",
    b'"',
)
_LONG = 4096


def mutated(random: Random, data: bytes, others: Sequence[bytes] = (), words: Sequence[bytes] = ()) -> bytes:
    """Bytes with some of them otherwise: flipped, cut, doubled, spliced with another's."""
    raw = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(raw) + 1)
        match random.randrange(9):
            case 0 if raw:
                raw[at % len(raw)] ^= 1 << random.randrange(8)
            case 1 if raw:
                raw[at % len(raw)] = random.choice((0, 1, 2, 4, 127, 128, 255, random.randrange(256)))
            case 2:
                del raw[at:]
            case 3:
                del raw[at : at + random.randrange(1, 9)]
            case 4:
                raw[at:at] = random.choice((*_ODD_BYTES, *words))
            case 5:
                raw[at:at] = raw[at : at + random.randrange(1, 64)] * random.choice((1, 1, 2, 50))
            case 6 if others:
                other = random.choice(others)
                raw[at:] = other[random.randrange(len(other) + 1) :]
            case 7:
                raw[at : at + 4] = random.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0", b"\0\0\0\1", b"\x10\0\0\0")
                )
            case _:
                raw[at : at + 2] = random.randrange(1 << 16).to_bytes(2, random.choice(("little", "big")))
    return bytes(raw[: 1 << 20])


def paths_in(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of everything in a value, itself among it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_in(item, (*path, key))


def changed(random: Random, value: Any, keys: Sequence[str] = ()) -> str:
    """JSON of a value in which one to three things are others: nasty, another's, gone, twice, or under another key."""
    made = [copy.deepcopy(value)]
    spelled: dict[str, str] = {}
    for number in range(random.choice((1, 1, 1, 2, 3))):
        every = [path for path in paths_in(made[0]) if path]
        if not every:
            break
        *way, last = random.choice(every)
        within = _at(made[0], way)
        match random.randrange(8):
            case 0:
                del within[last]
            case 1 if isinstance(within, list):
                within.insert(int(last), copy.deepcopy(within[last]))
            case 1 | 2 if isinstance(within, dict):
                within[random.choice((*keys, last.upper(), f"{last} ", ""))] = within.pop(last)
            case 3:
                within[last] = copy.deepcopy(
                    _at(made[0], random.choice(every)[:-1]) if random.random() < 0.3 else [within[last]]
                )
            case 4 if isinstance(within, dict) and keys:
                within[random.choice(keys)] = _nasty(random, spelled, number)
            case _:
                within[last] = _nasty(random, spelled, number)
    text = json.dumps(made[0])
    for mark, nasty in spelled.items():
        text = text.replace(json.dumps(mark), nasty)
    return text


def said(random: Random, words: Sequence[str], most: int = 6) -> str:
    """Some words, in any order."""
    return "".join(random.choice(words) for _ in range(random.randrange(most + 1)))


def _nasty(random: Random, spelled: dict[str, str], number: int) -> str:
    mark = _MARK % number
    spelled[mark] = random.choice(NASTY)
    return mark


def _at(value: Any, way: Sequence[str | int]) -> Any:
    for step in way:
        value = value[step]
    return value
