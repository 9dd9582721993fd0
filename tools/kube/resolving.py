"""How pods are asked what they resolve and reach by names."""

from __future__ import annotations

import threading
import time
from typing import Any

from addressing import DNS
from asked import Asked, Asker

REFUSED, WELL, NOWHERE, UNANSWERED = "5 5", "0 0", "3 3", "-1 -1"
#: Asks a server by UDP and TCP, whatever resolv.conf says: which code it is answered with, -1 where it is not within two seconds.
_ASK = """import socket, struct, sys
server, name = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\\0"
question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!2H", 1, 1)
def told(kind):
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind) as asking:
        asking.settimeout(2)
        try:
            asking.connect((server, 53))
            asking.send(question if kind == socket.SOCK_DGRAM else struct.pack("!H", len(question)) + question)
            return asking.recv(4096)[3 if kind == socket.SOCK_DGRAM else 5] & 15
        except (OSError, IndexError):
            return -1
print(told(socket.SOCK_DGRAM), told(socket.SOCK_STREAM))
"""


def got(inside: Asker, url: str) -> int:
    """curl's exit code."""
    return int(inside(f"curl -skm 12 --connect-timeout 3 -o /dev/null {url}; echo $?").split()[-1])


def code(ask: Asked, pod: dict[str, Any], name: str, server: str = "") -> str:
    """What kube-dns, or this server, answers by UDP, and by TCP."""
    node = next(one for one in ask.cluster.nodes if one.name == pod["spec"]["nodeName"])
    enter = ("nsenter", "-t", ask.task(node, pod), "-n")
    return node.run(
        *enter, "python3", "-c", _ASK, server or DNS[ask.cluster.families[0]], name, check=False
    ).stdout.strip()


class Lasting:
    """A connection to an allowed name on which a line comes each second."""

    def __init__(self, inside: Asker) -> None:
        self.said, self.seconds = "", 0
        self._thread = threading.Thread(target=self._ask, args=(inside,))
        self._thread.start()
        time.sleep(2)

    def _ask(self, inside: Asker) -> None:
        self.said = inside("curl -sm 80 http://api.example.com/slow; echo ended $?")

    def end(self) -> int:
        """For how many seconds it was there; 0 where it broke."""
        self._thread.join()
        self.seconds = self.said.count("api.example.com")
        return self.seconds if self.said.endswith("ended 0\n") else 0
