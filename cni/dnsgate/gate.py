"""What becomes of each packet that is to port 53 of a server, or from there: the whole of the gate but its sockets. Pure.

A question passes where the pod may have its name resolved; an answer passes where it is one's that passed, once its addresses are
in the pod's sets. Everything else is dropped.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from cni.dnsgate import message, stream
from cni.dnsgate.guest import Ruling
from cni.dnsgate.message import Answer, Name, Question
from cni.dnsgate.packet import RST, SYN, UDP, Packet, made, read
from cni.dnsgate.reached import Reached
from cni.dnsgate.stream import Outcome, Stream
from cni.kernel.nfqueue import Held, Verdict

DNS = 53
#: Seconds that a question waits for its answer, and a connection may be silent; questions and connections of a pod at a time.
_PATIENCE, _SILENCE, _QUESTIONS, _STREAMS = 30.0, 120.0, 1024, 128
#: Segments of a pod that wait for the rest of a question at a time: a queue has room for so many packets of all pods (nfqueue.py).
_WAITING = 64
_WHY = "agent-cni: not among the names that this pod's policy allows"

#: Netfilter's hooks by which a pod's questions come: PRE_ROUTING on the host, LOCAL_OUT in the pod.
_COMING = (0, 3)

#: Of which exchange a message is: protocol, the pod's end, the server's.
_Ends = tuple[int, bytes, int, bytes, int]


class Given(NamedTuple):
    """A packet for a pod: whose it is, and its MAC where its question came from that."""

    pod: Reached
    packet: bytes
    mac: bytes


class _Asked(NamedTuple):
    question: Question
    at: float


class _Way(NamedTuple):
    """Of which exchange a packet is, and whether it comes from the pod."""

    pod: Reached
    ends: _Ends
    is_asking: bool
    now: float


class Gate:
    """Pods by their addresses, and what they asked, of one namespace. `admit` has a pod's sets have what an answer to one of its
    questions told: whether they do. `refused` hears of each question that was.
    """

    def __init__(
        self, admit: Callable[[Reached, Name, Answer, float], bool], refused: Callable[[Reached, Question], None]
    ) -> None:
        self._admit, self._refused = admit, refused
        self.pods: dict[bytes, Reached] = {}
        self._asked: dict[Reached, OrderedDict[tuple[_Ends, int], _Asked]] = {}
        self._streams: dict[Reached, OrderedDict[_Ends, tuple[Stream, float]]] = {}
        self._left: list[Verdict] = []
        #: How many questions, and answers, had which end.
        self.counted: Counter[str] = Counter()

    def go_by(self, pods: Iterable[Reached]) -> None:
        """Judge for these pods from now on."""
        known = list(pods)
        self.pods = {address: pod for pod in known for address in pod.guest.addresses}
        for gone in self._asked.keys() - set(known):
            del self._asked[gone]
        for gone in self._streams.keys() - set(known):
            for connection, _ in self._streams.pop(gone).values():
                self._leave(connection)

    def decide(self, held: Sequence[Held], now: float) -> tuple[list[Verdict], list[Given]]:
        """What becomes of packets, and what pods get besides."""
        verdicts: list[Verdict] = []
        given: list[Given] = []
        for item in held:
            packet, is_asking = read(item.packet), item.hook in _COMING
            pod = packet and self.pods.get(packet.source if is_asking else packet.target)
            if packet is None or not pod or (packet.port if is_asking else packet.source_port) != DNS:
                self.counted["strange"] += 1
                verdicts.append(Verdict(item.number, goes_on=False))
                continue
            way = _Way(pod, _from_pod(packet) if is_asking else _from_server(packet), is_asking, now)
            outcome = (self._datagram if packet.protocol == UDP else self._segment)(way, packet, item.number)
            verdicts += (Verdict(number, goes_on=True) for number in outcome.passing)
            verdicts += (Verdict(number, goes_on=False) for number in outcome.dropped)
            verdicts += (Verdict(number, goes_on=True, instead=other) for number, other in outcome.instead)
            given += (Given(pod, other, item.mac) for other in outcome.given)
        return [*self.left(), *verdicts], given

    def left(self) -> list[Verdict]:
        """What becomes of packets that waited in connections which were forgotten since."""
        left, self._left = self._left, []
        return left

    def forget(self, now: float) -> None:
        """Forget what nobody waits for any more."""
        for asked in self._asked.values():
            while asked and next(iter(asked.values())).at < now - _PATIENCE:
                asked.popitem(last=False)
        for streams in self._streams.values():
            while streams and next(iter(streams.values()))[1] < now - _SILENCE:
                self._leave(streams.popitem(last=False)[1][0])

    def _datagram(self, way: _Way, packet: Packet, number: int) -> Outcome:
        if not way.is_asking:
            passes = self._hear(way, packet.data)
            return Outcome(passing=(number,)) if passes else Outcome(dropped=(number,))
        said = self._judge(way, packet.data)
        if said is None:
            return Outcome(passing=(number,))
        back = packet._replace(
            source=packet.target, target=packet.source, source_port=packet.port, port=packet.source_port, data=said
        )
        return Outcome(dropped=(number,), given=(made(back),) if said else ())

    def _segment(self, way: _Way, packet: Packet, number: int) -> Outcome:
        streams = self._streams.setdefault(way.pod, OrderedDict())
        known = streams.pop(way.ends, None)
        begins = way.is_asking and packet.flags & SYN and not packet.data and not packet.multipath
        if begins and not (known and known[0].begins_like(packet)):
            if known:
                self._leave(known[0])
            known = Stream(packet), way.now
        if known is None:
            # who begins with data (RFC 7413), or many ways (RFC 8684), begins again without where he hears nothing
            ends = way.is_asking and not packet.flags & (RST | SYN)
            return Outcome(dropped=(number,), given=(stream.unknown(packet),) if ends else ())
        connection = known[0]
        outcome = (
            connection.ask(packet, number, partial(self._judge, way))
            if way.is_asking
            else connection.tell(packet, number, partial(self._hear, way))
        )
        if packet.flags & RST:
            self._leave(connection)
        else:
            streams[way.ends] = connection, way.now
            self._make_room(streams)
        return outcome

    def _make_room(self, streams: OrderedDict[_Ends, tuple[Stream, float]]) -> None:
        """Let go of a pod's eldest connections where it has too many, or too much of it waits."""
        while len(streams) > _STREAMS:
            self._leave(streams.popitem(last=False)[1][0])
        waiting = [ends for ends, (connection, _) in streams.items() for _ in connection.waiting]
        if len(waiting) > _WAITING:
            self._leave(streams.pop(waiting[0])[0])

    def _leave(self, connection: Stream) -> None:
        self._left += (Verdict(number, goes_on=False) for number in connection.waiting)

    def _judge(self, way: _Way, wire: bytes) -> bytes | None:
        """What a question is answered at once; None where it may pass."""
        question = message.question(wire)
        if question is None:
            self.counted["malformed"] += 1
            return message.malformed(wire)
        ruling = way.pod.guest.ruling(question.name)
        self.counted[ruling.value] += 1
        if ruling is Ruling.REFUSED:
            self._refused(way.pod, question)
            return message.response(question, message.REFUSED, _WHY)
        if ruling is Ruling.NOWHERE:
            return message.response(question, message.NXDOMAIN, _WHY)
        asked = self._asked.setdefault(way.pod, OrderedDict())
        asked.pop((way.ends, question.id), None)
        asked[way.ends, question.id] = _Asked(question, way.now)
        while len(asked) > _QUESTIONS:
            asked.popitem(last=False)
        return None

    def _hear(self, way: _Way, wire: bytes) -> bool:
        """Whether an answer passes: it is one to what was asked of this server, and its addresses are where they are to be."""
        answer, asked = message.answer(wire), self._asked.get(way.pod, OrderedDict())
        known = answer and asked.get((way.ends, answer.question.id))
        if answer is None or not known or not known.question.asks_as(answer.question):
            self.counted["unasked"] += 1
            return False
        del asked[way.ends, answer.question.id]
        name = known.question.name
        if not answer.addresses or not way.pod.guest.rules_of(name):
            return True
        return self._admit(way.pod, name, answer, way.now)


def _from_pod(packet: Packet) -> _Ends:
    return packet.protocol, packet.source, packet.source_port, packet.target, packet.port


def _from_server(packet: Packet) -> _Ends:
    return packet.protocol, packet.target, packet.port, packet.source, packet.source_port
