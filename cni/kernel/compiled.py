"""nft scripts compiled apart: what a transaction costs does not grow with what is in the namespace it is for.

Before it adds a rule, libnftables reads every chain and every set there. What policies of pods say needs none (statements.py). For the rest
there is a namespace that has nothing but ``lo``, where there is nothing to read; what the kernel then holds of the script is made
again where it belongs, without libnftables.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import count

from cni.errors import KernelRefused, ToolFailed
from cni.kernel import netns, nfnetlink, nftables, statements
from cni.kernel.kept import Single
from cni.kernel.netlink.channel import NETFILTER, Channel, DumpInterrupted
from cni.kernel.netlink.wire import APPEND, CREATE, DUMP, attribute, attributes, listed, nested, string, text_of
from cni.kernel.nfnetlink import (
    CHAIN,
    CHAIN_NAME,
    DELETE_ELEMENTS,
    DELETE_RULE,
    ELEMENT_LIST,
    ELEMENTS,
    EXPRESSION_DATA,
    EXPRESSION_NAME,
    GET,
    LIST_ITEM,
    RULE,
    RULE_CHAIN,
    RULE_EXPRESSIONS,
    SET,
    SET_NAME,
    TABLE,
    TABLE_NAME,
    attributes_of,
    family_of,
    kind_of,
    raw_request,
)
from cni.kernel.ruleset import Change

#: A chain on a device, whose name is for later: apart from here there is none but lo.
_ON_DEVICE = re.compile(r'^(add chain netdev \S+ (\S+) \{.* device )"([^"]+)"', re.MULTILINE)
_FILLED = re.compile(r"^add element \S+ (\S+) (\S+) ", re.MULTILINE)

_QUESTION_TRIES = 5

#: Attributes that say what a thing is (nf_tables.h).
_CHAIN_HOOK, _CHAIN_USUAL = 4, {1, 3, 5, 7, 12}
_HOOK_NUMBERS, _HOOK_DEVICE = (1, 2), 3
_SET_FLAGS, _SET_ID, _SET_USUAL = 3, 10, {1, 3, 4, 5, 6, 7, 8, 9, 13}
_ELEMENTS_SET_ID, _ELEMENT_USERDATA = 4, 6
_RULE_USUAL = {1, 2, 7}
_LOOKUP_SET, _LOOKUP_SET_ID = 1, 4
_TABLE_USUAL = {1, 2, 6}
_ANONYMOUS, _INTERVAL, _MAP, _CONCATENATED = 0x1, 0x4, 0x8, 0x80
_UDATA_COMMENT = b"\0"

#: Anonymous sets are known by number until their rule has them; scripts compiled at different times may share a transaction.
_numbers = count(1)


def apply(scripts: Iterable[str], changes: Iterable[Change] = ()) -> None:
    """Apply scripts, each complete in itself, and then changes of sets' elements, as one transaction in the namespace this
    thread is in.

    They may add tables, sets, chains, rules and elements, and flush the chains they add. Raises KernelRefused with the
    kernel's words, or ToolFailed with nft's where it refuses a script; then nothing was done.
    """
    given, changed = list(scripts), list(changes)
    try:
        made = [request for script in given for request in _requests(script)]
    except KernelRefused as error:
        if error.errno != errno.EPERM:
            raise
        _apply_here("".join([*given, *(change.script() for change in changed)]))
        return
    made += [request for change in changed for request in change.requests()]
    nfnetlink.change(nfnetlink.opened(), made)


def _apply_here(script: str) -> None:
    """Let libnftables do it where it belongs, for who may make no namespace, as the member: slow where there is much."""
    answer = nftables.run(script)
    if not answer.done:
        raise ToolFailed(f"nft refused a transaction: {answer.reason}")


def _requests(script: str) -> Sequence[bytes]:
    try:
        return statements.requests(script)
    except statements.Unspoken:
        return _compiled(script)


@lru_cache(maxsize=16)
def _compiled(script: str) -> tuple[bytes, ...]:
    """The requests a script comes to. Most scripts are the same for every pod."""
    devices = {chain: device for _, chain, device in _ON_DEVICE.findall(script)}
    apart = _apart.get()
    apart.run(_ON_DEVICE.sub(r'\1"lo"', script))
    numbers: dict[bytes, int] = {}
    filled = set(_FILLED.findall(script))
    sets = [said for message in apart.there(SET) for said in _set_again(apart, message, numbers, filled)]
    return (
        *(_again(message, _TABLE_USUAL) for message in apart.there(TABLE)),
        *(said for message in apart.there(CHAIN) for said in _chain_again(message, devices)),
        *sets,
        *(_rule_again(message, numbers) for message in apart.there(RULE)),
    )


class _Apart:
    """A namespace nobody else knows, held by the sockets in it."""

    def __init__(self) -> None:
        with netns.fresh():
            self._channel = Channel(NETFILTER)
            self._nft = nftables.Context()

    @property
    def fit(self) -> bool:
        """Whether it can still be asked."""
        return self._nft.fit

    def run(self, script: str) -> None:
        """Have nothing but what a script makes."""
        answer = self._nft.run(f"flush ruleset\n{script}")
        if not answer.done:
            raise ToolFailed(f"nft refused a transaction: {answer.reason}")

    def close(self) -> None:
        """Let the namespace go."""
        self._channel.close()
        self._nft.close()

    def there(self, kind: int, body: bytes = b"", family: int = 0) -> list[bytes]:
        """All there is of a kind, of one family or of all."""
        for _ in range(_QUESTION_TRIES):
            with suppress(DumpInterrupted):
                return self._channel.ask(raw_request(kind + GET, DUMP, family, body))
        raise DumpInterrupted


_apart = Single(_Apart, lambda apart: apart.fit)


def _within(message: bytes) -> bytes:
    """The family and the table of a thing: two may have sets of one name."""
    return bytes([family_of(message)]) + attributes_of(message)[TABLE_NAME]


def _again(message: bytes, usual: set[int], *more: bytes) -> bytes:
    """The request that makes what an answer tells of, whether it is there or not."""
    said = [attribute(name, value) for name, value in attributes_of(message).items() if name in usual]
    how = CREATE | (APPEND if kind_of(message) == RULE else 0)
    return raw_request(kind_of(message), how, family_of(message), b"".join([*said, *more]))


def _chain_again(message: bytes, devices: dict[str, str]) -> Iterator[bytes]:
    """A chain, emptied."""
    said = attributes_of(message)
    hook = said.get(_CHAIN_HOOK, b"")
    device = devices.get(text_of(said[CHAIN_NAME]))
    if device:
        numbers = [attribute(name, value) for name, value in attributes(hook).items() if name in _HOOK_NUMBERS]
        hook = b"".join([*numbers, attribute(_HOOK_DEVICE, string(device))])
    yield _again(message, _CHAIN_USUAL, *([nested(_CHAIN_HOOK, hook)] if hook else []))
    place = attribute(TABLE_NAME, said[TABLE_NAME]) + attribute(RULE_CHAIN, said[CHAIN_NAME])
    yield raw_request(DELETE_RULE, 0, family_of(message), place)


def _set_again(
    apart: _Apart, message: bytes, numbers: dict[bytes, int], filled: set[tuple[str, str]]
) -> Iterator[bytes]:
    """A set or map and its elements; `numbers` learns those of anonymous ones, `filled` has the others by table and name."""
    said = attributes_of(message)
    table, name, flags = said[TABLE_NAME], said[SET_NAME], int.from_bytes(said.get(_SET_FLAGS, b""), "big")
    called, number, place = name, bytes(4), attribute(TABLE_NAME, table)
    if flags & _ANONYMOUS:
        numbers[_within(message) + name] = assigned = next(_numbers)
        called, number = string("__map%d" if flags & _MAP else "__set%d"), assigned.to_bytes(4, "big")
    yield _again(message, _SET_USUAL, attribute(SET_NAME, called), attribute(_SET_ID, number))
    if flags & _ANONYMOUS or (text_of(table), text_of(name)) in filled:
        whose = place + attribute(SET_NAME, called) + attribute(_ELEMENTS_SET_ID, number)
        # a tree of intervals is told from its end, and kernels before 6.2 take a start after its end for an overlap
        way = -1 if flags & (_INTERVAL | _CONCATENATED) == _INTERVAL else 1
        for found in apart.there(ELEMENTS, place + attribute(SET_NAME, name), family_of(message))[::way]:
            elements = list(listed(attributes_of(found).get(ELEMENT_LIST, b"")))
            if elements:
                yield from _elements_again(found, whose, elements[::way])


def _elements_again(message: bytes, place: bytes, elements: list[bytes]) -> Iterator[bytes]:
    """What has a comment is added, deleted and added: one that is there would keep its earlier owner's."""
    body = place + nested(ELEMENT_LIST, *(nested(LIST_ITEM, item) for item in elements))
    made = raw_request(ELEMENTS, CREATE, family_of(message), body)
    yield made
    if any(_has_comment(attributes(item)) for item in elements):
        yield raw_request(DELETE_ELEMENTS, 0, family_of(message), body)
        yield made


def _has_comment(element: dict[int, bytes]) -> bool:
    """Userdata are types, lengths and values; libnftables has flags there, too (libnftnl/udata.h)."""
    return element.get(_ELEMENT_USERDATA, b"")[:1] == _UDATA_COMMENT


def _rule_again(message: bytes, numbers: dict[bytes, int]) -> bytes:
    expressions = attributes_of(message)[RULE_EXPRESSIONS]
    within = _within(message)
    again = (nested(LIST_ITEM, _expression_again(item, numbers, within)) for item in listed(expressions))
    return _again(message, _RULE_USUAL, nested(RULE_EXPRESSIONS, *again))


def _expression_again(expression: bytes, numbers: dict[bytes, int], within: bytes) -> bytes:
    """An expression; one that looks something up in an anonymous set says which by its number."""
    said = attributes(expression)
    if text_of(said[EXPRESSION_NAME]) != "lookup":
        return expression
    lookup = attributes(said[EXPRESSION_DATA])
    number = numbers.get(within + lookup[_LOOKUP_SET])
    if number is None:
        return expression
    lookup |= {_LOOKUP_SET: string("__set%d"), _LOOKUP_SET_ID: number.to_bytes(4, "big")}
    data = nested(EXPRESSION_DATA, *(attribute(name, value) for name, value in lookup.items()))
    return attribute(EXPRESSION_NAME, said[EXPRESSION_NAME]) + data
