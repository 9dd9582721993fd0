"""One netlink socket: requests go out in one system call, acknowledgements and answers come in (netlink(7))."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from cni.errors import KernelRefused, TryAgainLater, Unfinished
from cni.kernel.netlink.wire import (
    HEADER,
    attributes,
    is_acknowledged,
    messages,
    numbered,
    text_of,
    unacknowledged,
    understood,
)

#: What a socket speaks (netlink(7)).
RTNETLINK, NETFILTER = socket.NETLINK_ROUTE, 12

_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 270, 10, 11, 12
_SO_SNDBUFFORCE = 32
#: The kernel answers within the call that asks, or as soon as rtnetlink's lock is free; who waits longer waits for what is lost.
_PATIENCE_SECONDS = 30
_TIMEVAL = struct.Struct("@ll")
_SIOCGIFINDEX, _IFREQ = 0x8933, struct.Struct("=16si20x")
_ERROR, _DONE = 2, 3
_DUMP_INTR, _ACK_TLVS = 0x10, 0x200
_NUMBER, _ATTRIBUTES_OF_DONE, _ATTRIBUTES_OF_ERROR, _ATTR_MSG = 16, 20, 36, 1  # of capped ones: without the request
_BUFFER = 1 << 16
_AT_ONCE = 50  # changes whose acknowledgements, 768 bytes of the queue each, fit one of 64 KiB


class DumpInterrupted(TryAgainLater):
    """The table changed while it was read (NLM_F_DUMP_INTR); ask again."""

    def __init__(self, msg: str = "a table of the kernel's changed while it was read") -> None:
        super().__init__(msg)


class Channel:
    """A socket of the namespace this thread is in when it is opened."""

    def __init__(self, protocol: int = RTNETLINK) -> None:
        self._socket = _opened(protocol)
        #: Whether who may not ask hears so once, for all he asks in one packet (nfnetlink_rcv in net/netfilter/nfnetlink.c).
        self._refuses_once = protocol == NETFILTER
        self._sequence = 0
        #: Whether all that was asked is answered.
        self.at_rest = True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, *requests: bytes) -> list[bytes]:
        """Send requests and return what answers them, each a whole message, once all are acknowledged.

        The kernel takes them in order and goes on after one it refuses; it may refuse those that ask for no
        acknowledgement, which are a transaction's ends, and with them all. Raises KernelRefused with its own words
        for the first it refused, and DumpInterrupted.
        """
        answers, refused, torn = self._exchanged(requests)
        if refused:
            raise next(iter(refused.values()))
        if torn:
            raise DumpInterrupted
        return answers

    def refusals(self, requests: Sequence[bytes]) -> list[KernelRefused | None]:
        """Send requests for changes, as many as there are; of each what the kernel says against it."""
        said: list[KernelRefused | None] = []
        for at in range(0, len(requests), _AT_ONCE):
            some, first = requests[at : at + _AT_ONCE], self._sequence + 1
            _, refused, _ = self._exchanged(some)
            said += [refused.get(first + number) for number in range(len(some))]
        return said

    def question(self, request: bytes) -> bytes:
        """Send a request that has one answer, and return it; the answer is its acknowledgement. Raises KernelRefused."""
        self.at_rest = False
        self._send(self._numbered(unacknowledged(request)))
        while True:
            for message in self._received():
                _, kind, flags, sequence, _ = HEADER.unpack_from(message)
                if sequence == self._sequence:
                    self.at_rest = True
                    if error := _error_in(message, kind, flags) if kind == _ERROR else None:
                        raise error
                    return message

    def link_index(self, name: str) -> int:
        """A link's index, or 0 (netdevice(7), SIOCGIFINDEX). Raises KernelRefused where that cannot be known."""
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFINDEX, _IFREQ.pack(name.encode(), 0))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return 0
            raise KernelRefused(f"netlink: ioctl for {name}: {error.strerror}", error.errno or 0) from None
        return int(_IFREQ.unpack(answer)[1])

    def _exchanged(self, requests: Sequence[bytes]) -> tuple[list[bytes], dict[int, KernelRefused], bool]:
        """What requests are answered, the refusals by number, and whether a dump was interrupted."""
        self.at_rest = False
        asked = range(self._sequence + 1, self._sequence + len(requests) + 1)
        self._send(b"".join(map(self._numbered, requests)))
        waiting = {number for number, request in zip(asked, requests, strict=True) if is_acknowledged(request)}
        answers: list[bytes] = []
        refused: dict[int, KernelRefused] = {}
        torn = False
        while waiting:
            for message in self._received():
                _, kind, flags, sequence, _ = HEADER.unpack_from(message)
                if sequence not in asked:
                    continue  # to somebody who did not wait for it
                torn |= bool(flags & _DUMP_INTR)
                if kind not in (_ERROR, _DONE):
                    answers.append(message)
                    continue
                if sequence in waiting:
                    waiting.discard(sequence)
                else:
                    waiting.clear()  # a transaction's end is refused, and with it all that was to be acknowledged
                if error := _error_in(message, kind, flags):
                    refused[sequence] = error
                    if error.errno == errno.EPERM and self._refuses_once:
                        waiting.clear()
        self.at_rest = True
        return answers, refused, torn

    def _send(self, data: bytes) -> None:
        """Send in one piece: a transaction is one packet, however many rules it has (socket(7))."""
        try:
            if len(data) > _BUFFER:
                self._widen(2 * len(data))
            self._socket.sendall(data)
        except OSError as error:
            raise KernelRefused(f"{len(data)} bytes to the kernel: {error.strerror}", error.errno or 0) from None

    def _widen(self, size: int) -> None:
        """Have room to send; who is root of a pod's users only has what net.core.wmem_max allows (socket(7))."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def _numbered(self, request: bytes) -> bytes:
        self._sequence += 1
        return numbered(request, self._sequence)

    def _received(self) -> Iterator[bytes]:
        try:
            data = self._socket.recv(_BUFFER)
        except BlockingIOError as error:
            raise Unfinished(f"netlink: no answer within {_PATIENCE_SECONDS} s", error.errno or 0) from None
        except OSError as error:
            raise Unfinished(f"netlink: {error.strerror}", error.errno or 0) from None
        return messages(data)


def _opened(protocol: int) -> socket.socket:
    made, call = None, "socket"
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        call = "bind"
        made.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
            call = f"setsockopt {option}"
            made.setsockopt(_SOL_NETLINK, option, 1)
        call = "setsockopt SO_RCVTIMEO"
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(_PATIENCE_SECONDS, 0))
    except OSError as error:
        if made:
            made.close()
        raise KernelRefused(f"netlink: {call}: {error.strerror}", error.errno or 0) from None
    return made


@understood
def _error_in(message: bytes, kind: int, flags: int) -> KernelRefused | None:
    """The error an acknowledgement or the end of a dump tells of, with the kernel's extended words if it has any."""
    number = -int(struct.unpack_from("=i", message, _NUMBER)[0])
    if number <= 0:
        return None
    at = _ATTRIBUTES_OF_ERROR if kind == _ERROR else _ATTRIBUTES_OF_DONE
    said = text_of(attributes(message, at).get(_ATTR_MSG, b"")) if flags & _ACK_TLVS else ""
    return KernelRefused(said or os.strerror(number), number)
