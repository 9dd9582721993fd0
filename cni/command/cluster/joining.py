"""What a host that joins is told and asked, what is written then, and who runs its member."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cni.cluster.config import PATH, ClusterConfig, host_name, read, write
from cni.cluster.engines import store_of
from cni.cluster.model import Node
from cni.command.cluster.admission import refuse_elsewhere, refuse_taken, refuse_unfit
from cni.command.cluster.cluster import own_part
from cni.command.output import print_json, say
from cni.errors import Conflict, InvalidConfig, TryAgainLater
from cni.installation import systemd
from cni.installation.place import Place
from cni.kernel.writing import take_whole
from cni.member.leaving import leave
from cni.state.daemons import MEMBER, is_running

#: How long to wait beyond a session, for which an earlier life of this host may have to be waited for; seconds.
_PATIENCE, _STEP = 10.0, 0.2

#: What is said of keys, each by its path.
Asked = Mapping[tuple[str, ...], Any]
#: A key's path, its value before, and now; None is none.
Change = tuple[str, Any, Any]


def joined(options: argparse.Namespace, asked: Asked) -> ClusterConfig | None:
    """Write what was asked for, and have systemd run the member where it can; else what the caller is to be the member by.

    Raises what is in the way, and nothing is written then.
    """
    file = options.config
    old = file.read_bytes() if file.exists() else None
    before = _said(file, old) if old is not None else {}
    config = _merged(before, asked)
    changes = list(_changes(before, config.document))
    by_systemd = file == PATH and systemd.runs_members(Place())
    running = _runs_already(by_systemd=by_systemd, changed=bool(changes))
    if not (changes or by_systemd or running):
        return config  # as without options: what is the member again, as in a container, needs no store to begin
    hosts = _refuse_unable(config)
    was_in = own_part()[0] is not None or config.node in hosts
    if changes:
        config.write(file)
    if by_systemd:
        _have_started(config, file, old, changed=bool(changes), was_in=was_in)
    becomes_member = not (by_systemd or running)
    others = [name for name in hosts if name != config.node]
    _tell(options, config, changes, others, becomes_member=becomes_member)
    return config if becomes_member else None


def _said(file: Path, text: bytes) -> dict[str, Any]:
    document, faults = read(text)
    if faults:
        raise InvalidConfig(f"{file}: {'; '.join(faults)}")
    return document


def _merged(before: Mapping[str, Any], asked: Asked) -> ClusterConfig:
    """What a document says with some of it said otherwise. Raises InvalidConfig naming the keys."""
    document = {"node": host_name() if "node" not in before and ("node",) not in asked else ""} | json.loads(
        json.dumps(before)
    )
    if any(path[0] == "kubernetes" for path in asked):
        document.setdefault("kubernetes", {})
    elif "kubernetes" not in document:
        document.setdefault("etcd", {})
    for (*section, key), value in asked.items():
        (document[section[0]] if section else document)[key] = value
    said, faults = read(json.dumps(document).encode())
    if faults:
        raise InvalidConfig("; ".join(faults))
    return ClusterConfig.of(said)


def _refuse_unable(config: ClusterConfig) -> list[str]:
    """The names of the hosts there are. Raises what is in the way of being one of them. A store that says which blocks a host has says
    who it is, too: of Kubernetes' Nodes one may be a machine that was replaced, or be there still and have the address of another.
    """
    store = store_of(config)
    me = refuse_unfit(config, store)
    items = store.listing().items
    before, held = own_part()
    if not store.assigns:
        if before:
            refuse_elsewhere(before, held, me, items)
        refuse_taken(me, items)
    return [item.name for item in items if isinstance(item, Node)]


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Each key whose value is another."""
    old, new = (dict(_flat(document)) for document in (before, after))
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def _flat(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _runs_already(*, by_systemd: bool, changed: bool) -> bool:
    """Whether a member runs. Raises Conflict where it is nobody's to start anew: it would go on by what it read."""
    if not is_running(MEMBER):
        return False
    if by_systemd and systemd.member_state() in ("active", "activating", "reloading"):
        return True
    if by_systemd or changed:
        raise Conflict("a member runs on this host already, and not by systemd: end it first")
    return True


def _have_started(config: ClusterConfig, file: Path, old: bytes | None, *, changed: bool, was_in: bool) -> None:
    """Have systemd run the member, and wait until the host is in the cluster. Where that does not come about, all is as before.

    Raises TryAgainLater with what is in the way, and ToolFailed with systemd's words.
    """
    try:
        systemd.start_member(anew=changed)
        _wait_until_in(config.node, config.session + _PATIENCE)
    except BaseException:
        if changed:
            _take_back(config, file, old, was_in=was_in)
        raise


def _wait_until_in(node: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not (systemd.member_state() == "active" and _is_in(node)):
        if time.monotonic() > until:
            raise TryAgainLater(
                f"this host is not in the cluster after {seconds:g} s: {_trouble() or systemd.WHERE_TO_LOOK}"
            )
        time.sleep(_STEP)


def _is_in(node: str) -> bool:
    """Whether the member says so: it is ready when the store was asked, which may be away, or not take this host for one of them."""
    member, _ = own_part()
    return member is not None and member.node == node and not member.trouble


def _trouble() -> str:
    member, _ = own_part()
    return member.trouble if member else ""


def _take_back(config: ClusterConfig, file: Path, old: bytes | None, *, was_in: bool) -> None:
    """A host that only lost its cluster.json `was_in` the cluster: to leave would free the addresses of pods that live."""
    if old is None:
        systemd.stop_member()
        if not was_in:
            with leave(config, force=True):
                pass
        take_whole(file)
    else:
        write(file, old.decode())
        systemd.start_member(anew=True)


def _tell(
    options: argparse.Namespace,
    config: ClusterConfig,
    changes: list[Change],
    others: list[str],
    *,
    becomes_member: bool,
) -> None:
    """Say it at once: a member runs for long."""
    if options.json:
        said = [{"key": key, "was": was, "is": now} for key, was, now in changes]
        print_json({"node": config.node, "file": str(options.config), "changes": said, "others": others})
    else:
        for key, was, now in changes:
            say(f"{options.config}: {key}: {_spelled(now)}" + (f", was {_spelled(was)}" if was is not None else ""))
        with_whom = f"with {', '.join(others)}" if others else "the first of it"
        how = "joins the cluster, and this is its member until Ctrl-C" if becomes_member else "is in the cluster"
        say(f"{config.node} {how}: {with_whom}")
    sys.stdout.flush()


def _spelled(value: Any) -> str:
    return "not said" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
