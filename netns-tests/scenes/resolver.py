"""A server of DNS that answers what a test wants it to, well or not, and writes down what it was asked; and who asks one."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import dns.message
import dns.rcode
from lab import AGENT_CNI, PATIENCE, ROOT, Host, Namespace, eventually

PYTHON = ROOT / ".venv/bin/python3"
#: A name's records: kind, data, seconds to live.
Zone = Mapping[str, Sequence[tuple[str, str, int]]]

#: What serves a zone: given it, a folder, a port and an address.
SERVE = """
import json, socket, struct, sys, threading, time
import dns.flags, dns.message, dns.rcode, dns.rdatatype, dns.rrset
zone, folder = json.loads(sys.argv[1]), sys.argv[2]
log = open(folder + "/asked", "a", buffering=1)
def answered(wire, limit):
    asked = dns.message.from_wire(wire)
    said = dns.message.make_response(asked)
    said.flags |= dns.flags.RA
    name, kind = asked.question[0].name.to_text().lower().rstrip("."), dns.rdatatype.to_text(asked.question[0].rdtype)
    log.write(json.dumps([name, kind, "tcp" if limit == 65535 else "udp"]) + "\\n")
    how = zone.get(name, {}).get("how", "")
    while True:
        known = zone.get(name) or zone.get("*." + name.partition(".")[2])
        if known is None:
            said.set_rcode(dns.rcode.NXDOMAIN if not said.answer else dns.rcode.NOERROR)
            break
        for of, data, ttl in known["records"]:
            if of in (kind, "CNAME"):
                said.answer.append(dns.rrset.from_text(name + ".", ttl, "IN", of, data))
        alias = next((data for of, data, _ in known["records"] if of == "CNAME"), None)
        if alias is None or kind == "CNAME":
            break
        name = alias.rstrip(".")
    if how == "reversed":
        said.answer.reverse()
    if how == "slow":
        time.sleep(1.5)
    if how == "other id":
        said.id ^= 1
    if how == "other name":
        said.question[0].name = dns.name.from_text("other.example.")
    if how == "silent":
        return b""
    if how == "garbage":
        return wire[:2] + b"\\x81\\x80" + b"\\xff" * 40
    try:
        return said.to_wire(max_size=limit)
    except dns.exception.TooBig:
        short = dns.message.make_response(asked)
        short.flags |= dns.flags.TC
        return short.to_wire()
def serve_udp(made):
    while True:
        wire, peer = made.recvfrom(65535)
        def work(wire=wire, peer=peer):
            asked = dns.message.from_wire(wire)
            said = answered(wire, asked.payload if asked.edns >= 0 else 512)
            if said:
                made.sendto(said, peer)
        threading.Thread(target=work, daemon=True).start()
def serve_one(taken):
    while True:
        head = taken.recv(2, socket.MSG_WAITALL)
        if len(head) < 2:
            return taken.close()
        said = answered(taken.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL), 65535)
        taken.sendall(struct.pack("!H", len(said)) + said)
def serve_tcp(made):
    while True:
        taken, _ = made.accept()
        threading.Thread(target=serve_one, args=(taken,), daemon=True).start()
for family in (socket.AF_INET, socket.AF_INET6):
    for kind, serve in ((socket.SOCK_DGRAM, serve_udp), (socket.SOCK_STREAM, serve_tcp)):
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        own = sys.argv[4] or ("::" if family == socket.AF_INET6 else "0.0.0.0")
        if (":" in own) != (family == socket.AF_INET6):
            continue
        made.bind((own, int(sys.argv[3])))
        if kind == socket.SOCK_STREAM:
            made.listen(64)
        threading.Thread(target=serve, args=(made,), daemon=True).start()
open(folder + "/ready", "w").close()
while True:
    time.sleep(3600)
"""

_ASK = """
import socket, struct, sys
server, tcp, wire, seconds = sys.argv[1], sys.argv[2] == "tcp", bytes.fromhex(sys.argv[3]), float(sys.argv[4])
asking = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
asking.settimeout(seconds)
asking.connect((server, int(sys.argv[5])))
if tcp:
    asking.sendall(struct.pack("!H", len(wire)) + wire)
    head = asking.recv(2, socket.MSG_WAITALL)
    print(asking.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL).hex())
else:
    asking.send(wire)
    print(asking.recv(65535).hex())
"""


class Resolver:
    """It answers by a zone in a namespace, at one address or all of them; `how` says by name in which odd way. Use it with `with`."""

    def __init__(
        self, where: Namespace, zone: Zone, how: Mapping[str, str] | None = None, port: int = 53, address: str = ""
    ) -> None:
        self._folder = Path(mkdtemp())
        said = {name: {"records": list(records), "how": (how or {}).get(name, "")} for name, records in zone.items()}
        self._process = where.start(str(PYTHON), "-c", SERVE, json.dumps(said), str(self._folder), str(port), address)

    def __enter__(self) -> Self:
        eventually((self._folder / "ready").exists)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def asked(self) -> list[tuple[str, str, str]]:
        """What it was asked: name, kind, udp or tcp."""
        file = self._folder / "asked"
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


@dataclass
class Told:
    """What somebody who asked was told; `addresses` are those of the records of the kind asked for, wherever they stand in the answer."""

    code: str
    addresses: list[str]
    message: dns.message.Message


def ask(
    where: Namespace, server: str, name: str, kind: str = "A", *, tcp: bool = False, seconds: float = 2.0, **how: Any
) -> Told | None:
    """Ask a server from a namespace; None where it does not answer."""
    port = how.pop("port", 53)
    question = dns.message.make_query(name, kind, **how)
    return sent(where, server, question.to_wire(), tcp=tcp, seconds=seconds, port=port)


def sent(
    where: Namespace, server: str, wire: bytes, *, tcp: bool = False, seconds: float = 2.0, port: int = 53
) -> Told | None:
    """The same with a message of bytes."""
    done = where.run("python3", "-c", _ASK, server, "tcp" if tcp else "udp", wire.hex(), seconds, port, check=False)
    if done.returncode or not done.stdout.strip():
        return None
    read = dns.message.from_wire(bytes.fromhex(done.stdout.strip()))
    return Told(
        dns.rcode.to_text(read.rcode()),
        [str(item) for found in read.answer for item in found if hasattr(item, "address")],
        read,
    )


class Gate:
    """`agent-cni dnsgate` on a host, as an operator starts it, or by what is `around` it. Use it with `with`."""

    def __init__(self, host: Host, *around: str, program: Path = AGENT_CNI) -> None:
        self.host, self._around, self._program = host, around, program
        self.log = host.folder.with_suffix(".dnsgate.log")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            print(self.log.read_text()[-3000:])
        self.stop()

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [*self.host.prefix(), *self._around, str(self._program), "dnsgate"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self.listens)

    def listens(self) -> bool:
        """Whether it has begun: who asks before that waits."""
        assert self.process
        assert self.process.poll() is None, self.log.read_text()
        return (self.host.folder / "dns/counted").exists() and bool(self.counted())

    def stop(self) -> int:
        """End it as systemd does; its exit code."""
        return self._ended(signal.SIGTERM)

    def kill(self) -> int:
        """End it as a kernel does that has no memory left."""
        return self._ended(signal.SIGKILL)

    def counted(self) -> dict[str, int]:
        """What it has counted, as of a second ago at most."""
        return json.loads((self.host.folder / "dns/counted").read_text())

    def _ended(self, by: signal.Signals) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(by)
        code = self.process.wait(PATIENCE)
        (self.host.folder / "dns/counted").unlink(missing_ok=True)
        return code
