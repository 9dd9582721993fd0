from __future__ import annotations

import random
import struct

import pytest

from cni.dnsgate.packet import ACKNOWLEDGED, FIN, RST, SYN, TCP, URGENT, Packet, read
from cni.dnsgate.stream import Outcome, Stream

POD, SERVER = bytes([10, 1, 0, 2]), bytes([192, 0, 2, 53])
GOOD, BAD = b"good question", b"bad question"
FIRST, FIRST_OF_SERVER = 4294967290, 77


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(item)) + item for item in messages)


def judge(wire: bytes) -> bytes | None:
    return None if wire.startswith(GOOD) else b"refused"


class Connection:
    """A stream with numbers given to what it sees, and what became of each."""

    def __init__(self, *, open_: bool = True) -> None:
        self.number = 0
        self.stream = Stream(self._client(SYN, b"", -1))
        self.passed: list[Packet] = []
        self.seen: dict[int, Packet] = {}
        self.heard: list[bytes] = []
        assert self.client(flags=SYN, at=-1).passing
        if open_:
            assert self.server(flags=SYN | ACKNOWLEDGED, at=-1).passing

    def client(self, data: bytes = b"", at: int = 0, flags: int = ACKNOWLEDGED) -> Outcome:
        segment = self._client(flags, data, at)
        return self._noted(segment, self.stream.ask(segment, self.number + 1, judge))

    def server(self, data: bytes = b"", at: int = 0, flags: int = ACKNOWLEDGED, acknowledged: int = 0) -> Outcome:
        sequence, heard = ((first + 1 + by) % (1 << 32) for first, by in ((FIRST_OF_SERVER, at), (FIRST, acknowledged)))
        segment = Packet(TCP, SERVER, POD, 53, 40000, data, sequence, heard, flags)
        return self._noted(segment, self.stream.tell(segment, self.number + 1, self._hear), of_client=False)

    def _hear(self, wire: bytes) -> bool:
        self.heard.append(wire)
        return not wire.startswith(b"lie")

    def _client(self, flags: int, data: bytes, at: int) -> Packet:
        return Packet(TCP, POD, SERVER, 40000, 53, data, (FIRST + 1 + at) % (1 << 32), FIRST_OF_SERVER + 1, flags)

    def _noted(self, segment: Packet, outcome: Outcome, *, of_client: bool = True) -> Outcome:
        self.number += 1
        if of_client:
            self.seen[self.number] = segment
            self.passed += (self.seen[number] for number in outcome.passing if number in self.seen)
        return outcome


def test_a_question_in_one_segment_passes_at_once():
    connection = Connection()
    assert connection.client(framed(GOOD)).passing == (3,)
    assert connection.server(framed(b"answer"), acknowledged=15).passing == (4,)
    assert connection.heard == [b"answer"]
    assert connection.client(flags=ACKNOWLEDGED | FIN, at=15).passing
    assert connection.server(flags=ACKNOWLEDGED | FIN, at=8, acknowledged=16).passing
    assert connection.client(at=16).passing


@pytest.mark.parametrize("size", [1, 2, 3, 7, 14])
def test_pieces_wait_until_they_are_a_whole_question_and_go_on_in_order(size: int):
    connection = Connection()
    data = framed(GOOD)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    waiting = [connection.client(piece, at * size) for at, piece in enumerate(pieces)]
    assert all(outcome == Outcome() for outcome in waiting[:-1])
    assert waiting[-1].passing == tuple(range(3, 3 + len(pieces)))


def test_a_refused_one_goes_nowhere_the_client_is_told_and_both_have_an_end():
    connection = Connection()
    connection.client(framed(BAD)[:5])
    outcome = connection.client(framed(BAD)[5:], 5)
    assert (outcome.passing, outcome.dropped) == ((), (3,))
    ((number, reset),) = outcome.instead
    assert number == 4
    assert read(reset) == Packet(
        TCP, POD, SERVER, 40000, 53, b"", (FIRST + 1) % (1 << 32), FIRST_OF_SERVER + 1, RST | ACKNOWLEDGED
    )
    answer = read(outcome.given[0])
    assert (answer.source, answer.port, answer.data) == (SERVER, 40000, framed(b"refused"))
    assert (answer.sequence, answer.acknowledged) == (FIRST_OF_SERVER + 1, (FIRST + 1 + 14) % (1 << 32))
    assert answer.flags & FIN
    last = connection.client(flags=ACKNOWLEDGED | FIN, at=14)
    assert last.dropped
    assert read(last.given[0]).acknowledged == (FIRST + 1 + 15) % (1 << 32)
    assert connection.client(framed(GOOD), 15).dropped
    assert connection.server(b"late").dropped


def test_with_a_good_one_in_front_nothing_of_it_passes():
    connection = Connection()
    outcome = connection.client(framed(GOOD, BAD))
    assert (outcome.passing, [number for number, _ in outcome.instead]) == ((), [3])


@pytest.mark.parametrize("data", [b"\x20\0x", framed(b"x" * 4097)])
def test_what_is_too_long_for_a_question_is_refused_before_it_is_whole(data: bytes):
    assert Connection().client(data).given


def test_what_comes_again_must_be_what_went_by():
    connection = Connection()
    connection.client(framed(GOOD))
    assert connection.client(framed(GOOD)).passing
    assert connection.client(framed(GOOD)[3:9], 3).passing
    assert connection.client(framed(BAD + b"!")).dropped
    assert connection.client(framed(GOOD) + b"more").dropped
    assert connection.client(b"x", -1).dropped
    connection.server(acknowledged=15)
    assert connection.client(framed(GOOD)).dropped
    assert connection.client(at=-1).passing, "who asks whether anybody is there"


def test_what_is_ahead_or_urgent_or_begins_with_data_does_not_pass():
    connection = Connection()
    assert connection.client(framed(GOOD), 1).dropped
    assert connection.client(at=1).dropped
    assert connection.client(framed(GOOD), flags=ACKNOWLEDGED | URGENT).dropped
    assert connection.client(framed(GOOD), flags=SYN).dropped
    assert connection.client(framed(GOOD), flags=RST).dropped
    assert connection.client(framed(GOOD)).passing


def test_an_end_with_the_question_counts_as_one():
    connection = Connection()
    assert connection.client(framed(GOOD), flags=ACKNOWLEDGED | FIN).passing
    assert connection.client(framed(GOOD), flags=ACKNOWLEDGED | FIN).passing, "sent again"
    assert connection.client(at=16).passing
    assert connection.client(framed(GOOD), 16).dropped
    assert connection.server(framed(b"answer"), acknowledged=16).passing


def test_an_answer_in_pieces_passes_and_is_heard_before_its_last():
    connection = Connection()
    connection.client(framed(GOOD))
    data = framed(b"first", b"second")
    for at, byte in enumerate(data):
        assert connection.server(bytes([byte]), at).passing
        assert len(connection.heard) == (at >= 6) + (at >= len(data) - 1)
    assert connection.server(data[3:], 3).passing, "sent again"
    assert connection.server(b"gap", len(data) + 1).dropped


def test_an_answer_that_was_never_asked_for_ends_it():
    connection = Connection()
    connection.client(framed(GOOD))
    outcome = connection.server(framed(b"lie"))
    assert outcome.dropped
    assert read(outcome.given[0]).flags & RST
    assert connection.server(framed(b"answer"), 5).dropped


def test_nothing_passes_before_the_server_said_where_it_begins():
    connection = Connection(open_=False)
    assert connection.client(framed(GOOD)).dropped
    assert connection.server(flags=ACKNOWLEDGED, acknowledged=7).passing, "it has another connection, and says so"
    assert connection.client(framed(GOOD)).dropped
    assert connection.server(flags=SYN | ACKNOWLEDGED, at=-1, acknowledged=7).dropped
    assert connection.server(flags=SYN, at=-1).dropped
    assert connection.client(framed(GOOD)).dropped
    assert connection.server(flags=SYN | ACKNOWLEDGED, at=-1).passing
    assert connection.client(framed(GOOD)).passing


def test_data_of_which_the_server_reads_another_order_does_not_pass():
    connection = Connection()
    segment = connection._client(ACKNOWLEDGED, framed(GOOD), 0)._replace(multipath=True)
    assert connection.stream.ask(segment, 9, judge).dropped


def test_a_beginning_that_comes_again_has_no_answer_heard_twice():
    connection = Connection()
    connection.client(framed(GOOD))
    connection.server(framed(b"answer"))
    assert connection.server(flags=SYN | ACKNOWLEDGED, at=-1).passing
    assert connection.server(framed(b"answer")).passing
    assert connection.heard == [b"answer"]


def test_what_waits_is_dropped_with_an_end():
    connection = Connection()
    connection.client(framed(GOOD)[:5])
    assert connection.stream.waiting == (3,)
    assert set(connection.server(framed(b"lie")).dropped) == {3, 4}
    assert connection.stream.waiting == ()


@pytest.mark.parametrize("seed", range(40))
def test_whoever_gets_what_passed_reads_good_questions_and_nothing_else(seed: int):
    """A client that sends what it likes, and a receiver that loses and reorders what it likes."""
    chance = random.Random(seed)
    connection = Connection()
    text = b"".join(framed(chance.choice([GOOD, GOOD, GOOD + b"!"])) for _ in range(6)) + framed(BAD)
    other = bytes(chance.randrange(256) for _ in range(len(text)))
    for _ in range(400):
        begin = chance.randrange(len(text))
        data = chance.choice([text, text, text, other])[begin : begin + chance.randint(0, 30)]
        flags = chance.choice([ACKNOWLEDGED] * 20 + [ACKNOWLEDGED | URGENT, SYN, FIN])
        if flags != FIN or data:
            connection.client(data, begin, flags)
        if chance.random() < 0.1:
            known = max((begin_of(item) + len(item.data) for item in connection.passed), default=0)
            connection.server(acknowledged=chance.randint(0, known))
    bytes_at: dict[int, int] = {}
    for item in connection.passed:
        for at, byte in enumerate(item.data, begin_of(item)):
            assert bytes_at.setdefault(at, byte) == byte
    whole = bytes(bytes_at[at] for at in sorted(bytes_at))
    assert [*sorted(bytes_at)] == [*range(len(bytes_at))]
    while whole:
        length = int.from_bytes(whole[:2], "big")
        assert judge(whole[2 : 2 + length]) is None
        assert len(whole) >= 2 + length
        whole = whole[2 + length :]


def begin_of(segment: Packet) -> int:
    return (segment.sequence - FIRST - 1) % (1 << 32)


def test_of_answers_to_thousands_of_questions_at_once_what_fits_a_packet_is_told():
    """More than a packet holds ended the gate."""
    connection = Connection()
    outcome = connection.client(framed(*[BAD] * 4000))
    (answer,) = map(read, outcome.given)
    assert answer.data.startswith(framed(b"refused"))
    assert len(answer.data) < 1 << 14
    assert not outcome.passing
