"""What a cluster's pods find beyond it: servers of HTTP, each with an address and names, and the resolver that knows them."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6

from addressing import RIG, on_wire
from cluster import Cluster
from shell import ROOT, sh

DNSMASQ = ROOT / ".cache/dnsmasq/usr/sbin/dnsmasq"  # as the tests have it of Debian
#: Which number each domain's server has, with all names below it; the zone knows no other.
ZONE = {"api.example.com": 1, "example.org": 2, "evil.example": 3, "late.example.net": 4}
#: For how many seconds /slow is answered, each a line.
SLOW = 40


def address(name: str, family: int = 4) -> str:
    """Of whom a name of the zone is."""
    number = next(number for domain, number in ZONE.items() if f".{name}".endswith(f".{domain}"))
    return f"198.51.100.{number}" if family == 4 else f"2001:db8:51::{number}"


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(SLOW if self.path == "/slow" else 1):
            self.wfile.write(f"{self.headers['Host']}\n".encode())
            self.wfile.flush()
            if self.path == "/slow":
                time.sleep(1)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    address_family, daemon_threads = AF_INET6, True


@contextmanager
def beyond(cluster: Cluster) -> Iterator[Path]:
    """All of it, on the rig's own end of the wire; where the resolver writes down what it is asked."""
    for number in ZONE.values():
        sh("ip", "addr", "replace", f"198.51.100.{number}/32", "dev", "wire")
        sh("ip", "addr", "replace", f"2001:db8:51::{number}/128", "dev", "wire", "nodad")
    asked = cluster.folder / "logs/resolver.log"
    known = [f"--address=/{domain}/{address(domain, family)}" for domain in ZONE for family in (4, 6)]
    options = (
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
        "--user=root",
        "--bind-interfaces",
    )
    listening = (f"--listen-address={on_wire(RIG, family)}" for family in (4, 6))
    logging = ("--log-queries", f"--log-facility={asked}")
    resolver = subprocess.Popen([DNSMASQ, *options, *listening, *logging, *known])
    server = _Server(("::", 80), _Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        resolver.terminate()
        resolver.wait(10)
