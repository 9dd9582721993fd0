"""What a machine may lack while a call is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from agents import serving
from lab import PATIENCE, ROOT, Host, Lab, eventually, sh

from crash.judged import Finding, Scene
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
    "system-calls": refused,
    "late-answers": late,
    "agent-processes": _agent("pids", "pids.current", "pids.max", range(5)),
    "agent-memory": _agent("memory", "memory.usage_in_bytes", "memory.limit_in_bytes", [mib << 20 for mib in (0, 1, 2, 4, 8, 16)]),
    "clock": _begun(*(["env", f"LD_PRELOAD={_FAKETIME}", f"FAKETIME={by}"] for by in ("+20y", "-20y", "+1d x1000", "-1d x0.001"))),
    "other-limits": _begun(*(way for name in ("memlock", "sigpending", "core", "nproc", "msgqueue", "rtprio") for way in _limited(name, [0]))),
}  # fmt: skip
