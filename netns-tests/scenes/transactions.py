"""What the kernel says of a host's rules as they change."""

from __future__ import annotations

import socket
import sys
import time

from answers import within
from lab import Host

NETFILTER, NFTABLES = 12, 1 << 6  # NETLINK_NETFILTER, and its group NFNLGRP_NFTABLES
NEW_GENERATION = 10 << 8 | 15


class Transactions:
    """Those of nf_tables on a host from now on."""

    def __init__(self, host: Host) -> None:
        self.socket = within(host, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((0, NFTABLES))

    def times(self, quiet: float) -> list[float]:
        """When each of a change's was there, until none came for so many seconds."""
        found: list[float] = []
        self.socket.settimeout(60)
        while True:
            try:
                data = self.socket.recv(1 << 20)
            except TimeoutError:
                assert found, "nothing changed"
                return found
            if int.from_bytes(data[4:6], sys.byteorder) == NEW_GENERATION:
                found.append(time.perf_counter())
                self.socket.settimeout(quiet)

    def close(self) -> None:
        self.socket.close()
