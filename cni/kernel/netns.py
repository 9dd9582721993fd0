"""Network namespaces: the only place that changes this thread's own (setns(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path

from cni.errors import InvalidNetns, KernelRefused, Stranded

#: The namespace of the thread that opens it.
OWN = "/proc/thread-self/ns/net"
#: Namespaces a caller opened for us, by path: it may see other mounts than we do.
handed_over: dict[str, int] = {}

_OWN_USERS, _OWN_PROCESSES = "/proc/self/ns/user", "/proc/self/ns/pid"
_FIRST_PROCESSES = 0xEFFFFFFC
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_NS_GET_USERNS, _NS_GET_NSTYPE = 0xB701, 0xB703
_SO_NETNS_COOKIE = 71
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Netns:
    """An open handle on a network namespace; it stays valid when its path goes away."""

    def __init__(self, path: str) -> None:
        """Open a namespace by path. Raises InvalidNetns where there is none."""
        self.path = path
        try:
            self.fd = os.dup(handed_over[path]) if path in handed_over else _opened(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "no path has such characters"
            raise InvalidNetns(f"CNI_NETNS: {path!r} cannot be opened: {why}") from None
        if not _is_network_namespace(self.fd):
            os.close(self.fd)
            raise InvalidNetns(f"CNI_NETNS: {path!r} is not a network namespace")

    @classmethod
    def if_there(cls, path: str) -> Netns | None:
        """Open a namespace by path, or None where there is none any more."""
        try:
            return cls(path)
        except InvalidNetns:
            return None

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Whether a path leads to a network namespace."""
        netns = cls.if_there(str(path))
        if netns:
            netns.close()
        return netns is not None

    def close(self) -> None:
        """Close the handle."""
        os.close(self.fd)

    @cached_property
    def identity(self) -> str:
        """Which namespace it is, for good: an inode number, unlike this, is given again once its namespace is gone."""
        with self.entered():
            return _identity()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in this namespace: sockets and /proc/sys/net files opened meanwhile belong to it."""
        with _away(lambda: _setns(self.fd, self.path)):
            yield


@contextmanager
def foreign_users() -> Iterator[int | None]:
    """A descriptor of the user namespace that owns the network namespace this thread is in; None where it is ours.

    A pod with ``hostUsers: false`` has one. What the kernel cannot tell counts as ours (ioctl_ns(2), NS_GET_USERNS).
    Raises KernelRefused where /proc does not say which is ours.
    """
    here = own_fd()
    users = _LIBC.ioctl(here, _NS_GET_USERNS)
    os.close(here)
    try:
        with _refused(_OWN_USERS):
            ours = users < 0 or os.path.samestat(os.fstat(users), Path(_OWN_USERS).stat())
        yield None if ours else users
    finally:
        if users >= 0:
            os.close(users)


def join_users(users: int) -> None:
    """Move this process, which has one thread, into a user namespace for good, with every capability there."""
    _checked("setns", _LIBC.setns(users, _CLONE_NEWUSER))


@contextmanager
def fresh() -> Iterator[None]:
    """Be in a network namespace made for that alone, which ends with it."""
    with _away(lambda: _checked("unshare", _LIBC.unshare(_CLONE_NEWNET))):
        yield


@contextmanager
def _away(leave: Callable[[], None]) -> Iterator[None]:
    """Leave the namespace this thread is in, and come back to it. Raises Stranded where that is refused."""
    here = own_fd()
    try:
        leave()
        try:
            yield
        finally:
            _come_home(here)
    finally:
        os.close(here)


def _come_home(here: int) -> None:
    try:
        _setns(here, "where this process lives")
    except KernelRefused as error:
        said = "nothing more was done, the next DEL removes what is there"
        raise Stranded(f"the way back from a pod's namespace is barred ({error.msg}): {said}") from None


def _opened(path: str) -> int:
    """A namespace looks like a file. Nothing else is opened: a pipe would have us wait, a device would do something."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise InvalidNetns(f"CNI_NETNS: {path!r} is not a network namespace")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def own_fd() -> int:
    """A descriptor of the namespace this thread is in. Raises KernelRefused."""
    with _refused(OWN):
        return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def _refused(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise KernelRefused(f"{path}: {error.strerror}; is /proc mounted?", error.errno or 0) from None
    except OSError as error:
        raise KernelRefused(f"{path}: {error.strerror}", error.errno or 0) from None


def _is_network_namespace(fd: int) -> bool:
    """Ask with NS_GET_NSTYPE (ioctl_ns(2)), which fails on everything that is no namespace."""
    kind: int = _LIBC.ioctl(fd, _NS_GET_NSTYPE)
    return kind == _CLONE_NEWNET


@cache
def home() -> tuple[int, int]:
    """Device and inode of the namespace this process lives in: what it is in between two `entered`."""
    with _refused(OWN):
        own = Path(OWN).stat()
    return own.st_dev, own.st_ino


@cache
def home_identity() -> str:
    """The identity of the namespace this process lives in."""
    return _identity()


@cache
def whereabouts() -> str:
    """From where this process looks: the identity of its network namespace and the inode of its process namespace."""
    with _refused(_OWN_PROCESSES):
        return f"{home_identity()} {Path(_OWN_PROCESSES).stat().st_ino}"


def sees_every_process() -> bool:
    """Whether this process is in the node's first process namespace (PROC_PID_INIT_INO, the same on every Linux)."""
    with suppress(OSError):
        return Path(_OWN_PROCESSES).stat().st_ino == _FIRST_PROCESSES
    return False


def is_at_home() -> bool:
    """Whether this thread is in the namespace its process lives in; not where that cannot be known."""
    return is_own(OWN)


def everywhere() -> Iterator[str]:
    """The identity of every namespace that a process we can see lives in, or has mounted, and that lets us in."""
    seen = set()
    for process in Path("/proc").glob("[0-9]*"):
        for path in (process / "ns/net", *_mounted(process)):
            with suppress(OSError):
                status = path.stat()
                if (status.st_dev, status.st_ino) not in seen and (netns := Netns.if_there(str(path))):
                    seen.add((status.st_dev, status.st_ino))
                    with closing(netns):
                        yield from _identity_if_let_in(netns)


def _identity_if_let_in(netns: Netns) -> Iterator[str]:
    try:
        yield netns.identity
    except KernelRefused as error:
        if error.errno != errno.EPERM:  # any other reason would be one for every namespace, and all would look gone
            raise


def _mounted(process: Path) -> Iterator[Path]:
    """Where a process has namespaces mounted (proc_pid_mountinfo(5)): field 4 is ``net:[inode]``, field 5 the place."""
    with suppress(OSError):
        for line in (process / "mountinfo").read_text(errors="replace").splitlines():
            fields = line.split(" ")
            if fields[3].startswith("net:["):
                yield process / "root" / fields[4].lstrip("/")


def is_own(path: str) -> bool:
    """Whether a path leads to the namespace this process lives in; one that leads nowhere does not."""
    try:
        its = Path(path).stat()
    except (OSError, ValueError):
        return False
    return (its.st_dev, its.st_ino) == home()


def link_exists(name: str) -> bool:
    """Whether the namespace this thread is in has a link: one system call, no rtnetlink."""
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


_LIBC = ctypes.CDLL(None, use_errno=True)


def _identity() -> str:
    """The boot and the cookie (socket(7), SO_NETNS_COOKIE) of the namespace this thread is in; nothing before Linux 5.14."""
    with _refused("a socket in the namespace"):
        any_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with any_socket:
        try:
            cookie = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return ""
    return f"{boot()}:{int.from_bytes(cookie, sys.byteorder)}"


@cache
def boot() -> str:
    """Which boot this is (random(4), boot_id). Raises KernelRefused."""
    with _refused(str(_BOOT)):
        return _BOOT.read_text().strip()


def _setns(fd: int, where: str) -> None:
    _checked(f"setns to {where}", _LIBC.setns(fd, _CLONE_NEWNET))


def _checked(call: str, answer: int) -> None:
    if answer:
        number = ctypes.get_errno()
        raise KernelRefused(f"{call}: {os.strerror(number)}", number)
