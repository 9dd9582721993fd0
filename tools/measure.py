"""What a way between two namespaces costs: latency, connections, throughput, by a real client and server.

Run as a program it is the server (``measure.py serve PORT``) or one sample of the client
(``measure.py sample HOST PORT``), which prints one JSON object.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

PINGS, CONNECTIONS, BYTES, CHUNK = 300, 60, 96 << 20, 1 << 20

#: What a sample says, and in which unit; of the first two less is better.
COLUMNS = {"latency": "µs", "connection": "µs", "throughput": "Gbit/s"}

#: Client and server keep to processors of their own, so that a round does not depend on where they woke up.
_ON = {"client": ["taskset", "-c", "0"], "server": ["taskset", "-c", "1"]}

Sample = dict[str, float]


class Server:
    """A measuring server in a namespace. Use it with `with`."""

    def __init__(self, prefix: list[str], port: int) -> None:
        self.command = [*_ON["server"], *prefix, sys.executable, "-I", str(Path(__file__)), "serve", str(port)]

    def __enter__(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def sample(prefix: list[str], host: str, port: int) -> Sample:
    """One sample by a client that starts with `prefix`, such as nsenter and setpriv."""
    command = [*_ON["client"], *prefix, sys.executable, "-I", str(Path(__file__)), "sample", host, str(port)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def serve(port: int) -> None:
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        server = socket.socket(family)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((host, port))
        server.listen(128)
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def _accept(server: socket.socket) -> None:
    while True:
        conn, _ = server.accept()
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(conn,), daemon=True).start()


def _answer(conn: socket.socket) -> None:
    """The first byte says what follows: ``p`` to be echoed, ``t`` to be swallowed and acknowledged at the end."""
    buffer = bytearray(CHUNK)
    with conn:
        if conn.recv(1) == b"p":
            while data := conn.recv(64):
                conn.sendall(data)
        else:
            left = BYTES
            while left > 0 and (got := conn.recv_into(buffer)):
                left -= got
            conn.sendall(b"!")


def _latency(host: str, port: int) -> float:
    with _connected(host, port) as conn:
        conn.sendall(b"p")
        return statistics.median(_microseconds(lambda: _ping(conn)) for _ in range(PINGS))


def _connection(host: str, port: int) -> float:
    return statistics.median(_microseconds(lambda: _once(host, port)) for _ in range(CONNECTIONS))


def _throughput(host: str, port: int) -> float:
    data = bytes(CHUNK)
    with _connected(host, port) as conn:
        conn.sendall(b"t")
        began = time.perf_counter()
        for _ in range(BYTES // CHUNK):
            conn.sendall(data)
        conn.recv(1)
        return BYTES * 8 / (time.perf_counter() - began) / 1e9


def _once(host: str, port: int) -> None:
    with _connected(host, port) as conn:
        conn.sendall(b"p")
        _ping(conn)


def _ping(conn: socket.socket) -> None:
    conn.sendall(b"x")
    conn.recv(1)


def _connected(host: str, port: int) -> socket.socket:
    conn = socket.create_connection((host, port), 5)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def _microseconds(action: object) -> float:
    began = time.perf_counter()
    action()  # type: ignore[operator]
    return (time.perf_counter() - began) * 1e6


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        target = (sys.argv[2], int(sys.argv[3]))
        print(
            json.dumps(
                {"latency": _latency(*target), "connection": _connection(*target), "throughput": _throughput(*target)}
            )
        )
