"""The kernel's side of a netlink socket, played by a list of datagrams."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cni.errors import KernelRefused, Unfinished
from cni.kernel.netlink import channel
from cni.kernel.netlink.channel import Channel, DumpInterrupted
from cni.kernel.netlink.handle import Handle
from cni.kernel.netlink.links import link_of

NEWLINK, ERROR, DONE = 16, 2, 3
CAPPED, WITH_TEXT, INTERRUPTED, ACKNOWLEDGE = 0x100, 0x200, 0x10, 0x04


def message(kind: int, sequence: int, body: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def acknowledged(sequence: int, error: int = 0, said: str = "") -> bytes:
    body = struct.pack("=i", -error) + bytes(16)
    text = said.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), 1) + text if said else b""
    padded = attribute + bytes(-len(attribute) % 4)
    return message(ERROR, sequence, body + padded, CAPPED | (WITH_TEXT if said else 0))


class FakeSocket:
    def __init__(self, *_: Any) -> None:
        self.sent: list[bytes] = []
        self.answers: list[bytes] = []
        self.silent = False
        self.options: list[tuple[Any, ...]] = []

    def bind(self, address: tuple[int, int]) -> None: ...
    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)

    def close(self) -> None: ...

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, size: int) -> bytes:
        if self.silent:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return self.answers.pop(0)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeSocket:
    fake = FakeSocket()
    monkeypatch.setattr(channel.socket, "socket", lambda *_: fake)
    return fake


def request() -> bytes:
    return message(18, 0, flags=ACKNOWLEDGE)


def end() -> bytes:
    return message(16, 0)


def test_a_request_gets_a_number_and_its_answers(kernel: FakeSocket):
    kernel.answers = [message(NEWLINK, 1, b"one."), acknowledged(1)]
    assert [item[16:] for item in Channel().ask(request())] == [b"one."]
    assert kernel.sent == [message(18, 1, flags=ACKNOWLEDGE)]


def test_several_requests_go_out_together_and_all_are_waited_for(kernel: FakeSocket):
    kernel.answers = [acknowledged(1) + message(NEWLINK, 2, b"two."), acknowledged(2)]
    assert len(Channel().ask(request(), request())) == 1
    assert kernel.sent == [message(18, 1, flags=ACKNOWLEDGE) + message(18, 2, flags=ACKNOWLEDGE)]
    assert kernel.answers == []


def test_a_question_is_answered_by_its_answer_or_an_error(kernel: FakeSocket):
    made = Channel()
    kernel.answers = [message(NEWLINK, 9, b"late"), message(NEWLINK, 1, b"one."), acknowledged(2, 19, "no such")]
    assert made.question(request())[16:] == b"one."
    assert kernel.sent == [message(18, 1)]
    with pytest.raises(KernelRefused, match="no such"):
        made.question(request())


def test_a_socket_left_in_the_middle_of_an_answer_is_not_at_rest(kernel: FakeSocket):
    made = Channel()
    kernel.answers = [message(NEWLINK, 1, b"one.")]
    with pytest.raises(IndexError):
        made.ask(request())
    assert not made.at_rest


def test_what_the_socket_refuses_is_the_kernels_refusal(kernel: FakeSocket, monkeypatch: pytest.MonkeyPatch):
    def overrun(size: int) -> bytes:
        raise OSError(105, "No buffer space available")

    made = Channel()
    monkeypatch.setattr(kernel, "recv", overrun)
    with pytest.raises(KernelRefused, match="No buffer space"):
        made.ask(request())


def test_the_ends_of_a_transaction_are_not_waited_for(kernel: FakeSocket):
    kernel.answers = [acknowledged(2)]
    assert Channel().ask(end(), request(), end()) == []


def test_a_refused_transaction_is_not_waited_for_at_all(kernel: FakeSocket):
    kernel.answers = [acknowledged(1, 12)]
    with pytest.raises(KernelRefused, match="Cannot allocate memory"):
        Channel().ask(end(), request(), end())


def test_a_dump_ends_with_done(kernel: FakeSocket):
    kernel.answers = [message(NEWLINK, 1, b"a   ", 2) + message(NEWLINK, 1, b"b   ", 2), message(DONE, 1, bytes(4), 2)]
    assert [item[16:] for item in Channel().ask(request())] == [b"a   ", b"b   "]


def test_a_dump_that_changed_meanwhile_is_no_answer(kernel: FakeSocket):
    kernel.answers = [message(NEWLINK, 1, b"a   ", 2), message(DONE, 1, bytes(4), 2 | INTERRUPTED)]
    with pytest.raises(DumpInterrupted):
        Channel().ask(request())


@pytest.mark.parametrize(("said", "expected"), [("", "No such device"), ("Name not unique", "Name not unique")])
def test_a_refusal_has_the_kernels_words(kernel: FakeSocket, said: str, expected: str):
    kernel.answers = [acknowledged(1, 19, said)]
    with pytest.raises(KernelRefused) as refused:
        Channel().ask(request())
    assert (refused.value.msg, refused.value.errno) == (expected, 19)


def test_a_dump_can_be_refused_at_its_end(kernel: FakeSocket):
    kernel.answers = [message(DONE, 1, struct.pack("=i", -22), 2)]
    with pytest.raises(KernelRefused, match="Invalid argument"):
        Channel().ask(request())


def test_the_first_refusal_counts_and_nothing_stays_unread(kernel: FakeSocket):
    kernel.answers = [acknowledged(1, 19), acknowledged(2, 17)]
    with pytest.raises(KernelRefused, match="No such device"):
        Channel().ask(request(), request())
    assert kernel.answers == []


def test_an_answer_to_an_earlier_request_is_not_taken_for_ours(kernel: FakeSocket):
    kernel.answers = [acknowledged(7, 19), acknowledged(1)]
    assert Channel().ask(request()) == []


def test_each_refused_change_is_told_apart(kernel: FakeSocket):
    kernel.answers = [acknowledged(1), acknowledged(2, 17, "there") + acknowledged(3)]
    first, second, third = Channel().refusals([request(), request(), request()])
    assert (first, third) == (None, None)
    assert second is not None
    assert (second.msg, second.errno) == ("there", 17)
    assert len(kernel.sent) == 1


def test_more_changes_than_a_queue_has_acknowledgements_for_go_out_in_parts(kernel: FakeSocket):
    kernel.answers = [b"".join(map(acknowledged, range(first, first + 50))) for first in (1, 51, 101, 151)]
    kernel.answers += [acknowledged(201, 17, "there") + acknowledged(202)]
    refused = Channel().refusals([request() for _ in range(202)])
    assert [number for number, error in enumerate(refused) if error] == [200]
    assert len(kernel.sent) == 5


def test_no_change_is_none_that_is_refused(kernel: FakeSocket):
    made = Handle()
    asked_in_a_batch(made)
    assert kernel.sent == []


def asked_in_a_batch(made: Handle, *whats: str, error: Exception | None = None) -> None:
    with made.batch():
        for what in whats:
            made._change(request(), what, 17 if what == "tolerant" else None)
        if error:
            raise error


def test_changes_made_together_go_out_in_one_system_call(kernel: FakeSocket):
    made = Handle()
    kernel.answers = [acknowledged(1, 17) + acknowledged(2, 19, "gone") + acknowledged(3, 1)]
    with pytest.raises(KernelRefused, match=r"^second: gone$"):
        asked_in_a_batch(made, "tolerant", "second", "third")
    assert len(kernel.sent) == 1
    kernel.answers = [acknowledged(4)]
    made._change(request(), "alone")
    assert len(kernel.sent) == 2


def test_what_was_to_be_asked_in_a_batch_is_not_asked_after_a_failure(kernel: FakeSocket):
    made = Handle()
    with pytest.raises(KeyError):
        asked_in_a_batch(made, "first", error=KeyError())
    assert kernel.sent == []
    kernel.answers = [acknowledged(1)]
    made._change(request(), "another")
    assert len(kernel.sent) == 1


def test_a_table_that_is_not_there_has_nothing(kernel: FakeSocket):
    kernel.answers = [acknowledged(1, 2, "ipv4: FIB table does not exist"), acknowledged(2, 22)]
    made = Handle()
    assert made._dump(request()) == []
    with pytest.raises(KernelRefused, match="rtnetlink dump: Invalid argument"):
        made._dump(request())


@pytest.mark.parametrize("call", ["socket", "bind", "setsockopt"])
def test_a_socket_that_is_refused_names_the_call_and_leaves_none_open(
    kernel: FakeSocket, monkeypatch: pytest.MonkeyPatch, call: str
):
    def refused(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    closed: list[bool] = []
    monkeypatch.setattr(kernel, "close", lambda: closed.append(True))
    monkeypatch.setattr(*((channel.socket, "socket") if call == "socket" else (kernel, call)), refused)
    with pytest.raises(KernelRefused, match=rf"^netlink: {call}.*: Operation not permitted$") as caught:
        Channel()
    assert caught.value.errno == 1
    assert closed == ([] if call == "socket" else [True])


def test_a_link_that_cannot_be_looked_up_is_not_taken_for_none(kernel: FakeSocket, monkeypatch: pytest.MonkeyPatch):
    answers = iter([OSError(19, "No such device"), OSError(12, "Cannot allocate memory")])

    def asked(*_: Any) -> bytes:
        raise next(answers)

    monkeypatch.setattr(channel.fcntl, "ioctl", asked)
    made = Channel()
    assert made.link_index("eth0") == 0
    with pytest.raises(KernelRefused, match="ioctl for eth0: Cannot allocate memory"):
        made.link_index("eth0")


def test_a_change_whose_answer_is_not_heard_may_have_been_made(kernel: FakeSocket, monkeypatch: pytest.MonkeyPatch):
    def unheard(size: int) -> bytes:
        raise OSError(12, "Cannot allocate memory")

    made = Handle()
    monkeypatch.setattr(kernel, "recv", unheard)
    with pytest.raises(Unfinished, match="create veth: netlink: Cannot allocate memory"):
        made._change(request(), "create veth")


@pytest.mark.parametrize("length", [0, 3, 15, 17, 1 << 31])
def test_a_message_of_another_length_than_there_is_is_refused(kernel: FakeSocket, length: int):
    kernel.answers = [struct.pack("=IHHII", length, NEWLINK, 0, 1, 0)]
    with pytest.raises(KernelRefused, match="is cut off"):
        Channel().ask(request())


def test_a_message_without_what_each_of_its_kind_has_is_refused(kernel: FakeSocket):
    kernel.answers = [message(NEWLINK, 1, bytes(16)), acknowledged(1)]
    with pytest.raises(KernelRefused, match="is not understood: KeyError"):
        link_of(Channel().ask(request())[0])


@pytest.mark.parametrize("error", [1 << 31, 5])
def test_an_acknowledgement_that_is_no_error_of_the_kernels_is_refused(kernel: FakeSocket, error: int):
    body = struct.pack("=I", (1 << 32) - error) + bytes(16)
    kernel.answers = [message(ERROR, 1, body if error > 5 else body[:2])]
    with pytest.raises(KernelRefused, match=r"is not understood|is cut off"):
        Channel().ask(request())


def test_an_answer_that_never_comes_is_not_waited_for_without_end(kernel: FakeSocket):
    opened, kernel.silent = Channel(), True
    assert (channel.socket.SOL_SOCKET, channel.socket.SO_RCVTIMEO, struct.pack("@ll", 30, 0)) in kernel.options
    with pytest.raises(Unfinished, match="netlink: no answer within 30 s"):
        opened.ask(request())
    assert not opened.at_rest
