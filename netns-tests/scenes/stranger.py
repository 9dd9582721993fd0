"""A process that speaks to the node agent's socket itself, in as many ways as there are to seem somebody else.

Reads JSON on stdin: `socket`, `texts` of the request, `conf`, `how`. Prints what the agent made of it: ``refused``, or what it
said after GO.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path


def connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.connect(path)
    except PermissionError:
        print("unreachable")
        sys.exit()
    return made


def ask(agent: socket.socket, texts: list[str]) -> None:
    with suppress(ConnectionError):
        agent.send("".join(f"{text}\0" for text in texts).encode())


def taken(agent: socket.socket) -> bool:
    try:
        return bool(select.select([agent], [], [], 30)[0]) and agent.recv(1) == b"A"
    except ConnectionError:
        return False


def go(agent: socket.socket, conf: str) -> None:
    out, into = os.pipe()
    os.write(into, conf.encode())
    os.close(into)
    with suppress(ConnectionError):
        socket.send_fds(agent, [b"G02"], [out, 2])
    os.close(out)


def said(agent: socket.socket) -> str:
    """What comes after GO; documents are acknowledged."""
    agent.settimeout(10)
    try:
        while answer := agent.recv(1 << 18):
            if len(answer) > 2:
                agent.send(b"P\0")
                return answer[2:].decode()
    except OSError:
        pass
    return "nothing"


def spoken(agent: socket.socket, wish: dict) -> str:
    ask(agent, wish["texts"])
    if not taken(agent):
        return "refused"
    go(agent, wish["conf"])
    return said(agent)


def by_another(agent: socket.socket, wish: dict) -> str:
    """Ask, and let a child say GO."""
    ask(agent, wish["texts"])
    if not taken(agent):
        return "refused"
    if not (child := os.fork()):
        go(agent, wish["conf"])
        os._exit(0)
    os.waitpid(child, 0)
    return said(agent)


def unsharing(agent: socket.socket, wish: dict) -> str:
    """Connect where we are, then gain every capability in a user namespace of our own."""
    assert not ctypes.CDLL(None).unshare(0x10000000), "CLONE_NEWUSER"
    return spoken(agent, wish)


def in_another_root(wish: dict) -> str:
    folder = os.open(str(Path(wish["socket"]).parent), os.O_PATH)
    os.chroot(wish["root"])
    os.fchdir(folder)
    return spoken(connected(Path(wish["socket"]).name), wish)


def recycled(wish: dict, early: bool) -> str:
    """Ask by a process that ends, then have a mightier one get its number while we hold the connection.

    The mightier one is made by who started us: it reads our number, and makes one with it when we are gone.
    """
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours = os.getpid()
    if os.fork():
        agent.connect(wish["socket"])
        ask(agent, wish["texts"])
        if early:
            go(agent, wish["conf"])
        os._exit(0)
    while os.getppid() == ours or Path(f"/proc/{ours}").exists():
        time.sleep(0.01)
    print(ours, flush=True)
    sys.stdin.readline()  # until the number is another's, and the agent goes on
    if not taken(agent):
        return "refused"
    if not early:
        go(agent, wish["conf"])
    return said(agent)


def main() -> None:
    wish = json.loads(sys.stdin.readline())
    how = wish["how"]
    if how in ("recycled", "recycled early"):
        print(recycled(wish, how.endswith("early")), flush=True)
    elif how == "another root":
        print(in_another_root(wish))
    elif how == "exits":
        agent = connected(wish["socket"])
        ask(agent, wish["texts"])
        go(agent, wish["conf"])
        print("sent")
    else:
        ways = {"plainly": spoken, "by another": by_another, "unsharing": unsharing}
        print(ways[how](connected(wish["socket"]), wish))


main()
