"""Somebody who has the documentation and some machines, and types what a page says, line by line.

A machine has `/opt`, `/etc`, `/usr/local` and what else an installation writes of its own, and a shell that goes on from block to block.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from etcd import BINARIES
from lab import CNITOOL, OFFLINE, PATIENCE, ROOT, Host, eventually
from names import DNSMASQ

_spec = importlib.util.spec_from_file_location("blocks", ROOT / "tools/blocks.py")
assert _spec
assert _spec.loader
blocks: Any = importlib.util.module_from_spec(_spec)
sys.modules["blocks"] = blocks
_spec.loader.exec_module(blocks)

#: What is laid over by folders of the machine's own, and what is its own and empty.
_LAID_OVER, _EMPTY = ("/opt", "/etc", "/usr/local", "/var/lib"), ("/run/netns", "/var/log")
#: What goes on, and the command that answers when it is there.
_DAEMONS = {
    "agent-cni join --metrics": "curl -fs 127.0.0.1:9402/healthz",
    "agent-cni join": "agent-cni node",
    "agent-cni serve": "agent-cni serve --probe",
    "agent-cni names": "true",
    "agent-cni policy log": "true",
    "etcd ": "curl -fs http://192.0.2.1:2379/health",
}
#: What is typed on a machine of its own, whoever reads.
_THERE = {"etcd ": "store"}
#: What is different each time: it is typed, and its answer not compared.
_ANY_ANSWER = ("agent-cni block",)
#: What commands that found something end with: `no`, and by how bad it is.
_FOUND = (1, 3)
_END = "\x01"


class Machine:
    """A host as a reader's own. Use it with `with`: what was started there ends, and its folders go."""

    def __init__(self, host: Host, build: Path, name: str) -> None:
        self.host, self.name, self._folder = host, name, Path("/run/machines") / host.name
        self._environ = OFFLINE | {
            "PATH": f"/usr/local/bin:{DNSMASQ}:{CNITOOL.parent}:{BINARIES}:{os.environ['PATH']}",
            "WHEELS": str(ROOT / ".cache/wheels"), "BUILD": str(build), "HOME": "/root",
        }  # fmt: skip

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        for number, place in enumerate(_LAID_OVER):
            upper, work = (self._folder / f"{name}{number}" for name in ("upper", "work"))
            upper.mkdir()
            work.mkdir()
            options = f"lowerdir={place},upperdir={upper},workdir={work}"
            self.host.run("mount", "-t", "overlay", "overlay", "-o", options, place)
        for place in _EMPTY:
            self.host.run("mkdir", "-p", place)
            self.host.run("mount", "-t", "tmpfs", "tmpfs", place)
        # what the machine that runs the test has installed for itself
        self.host.run(
            "rm", "-rf", "/opt/cni", "/opt/agent-cni", "/etc/cni", "/etc/agent-cni", "/usr/local/bin/agent-cni"
        )
        self._shell = subprocess.Popen(
            [*self.host.within(), "unshare", "--uts", "bash"], env=self._environ, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._asked(
            f"cd {self._folder}; hostname {self.name}; echo {self.name} | md5sum | cut -c 1-32 >/etc/machine-id"
        )
        self._asked(
            f'make() {{ command make --no-print-directory -C {ROOT} "$@"; }}'
        )  # in a checkout, whose files are nobody's to change
        return self

    def __exit__(self, *_: object) -> None:
        self.types("kill $(jobs -p) 2>/dev/null; wait")
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.close()
        self._shell.wait(PATIENCE)
        self._shell.stdout.close()
        for place in (*_EMPTY, *_LAID_OVER):
            self.host.run("umount", "--lazy", place)
        shutil.rmtree(self._folder)

    def writes(self, file: str, text: str) -> None:
        """A file, as an editor writes it."""
        self.host.run("sh", "-c", 'mkdir -p "$(dirname "$0")" && cat >"$0"', file, input=text)

    def types(self, command: str) -> tuple[int, list[str]]:
        """What a command ends with and says. What a daemon is goes on, and this waits until it is there."""
        if daemon := next((name for name in _DAEMONS if command.startswith(name)), ""):
            self._asked(f"{command.partition('#')[0]} >>/run/said 2>&1 &")
            there = eventually(lambda: self._asked(_DAEMONS[daemon])[0] == 0)
            return (0, []) if there else (1, Path("/run/said").read_text().splitlines())
        return self._asked(command)

    def _asked(self, command: str) -> tuple[int, list[str]]:
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '{_END}%s\\n' $?\n")
        self._shell.stdin.flush()
        said = []
        while _END not in (line := self._shell.stdout.readline()):
            assert line, said
            said.append(line.rstrip("\n"))
        rest, _, code = line.partition(_END)
        return int(code), [*said, *filter(None, [rest])]


class Reader:
    """Who goes through pages, on one machine or several: the page's own is called "", others by their prompts."""

    def __init__(self, held: ExitStack, build: Path, hosts: Mapping[str, Host]) -> None:
        named = {"": "host-a", "other": "host-b"}
        self.machines = {
            name: held.enter_context(Machine(host, build, named.get(name, name))) for name, host in hosts.items()
        }

    def read(
        self, page: Path, says_no: tuple[str, ...] = (), before: Mapping[str, Callable[[Reader], None]] | None = None
    ) -> int:
        """Type and write all of a page, in its order; how many lines were typed. `says_no` are commands that may find something;
        `before` some, by how they begin, something is made so that they can have an answer.
        """
        lines = list[str]()
        for block in blocks.blocks(page):
            file, machine = blocks.written(block)
            if file:
                self.machines[machine].writes(file, block.text)
            for line in blocks.typed(block):
                if not line.why_not:
                    for prepare in [it for begins, it in (before or {}).items() if line.command.startswith(begins)]:
                        prepare(self)
                    self.types(line, says_no)
                    lines.append(line.command)
        return len(lines)

    def types(self, line: Any, says_no: tuple[str, ...]) -> None:
        """Type a line where it belongs, and hold the answer to the one that is shown."""
        there = next((name for begins, name in _THERE.items() if line.command.startswith(begins)), line.where)
        code, said = self.machines[there].types(line.command)
        assert code == 0 or (code in _FOUND and line.command.startswith(says_no)), (line.command, code, said)
        if line.answer and not line.command.startswith(_ANY_ANSWER):
            assert is_like(said, line.answer), (line.command, said)


def is_like(said: list[str], shown: list[str]) -> bool:
    """Whether an answer is the one that a page shows, where … may be anything, and any distance between words another."""
    pattern = "\n".join(r"\s+".join(map(_word, line.split())) for line in shown)
    return re.fullmatch(rf"\s*{pattern}\s*", "\n".join(said), re.DOTALL) is not None


def _word(word: str) -> str:
    return re.escape(word).replace("…", ".*")
