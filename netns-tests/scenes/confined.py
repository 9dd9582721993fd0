"""Run a program with the system calls and capabilities that a unit of systemd leaves it: ``confined.py UNIT PROGRAM...``.

The filters are those systemd makes (seccomp_restrict_namespaces, seccomp_load_syscall_filter_set, seccomp_restrict_address_families
and seccomp_memory_deny_write_execute in src/shared/seccomp-util.c), made by libseccomp as there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMESPACES = {
    "cgroup": 0x02000000, "ipc": 0x08000000, "mnt": 0x00020000, "net": 0x40000000, "pid": 0x20000000,
    "time": 0x80, "user": 0x10000000, "uts": 0x04000000,
}  # fmt: skip
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQ, _GE, _MASKED = 4, 5, 7
_WRITE, _EXEC = 2, 4
_NO_NEW_PRIVILEGES = 38
_BOUND = "--bound"
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Argument(ctypes.Structure):
    """seccomp_rule_add(3), struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Filter:
    """One filter; what no rule is about is answered with `default`."""

    _lib = ctypes.CDLL("libseccomp.so.2")
    _lib.seccomp_init.restype = ctypes.c_void_p

    def __init__(self, default: int) -> None:
        self._context = ctypes.c_void_p(self._lib.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action: int, call: str, *arguments: tuple[int, int, int, int]) -> None:
        number = self._lib.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # others are of other architectures
            listed = (_Argument * max(1, len(arguments)))(*(_Argument(*item) for item in arguments))
            count = ctypes.c_uint(len(arguments))
            done = self._lib.seccomp_rule_add_array(self._context, ctypes.c_uint32(action), number, count, listed)
            assert done == 0, (call, done)

    def load(self) -> None:
        assert self._lib.seccomp_load(self._context) == 0


def main(unit: str, *command: str) -> None:
    service = section_of(Path(unit))
    if command[0] == _BOUND:  # capabilities are gone: a unit may leave nobody the call that takes them
        confine(service)
        os.execvp(command[1], command[1:])
    kept = [f"+{name.lower().removeprefix('cap_')}" for name in service["CapabilityBoundingSet"].split()]
    again = [sys.executable, __file__, unit, _BOUND, *command]
    os.execvp("setpriv", ["setpriv", "--bounding-set", ",".join(["-all", *kept]), *again])


def section_of(unit: Path) -> dict[str, str]:
    """What a unit says of its service; of a key that comes again, all it says."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", unit.read_text().partition("[Service]")[2]):
        found[name] = f"{found[name]} {value}" if name in found else value
    return found


def confine(service: dict[str, str]) -> None:
    """Leave this process and its children no other system calls than a unit does."""
    assert _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    filters = (
        _of_namespaces(service["RestrictNamespaces"].split()),
        _of_families(service["RestrictAddressFamilies"].split()),
        _of_memory(),
        _of_calls(service["SystemCallFilter"].split()),
    )
    for made in filters:
        made.load()


def _of_namespaces(kept: list[str]) -> _Filter:
    made = _Filter(_ALLOW)
    made.rule(_ERRNO | errno.EPERM, "setns", (1, _EQ, 0, 0))
    made.rule(_ERRNO | errno.ENOSYS, "clone3")
    for flag in (flag for name, flag in NAMESPACES.items() if name not in kept):
        for call, argument in (("unshare", 0), ("clone", 0), ("setns", 1)):
            made.rule(_ERRNO | errno.EPERM, call, (argument, _MASKED, flag, flag))
    return made


def _of_families(kept: list[str]) -> _Filter:
    made, numbers = _Filter(_ALLOW), {int(getattr(socket, name)) for name in kept}
    for family in set(range(64)) - numbers:
        made.rule(_ERRNO | errno.EAFNOSUPPORT, "socket", (0, _EQ, family, 0))
    made.rule(_ERRNO | errno.EAFNOSUPPORT, "socket", (0, _GE, 64, 0))
    return made


def _of_memory() -> _Filter:
    made, both = _Filter(_ALLOW), _WRITE | _EXEC
    made.rule(_ERRNO | errno.EPERM, "mmap", (2, _MASKED, both, both))
    for call in ("mprotect", "pkey_mprotect"):
        made.rule(_ERRNO | errno.EPERM, call, (2, _MASKED, _EXEC, _EXEC))
    return made


def _of_calls(named: list[str]) -> _Filter:
    made = _Filter(_ERRNO | errno.EPERM)
    denied = next((number for number, name in enumerate(named) if name.startswith("~")), len(named))
    less = [name.removeprefix("~") for name in named[denied:]]
    kept, taken = (
        {each for name in names for each in _members(name)} for names in (("@default", *named[:denied]), less)
    )
    for call in kept - taken:
        made.rule(_ALLOW, call)
    return made


def _members(name: str) -> Iterator[str]:
    if not name.startswith("@"):
        yield name
        return
    listed = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines()[1:]:
        member = line.strip()
        if member and not member.startswith("#"):
            yield from _members(member)


if __name__ == "__main__":
    main(*sys.argv[1:])
