"""libnftables, which is nft without its process (libnftables(3)): the only place that loads it.

A namespace's context is kept, because the kernel lets whoever closes an nfnetlink socket wait until what was deleted is
out of everybody's sight: 10 ms and more for every transaction that deletes anything, against half of one.
"""

from __future__ import annotations

import ctypes
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

from cni.errors import Lacking, Unavailable
from cni.kernel import foreign, netns, signature
from cni.kernel.kept import PerNamespace
from cni.kernel.netlink.channel import NETFILTER, Channel

LIBRARY = "libnftables.so.1"

_STATELESS, _JSON = 1 << 2, 1 << 4  # nftables/libnftables.h: NFT_CTX_OUTPUT_STATELESS, NFT_CTX_OUTPUT_JSON

#: The library serves one thread at a time.
_turn = Lock()


class Answer(NamedTuple):
    """What commands came to, and what was printed and complained of meanwhile."""

    done: bool
    output: str
    complaint: str

    @property
    def reason(self) -> str:
        """The first line of a complaint."""
        return next(filter(None, map(str.strip, self.complaint.splitlines())), "no reason given")


def present() -> bool:
    """Whether the library is installed. Raises Lacking where it is, and the machine has too little for it."""
    try:
        return bool(_library())
    except Unavailable:
        return False


def run(commands: str) -> Answer:
    """Run a script as one transaction in the namespace this thread is in, or list without counters.

    Raises Unavailable where the library is not installed.
    """
    signature.sign()
    with _turn:
        return _contexts.here().run(commands)


def as_json(question: str) -> Answer:
    """The answer to a question as JSON (libnftables-json(5)), in the namespace this thread is in. Raises Unavailable."""
    with _turn:
        context = Context(_JSON)
        try:
            return context.run(question)
        finally:
            context.close()


def rehearse(commands: str, question: str) -> Answer:
    """The answer to a question where commands alone were run: in a namespace that vanishes with it."""
    with netns.fresh():
        context = Context()
        try:
            done = context.run(commands)
            return context.run(question) if done.done else done
        finally:
            context.close()


class Context:
    """A parser, a cache of what is there, and a socket to the namespace it was made in. Raises Unavailable, as `run`."""

    #: Whether the library can still be asked: where it ended in the midst of something it is left as it is.
    fit: bool = False

    def __init__(self, output: int = _STATELESS) -> None:
        self._library = library = _library()
        Channel(NETFILTER).close()  # the library only says that there is no socket, and ends the process: we say why
        self._handle = ctypes.c_void_p(foreign.called(lambda: library.nft_ctx_new(0), LIBRARY))
        self.fit = True
        library.nft_ctx_buffer_output(self._handle)
        library.nft_ctx_buffer_error(self._handle)
        library.nft_ctx_output_set_flags(self._handle, output)

    def run(self, commands: str) -> Answer:
        """Run commands; reading a buffer empties it for the next ones. Raises Lacking and Unfinished, as `foreign.called`."""
        if not self.fit:
            raise Lacking(f"{LIBRARY} ended, or did not answer, before")
        self.fit, script = False, commands.encode()
        failed = foreign.called(lambda: self._library.nft_run_cmd_from_buffer(self._handle, script), LIBRARY)
        self.fit = True
        output = self._library.nft_ctx_get_output_buffer(self._handle)
        complaint = self._library.nft_ctx_get_error_buffer(self._handle)
        return Answer(not failed, output.decode(errors="replace"), complaint.decode(errors="replace"))

    def close(self) -> None:
        """Close the socket."""
        if self.fit:
            self._library.nft_ctx_free(self._handle)


_contexts = PerNamespace(Context, lambda context: context.fit)


@cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        if "No such file" in str(error):
            raise Unavailable(f"{LIBRARY} is not installed") from None
        raise Lacking(str(error)) from None  # what is there and cannot be loaded now is not to be done without
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
    return library
