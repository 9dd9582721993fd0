"""Packet rules: the only place that asks libnftables, and starts iptables and python-iptables.

A namespace keeps its rules in nf_tables (natively, or through ``iptables-nft``) or in the legacy tables
of ``ip_tables``. The two do not see each other, so the choice is made once by looking at what is in
use, without touching either: any ``iptables-legacy`` call would create the legacy tables.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from pathlib import Path

from cni.errors import KernelRefused, ToolFailed, TryAgainLater, Unavailable
from cni.kernel import compiled, netns, nftables, process
from cni.kernel.ruleset import Change

NFTABLES, IPTABLES_NFT, IPTABLES_LEGACY = "nftables", "iptables-nft", "iptables-legacy"

_LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")
_PROGRAM = {4: "iptables", 6: "ip6tables"}
_NFT_FAMILY = {4: "ip", 6: "ip6"}
_LOCK_WAIT = "5"
_BUSY = 75  # EX_TEMPFAIL, see legacy.py
_BUSY_TRIES = 5
_QUESTION_TRIES = 100
_REHEARSAL = 10.0  # seconds
_FOREIGN_USERS = "hostUsers: false: the pod's user namespace must map 0 and every id of the rules"


def choose(wanted: str = "") -> str:
    """The backend to use: `wanted` is ``nftables``, ``iptables`` or nothing for the node's own.

    Raises Unavailable when what it needs is not installed.
    """
    if wanted == "nftables" or (not wanted and not legacy_in_use() and nftables.present()):
        return _present(NFTABLES, nftables.LIBRARY)
    if legacy_in_use():
        return _present(IPTABLES_LEGACY, "iptables-legacy-restore")
    return _present(IPTABLES_NFT, "iptables-nft-restore")


def choose_in_pod(wanted: str, node_is_legacy: bool) -> str:
    """The iptables backend to use in the namespace this thread is in: `wanted` names it, or is nothing for
    what is in use there; a namespace without any rules follows its node.

    Raises Unavailable when what it needs is not installed.
    """
    legacy = bool(_legacy_tables()) or (node_is_legacy and not nft_list("tables"))
    if (wanted or (IPTABLES_LEGACY if legacy else IPTABLES_NFT)) == IPTABLES_NFT:
        return _present(IPTABLES_NFT, "iptables-nft-restore")
    if not importlib.util.find_spec("iptc"):
        raise Unavailable(f"rules go to {IPTABLES_LEGACY} here, but python-iptables is not installed")
    return _present(IPTABLES_LEGACY, "iptables-legacy-save")


class Chains:
    """Every chain of a table by one listing, because to list one nft reads all of them. Use it with `with`, where what they are by
    now is of no matter: it says what they were when the first of their table was asked for.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[int, str], dict[str, str]] = {}

    def __enter__(self) -> None:
        self._token = _chains.set(self)

    def __exit__(self, *_: object) -> None:
        _chains.reset(self._token)

    def text(self, table: str, name: str) -> str:
        """What ``nft list`` says of a chain of a table, ``inet name``, of the namespace this thread is in."""
        place = Path(netns.OWN).stat().st_ino, table
        if place not in self._texts:
            self._texts[place] = _apart(nft_list(f"table {table}"))
        return self._texts[place].get(name, "")


_chains: ContextVar[Chains | None] = ContextVar("_chains", default=None)


def _apart(listed: str) -> dict[str, str]:
    """Each chain of a table by its name, as it is listed alone."""
    head, _, body = listed.partition("\n")
    found = re.findall(r"^(\tchain (\S+) \{\n.*?^\t\}\n)", body, re.MULTILINE | re.DOTALL)
    return {name: f"{head}\n{text}}}\n" for text, name in found}


def nft(script: str) -> None:
    """Apply an nft script as one transaction. Raises ToolFailed with nft's own words."""
    answer = nftables.run(script)
    if not answer.done:
        raise ToolFailed(f"nft refused a transaction: {answer.reason}")


def nft_made(scripts: Iterable[str], changes: Iterable[Change] = ()) -> None:
    """Apply scripts that only make things, each complete in itself, and change sets, as one transaction; see compiled.apply."""
    compiled.apply(scripts, changes)


def nft_if_there(script: str) -> bool:
    """Apply a script about what may be gone: False, and nothing done, where something it names is not there."""
    answer = nftables.run(script)
    if not answer.done and "No such file" not in answer.complaint:
        raise ToolFailed(f"nft refused a transaction: {answer.reason}")
    return answer.done


def nft_list(what: str) -> str:
    """The text of ``nft list WHAT``, without counters, or nothing where that does not exist.

    A chain's, within a `Chains`, is what it was when the first was asked for.
    """
    kind, _, place = what.partition(" ")
    if kind == "chain" and (chains := _chains.get()):
        return chains.text(*place.rsplit(" ", 1))
    for _ in range(_QUESTION_TRIES):
        answer = nftables.run(f"list {what}")
        if "Interrupted system call" not in answer.complaint:  # rules changed while they were read
            break
    if not answer.done and "No such file" not in answer.complaint:
        raise ToolFailed(f"nft list {what}: {answer.reason}")
    return answer.output if answer.done else ""


def nft_json() -> str:
    """``nft -j list ruleset`` of the namespace this thread is in (libnftables-json(5)); nothing where the library is not installed."""
    for _ in range(_QUESTION_TRIES if nftables.present() else 0):
        answer = nftables.as_json("list ruleset")
        if answer.done:
            return answer.output
    return ""


def nft_rehearsed(script: str, what: str) -> str:
    """What ``nft list WHAT`` says of a script alone, applied in a namespace made for that.

    It spells rules as this nft does, so that what should be can be compared with what is.
    """
    answer = nftables.rehearse(script, f"list {what}")
    if not answer.done:
        raise ToolFailed(f"nft refused a rehearsal: {answer.reason}")
    return answer.output


@lru_cache(maxsize=16)
def nft_tried(script: str) -> None:
    """Apply an nft script alone in a namespace made for that, which vanishes with it; its only link is ``lo``.

    Raises Unavailable with the kernel's reason. What went well once is not tried again.
    """
    answer = nftables.rehearse(script, "list tables")
    if not answer.done:
        raise Unavailable(f"rules cannot be made here ({NFTABLES}): {answer.reason}")


def restore(backend: str, family: int, text: str, users: int | None = None) -> None:
    """Apply iptables-save text to one family (4 or 6), keeping every other rule; as root of a user namespace, if given."""
    program = _tool(backend, family, "restore")
    waiting = ["-w", _LOCK_WAIT] if backend == IPTABLES_LEGACY else []
    as_root = [process.find("nsenter") or "nsenter", f"--user=/proc/self/fd/{users}"] if users is not None else []
    done = process.run([*as_root, program, "--noflush", *waiting], text, keep=() if users is None else (users,))
    if done.returncode:
        raise ToolFailed(f"{program} refused a transaction: {_reason(done.stderr)}")


def restore_in_pod(backend: str, family: int, text: str) -> None:
    """Apply iptables-save text to one family of a pod's namespace, keeping every other rule.

    Who writes rules that look at owners must be in the user namespace the pod's belongs to (xt_owner.c, owner_check).
    Raises TryAgainLater when somebody else keeps changing legacy tables.
    """
    with netns.foreign_users() as users:
        try:
            (_restore_legacy if backend == IPTABLES_LEGACY else partial(restore, backend))(family, text, users)
        except ToolFailed as error:
            if users is None:
                raise
            raise ToolFailed(f"{error.msg} ({_FOREIGN_USERS})") from None


def _restore_legacy(family: int, text: str, users: int | None) -> None:
    """Through python-iptables, because iptables-legacy waits for a lock that the whole host shares."""
    into = [] if users is None else [users]
    command = [sys.executable, "-I", "-m", "cni.kernel.legacy", *map(str, (family, os.getpid(), *into))]
    for _ in range(_BUSY_TRIES):
        done = process.run(command, text, keep=[*into, *process.own()])
        if done.returncode == 0:
            return
        if done.returncode != _BUSY:
            raise ToolFailed(f"python-iptables refused a transaction: {_reason(done.stderr)}")
    raise TryAgainLater(f"the IPv{family} legacy tables change faster than rules can be added")


@cache
def rehearse(backend: str, family: int, text: str) -> None:
    """Apply iptables-save text in a namespace made for that alone, which vanishes with it.

    Raises Unavailable when the kernel or the program lacks what the rules need. What went well once is not tried again.
    """
    command = [process.find("unshare") or "unshare", "--net", _tool(backend, family, "restore"), "--noflush"]
    environ = {"PATH": process.SYSTEM_PATH, "LC_ALL": "C", "XTABLES_LOCKFILE": os.devnull}
    done = process.run(command, text, environ, seconds=_REHEARSAL)
    if done.returncode:
        raise Unavailable(f"IPv{family} rules cannot be made here ({backend}): {_reason(done.stderr)}")


def saved(backend: str, family: int, table: str = "") -> list[str]:
    """The rules of one table, or of all, as iptables-save prints them; nothing where nf_tables has no table at all."""
    if backend == IPTABLES_NFT and nftables.present() and not nft_list(f"tables {_NFT_FAMILY[family]}"):
        return []
    program = _tool(backend, family, "save")
    done = process.run([program, *(["-t", table] if table else [])])
    if done.returncode:
        raise ToolFailed(f"{program}: {_reason(done.stderr)}")
    return done.stdout.splitlines()


def saved_elsewhere(backend: str, family: int) -> list[str]:
    """The rules of the iptables backend that is not `backend`, without bringing it into use."""
    if backend == IPTABLES_LEGACY:
        return saved(IPTABLES_NFT, family) if process.find("iptables-nft-save") else []
    return saved(IPTABLES_LEGACY, family) if _legacy_tables() and process.find("iptables-legacy-save") else []


def in_use(family: int) -> list[str]:
    """The iptables backends that have rules of a family in the namespace this thread is in, and a program that prints them."""
    legacy = Path(f"/proc/thread-self/net/{_PROGRAM[family].removesuffix('tables')}_tables_names")
    there = {IPTABLES_NFT: bool(nft_list(f"tables {_NFT_FAMILY[family]}")), IPTABLES_LEGACY: _has_words(legacy)}
    return [backend for backend, has in there.items() if has and process.find(_tool(backend, family, "save"))]


def _has_words(file: Path) -> bool:
    try:
        return bool(file.read_text().split())
    except OSError:
        return False


def legacy_in_use() -> bool:
    """Whether the namespace this thread is in translates addresses in the legacy tables."""
    return "nat" in _legacy_tables()


def _legacy_tables() -> list[str]:
    try:
        return _LEGACY_TABLES.read_text().split()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KernelRefused(f"{_LEGACY_TABLES}: {error.strerror}", error.errno or 0) from None


def _present(backend: str, needed: str) -> str:
    if not (nftables.present() if needed == nftables.LIBRARY else process.find(needed)):
        raise Unavailable(f"rules go to {backend} on this node, but {needed} is not installed")
    return backend


def _tool(backend: str, family: int, verb: str) -> str:
    variant = "legacy" if backend == IPTABLES_LEGACY else "nft"
    program = f"{_PROGRAM[family]}-{variant}-{verb}"
    return process.find(program) or program


def _reason(text: str) -> str:
    """A program's first words in one line, without an iptables' name and version in front of them."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.endswith("(nf_tables):")] or lines
    return "; ".join(told[:3]) or "no reason given"
