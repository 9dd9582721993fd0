"""What etcd pays for each thing a cluster asks of it, one thing at a time: the unit costs of docs/scale.md.

    tools/isolated .venv/bin/python3 tools/simulate_store.py

One member of Debian's etcd, asked over its JSON gateway as hosts do. Seconds are of its processor.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from etcd import Etcd  # noqa: E402

from cni.cluster.model import Endpoint  # noqa: E402

KEYS, TOGETHER, PAGE = 50_000, 100, 1_000
WATCHERS, EVENTS, RATE = 200, 400, 100
LEASES = 500


class Gateway:
    """A connection to an etcd, and its process."""

    def __init__(self, etcd: Etcd) -> None:
        self.address = etcd.endpoint(0).removeprefix("http://")
        self.connection = HTTPConnection(self.address)
        process = etcd.processes[0]
        assert process
        self.pid, self.etcd = process.pid, etcd

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """One request."""
        self.connection.request("POST", f"/v3/{path}", json.dumps(body))
        return dict(json.loads(self.connection.getresponse().read()))

    def put(self, items: list[Endpoint]) -> None:
        """Endpoints, in one transaction."""
        puts = [
            {"request_put": {"key": b64("/".join(("/agent-cni", *it.key))), "value": b64(json.dumps(it.value))}}
            for it in items
        ]
        assert self.ask("kv/txn", success=puts)["succeeded"]

    @property
    def cpu(self) -> float:
        """Seconds of processor until now."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident(self) -> float:
        """MiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))

    def cost(self, done: Callable[[], object], count: int) -> tuple[float, float]:
        """Microseconds of processor each of so many took, and seconds all took."""
        cpu, began = self.cpu, time.perf_counter()
        done()
        spent = time.perf_counter() - began
        return (self.cpu - cpu) / count * 1e6, spent


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def endpoint(number: int, node: str = "node-1234") -> Endpoint:
    """One such as hosts say."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    mac = f"02:0a:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    return Endpoint("pods", address, node, mac, f"{number:064x}", "eth0", f"default/web-{number}")


def kept(gateway: Gateway) -> None:
    """What so many endpoints take."""
    before, database = gateway.resident, Path(gateway.etcd.folder)
    chunks = [[endpoint(number) for number in range(at, at + TOGETHER)] for at in range(0, KEYS, TOGETHER)]
    each, spent = gateway.cost(lambda: [gateway.put(chunk) for chunk in chunks], KEYS)
    size = sum(file.stat().st_size for file in database.rglob("db"))
    print(f"an endpoint said, {TOGETHER} together: {each:.0f} µs ({KEYS / spent:.0f}/s); {KEYS} of them:"
          f" {(gateway.resident - before) * 1024 / KEYS:.1f} KiB each in memory, {size / KEYS / 1024:.1f} KiB in the file")  # fmt: skip
    one, spent = gateway.cost(lambda: [gateway.put([endpoint(number)]) for number in range(1000)], 1000)
    print(f"an endpoint said, alone: {one:.0f} µs ({1000 / spent:.0f}/s by one host)")


def listed(gateway: Gateway) -> None:
    """What somebody who begins asks."""
    size = 0

    def pages() -> None:
        nonlocal size
        start, end = b64("/agent-cni/"), b64("/agent-cni0")
        while True:
            body = json.dumps({"key": start, "range_end": end, "limit": PAGE})
            gateway.connection.request("POST", "/v3/kv/range", body)
            data = gateway.connection.getresponse().read()
            size += len(data)
            found = json.loads(data)
            if not found.get("more"):
                return
            from base64 import b64decode

            start = b64encode(b64decode(found["kvs"][-1]["key"]) + b"\0").decode()

    each, spent = gateway.cost(pages, KEYS)
    print(
        f"an endpoint listed, in pages of {PAGE}: {each:.1f} µs, {size / KEYS:.0f} bytes; {KEYS} of them in {spent:.1f} s"
    )


def watched(gateway: Gateway) -> None:
    """What a change costs for each who hears of it."""
    body = json.dumps({"create_request": {"key": b64("/agent-cni/"), "range_end": b64("/agent-cni0")}})
    request = f"POST /v3/watch HTTP/1.1\r\nHost: etcd\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    over = Event()

    def read(selector: selectors.BaseSelector) -> None:
        while not over.is_set():
            for key, _ in selector.select(0.1):
                with suppress(BlockingIOError):
                    key.fileobj.recv(1 << 16)  # type: ignore[union-attr]

    def change() -> None:
        for number in range(EVENTS):
            gateway.put([endpoint(number, f"node-{number & 1}")])
            time.sleep(1 / RATE)

    alone, _ = gateway.cost(change, EVENTS)
    before = gateway.resident
    with ExitStack() as held, selectors.DefaultSelector() as selector:
        for _ in range(WATCHERS):
            host, _, port = gateway.address.partition(":")
            one = held.enter_context(socket.create_connection((host, int(port))))
            one.sendall(request)
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ)
        time.sleep(1)
        thread = Thread(target=read, args=(selector,))
        thread.start()
        each, _ = gateway.cost(change, EVENTS)
        over.set()
        thread.join()
        print(f"a change heard by one more host: {(each - alone) / WATCHERS:.1f} µs ({WATCHERS} watch, {RATE} changes a second);"
              f" a watch: {(gateway.resident - before) * 1024 / WATCHERS:.0f} KiB")  # fmt: skip


def renewed(gateway: Gateway) -> None:
    """What it costs that hosts are heard of."""
    leases = [gateway.ask("lease/grant", TTL=3600)["ID"] for _ in range(LEASES)]
    each, _ = gateway.cost(lambda: [gateway.ask("lease/keepalive", ID=lease) for lease in leases], LEASES)
    print(f"a session renewed: {each:.0f} µs")


def main() -> int:
    with Etcd(Path("/run/etcd")) as etcd:
        gateway = Gateway(etcd)
        for part in (kept, listed, watched, renewed):
            part(gateway)
    return 0


if __name__ == "__main__":
    sys.exit(main())
