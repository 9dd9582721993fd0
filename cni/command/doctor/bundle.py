"""What somebody needs who is to look into a fault from far away, in one file, without what is nobody's business.

Every text goes through `redacted`; files of keys and certificates are named and never read.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cni import __version__, log
from cni.agent import settings
from cni.command.node import answers_of
from cni.conflist.file import configurations
from cni.diagnosis.finding import Finding
from cni.diagnosis.redaction import redacted, secrets_in
from cni.errors import CniError
from cni.kernel import process
from cni.kernel.writing import put_asked
from cni.liveness import STATES, Witness
from cni.state import Record, Store

#: Of each log its end; bytes.
_LOG = 1 << 20
#: What the kernel is asked, by the file that has the answer.
_ASKED: Mapping[str, tuple[str, ...]] = {
    "links.txt": ("ip", "-d", "-s", "link"),
    "addresses.txt": ("ip", "address"),
    "routes-4.txt": ("ip", "-4", "route", "show", "table", "all"),
    "routes-6.txt": ("ip", "-6", "route", "show", "table", "all"),
    "rules.txt": ("ip", "rule"),
    "neighbours.txt": ("ip", "neighbour"),
    "fdb.txt": ("bridge", "fdb"),
    "ports.txt": ("bridge", "-d", "link"),
    "nftables.txt": ("nft", "list", "ruleset"),
    "iptables-nft.txt": ("iptables-nft-save", "-c"),
    "iptables-legacy.txt": ("iptables-legacy-save", "-c"),
    "sockets.txt": ("ss", "-lnup"),
    "disks.txt": ("df", "-h"),
    "sysctl-net.txt": (
        "sysctl",
        "-a",
        "-r",
        r"^net\.(ipv[46]\.(conf\.(all|default)\.|ip_forward)|bridge\.|netfilter\.)",
    ),
}
_SECONDS = 10.0


def bundle(options: argparse.Namespace, found: Mapping[str, list[Finding]]) -> None:
    """Write it, readable by its owner alone, with what the doctor `found`. Raises OSError where it cannot be written."""
    named = f"agent-cni-{platform.node() or 'node'}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    texts = {name: _made(make) for name, make in _parts(options, found)}
    known = {value for text in texts.values() for value in secrets_in(text)}  # where one stands barely, too
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, text in texts.items():
            _put(archive, f"{named}/{name}", redacted(text, known))
    put_asked(Path(options.bundle), made.getvalue(), 0o600)


def _made(make: Callable[[], str]) -> str:
    """What cannot be had says why."""
    try:
        return make()
    except (CniError, OSError) as error:
        return f"cannot be had: {getattr(error, 'msg', '') or error}\n"


def _put(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode(errors="replace")
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
    archive.addfile(member, io.BytesIO(data))


def _parts(options: argparse.Namespace, found: Mapping[str, list[Finding]]) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "about.json", lambda: _json(_about())
    yield "doctor.json", lambda: _json({area: [item.said() for item in items] for area, items in found.items()})
    yield "attachments.json", lambda: _json(answers_of(options.data_dir, options.conf_dir, _attached)[0])
    yield "leases.json", lambda: _json(answers_of(options.data_dir, options.conf_dir, _leases)[0])
    for path in (options.config, settings.PATH, *configurations(options.conf_dir)):
        if path.is_file():
            yield f"files/{path.name}", lambda path=path: path.read_text(errors="replace")  # type: ignore[misc]
    for path in sorted(log.FOLDER.glob("*.log*")):
        if path.is_file() and path.suffix != ".gz":
            yield f"logs/{path.name}", lambda path=path: _end_of(path)  # type: ignore[misc]
    for name, argv in _ASKED.items():
        yield f"kernel/{name}", lambda argv=argv: _answered(argv)  # type: ignore[misc]


def _json(data: Any) -> str:
    return json.dumps(data, indent=2) + "\n"


def _about() -> dict[str, Any]:
    return {
        "agent-cni": __version__,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "node": platform.node(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "uptime": _first_line(Path("/proc/uptime")),
        "load": [round(item, 2) for item in os.getloadavg()],
        "distribution": _first_line(Path("/etc/os-release")),
    }


def _first_line(path: Path) -> str:
    return path.read_text(errors="replace").partition("\n")[0] if path.exists() else ""


def _attached(store: Store) -> list[dict[str, Any]]:
    witness = Witness()
    return [_said(record, STATES[witness.of(record)]) for record in map(store.as_said, store.records())]


def _said(record: Record, state: str) -> dict[str, Any]:
    return {
        **record.attachment._asdict(),
        "pod": record.pod,
        "plugin": record.plugin,
        "netns": record.netns,
        "state": state if record.complete else "incomplete",
        "config": record.config,
        "result": record.result,
        "resources": [item.describe() for item in record.resources],
    }


def _leases(store: Store) -> list[dict[str, Any]]:
    return [{"address": str(address), **who._asdict(), "plugin": holder} for address, who, holder in store.all_leases()]


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG))
        return file.read().decode(errors="replace")


def _answered(argv: tuple[str, ...]) -> str:
    program = process.find(argv[0])
    if program is None:
        return f"{argv[0]} is not installed\n"
    done = process.run((program, *argv[1:]), seconds=_SECONDS)
    return done.stdout + (f"\n{done.stderr}" if done.stderr else "")
