"""Whether a call's effects are all of them: what strace sees of it lies within what is numbered."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import armed
import pytest
from effects import Order
from lab import Host, Lab, Pod, environment

#: What changes something, and the effects in which it may: each system call as strace spells it.
MUTATING = {
    r"(sendto|sendmsg)\(.*RTM_(NEW|DEL|SET)": r"(NEW|DEL|SET)[A-Z]+",
    r"(sendto|sendmsg)\(.*(NFNL_MSG_BATCH_BEGIN|nlmsg_type=NFNL_SUBSYS_CTNETLINK<<8\|IPCTNL_MSG_CT_(NEW|DELETE))": r"(rules|nft|connections|run )",
    r"setsockopt\(.*(IPT|IP6T)_SO_SET_REPLACE": r"run ",
    r"(pwrite64|write)\(\d+</[^>]*/(state|documents)\.db(-wal|-journal)?>": r"(commit|layout|journal_mode|checkpoint|[A-Z]+ )",
    r"(pwrite64|write)\(\d+</(?!proc/\d+/|dev/|memfd|[^>]*/(state|documents)\.db)": r"(p?write|open|run) ",
    r"(rename|unlink|mkdir|rmdir|symlink|link|chmod|fchmod)(at2?)?\((?!.*-(wal|shm|journal)\")": r"(rename|replace|unlink|remove|mkdir|rmdir|symlink|link|f?chmod) ",
    r"openat\((?!.*(/proc/(thread-)?self|/dev/|-(wal|shm|journal)\"|state\.db\")).*(O_CREAT|O_TRUNC)": r"(open|write|run) ",
    r'execve\("[^"]*(?<!-save)"': r"run ",
}  # fmt: skip


def outside(trace: str, log: Path, there: Collection[str]) -> Iterator[str]:
    """The mutating system calls of a call that lie in no effect of their kind; before its first it is begun by programs."""
    now = ""
    for line in trace.splitlines():
        call = re.sub(r"^\d+ +(<\.\.\. )?", "", line)
        if said := re.match(rf'write\(\d+<{re.escape(str(log))}>, "\d+ (.*)\\n"', call):
            now = said[1]
        elif " = -1 E" in call or str(log) in call or _opens(call) in there:
            continue
        elif kind := next((kind for kind in MUTATING if re.match(kind, call)), ""):
            begins = kind.startswith("execve") and not now
            if not begins and not re.match(MUTATING[kind], now):
                yield f"in {now!r}: {call[:160]}"


def _opens(call: str) -> str:
    """What is opened as it is, and made only where it is not there."""
    opened = re.match(r'openat\([^"]*"([^"]+)"', call)
    return opened[1].rpartition("/")[2] if opened and "O_TRUNC" not in call else ""


CHAIN = [("bridge-vxlan", {"bridge": "br0", "isDefaultGateway": True, "ipMasq": True, "names": {"domain": "in.test"},
          "vxlan": {"id": 9, "remotes": ["192.0.2.9"]}, "policy": {"defaultDeny": True, "allowDNS": True}, "sidecar": {"port": 15001},
          "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}})]  # fmt: skip


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_nothing_changes_outside_an_effect(host: Host, lab: Lab, pod: Pod, backend: str):
    lab.underlay(host)
    plugin, keys = CHAIN[0]
    conf = {"cniVersion": "1.1.0", "name": "net", "type": plugin, "ipMasqBackend": backend} | keys
    seen = {}
    for verb in ("ADD", "CHECK", "DEL"):
        there = {file.name for file in host.folder.iterdir()}
        trace, order = host.folder / f"{verb}.strace", Order(host.folder / f"{verb}.effects")
        env = environment(verb, pod) | order.environ
        done = host.run(
            "strace",
            "-f",
            "-y",
            "-qq",
            "-s",
            "300",
            "-o",
            trace,
            armed.bin_dir() / plugin,
            input=json.dumps(conf),
            env=env,
        )
        conf |= {"prevResult": json.loads(done.stdout)} if verb == "ADD" else {}
        seen[verb] = len(order.told())
        found = list(outside(trace.read_text(errors="replace"), order.log, there))
        assert not found, "\n".join([verb, *found])
        trace.unlink()
    assert min(seen.values()) > 3, seen
