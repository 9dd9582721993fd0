from __future__ import annotations

import dns.message
import dns.rcode
import dns.rrset
import pytest

from cni.dnsgate.gate import Gate
from cni.dnsgate.guest import Guest
from cni.dnsgate.message import Answer, Name, Question, text_of
from cni.dnsgate.packet import ACKNOWLEDGED, RST, SYN, TCP, UDP, Packet, made, read
from cni.dnsgate.reached import Reached
from cni.kernel.gatedir import Entry
from cni.kernel.nfqueue import Held, Verdict

POD, OTHER, SERVER = bytes([10, 1, 0, 2]), bytes([10, 1, 0, 3]), bytes([192, 0, 2, 53])
MAC = b"\n\x58\n\1\0\2"
PREROUTING, LOCAL_IN, LOCAL_OUT, POSTROUTING = 0, 1, 3, 4


class Scene:
    """A gate for one pod, what it admitted and refused."""

    def __init__(self, *rules: str, admits: bool = True, **keys: object) -> None:
        self.admitted: list[tuple[str, Answer]] = []
        self.refused: list[str] = []
        self.admits = admits
        self.gate = Gate(self._admit, self._refuse)
        self.pod = Reached(Guest(Entry("0123456789a", "default/agent", ("10.1.0.2",), "veth0", rules, **keys)))
        self.gate.go_by([self.pod])

    def _admit(self, pod: Reached, name: Name, answer: Answer, now: float) -> bool:
        self.admitted.append((text_of(name), answer))
        return self.admits

    def _refuse(self, pod: Reached, question: Question) -> None:
        self.refused.append(text_of(question.name))

    def ask(
        self,
        wire: bytes,
        source: bytes = POD,
        port: int = 40000,
        server: bytes = SERVER,
        hook: int = PREROUTING,
        now: float = 0,
    ):
        return self.pass_(Packet(UDP, source, server, port, 53, wire), hook, now)

    def tell(
        self,
        wire: bytes,
        target: bytes = POD,
        port: int = 40000,
        server: bytes = SERVER,
        hook: int = POSTROUTING,
        now: float = 0,
    ):
        return self.pass_(Packet(UDP, server, target, 53, port, wire), hook, now)

    def pass_(self, packet: Packet, hook: int, now: float = 0):
        ((verdict,), given) = self.gate.decide([Held(9, hook, made(packet), MAC)], now)
        assert verdict.number == 9
        return verdict.goes_on, [(read(item.packet), item.mac) for item in given]


def question(name: str = "api.example.com", number: int = 77, **keys: object) -> bytes:
    asked = dns.message.make_query(name, "A", **keys)
    asked.id = number
    return asked.to_wire()


def answer(wire: bytes, address: str = "198.51.100.7", name: str = "api.example.com.") -> bytes:
    response = dns.message.make_response(dns.message.from_wire(wire))
    response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", address))
    return response.to_wire()


@pytest.mark.parametrize(("coming", "going"), [(PREROUTING, POSTROUTING), (LOCAL_OUT, LOCAL_IN)])
def test_an_allowed_question_passes_and_its_answer_once_it_is_admitted(coming: int, going: int):
    scene = Scene("api.example.com")
    assert scene.ask(question(), hook=coming) == (True, [])
    assert scene.tell(answer(question()), hook=going) == (True, [])
    ((name, told),) = scene.admitted
    assert (name, told.addresses) == ("api.example.com", ((bytes([198, 51, 100, 7]), 60),))
    assert scene.tell(answer(question()), hook=going) == (False, []), "once"


def test_a_question_that_is_not_allowed_is_answered_as_if_its_server_had():
    scene = Scene("api.example.com")
    goes_on, [(packet, mac)] = scene.ask(question("data.evil.example", use_edns=0))
    assert not goes_on
    assert (packet.source, packet.source_port, packet.target, packet.port) == (SERVER, 53, POD, 40000)
    assert mac == MAC
    assert dns.message.from_wire(packet.data).rcode() == dns.rcode.REFUSED
    assert scene.refused == ["data.evil.example"]
    assert scene.gate.counted == {"refused": 1}


def test_who_searches_domains_is_told_that_there_is_no_such_name():
    goes_on, [(packet, _)] = Scene("api.example.com").ask(question("api.example.com.corp.example"))
    assert not goes_on
    assert dns.message.from_wire(packet.data).rcode() == dns.rcode.NXDOMAIN


def test_an_answer_whose_addresses_cannot_be_admitted_does_not_pass():
    scene = Scene("api.example.com", admits=False)
    scene.ask(question())
    assert scene.tell(answer(question())) == (False, [])


def test_what_may_only_be_resolved_admits_nothing():
    scene = Scene("api.example.com", names=("db.example.net",))
    scene.ask(question("db.example.net"))
    assert scene.tell(answer(question("db.example.net"), name="db.example.net."))[0]
    assert scene.admitted == []


@pytest.mark.parametrize(
    "said",
    [
        {"wire": answer(question(number=78))},
        {"wire": answer(question("b.example.com"))},
        {"wire": question()},
        {"wire": b"x"},
        {"server": bytes([192, 0, 2, 54])},
        {"port": 40001},
        {"target": OTHER},
    ],
    ids=["another number", "another name", "no answer", "no message", "another server", "another port", "another pod"],
)
def test_what_is_no_answer_to_a_question_does_not_pass_and_the_answer_still_does(said: dict[str, object]):
    scene = Scene("api.example.com", "b.example.com")
    scene.ask(question())
    assert not scene.tell(**({"wire": answer(question())} | said))[0]
    assert scene.tell(answer(question()))[0]
    assert len(scene.admitted) == 1


def test_nobody_waits_for_an_answer_for_ever():
    scene = Scene("api.example.com")
    scene.ask(question(), now=0)
    scene.gate.forget(29)
    scene.gate.forget(31)
    assert not scene.tell(answer(question()), now=31)[0]


def test_what_is_of_nobodys_or_cannot_be_read_is_dropped_and_counted():
    scene = Scene("api.example.com")
    assert scene.ask(question(), source=OTHER) == (False, [])
    verdicts, given = scene.gate.decide([Held(1, PREROUTING, b"", b""), Held(2, POSTROUTING, b"x" * 60, b"")], 0)
    assert (verdicts, given) == ([Verdict(1, goes_on=False), Verdict(2, goes_on=False)], [])
    assert scene.gate.counted["strange"] == 3


def test_a_pod_that_answers_others_is_judged_for_what_it_asks_alone():
    scene = Scene("api.example.com")
    assert not scene.pass_(Packet(UDP, POD, SERVER, 53, 53, answer(question())), PREROUTING)[0], (
        "a response is no question"
    )
    assert scene.pass_(Packet(UDP, POD, SERVER, 53, 53, question()), PREROUTING)[0]
    assert scene.pass_(Packet(UDP, SERVER, POD, 53, 53, answer(question())), POSTROUTING)[0]


def test_what_is_asked_over_tcp_is_judged_likewise():
    scene = Scene("api.example.com")
    ask = Packet(TCP, POD, SERVER, 40000, 53, b"", 100, 0, SYN)
    assert scene.pass_(ask, PREROUTING)[0]
    assert scene.pass_(Packet(TCP, SERVER, POD, 53, 40000, b"", 500, 101, SYN | ACKNOWLEDGED), POSTROUTING)[0]
    for wire, passes in ((question(), True), (question("evil.example"), True)):
        data = len(wire).to_bytes(2, "big") + wire
        goes_on, given = scene.pass_(
            ask._replace(data=data, sequence=101, acknowledged=501, flags=ACKNOWLEDGED), PREROUTING
        )
        assert goes_on is passes
        if wire == question():
            told = answer(wire)
            data = len(told).to_bytes(2, "big") + told
            back = Packet(TCP, SERVER, POD, 53, 40000, data, 501, 101 + len(wire) + 2, ACKNOWLEDGED)
            assert scene.pass_(back, POSTROUTING) == (True, [])
            scene.gate.go_by([])
            scene.gate.go_by([scene.pod])
            scene.pass_(ask, PREROUTING)
            scene.pass_(Packet(TCP, SERVER, POD, 53, 40000, b"", 500, 101, SYN | ACKNOWLEDGED), POSTROUTING)
    assert [name for name, _ in scene.admitted] == ["api.example.com"]
    assert scene.refused == ["evil.example"]
    assert dns.message.from_wire(given[0][0].data[2:]).rcode() == dns.rcode.REFUSED


def test_who_goes_on_with_a_connection_nobody_saw_begin_gets_an_end():
    scene = Scene("api.example.com")
    goes_on, [(packet, _)] = scene.pass_(Packet(TCP, POD, SERVER, 40000, 53, b"x", 100, 7, ACKNOWLEDGED), PREROUTING)
    assert not goes_on
    assert packet.flags & 4
    assert (packet.sequence, packet.acknowledged) == (7, 101)


def test_a_connection_nobody_saw_begin_may_be_at_the_end_of_its_numbers():
    """One such segment ended the gate, for every pod of the node."""
    scene = Scene("api.example.com")
    last = Packet(TCP, POD, SERVER, 40000, 53, b"xyz", (1 << 32) - 1, 7, ACKNOWLEDGED)
    goes_on, [(packet, _)] = scene.pass_(last, PREROUTING)
    assert not goes_on
    assert packet.acknowledged == 2


class Caller:
    """Who opens connections to the server, and says nothing whole."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.number = scene, 0
        self.waiting: set[int] = set()

    def pass_(self, packet: Packet, hook: int = PREROUTING, now: float = 0) -> None:
        self.number += 1
        verdicts, _ = self.scene.gate.decide([Held(self.number, hook, made(packet), MAC)], now)
        self.waiting |= {self.number}
        self.waiting -= {item.number for item in verdicts}

    def open(self, port: int, sequence: int = 100) -> None:
        begin = Packet(TCP, POD, SERVER, port, 53, b"", sequence, 0, SYN)
        self.pass_(begin)
        self.pass_(Packet(TCP, SERVER, POD, 53, port, b"", 500, sequence + 1, SYN | ACKNOWLEDGED), POSTROUTING)

    def say(self, port: int, data: bytes, sequence: int = 101, flags: int = ACKNOWLEDGED) -> None:
        self.pass_(Packet(TCP, POD, SERVER, port, 53, data, sequence, 501, flags))


def test_nothing_waits_of_a_connection_that_is_forgotten():
    scene = Scene("api.example.com")
    caller = Caller(scene)
    caller.open(40000)
    caller.say(40000, b"\0")
    assert len(caller.waiting) == 1
    caller.say(40000, b"", 102, RST)
    assert not caller.waiting, "it gave up"
    caller.open(40000)
    caller.say(40000, b"\0")
    caller.open(40000, 7000)
    assert not caller.waiting, "it began anew"
    caller.say(40000, b"\0", 7001)
    for port in range(40001, 40001 + 128):
        caller.open(port)
    assert not caller.waiting, "it began too many"
    caller.say(40128, b"\0")
    scene.gate.forget(121)
    assert [item.number for item in scene.gate.left()] == [*caller.waiting]
    assert scene.gate.left() == []
    caller.waiting.clear()
    caller.open(40000)
    caller.say(40000, b"\0")
    scene.gate.go_by([])
    assert [item.number for item in scene.gate.left()] == [*caller.waiting], "the pod is gone"


def test_no_more_of_a_pod_waits_than_leaves_room_for_others():
    caller = Caller(Scene("api.example.com"))
    for port in range(40000, 40100):
        caller.open(port)
        caller.say(port, b"\0")
        caller.say(port, b"\x20", 102)
    assert len(caller.waiting) in range(60, 65)
    for sequence in range(200):
        caller.say(40099, b"x", 103 + sequence)
    assert len(caller.waiting) <= 64


def test_a_second_beginning_does_not_have_a_question_read_from_its_middle():
    """Who begins anew before where the server is has the gate read bytes that the server has, and the server what is behind them."""
    scene = Scene("api.example.com")
    caller = Caller(scene)
    caller.open(40000)
    wire = question()
    caller.say(40000, len(wire).to_bytes(2, "big") + wire)
    assert not caller.waiting
    behind = 101 + len(wire) + 2
    scene.pass_(Packet(TCP, POD, SERVER, 40000, 53, b"", behind - 8, 0, SYN), PREROUTING)
    scene.pass_(Packet(TCP, SERVER, POD, 53, 40000, b"", 501, behind, ACKNOWLEDGED), POSTROUTING)
    data = len(wire).to_bytes(2, "big") + wire
    assert not scene.pass_(Packet(TCP, POD, SERVER, 40000, 53, data, behind - 7, 501, ACKNOWLEDGED), PREROUTING)[0]


def test_who_begins_with_data_or_several_ways_hears_nothing_and_begins_without():
    scene = Scene("api.example.com")
    many = bytearray(made(Packet(TCP, POD, SERVER, 40000, 53, bytes.fromhex("1e04008101010100")[:8], 100, 0, SYN)))
    many[32] = 7 << 4
    assert scene.gate.decide([Held(9, PREROUTING, bytes(many), MAC)], 0) == ([Verdict(9, goes_on=False)], [])
    assert scene.pass_(Packet(TCP, POD, SERVER, 40000, 53, b"x", 100, 0, SYN), PREROUTING) == (False, [])
    assert scene.pass_(Packet(TCP, POD, SERVER, 40000, 53, b"", 100, 0, SYN), PREROUTING) == (True, [])
