"""A program in a pod: listens and connects as it is told, one JSON object a line, and says what it saw.

Started by traffic.Actor with nsenter and setpriv; standard library only.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
import time
from typing import Any

SO_ORIGINAL_DST = 80
IPV6_TRANSPARENT = 75
#: How long a peer that cannot be reached is tried, and how long one that can may take on a busy machine; seconds.
TIMEOUT, PATIENCE = 1.5, 60
KEPT: dict[str, socket.socket] = {}
HEARD: list[Any] = []
ANSWER = threading.Event()


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def original(conn: socket.socket) -> list[Any] | None:
    """Where the client wanted to go (SO_ORIGINAL_DST), or None where conntrack knows nothing."""
    try:
        if conn.family == socket.AF_INET6:
            raw = conn.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            return [socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]]
        raw = conn.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
        return [socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack("!H", raw[2:4])[0]]
    except OSError:
        return None


def sock(host: str, kind: socket.SocketKind, transparent: bool) -> socket.socket:
    made = socket.socket(family_of(host), kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own on the same port
    if transparent:
        level, option = (41, IPV6_TRANSPARENT) if made.family == socket.AF_INET6 else (0, socket.IP_TRANSPARENT)
        made.setsockopt(level, option, 1)
    return made


def listen(name: str, host: str, port: int, transparent: bool = False, udp: bool = False) -> str:
    server = sock(host, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, transparent)
    server.bind((host, port))
    if not udp:
        server.listen(200)
    threading.Thread(target=answer_udp if udp else accept, args=(name, server), daemon=True).start()
    return "listening"


def answer_udp(name: str, server: socket.socket) -> None:
    while True:
        _, peer = server.recvfrom(2048)
        server.sendto(json.dumps({"who": name, "peer": list(peer[:2])}).encode(), peer)


def collect(host: str, port: int) -> str:
    """Note everything that arrives on a UDP port."""
    server = sock(host, socket.SOCK_DGRAM, transparent=False)
    server.bind((host, port))
    threading.Thread(target=note, args=(server,), daemon=True).start()
    return "listening"


def note(server: socket.socket) -> None:
    while True:
        data, peer = server.recvfrom(65535)
        HEARD.append([peer[0], data.decode(errors="replace")])


def heard(count: int) -> list[Any]:
    """What arrived since the last question: sender and text. Wait until it is so many."""
    deadline = time.monotonic() + PATIENCE
    while len(HEARD) < count and time.monotonic() < deadline:
        time.sleep(0.005)
    arrived, HEARD[:] = list(HEARD), []
    return arrived


def answer() -> str:
    """Echo the line that is held back."""
    ANSWER.set()
    return "answered"


def send(to: list[Any], text: str, source: list[Any] | None = None) -> str:
    """One UDP datagram, without waiting for an answer."""
    with sock(to[0], socket.SOCK_DGRAM, transparent=False) as client:
        if source:
            client.bind(tuple(source))
        client.sendto(text.encode(), tuple(to))
    return "sent"


def accept(name: str, server: socket.socket) -> None:
    while True:
        conn, peer = server.accept()
        threading.Thread(target=serve, args=(name, conn, peer), daemon=True).start()


def serve(name: str, conn: socket.socket, peer: tuple[Any, ...]) -> None:
    """Say who serves and what was asked for, then echo lines until the client goes."""
    seen = {"who": name, "peer": list(peer[:2]), "local": list(conn.getsockname()[:2]), "original": original(conn)}
    with contextlib.suppress(OSError), conn, conn.makefile("rwb") as lines:
        lines.write(json.dumps(seen).encode() + b"\n")
        lines.flush()
        for line in lines:
            HEARD.append([peer[0], line.decode(errors="replace").strip()])
            if line.startswith(b"held"):
                ANSWER.wait(PATIENCE)
                ANSWER.clear()
            lines.write(line)
            lines.flush()
            if line == b"half\n":
                conn.shutdown(socket.SHUT_WR)


def connect(
    to: list[Any], source: list[Any] | None = None, mark: int = 0, transparent: bool = False, keep: str = ""
) -> Any:
    """The server's banner, or the error's name."""
    client = sock(to[0], socket.SOCK_STREAM, transparent)
    try:
        if mark:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source:
            client.bind(tuple(source))
        client.settimeout(TIMEOUT)
        client.connect(tuple(to))
        client.settimeout(PATIENCE)
        seen = json.loads(client.makefile("rb").readline() or '{"who": "nobody"}')
    except OSError as error:
        client.close()
        return {"error": type(error).__name__}
    if keep:
        KEPT[keep] = client
    else:
        client.close()
    return seen


def echo(kept: str, text: str = "still there", seconds: float = PATIENCE) -> Any:
    """What comes back over a kept connection."""
    KEPT[kept].settimeout(seconds)
    try:
        KEPT[kept].sendall(f"{text}\n".encode())
        return KEPT[kept].recv(4096).decode().strip()
    except OSError as error:
        return {"error": type(error).__name__}


def say(kept: str, text: str, last: bool = False) -> str:
    """Send over a kept connection, without waiting for an answer; `last` closes its own direction."""
    KEPT[kept].sendall(f"{text}\n".encode())
    if last:
        KEPT[kept].shutdown(socket.SHUT_WR)
    return "said"


def hear(kept: str, seconds: float = PATIENCE) -> Any:
    """What comes over a kept connection."""
    KEPT[kept].settimeout(seconds)
    try:
        return KEPT[kept].recv(4096).decode().strip()
    except OSError as error:
        return {"error": type(error).__name__}


def ask(to: list[Any], source: list[Any] | None = None, seconds: float = PATIENCE) -> Any:
    """One UDP question: the answer and whom it came from."""
    with sock(to[0], socket.SOCK_DGRAM, transparent=False) as client:
        if source:
            client.bind(tuple(source))
        client.settimeout(seconds)
        try:
            client.sendto(b"question", tuple(to))
            raw, sender = client.recvfrom(2048)
        except OSError as error:
            return {"error": type(error).__name__}
        return json.loads(raw) | {"from": list(sender[:2])}


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        verb = {
            function.__name__: function
            for function in (listen, connect, echo, say, hear, ask, collect, heard, answer, send)
        }[order.pop("do")]
        try:
            said = verb(**order)
        except OSError as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
