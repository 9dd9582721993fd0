"""What a machine may lack while a call is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import conntrack
import effects
from agents import serving
from lab import PATIENCE, ROOT, Host, Lab, Namespace, eventually, sh

from crash.judged import BROKEN, Finding, Scene
from crash.syscalls import late, refused

Lack = Callable[[Lab, str, str], Iterable[Finding]]


def _begun(*ways: list[str]) -> Lack:
    """Each call begun in each of these ways."""

    def told(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
        scene = Scene(lab, plugin)
        for way in ways:
            scene.ready(verb)
            said = scene.call(verb, way)
            words = " ".join(way)
            mute = ">&-" in words or ">/dev/full" in words.replace("2>/dev/full", "")
            yield scene.found(verb, words, replace(said, mute=mute))

    return told


class _Small(Host):
    """A host whose state is on a file system of its own, with room for so much."""

    def create(self) -> None:
        self.folder.mkdir(parents=True)
        sh("mount", "-t", "tmpfs", "none", self.folder)
        super().create()

    def leave(self, **room: int) -> None:
        """Leave so many bytes, or files, unused."""
        seen = os.statvfs(self.folder)
        used = {"size": (seen.f_blocks - seen.f_bfree) * seen.f_frsize, "nr_inodes": seen.f_files - seen.f_ffree}
        sh(
            "mount",
            "-o",
            "remount," + ",".join(f"{what}={used[what] + more}" for what, more in room.items()),
            self.folder,
        )


def _room(what: str, amounts: Sequence[int]) -> Lack:
    """So much room where the state is."""

    def told(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
        host = _Small(lab.name("small"))
        scene = Scene(lab, plugin, host)
        for amount in amounts:
            scene.ready(verb)
            if verb == "ADD":
                host.lose_state()  # which the next call makes, then
            host.leave(**{what: amount})
            said = scene.call(verb)
            host.leave(size=64 << 20, nr_inodes=10_000)
            yield scene.found(verb, f"{what}: {amount} are left", said)

    return told


def _many_links(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
    """A node that has 4,000 links."""
    scene = Scene(lab, plugin)
    lines = "".join(f"link add many{number} type ifb\n" for number in range(4000))
    sh("ip", "-n", scene.host.name, "-batch", "-", input=lines)
    scene.before = scene.host.snapshot()
    scene.ready(verb)
    yield scene.found(verb, "4,000 links", scene.call(verb), undone=True)


def _full_conntrack(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
    """Node and pod each know as many connections as they may (nf_conntrack_max, which counts in each namespace by itself)."""
    scene = Scene(lab, plugin)
    scene.ready(verb)
    for where in (scene.host, scene.pod):
        conntrack.fill(where)
    yield scene.found(verb, "conntrack is full", scene.call(verb), undone=True)
    conntrack.forget(scene.host)


#: More than the machine has for each family (gc_thresh3, which only its first namespace shows).
_NEIGHBOURS = 4096
_YEAR = 31_556_952


def _full_neighbours(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
    """As many neighbours as all namespaces may have together (gc_thresh3); the kernel collects those that are five seconds old, so it
    is for no longer. Those that are permanent, or learned elsewhere (`extern_learn`), as ours of overlays are, are not counted.
    """
    scene = Scene(lab, plugin)
    scene.ready(verb)
    with filled_neighbours(lab):
        said = scene.call(verb)
    yield scene.found(verb, "no neighbour more", said, undone=True)


@contextmanager
def filled_neighbours(lab: Lab) -> Iterator[None]:
    """Fill the tables of both families, from a namespace that is gone at once."""
    elsewhere = lab.add(Namespace(lab.name("crowded")))
    sh("ip", "-n", elsewhere.name, "link", "add", "many", "up", "type", "ifb")
    lines = "".join(
        f"neigh add {address} lladdr 02:00:00:00:00:01 nud reachable dev many\n"
        for number in range(1, _NEIGHBOURS)
        for address in (f"fd00:9::{number:x}", f"10.9.{number >> 8}.{number & 255}")
    )
    told = sh("ip", "-n", elsewhere.name, "-force", "-batch", "-", input=lines, check=False)
    assert "No buffer space" in told.stderr, "a table has room"
    try:
        yield
    finally:
        elsewhere.delete()


def _agent_clock(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
    """The clock of the day jumps between two calls that one agent serves. (Under libfaketime a process that spares its monotonic clock
    cannot sleep: clock_nanosleep(2) is refused there.)
    """
    scene = Scene(lab, plugin, armed="warm")
    for seconds in (0, 20 * _YEAR, -20 * _YEAR, 3600, -86_400, 0):
        scene.ready(verb)
        said = scene.call(verb, armed=True, **{effects.CLOCK: str(seconds)})
        found = scene.found(verb, f"the agent's clock jumps by {seconds} s", said, undone=True)
        failed = said.code and not verb.startswith(BROKEN)
        yield replace(found, wrong=[*found.wrong, *([f"failed: {said.stdout}"] if failed else [])])


def _agent(controller: str, used: str, limit: str, more: Sequence[int]) -> Lack:
    """So much more for the node agent than it has, by its control group (cgroups(7), version 1)."""

    def told(lab: Lab, plugin: str, verb: str) -> Iterator[Finding]:
        scene = Scene(lab, plugin)
        group = Path(f"/sys/fs/cgroup/{controller}/{lab.name('agent')}")
        group.mkdir()
        agent = serving(scene.host, within=["sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh"])
        try:
            for amount in more:
                scene.ready(verb)
                there = int((group / used).read_text())
                (group / limit).write_text(str(there + amount))
                said = scene.call(verb)
                (group / limit).write_text("max" if controller == "pids" else "-1")
                yield scene.found(verb, f"{used} {there}, {limit} {there + amount}", said)
        finally:
            agent.process.terminate()
            agent.process.communicate(timeout=PATIENCE)
            eventually(lambda: not (group / "cgroup.procs").read_text())
            group.rmdir()

    return told


def _sh(script: str) -> list[str]:
    return ["sh", "-c", f'exec "$@" {script}', "sh"]


def _mounted(*commands: str) -> list[str]:
    """With mounts of its own."""
    return ["unshare", "--mount", "sh", "-ec", "; ".join((*commands, 'exec "$@"')), "sh"]


def _read_only(*folders: str) -> list[str]:
    return _mounted(*(f"mount --bind {it} {it}; mount -o remount,ro,bind {it}" for it in folders))


def _covered(folder: str) -> list[str]:
    return _mounted(f"mount -t tmpfs none {folder}")


def _limited(name: str, numbers: Iterable[int]) -> list[list[str]]:
    return [["prlimit", f"--{name}={number}"] for number in numbers]


_FAKETIME = next((ROOT / ".cache/faketime").rglob("libfaketime.so.1"), "")
_OURS = ("/run/agent-cni", "/run/agent-cni-names", "/var/log", "/proc/sys")
LACKS: dict[str, Lack] = {
    "streams": _begun(*map(_sh, ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full", "</dev/full"))),
    "read-only": _begun(*map(_read_only, (*_OURS, "/proc", "/run/netns", "/tmp")), _read_only(*_OURS)),
    "surroundings": _begun(
        ["env", "-u", "PATH"], ["env", "PATH="], ["env", "-u", "HOME"], ["env", "HOME=/nowhere", "TMPDIR=/nowhere"], ["env", "LANG=tlh"],
        *map(_covered, ("/proc", "/sys", "/dev", "/etc", "/tmp")),
    ),
    "descriptors": _begun(*_limited("nofile", range(3, 70))),
    "memory": _begun(*_limited("as", (mib << 20 for mib in (*range(8, 128, 20), *range(128, 192, 4))))),
    "file-size": _begun(*_limited("fsize", (0, 1, 100, 4096, 8192, 1 << 15, 1 << 16, 1 << 17, 1 << 20))),
    "room": _room("size", [4096 * pages for pages in (*range(12), *range(12, 60, 6))]),
    "inodes": _room("nr_inodes", range(6)),
    "links": _many_links,
    "conntrack": _full_conntrack,
    "neighbours": _full_neighbours,
    "agent-clock": _agent_clock,
    "system-calls": refused,
    "late-answers": late,
    "agent-processes": _agent("pids", "pids.current", "pids.max", range(5)),
    "agent-memory": _agent("memory", "memory.usage_in_bytes", "memory.limit_in_bytes", [mib << 20 for mib in (0, 1, 2, 4, 8, 16)]),
    "clock": _begun(*(["env", f"LD_PRELOAD={_FAKETIME}", f"FAKETIME={by}"] for by in ("+20y", "-20y", "+1d x1000", "-1d x0.001"))),
    "other-limits": _begun(*(way for name in ("memlock", "sigpending", "core", "nproc", "msgqueue", "rtprio") for way in _limited(name, [0]))),
}  # fmt: skip
