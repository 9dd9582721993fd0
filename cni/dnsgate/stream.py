"""Messages in a TCP connection between a pod and its server (RFC 7766), judged before they are whole at the other end. Pure.

Of what a client sends nothing passes that could be read in two ways: each byte once, in order; what comes again must be what went by.
Whatever was dropped is sent again by who sent it, which is TCP's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from cni.dnsgate.packet import ACKNOWLEDGED, FIN, PUSH, RST, SYN, URGENT, Packet, made

#: The longest question, in bytes, how much of what passed is remembered until the server says that it has it, and how much of answers to
#: many questions at once is told: it has to fit one packet.
_LONGEST_QUESTION, _REMEMBERED, _TOLD = 4096, 1 << 16, 1 << 14
_WRAP = 1 << 32

#: What a question, without its length, is answered at once; nothing where it passes.
Judge = Callable[[bytes], bytes | None]
#: Whether an answer may pass.
Hear = Callable[[bytes], bool]


class Outcome(NamedTuple):
    """What becomes of packets: the numbers of those that pass and that do not, what goes on `instead` of one, by its number,
    and what the client gets.
    """

    passing: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    instead: tuple[tuple[int, bytes], ...] = ()
    given: tuple[bytes, ...] = ()


class Stream:
    """One connection, from its first segment on."""

    def __init__(self, synchronising: Packet) -> None:
        self._asked = (synchronising.sequence + 1) % _WRAP
        self._told: int | None = None
        self._question, self._answer = b"", b""
        self._waiting: list[int] = []
        #: What passed and the server has not acknowledged, up to the next byte.
        self._passed = b""
        self._dead = self._ended = False

    @property
    def waiting(self) -> tuple[int, ...]:
        """The numbers of those of which nothing was said: who lets go of the connection has to drop them."""
        return tuple(self._waiting)

    def begins_like(self, synchronising: Packet) -> bool:
        """Whether a first segment is this one's, sent again."""
        return not self._dead and (synchronising.sequence + 1) % _WRAP == self._asked and not self._passed

    def ask(self, segment: Packet, number: int, judge: Judge) -> Outcome:
        """A client's segment. Urgent data is no question: who gets it may read one byte less (RFC 6093). Nor is what the server did not
        say to begin where this does: it may have the beginning from a connection before.
        """
        if self._dead:
            return Outcome(dropped=(number,), given=self._farewell(segment))
        if segment.flags & URGENT or segment.multipath:
            return Outcome(dropped=(number,))
        if segment.data and (segment.flags & (SYN | RST) or self._told is None):
            return Outcome(dropped=(number,))
        if not segment.data:
            return self._quiet(segment, number)
        if segment.sequence != self._asked or self._ended:
            return Outcome(passing=(number,)) if self._is_repeated(segment) else Outcome(dropped=(number,))
        self._asked = (self._asked + len(segment.data)) % _WRAP
        self._question += segment.data
        self._waiting.append(number)
        outcome = self._judged(segment, judge)
        if segment.flags & FIN and not self._dead:
            self._end()
        return outcome

    def tell(self, segment: Packet, number: int, hear: Hear) -> Outcome:
        """A server's segment."""
        if self._dead:
            return Outcome(dropped=(number,))
        if segment.flags & ACKNOWLEDGED:
            self._acknowledge(segment.acknowledged)
        if segment.flags & SYN and self._told is None:
            if not segment.flags & ACKNOWLEDGED or segment.acknowledged != self._asked:
                return Outcome(dropped=(number,))
            self._told = (segment.sequence + 1) % _WRAP
        if not segment.data or segment.flags & RST:
            return Outcome(passing=(number,))
        known = -1 if self._told is None or segment.flags & SYN else _ahead(self._told, segment.sequence)
        if self._told is None or known < 0:
            return Outcome(dropped=(number,))
        self._answer += segment.data[known:]
        self._told = (self._told + len(segment.data[known:])) % _WRAP
        messages, self._answer = _messages(self._answer)
        if all(hear(message) for message in messages):
            return Outcome(passing=(number,))
        dropped = number, *self._waiting
        self._dead, self._waiting = True, []
        reset = segment._replace(data=b"", flags=RST | ACKNOWLEDGED)
        return Outcome(dropped=dropped, given=(made(reset),))

    def _acknowledge(self, number: int) -> None:
        """The server has what is before: it is not to come again."""
        left = max(_ahead(self._asked, number) - len(self._question), 0)
        self._passed = self._passed[max(len(self._passed) - left, 0) :]

    def _quiet(self, segment: Packet, number: int) -> Outcome:
        """What has no data says nothing, but that there is no more."""
        ahead = _ahead(segment.sequence, self._asked)
        if segment.flags & (SYN | RST):
            return Outcome(passing=(number,))
        if ahead > 0 or (segment.flags & FIN and self._waiting):
            return Outcome(dropped=(number,))
        if segment.flags & FIN and ahead == 0 and not self._ended:
            self._end()
        return Outcome(passing=(number,))

    def _end(self) -> None:
        """The end has a sequence number of its own."""
        self._ended = True
        self._asked = (self._asked + 1) % _WRAP
        self._passed += b"\0"

    def _judged(self, segment: Packet, judge: Judge) -> Outcome:
        messages, rest = _messages(self._question)
        if rest and len(rest) > 2 and int.from_bytes(rest[:2], "big") > _LONGEST_QUESTION:
            return self._refused(segment, b"")
        answers = [judge(message) for message in messages]
        if any(answer is not None for answer in answers):
            said = b""
            for answer in filter(None, answers):
                said += len(answer).to_bytes(2, "big") + answer if len(said) + len(answer) < _TOLD else b""
            return self._refused(segment, said)
        if rest:
            return Outcome()
        self._passed = (self._passed + self._question)[-_REMEMBERED:]
        passing, self._question, self._waiting = tuple(self._waiting), b"", []
        return Outcome(passing=passing)

    def _refused(self, segment: Packet, said: bytes) -> Outcome:
        """The client is told and gets an end, the server as well: it never sees what was asked."""
        first = (self._asked - len(self._question)) % _WRAP
        reset = made(segment._replace(data=b"", sequence=first, flags=RST | ACKNOWLEDGED))
        *others, last = self._waiting
        sequence = self._told or 0
        answer = Packet(
            segment.protocol, segment.target, segment.source, segment.port, segment.source_port, said, sequence,
            self._asked, ACKNOWLEDGED | PUSH | FIN,
        )  # fmt: skip
        self._dead, self._waiting = True, []
        return Outcome(dropped=tuple(others), instead=((last, reset),), given=(made(answer),))

    def _farewell(self, segment: Packet) -> tuple[bytes, ...]:
        """A client that ends a refused connection is told that its end was heard."""
        if not segment.flags & FIN:
            return ()
        heard = (segment.sequence + len(segment.data) + 1) % _WRAP
        ended = Packet(
            segment.protocol, segment.target, segment.source, segment.port, segment.source_port, b"",
            segment.acknowledged, heard, ACKNOWLEDGED,
        )  # fmt: skip
        return (made(ended),)

    def _is_repeated(self, segment: Packet) -> bool:
        """Whether what comes again is what passed."""
        begin = _ahead(self._asked, segment.sequence) - len(self._question)
        end = begin - len(segment.data)
        if not 0 <= end <= begin <= len(self._passed):
            return False
        return self._passed[len(self._passed) - begin : len(self._passed) - end] == segment.data


def unknown(segment: Packet) -> bytes:
    """What ends a connection for a client of which nobody here saw the beginning."""
    return made(
        Packet(
            segment.protocol, segment.target, segment.source, segment.port, segment.source_port, b"",
            segment.acknowledged, (segment.sequence + len(segment.data)) % _WRAP, RST | ACKNOWLEDGED,
        )
    )  # fmt: skip


def _messages(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages, each of which had its length before it, and what is left."""
    found = list(_each(data))
    return found, data[sum(len(item) + 2 for item in found) :]


def _each(data: bytes) -> Iterator[bytes]:
    at = 0
    while len(data) - at >= 2:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            return
        yield data[at + 2 : end]
        at = end


def _ahead(one: int, other: int) -> int:
    """By how many bytes a sequence number is ahead of another one (RFC 9293, 3.4)."""
    return ((one - other + (_WRAP >> 1)) % _WRAP) - (_WRAP >> 1)
