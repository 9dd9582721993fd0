"""The system calls of a cold call's doors, as strace sees them, each refused once: a second opinion that needs no seam."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lab import Lab

from crash.judged import BROKEN, Finding, Scene

CALLS = "socket,bind,setsockopt,sendto,sendmsg,recvfrom,recvmsg,openat,ioctl,fcntl,unshare,setns,pipe2,clone,clone3,vfork,fsync,fdatasync,ftruncate,pwrite64"
ERRORS = ("EPERM", "ENOMEM", "EMFILE", "ENOSPC", "EIO", "EINTR", "ENOBUFS")
_LATE_US = 3_000_000
OURS = re.compile(r"/run/agent-cni|/proc/sys|thread-self|/run/netns|/var/log/agent-cni|ip6?_tables_names")
#: Calls of the interpreter and the C library, which are nobody's door.
NOT_OURS = re.compile(r"TCGETS|FIOCLEX|FIONBIO|F_GETFD|F_GETFL|F_DUPFD|AF_UNIX")
#: What no kernel says of a call: a child that was made is there, and of what was not sent there is no answer.
_RESTARTED = {
    "openat",
    "fcntl",
    "clone",
    "clone3",
    "vfork",
    "socket",
    "bind",
    "setsockopt",
    "unshare",
    "setns",
    "ioctl",
    "pipe2",
}


def refused(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
    """Of calls that look alike the first, the one in the middle, and the last, each with another error."""
    scene, log = Scene(lab, plugin), Path("/run/strace")
    scene.ready(verb)
    scene.call(verb, _traced(log, "-e", f"trace={CALLS}"), AGENT_CNI_SOCKET="")
    scene.end()
    for turn, (name, number, said) in enumerate(_different(list(_calls(log.read_text(errors="replace"))))):
        error = ERRORS[turn % len(ERRORS)]
        error = "EPERM" if error == "EINTR" and name in _RESTARTED else error
        scene.ready(verb)
        way = _traced(log, "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}")
        yield scene.found(verb, f"{error} {name}#{number} {said}", scene.call(verb, way, AGENT_CNI_SOCKET=""))


def late(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
    """Each tenth answer of the kernel's comes three seconds late."""
    scene, log = Scene(lab, plugin), Path("/run/strace")
    for number in range(1, 42, 10):
        scene.ready(verb)
        way = _traced(log, "-e", "trace=recvfrom", "-e", f"inject=recvfrom:delay_enter={_LATE_US}:when={number}")
        said = scene.call(verb, way, AGENT_CNI_SOCKET="")
        found = scene.found(verb, f"answer {number} is late", said, undone=True)
        yield replace(found, wrong=[*found.wrong, *(["failed"] if said.code and not verb.startswith(BROKEN) else [])])


def _traced(log: Path, *options: str) -> list[str]:
    log.unlink(missing_ok=True)
    return ["strace", "-f", "-qq", "-o", str(log), *options]


def _calls(seen: str) -> Iterator[tuple[str, int, str]]:
    """The system calls worth failing, each with its number among those of its name and process."""
    numbers: dict[str, int] = {}
    first = seen.split(maxsplit=1)[0]
    for line in seen.splitlines():
        found = re.match(r"(\d+) +(\w+)\((.*)", line)
        if not found or found[1] != first:
            continue
        name, said = found[2], found[3]
        numbers[name] = numbers.get(name, 0) + 1
        if (name != "openat" or OURS.search(said)) and not NOT_OURS.search(said) and " = -1 " not in said:
            yield name, numbers[name], said[:70]


def _different(found: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    alike: dict[tuple[str, str], list[tuple[str, int, str]]] = {}
    for call in found:
        alike.setdefault((call[0], call[2] if call[0] == "openat" else call[2][:24]), []).append(call)
    return [call for group in alike.values() for call in dict.fromkeys((group[0], group[len(group) // 2], group[-1]))]
