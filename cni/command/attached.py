"""What is wrong with attachments: by the CHECK each one's plugin would be asked for, and by what a refresh would mend.

Of one whose rules stand as a refresh found them they are not compared again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from cni import plugin, verbs
from cni.command.libcni import result_of
from cni.command.node import answers_of, unseen_from_here
from cni.errors import CniError, Drift
from cni.liveness import Liveness, Witness
from cni.policy.config import faults_in
from cni.policy.feeds import reading_once
from cni.protocol.call import Call
from cni.protocol.config import version_of
from cni.protocol.result import Result
from cni.protocol.schema import given
from cni.refresh import behind
from cni.resources import Difference
from cni.standing import Standing, standing
from cni.state import Record, Store
from cni.state.fed import feed_of


def attachment_faults(options: argparse.Namespace) -> Iterator[Difference]:
    """Every attachment, by the CHECK its plugin would be asked for and by what a refresh would mend."""
    witness = Witness()
    with reading_once(), standing(keep=False) as seen:
        for record, stands in _looked_at(options, seen):
            fate = witness.of(record)
            if fate is Liveness.UNSEEN:
                yield Difference(f"{record.attachment}: {unseen_from_here(record)}", "run agent-cni doctor there")
            elif fate is Liveness.GONE:
                yield Difference(f"{record.attachment}: its pod is gone, what it had is not", "agent-cni gc")
            elif not record.complete:
                yield Difference(
                    f"{record.attachment}: its ADD or DEL never ended", "delete the pod, then agent-cni gc"
                )
            else:
                yield from _of_attachment(options, record, seen, stands=stands)


def _looked_at(options: argparse.Namespace, seen: Standing) -> list[tuple[Record, bool]]:
    """Every attachment there is, and whether a refresh found that its rules need nothing, and would find the same now."""

    def question(store: Store) -> list[tuple[Record, bool]]:
        known = store.digests()
        return [
            (it, bool(seen.stands(store, it.attachment, it.plugin, known.get((it.attachment, it.plugin), ""))))
            for it in store.records()
        ]

    try:
        return answers_of(options.data_dir, options.conf_dir, question)[0]
    except CniError:  # the state's own check says why
        return []


def _of_attachment(
    options: argparse.Namespace, record: Record, seen: Standing, *, stands: bool
) -> Iterator[Difference]:
    """What is wrong with an attachment; first what nobody has to delete a pod for."""
    faults = faults_in(feed_of(record.config), seen.faults_of)
    found, refused = ((), "") if stands else _behind(record, seen)
    yield from (Difference(line, "put the folder or file right, then agent-cni refresh") for line in faults)
    today = (Difference(refused),) if refused and refused not in faults else ()
    for item in dict.fromkeys((*found, *today, *_drift(options, record, rules_stand=stands))):
        yield Difference(f"{record.attachment}: {item.line}", item.mend)


def _behind(record: Record, seen: Standing) -> tuple[tuple[Difference, ...], str]:
    """What a refresh would mend, and what it would say; what keeps us from asking keeps CHECK too, and is said there."""
    try:
        return behind(plugin.load(record.plugin), record, Call("REFRESH"), seen)
    except (CniError, KeyError, TypeError, FileNotFoundError):
        return (), ""


def _drift(options: argparse.Namespace, record: Record, *, rules_stand: bool) -> tuple[Difference, ...]:
    """What CHECK says of an attachment, called as its runtime would, or what keeps it from saying something; a network's tunnel
    is told once, for all of them.
    """
    folders = [str(options.bin_dir), *filter(None, os.environ.get("CNI_PATH", "").split(":"))]
    who = (record.attachment.container, record.netns, record.attachment.ifname)
    call = Call("CHECK", *who, path=tuple(folders), environ=os.environ)
    if record.plugin not in plugin.names():
        return (Difference(f"this release has no plugin {record.plugin}"),)
    try:
        reported = result_of(record.attachment, options.cache_dir) or _answered(record)
        conf = given(record.config, record.plugin) | {"prevResult": reported}
        verbs.check(plugin.load(record.plugin), call, conf, lambda _: None, rules_stand=rules_stand)
    except Drift as drift:
        return tuple(item for item in drift.differences if not (item.resource and item.resource.configured))
    except CniError as error:
        return (Difference(error.msg),)
    except (KeyError, TypeError, AttributeError):
        return (Difference("another release recorded what this one does not know"),)
    return ()


def _answered(record: Record) -> dict[str, Any]:
    """The result of an ADD in its configuration's version, in which a delegate reads it; a chained one passed on what it got."""
    result = record.result or {}
    if not (result.get("interfaces") or result.get("ips")):
        return record.config.get("prevResult") or result
    return Result.read(result).render(version_of(record.config))
