"""Fail each system call of a call's doors once, and say which ends in no designed error: tools/isolated .venv/bin/python3 tools/refused_calls.py [VERB ...]

strace lists the calls of a run that works; then the verb runs again for each of them, with that one call refused.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from lab import BIN_DIR, Lab, environment  # noqa: E402

CALLS = "socket,bind,setsockopt,sendto,sendmsg,recvfrom,recvmsg,openat,ioctl,fcntl,unshare,pipe2,clone,clone3,vfork"
ERRORS = ("EPERM", "ENOMEM", "EMFILE", "ENOSPC", "EIO")
OURS = re.compile(r"/run/agent-cni|/proc/sys|thread-self|/run/netns|/var/log/agent-cni|ip6?_tables_names")
#: Calls of the interpreter and the C library, which are nobody's door.
NOT_OURS = re.compile(r"TCGETS|FIOCLEX|FIONBIO|F_GETFD|F_GETFL|F_DUPFD|AF_UNIX")
CONF: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True,
    "ipMasq": True, "policy": {"ingress": []}, "sidecar": {"mode": "tproxy", "captureDNS": True},
    "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}  # fmt: skip


class Scene:
    """A host with one pod, which is attached or not."""

    def __init__(self, lab: Lab) -> None:
        self.host, self.pod, self.result = lab.host(), lab.pod(), {}

    def conf(self, verb: str) -> dict[str, Any]:
        more: dict[str, Any] = {"prevResult": self.result} if verb == "CHECK" else {}
        return copy.deepcopy(CONF) | more | ({"cni.dev/valid-attachments": []} if verb == "GC" else {})

    def attach(self) -> None:
        self.result = self.host.add(CONF, self.pod)

    def detach(self) -> None:
        self.host.delete_pod(CONF, self.pod)

    def traced(self, verb: str, *options: object) -> tuple[int, str, str]:
        """A cold call under strace: exit code, stdout, and what strace saw."""
        log = Path("/run/strace")
        log.unlink(missing_ok=True)
        argv = ("strace", "-f", "-qq", "-o", log, *options, BIN_DIR / CONF["type"])
        env = environment(verb, self.pod) | {"AGENT_CNI_SOCKET": ""}
        done = self.host.run("timeout", "60", *argv, input=json.dumps(self.conf(verb)), env=env, check=False)
        return done.returncode, done.stdout, log.read_text(errors="replace")


def calls(seen: str) -> Iterator[tuple[str, int, str]]:
    """The system calls worth failing, each with its number among those of its name and process tree."""
    numbers: dict[tuple[str, str], int] = {}
    first = seen.split(maxsplit=1)[0]
    for line in seen.splitlines():
        found = re.match(r"(\d+) +(\w+)\((.*)", line)
        if not found or found[1] != first:
            continue
        name, said = found[2], found[3]
        numbers[first, name] = numbers.get((first, name), 0) + 1
        if (name != "openat" or OURS.search(said)) and not NOT_OURS.search(said) and " = -1 " not in said:
            yield name, numbers[first, name], said[:70]


def different(found: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """Of calls that look alike the first, the one in the middle, and the last."""
    alike: dict[tuple[str, str], list[tuple[str, int, str]]] = {}
    for call in found:
        alike.setdefault((call[0], call[2] if call[0] == "openat" else call[2][:24]), []).append(call)
    return [call for group in alike.values() for call in dict.fromkeys((group[0], group[len(group) // 2], group[-1]))]


def judged(code: int, printed: str) -> str:
    """What is wrong with an answer, or nothing."""
    try:
        document = json.loads(printed) if printed.strip() else {}
    except ValueError:
        return f"no document: {printed[:80]!r}"
    if code == 0:
        return ""
    if not document:
        return f"exit {code} without a document"
    return f"{document['msg']}" if document.get("code") == 999 else ""


def enumerate_verb(lab: Lab, verb: str) -> Iterator[str]:
    scene = Scene(lab)
    scene.attach()
    if verb == "ADD":
        scene.detach()
    before = scene.host.snapshot() if verb == "ADD" else None
    _, _, seen = scene.traced(verb, "-e", f"trace={CALLS}")
    found = different(list(calls(seen)))
    print(f"{verb}: {len(found)} calls", file=sys.stderr, flush=True)
    for turn, (name, number, said) in enumerate(found):
        _ready(scene, verb)
        error = ERRORS[turn % len(ERRORS)]
        code, printed, _ = scene.traced(verb, "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}")
        if wrong := judged(code, printed):
            yield f"{verb} {error} {name}#{number} {said}: {wrong}"
        scene.detach()
        if before and (left := {key for key, value in scene.host.snapshot().items() if value != before[key]}):
            yield f"{verb} {error} {name}#{number} {said}: left {', '.join(sorted(left))}"


def _ready(scene: Scene, verb: str) -> None:
    scene.detach()
    if verb != "ADD":
        scene.attach()


def main(verbs: list[str]) -> int:
    wrong = 0
    for verb in verbs or ["ADD", "CHECK", "DEL", "STATUS", "GC"]:
        lab = Lab(f"refused {verb}")
        for line in enumerate_verb(lab, verb):
            print(line, flush=True)
            wrong += 1
        lab.close()
    print(f"{wrong} ended in no designed error", shlex.join(verbs))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
