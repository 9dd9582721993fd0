"""Names as those who go by them see them: the daemon on a host, and what a server of DNS answers."""

from __future__ import annotations

import ipaddress
import os
import signal
import struct
import subprocess
from pathlib import Path
from typing import Self

from lab import AGENT_CNI, PATIENCE, ROOT, Host, Namespace

DNSMASQ = ROOT / ".cache/dnsmasq/usr/sbin"
_TYPES = {"A": 1, "PTR": 12, "AAAA": 28}
_ASK = """
import socket, sys
server, port, question = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
asking = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(float(sys.argv[4]))
asking.connect((server, port))
asking.send(question)
print(asking.recv(65535).hex())
"""


class Names:
    """`agent-cni names` on a host, as an operator starts it. Use it with `with`."""

    def __init__(self, host: Host, *around: str, program: Path = AGENT_CNI) -> None:
        self.host, self._around, self._program = host, around, program
        self.log = host.folder.with_suffix(".names.log")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            print(self.said())
        self.stop()

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [*self.host.prefix(), *self._around, str(self._program), "names"]
            environ = os.environ | {"PATH": f"{DNSMASQ}:{os.environ['PATH']}"}
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)

    def stop(self) -> int:
        """End it as systemd does; its exit code."""
        return self._ended(signal.SIGTERM)

    def kill(self) -> int:
        """End it as a kernel does that has no memory left."""
        return self._ended(signal.SIGKILL)

    def _ended(self, by: signal.Signals) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(by)
        return self.process.wait(PATIENCE)

    @property
    def pid(self) -> int:
        """The daemon's own; what was started becomes it."""
        assert self.process
        return self.process.pid

    def servers(self) -> dict[str, int]:
        """The servers that run for this host's networks, by network."""
        found, here = {}, Path(self.host.path).stat()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"/dnsmasq") and (folder / "ns/net").stat().st_ino == here.st_ino:
                    conf = next(word for word in words if word.startswith(b"--conf-file="))
                    found[conf.decode().split("/")[-2]] = int(folder.name)
            except (OSError, StopIteration):
                continue
        return found

    def said(self) -> str:
        """The end of what it said, for who looks why."""
        return self.log.read_text()[-3000:] if self.log.exists() else ""


def asked(where: Namespace, server: str, name: str, kind: str = "A", seconds: float = 1.0, port: int = 53) -> list[str]:
    """What a server answers to who asks it from a namespace, in its order; nothing where it knows none. Raises TimeoutError."""
    given = ipaddress.ip_address(name).reverse_pointer if kind == "PTR" else name
    labels = b"".join(bytes([len(label)]) + label.encode() for label in given.split(".") if label) + b"\0"
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!2H", _TYPES[kind], 1)
    words = ("python3", "-c", _ASK, server, port, question.hex(), seconds)
    done = where.run(*words, check=False)
    if done.returncode:
        raise TimeoutError(done.stderr.splitlines()[-1])
    return _answers(bytes.fromhex(done.stdout.strip()), kind)


def _answers(data: bytes, kind: str) -> list[str]:
    count, at = struct.unpack_from("!H", data, 6)[0], _after_name(data, 12) + 4
    found = []
    for _ in range(count):
        at = _after_name(data, at)
        type_, length = struct.unpack_from("!H6xH", data, at)
        at += 10
        if type_ == _TYPES[kind]:
            found.append(_name(data, at) if kind == "PTR" else str(ipaddress.ip_address(data[at : at + length])))
        at += length
    return found


def _after_name(data: bytes, at: int) -> int:
    while data[at] and data[at] < 0xC0:
        at += data[at] + 1
    return at + (2 if data[at] else 1)


def _name(data: bytes, at: int) -> str:
    labels = []
    while data[at]:
        if data[at] >= 0xC0:
            at = struct.unpack_from("!H", data, at)[0] & 0x3FFF
            continue
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += data[at] + 1
    return ".".join(labels)


_WEB = """
import asyncio, sys
from pathlib import Path
folder, port = Path(sys.argv[1]), int(sys.argv[2])
async def serve(reader, writer):
    asked = await reader.readline()
    address = writer.get_extra_info("sockname")[0]
    file = folder / address.replace(":", "_")
    status = file.read_text() if file.exists() else "200 OK"
    if status == "silent":
        await asyncio.sleep(3600)
    while status == "endless":
        writer.write(b"x" * 65536)
        await writer.drain()
    if asked:
        (folder / "asked").open("ab").write(asked)
        writer.write(f"HTTP/1.1 {status}\\r\\nContent-Length: 0\\r\\nLocation: /elsewhere\\r\\n\\r\\n".encode())
    writer.close()
async def main():
    made = await asyncio.start_server(serve, None, port, backlog=1000)
    print("ready", flush=True)
    await made.serve_forever()
asyncio.run(main())
"""


class Web:
    """An HTTP server in a pod, on all its addresses, that says what it is told to. Use it with `with`."""

    def __init__(self, pod: Namespace, folder: Path, port: int = 8080) -> None:
        self.pod, self.folder, self.port = pod, folder, port
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.process = self.pod.start("python3", "-c", _WEB, self.folder, self.port)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)

    def say(self, status: str, address: str) -> None:
        """From now on answer with this status at an address, be ``silent``, or ``endless``."""
        (self.folder / address.replace(":", "_")).write_text(status)

    def asked(self) -> list[str]:
        """The first line of each request so far."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []
