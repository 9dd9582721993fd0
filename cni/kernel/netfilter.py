"""Packet rules: the only place that starts nft and iptables.

A node keeps its rules in nf_tables (natively, or through ``iptables-nft``) or in the legacy tables
of ``ip_tables``. The two do not see each other, so the choice is made once by looking at what the
node uses, without touching either: any ``iptables-legacy`` call would create the legacy tables.
"""

from __future__ import annotations

from pathlib import Path

from cni.errors import ToolFailed, Unavailable
from cni.kernel import process

NFTABLES, IPTABLES_NFT, IPTABLES_LEGACY = "nftables", "iptables-nft", "iptables-legacy"

_LEGACY_TABLES = Path("/proc/net/ip_tables_names")
_PROGRAM = {4: "iptables", 6: "ip6tables"}
_LOCK_WAIT = "5"


def choose(wanted: str = "") -> str:
    """The backend to use: `wanted` is ``nftables``, ``iptables`` or nothing for the node's own.

    Raises Unavailable when the program it needs is not installed.
    """
    if wanted == "nftables" or (not wanted and not _legacy_in_use() and process.find("nft")):
        return _present(NFTABLES, "nft")
    if _legacy_in_use():
        return _present(IPTABLES_LEGACY, "iptables-legacy-restore")
    return _present(IPTABLES_NFT, "iptables-nft-restore")


def nft(script: str) -> None:
    """Apply an nft script as one transaction. Raises ToolFailed with nft's own words."""
    done = process.run([process.find("nft") or "nft", "-f", "-"], script)
    if done.returncode:
        raise ToolFailed(f"nft refused a transaction: {_first_line(done.stderr)}")


def nft_list(what: str) -> str:
    """The text of ``nft list WHAT``, or nothing where that does not exist."""
    done = process.run([process.find("nft") or "nft", "list", *what.split()])
    if done.returncode and "No such file" not in done.stderr:
        raise ToolFailed(f"nft list {what}: {_first_line(done.stderr)}")
    return done.stdout if not done.returncode else ""


def restore(backend: str, family: int, text: str) -> None:
    """Apply iptables-save text to one family (4 or 6), keeping every other rule."""
    program = _tool(backend, family, "restore")
    waiting = ["-w", _LOCK_WAIT] if backend == IPTABLES_LEGACY else []
    done = process.run([program, "--noflush", *waiting], text)
    if done.returncode:
        raise ToolFailed(f"{program} refused a transaction: {_first_line(done.stderr)}")


def saved(backend: str, family: int, table: str) -> list[str]:
    """The rules of one table as iptables-save prints them."""
    program = _tool(backend, family, "save")
    done = process.run([program, "-t", table])
    if done.returncode:
        raise ToolFailed(f"{program} -t {table}: {_first_line(done.stderr)}")
    return done.stdout.splitlines()


def _legacy_in_use() -> bool:
    return _LEGACY_TABLES.exists() and "nat" in _LEGACY_TABLES.read_text().split()


def _present(backend: str, program: str) -> str:
    if not process.find(program):
        raise Unavailable(f"rules go to {backend} on this node, but {program} is not installed")
    return backend


def _tool(backend: str, family: int, verb: str) -> str:
    variant = "legacy" if backend == IPTABLES_LEGACY else "nft"
    program = f"{_PROGRAM[family]}-{variant}-{verb}"
    return process.find(program) or program


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
