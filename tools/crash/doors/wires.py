"""What strangers send: DNS by pods and servers through the gate, and whatever connects to the node agent."""

from __future__ import annotations

import json
import os
import struct
import sys
from contextlib import suppress
from random import Random

from cni import __version__, together
from cni.agent import request
from cni.agent.request import Refused, Request
from cni.dnsgate import message, packet
from cni.dnsgate.gate import Gate
from cni.dnsgate.guest import Guest
from cni.dnsgate.packet import ACKNOWLEDGED, FIN, PUSH, RST, SYN, TCP, UDP, Packet
from cni.dnsgate.reached import Reached
from cni.errors import CniError
from cni.kernel.gatedir import Entry
from cni.kernel.nfqueue import Held
from crash.doors.door import Door
from crash.mutation import mutated

_POD, _SERVER = bytes((10, 9, 0, 5)), bytes((10, 0, 0, 53))
_POD6, _SERVER6 = bytes(15) + b"\5", bytes(15) + b"\6"
_ENTRY = Entry(
    "0123456789abcdef",
    "a/web",
    ("10.9.0.5", "::5"),
    "veth0",
    ("api.example.com *.b.example",),
    names=("c.example",),
    into=("10.0.0.0/8",),
)
_HEADER = struct.Struct("!HHHHHH")
_NAMES = (b"\3api\7example\3com\0", b"\1x\1b\7example\0", b"\1c\7example\0", b"\5other\3org\0", b"\xc0\x0c", b"\3www\xc0\x0c", b"\0", b"\x3f" + b"a" * 63 + b"\0", b"\xc0\xff",
          b"\x40bad\0", b"\3\0.\xff\0", (b"\x3f" + b"a" * 63) * 4 + b"\0")  # fmt: skip


def _message(random: Random, answers: bool) -> bytes:
    flags = random.choice((0x0100, 0x0100, 0x0000, 0x0120, 0x2800)) | (
        random.choice((0x8080, 0x8180, 0x8183, 0x8380)) if answers else 0
    )
    name, kind = random.choice(_NAMES[:4] if random.random() < 0.8 else _NAMES), random.choice((1, 28, 5, 255, 65))
    question = name + struct.pack("!HH", kind, random.choice((1, 1, 1, 3)))
    many = random.choice((0, 1, 2, 40)) if answers else 0
    records = b"".join(_record(random) for _ in range(many))
    edns = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0) if random.random() < 0.4 else b""
    head = _HEADER.pack(
        random.choice((7, 7, random.randrange(1 << 16))), flags, random.choice((1, 1, 1, 0, 2)), many, 0, bool(edns)
    )
    whole = head + question + records + edns
    return mutated(random, whole) if random.random() < 0.4 else whole


def _record(random: Random) -> bytes:
    kind = random.choice((1, 28, 5, 16))
    data = {1: bytes((10, 0, 0, random.randrange(256))), 28: bytes(15) + b"\7", 5: random.choice(_NAMES), 16: b"\1x"}[
        kind
    ]
    length = len(data) if random.random() < 0.9 else random.randrange(1 << 16)
    return (
        random.choice((b"\xc0\x0c", *_NAMES))
        + struct.pack("!HHIH", kind, 1, random.choice((0, 60, 1 << 31, (1 << 32) - 1)), length)
        + data
    )


def _exchange(random: Random) -> bytes:
    """Packets between a pod and servers, each with netfilter's hook before it."""
    lines, sequence, ended = [], random.choice((0, 1000, (1 << 32) - 3)), 500
    for _ in range(random.choice((1, 2, 4, 12))):
        asks = random.random() < 0.6
        data = _message(random, answers=not asks)
        port, (own, other) = (
            random.choice((4000, 4001)),
            random.choice(((_POD, _SERVER), (_POD, _SERVER), (_POD6, _SERVER6))),
        )
        if random.random() < 0.5:
            made = Packet(UDP, own, other, port, 53, data) if asks else Packet(UDP, other, own, 53, port, data)
        else:
            flags = random.choice(
                (SYN, ACKNOWLEDGED, ACKNOWLEDGED | PUSH, FIN | ACKNOWLEDGED, RST, SYN | ACKNOWLEDGED, 0x3F)
            )
            data = (
                b""
                if flags & SYN and random.random() < 0.8
                else random.choice(
                    (
                        b"",
                        ((len(data).to_bytes(2, "big") + data) * random.choice((1, 1, 2, 1500)))[:60_000],
                        data,
                        data[:5],
                        b"\xff\xff",
                    )
                )
            )
            at, heard = (sequence, ended) if asks else (ended, sequence)
            at = at if random.random() < 0.8 else random.randrange(1 << 32)
            made = (
                Packet(TCP, own, other, port, 53, data, at, heard, flags)
                if asks
                else Packet(TCP, other, own, 53, port, data, at, heard, flags)
            )
            sequence, ended = (
                ((sequence + len(data) + bool(flags & (SYN | FIN))) % (1 << 32), ended)
                if asks
                else (sequence, (ended + len(data)) % (1 << 32))
            )
        raw = packet.made(made)
        raw = mutated(random, raw) if random.random() < 0.3 else raw
        lines.append(f"{0 if asks else 4} {raw.hex()}")
    return "\n".join(lines).encode()


def _gated(data: bytes) -> str:
    admitted: list[bytes] = []

    def admit(pod: Reached, name: message.Name, answer: message.Answer, now: float) -> bool:
        for address, ttl in answer.addresses:
            pod.admit(address, name, ttl, now)
            admitted.append(address)
        return True

    gate = Gate(admit, lambda *asked: message.text_of(asked[1].name).encode() and None)
    gate.go_by([Reached(Guest(_ENTRY))])
    waiting: set[int] = set()
    for number, line in enumerate(data.splitlines()):
        hook, _, raw = line.partition(b" ")
        try:
            held = Held(number, int(hook), bytes.fromhex(raw.decode()), b"")
        except ValueError:
            continue  # no packet of anybody's
        waiting.add(number)
        verdicts, given = gate.decide([held], float(number))
        for verdict in verdicts:
            if verdict.number not in waiting:
                return f"packet {verdict.number} has two verdicts"
            waiting.discard(verdict.number)
        for other in (*(item.packet for item in given), *(verdict.instead for verdict in verdicts if verdict.instead)):
            if packet.read(other) is None:
                return f"what the gate sends is no packet: {other.hex()}"
    gate.go_by([])
    waiting -= {verdict.number for verdict in gate.left()}
    return f"nothing becomes of {waiting}" if waiting else ""


def _read(data: bytes) -> str:
    """A message by itself, which the gate reads and repeats."""
    found = message.question(data)
    if found:
        again = message.question(message.response(found, message.REFUSED, "why")[:2] + data[2:])
        if again is None or not again.asks_as(found):
            return "a question is another one when it is read again"
        if len(message.response(found, message.REFUSED, "why")) > 2 * len(data) + 64:
            return "an answer is much longer than what asked"
    answer = message.answer(data)
    for address, ttl in answer.addresses if answer else ():
        if len(address) not in (4, 16) or not 0 <= ttl < 1 << 31:
            return f"an address of {len(address)} bytes for {ttl} s"
    message.malformed(data)
    message.is_question(data)
    packet.read(data)
    return ""


# --- the node agent

_TEXTS = (
    request.PROTOCOL, __version__, sys.prefix, "/opt/cni/bin/bridge-vxlan", "CNI_COMMAND=ADD", "CNI_NETNS=/run/netns/x", "CNI_PATH=/a:b",
)  # fmt: skip
_REQUEST = "".join(f"{text}\0" for text in _TEXTS).encode()
_FED = json.dumps(
    [["folder /a", ["pods", "c1", "eth0"], "bridge-vxlan", "a/web", "/run/agent-cni", "/run/netns/x"]]
).encode()


def _asked(data: bytes) -> str:
    what, _, said = data.partition(b"\n")
    if what == b"errand":
        together.answer(said)
        return ""
    if what == b"answer":
        with suppress(CniError):
            together.answered([], said)
        return ""
    with suppress(Refused):
        found = request.read(said)
        _ = found.paths
        for go in (said[:4], b"G", b"Gd0", b"Gdd"):
            again = Request(found.prefix, found.script, dict(found.environ))
            with suppress(Refused):
                again.equip(go, [os.dup(2) for _ in go[1:]])
            again.close()
    return ""


def to_agent(random: Random) -> bytes:
    """An errand, an answer to one, or a request, nearly right."""
    match random.randrange(3):
        case 0:
            return b"errand\n" + mutated(random, _FED, (b"null", b"[[]]", b"{}"))
        case 1:
            return b"answer\n" + mutated(random, random.choice((b"[[0], [], {}]", b'[[], [], {"0": "x"}]', b"{}", b"")))
        case _:
            return b"request\n" + mutated(random, _REQUEST, (), (b"\0", b"=", b"\xff", b"\0\0"))


DOORS = (
    Door("DNS", lambda random: _message(random, random.random() < 0.6), _read, 60_000),
    Door("gate", _exchange, _gated, 6000),
    Door("agent", to_agent, _asked, 20_000),
)
