from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable
from contextlib import suppress

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import dns.wire
import pytest

from cni.dnsgate import message
from cni.dnsgate.message import A, Name, _Names, answer


def labels(text: str) -> Name:
    return tuple(label.encode() for label in text.split("."))


def asked(name: str = "api.example.com", kind: str = "A", **keys: object) -> bytes:
    return dns.message.make_query(name, kind, **keys).to_wire()


def answered(question: bytes, *sets: tuple[str, int, str, tuple[str, ...]]) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(question))
    response.answer += [dns.rrset.from_text(name, ttl, "IN", kind, *data) for name, ttl, kind, data in sets]
    return response.to_wire()


def test_a_question_is_read_in_whatever_case():
    found = message.question(asked("API.Example.com", "AAAA"))
    assert (found.name, found.kind, found.edns) == (labels("api.example.com"), 28, False)
    assert message.question(asked(use_edns=0, payload=4096, want_dnssec=True)).edns


def test_a_name_may_hold_any_byte():
    name = dns.name.Name([b"a.b\0\xff", b"example", b"com", b""])
    found = message.question(dns.message.make_query(name, "A").to_wire())
    assert found.name == (b"a.b\0\xff", b"example", b"com")
    assert message.text_of(found.name) == "a\\046b\\000\\255.example.com"


HEADER = bytes.fromhex("004d01000001000000000000")
QUESTION = b"\3api\7example\3com\0\0\1\0\1"


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        HEADER[:11],
        HEADER,
        HEADER + QUESTION[:-1],
        HEADER + QUESTION + b"x",
        bytes.fromhex("004d81000001000000000000") + QUESTION,
        bytes.fromhex("004d28000001000000000000") + QUESTION,
        bytes.fromhex("004d01000002000000000000") + QUESTION * 2,
        bytes.fromhex("004d01000000000000000000"),
        bytes.fromhex("004d01000001000100000000") + QUESTION + QUESTION + b"\0\0\0\1\0\0",
        bytes.fromhex("004d01000001000000000003") + QUESTION + b"\0\0\x29\x10\0\0\0\0\0\0\0" * 3,
        HEADER + b"\xc0\x0c\0\1\0\1",
        HEADER + b"\3api\xc0\x0c\0\1\0\1",
        HEADER + b"\x40api\0\0\1\0\1",
        HEADER + b"\3api\7example\3com\0\0\1\0\3",
        HEADER + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
    ],
    ids=[
        "nothing", "half a header", "a header", "cut", "more behind it", "a response", "an update", "two", "none", "an answer in it",
        "three behind it", "a name that is itself", "one that goes round", "an odd label", "of another class", "too long a name",
    ],
)  # fmt: skip
def test_what_is_no_plain_question_is_none(wire: bytes):
    assert message.question(wire) is None


def test_an_answers_addresses_are_the_asked_names_through_every_alias_with_the_least_time_to_live():
    wire = answered(
        asked(),
        ("other.example.", 5, "A", ("192.0.2.9",)),
        ("b.cdn.example.", 40, "A", ("192.0.2.1", "192.0.2.2")),
        ("a.cdn.example.", 30, "CNAME", ("b.cdn.example.",)),
        ("api.example.com.", 300, "CNAME", ("A.cdn.example.",)),
    )
    found = message.answer(wire)
    assert sorted(found.addresses) == [(bytes([192, 0, 2, 1]), 30), (bytes([192, 0, 2, 2]), 30)]
    assert found.question.asks_as(message.question(asked())._replace(id=found.question.id))


def test_aliases_that_go_round_and_long_chains_end():
    round_ = answered(
        asked(), ("api.example.com.", 1, "CNAME", ("b.example.",)), ("b.example.", 1, "CNAME", ("api.example.com.",))
    )
    assert message.answer(round_).addresses == ()
    chain = [("api.example.com.", 1, "CNAME", ("n0.example.",))]
    chain += [(f"n{at}.example.", 1, "CNAME", (f"n{at + 1}.example.",)) for at in range(40)]
    assert message.answer(answered(asked(), *chain, ("n40.example.", 1, "A", ("192.0.2.1",)))).addresses == ()


def test_of_other_sections_and_of_an_odd_length_nothing_is_taken():
    response = dns.message.make_response(dns.message.from_wire(asked()))
    response.additional.append(dns.rrset.from_text("api.example.com.", 60, "IN", "A", "192.0.2.1"))
    response.authority.append(dns.rrset.from_text("api.example.com.", 60, "IN", "A", "192.0.2.2"))
    assert message.answer(response.to_wire()).addresses == ()
    odd = bytes.fromhex("004d81800001000100000000") + QUESTION + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\5\1\2\3\4\5"
    assert message.answer(odd).addresses == ()


def test_an_answer_that_was_cut_to_fit_is_read_as_far_as_it_goes():
    wire = bytearray(answered(asked(), ("api.example.com.", 60, "A", ("192.0.2.1",))))
    wire[2] |= 0x02
    wire[7] = 9
    assert message.answer(bytes(wire)).addresses == ((bytes([192, 0, 2, 1]), 60),)
    wire[2] &= ~0x02
    assert message.answer(bytes(wire)) is None


@pytest.mark.parametrize("edns", [False, 0])
@pytest.mark.parametrize("code", [dns.rcode.REFUSED, dns.rcode.NXDOMAIN])
def test_what_is_answered_at_once_is_a_response_others_read(edns: object, code: dns.rcode.Rcode):
    question = dns.message.make_query("api.example.com", "A", use_edns=edns)
    read = dns.message.from_wire(message.response(message.question(question.to_wire()), int(code), "why not"))
    assert question.is_response(read)
    assert read.rcode() == code
    assert (read.edns >= 0) is (edns is not False)
    if edns is not False:
        (said,) = read.options
        assert (said.code, said.text) == (dns.edns.EDECode.PROHIBITED, "why not")


def test_no_bytes_are_too_odd_to_be_read():
    chance = random.Random(23)
    good = [asked(), asked(use_edns=0), answered(asked(), ("api.example.com.", 60, "A", ("192.0.2.1",)))]
    for _ in range(3000):
        wire = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 6)):
            wire[chance.randrange(len(wire))] = chance.randrange(256)
        wire = wire[: chance.randint(0, len(wire))] if chance.random() < 0.3 else wire
        for read in (message.question, message.answer):
            read(bytes(wire))
        assert isinstance(message.malformed(bytes(wire)), bytes)


def crowded(refer: Callable[[int, int], bytes], count: int = 4000) -> bytes:
    """An answer of many records, whose names `refer` makes of a record's number and of where the one before begins."""
    wire = b"\x03api\x07example\x03com\0" + struct.pack("!HH", A, 1)
    wire = struct.pack("!HHHHHH", 1, 0x8180, 1, count, 0, 0) + wire
    before = 12
    for number in range(count):
        begins = len(wire)
        wire += refer(number, before) + struct.pack("!HHIHI", A, 1, 5, 4, number)
        before = begins if begins < 0x3FFF else before
    return wire


@pytest.mark.parametrize("refer", [
    lambda number, before: b"\x01a" * 100 + b"\xc0\x0c" if number == 0 else struct.pack("!H", 0xC000 | before),
    lambda number, before: (b"\x01a" if number % 100 else b"") + struct.pack("!H", 0xC000 | (before if number % 100 else 12)),
    lambda number, before: struct.pack("!H", 0xC000 | before),
], ids=["to a long one", "a label more each", "to a reference"])  # fmt: skip
def test_an_answer_costs_what_its_length_is_however_its_names_refer_to_each_other(refer: Callable[[int, int], bytes]):
    wire = crowded(refer)
    before = time.process_time()
    found = answer(wire)
    assert found is not None
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize("seed", range(20))
def test_names_are_read_as_dnspython_reads_them(seed: int):
    chance = random.Random(seed)
    whole = bytes(chance.choice((0, 1, 1, 2, 3, 0xC0, 0xC0, 12, 13, 14, 20, 65, 97)) for _ in range(80))
    for at in range(len(whole)):
        parser = dns.wire.Parser(whole, at)
        try:
            expected = tuple(label.lower() for label in parser.get_name(decompress=True).labels[:-1]), parser.current
        except dns.exception.DNSException:
            continue  # it also refuses names that run on into their own references
        names = _Names(whole)
        for place in chance.sample(range(len(whole)), 30):
            with suppress(dns.exception.DNSException, IndexError):
                names.read(place)
        assert names.read(at) == expected


@pytest.mark.parametrize("wire", [
    b"\xc0\0", b"\1a\xc0\0", b"\xc0\2\0", b"\1a", b"\x40a\0", b"\x80a\0", b"\1a" * 127 + b"\1b\0",
], ids=["itself", "a loop", "ahead", "cut", "of another kind", "of no kind", "too long"])  # fmt: skip
def test_a_name_that_is_none_is_not_read(wire: bytes):
    with pytest.raises((dns.exception.DNSException, IndexError)):
        _Names(wire).read(0)
