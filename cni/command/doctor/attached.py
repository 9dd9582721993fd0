"""What is wrong with attachments: by the CHECK each one's plugin would be asked for, and by what a refresh would mend.

Of one whose rules stand as a refresh found them they are not compared again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence

from cni import plugin, verbs
from cni.command.libcni import reported_of
from cni.command.node import answers_of, unseen_from_here
from cni.command.reach.ways import way_faults
from cni.diagnosis.causes import Tables, causes
from cni.diagnosis.finding import Finding, Severity
from cni.diagnosis.symptom import Symptom, table_of
from cni.errors import CniError, Drift
from cni.kernel import nftables, ruleset
from cni.liveness import Liveness, Witness
from cni.naming import Attachment
from cni.policy.config import faults_in
from cni.policy.feeds import reading_once
from cni.protocol.call import Call
from cni.protocol.schema import given
from cni.refresh import behind
from cni.resources import Difference, Macvlan
from cni.resources.base import REATTACH
from cni.standing import Standing, standing
from cni.state import Record, Store
from cni.state.fed import feed_of

#: What no resource is, and repair has again (ipam/own.py).
_LEASE = "lease of "


def attachment_faults(options: argparse.Namespace) -> list[Finding]:
    """Every attachment, by the CHECK its plugin would be asked for and by what a refresh would mend: causes, the worst first."""
    found, symptoms, tables, records = _looked(options)
    unwell = {item.attachment for item in symptoms}
    well = ((called(record), record) for record in records if record.attachment not in unwell)
    return [*found, *causes(symptoms, tables, mended), *way_faults(well)]


def ailing(options: argparse.Namespace) -> dict[Attachment, list[str]]:
    """What is wrong with each attachment that is not as it was made."""
    _, symptoms, tables, _ = _looked(options)
    by: dict[Attachment, list[Symptom]] = {}
    for item in symptoms:
        by.setdefault(item.attachment, []).append(item)
    return {who: [found.what for found in causes(items, tables, mended)] for who, items in by.items()}


def _looked(options: argparse.Namespace) -> tuple[list[Finding], list[Symptom], Tables, list[Record]]:
    """What is wrong with documents, and with attachments; the tables they want, and those that could be asked about."""
    found: dict[Finding, None] = {}
    asked: list[Record] = []
    symptoms: list[Symptom] = []
    tables: set[str] = set()
    with reading_once(), standing(keep=False) as seen:
        cut = _cut_off(options)
        for record, stands, fate in looked_at(options, seen):
            if record.attachment in cut and fate is Liveness.ALIVE:
                continue
            if fate is Liveness.ALIVE and record.complete:
                asked.append(record)
                found |= dict.fromkeys(_of_feed(record, seen))
                symptoms += _of_attachment(options, record, seen, stands=stands)
                tables |= set(map(table_of, record.resources)) - {""}
            else:
                symptoms.append(_unwell(record, fate))
    gone = frozenset(table for table in tables if nftables.present() and not ruleset.has_table(table))
    return [*found], symptoms, Tables(frozenset(tables), gone), asked


def mended(items: Sequence[Symptom]) -> str:
    """The command that mends what is wrong with some attachments: in place, but for what no resource of theirs is to be."""
    first = items[0]
    ours = all(item.line.startswith(_LEASE) or (item.resource and item.kind != "Unknown") for item in items)
    if first.difference.mend != REATTACH or not ours:
        return first.difference.mend
    who = dict.fromkeys(
        item.pod if "/" in item.pod and item.pod != str(item.attachment) else item.attachment.container
        for item in items
    )
    command = f"agent-cni repair {next(iter(who)).split(' ')[0] if len(who) == 1 else '--all'}"
    if isinstance(first.resource, Macvlan) and first.line.startswith("master "):
        return f"bring {first.resource.master} back (ip link set {first.resource.master} up), then {command}"
    return command


def _unwell(record: Record, fate: Liveness) -> Symptom:
    """An attachment that cannot be asked, by its whole name: a pod's successor is called as it was."""
    pod = f"{record.pod} ({record.attachment})" if record.pod else str(record.attachment)
    line, mend = {
        Liveness.UNSEEN: (unseen_from_here(record), "run agent-cni doctor there"),
        Liveness.GONE: ("its pod is gone, what it had is not", "agent-cni gc"),
        Liveness.ALIVE: ("its ADD or DEL never ended", "delete the pod, then agent-cni gc"),
    }[fate]
    return Symptom(pod, record.attachment, Difference(line, mend), Severity.WARNING)


def looked_at(options: argparse.Namespace, seen: Standing) -> list[tuple[Record, bool, Liveness]]:
    """Every attachment there is, whether a refresh found that its rules need nothing, and would find the same now, and its pod's fate."""
    witness = Witness()

    def question(store: Store) -> list[tuple[Record, bool, Liveness]]:
        known = store.digests()
        return [
            (
                it,
                bool(seen.stands(store, it.attachment, it.plugin, known.get((it.attachment, it.plugin), ""))),
                witness.of(it),
            )
            for it in store.records()
        ]

    try:
        return answers_of(options.data_dir, options.conf_dir, question)[0]
    except CniError:  # the state's own check says why
        return []


def _cut_off(options: argparse.Namespace) -> set[Attachment]:
    """Whom the member keeps down, which the cluster's part says with the block."""
    try:
        return {*answers_of(options.data_dir, options.conf_dir, lambda store: store.stranded())[0]}
    except CniError:
        return set()


def _of_feed(record: Record, seen: Standing) -> Iterator[Finding]:
    """What nobody has to delete a pod for."""
    for line in faults_in(feed_of(record.config), seen.faults_of):
        yield Finding(line, "put the folder or file right, then agent-cni refresh", cause="policy-document")


def _of_attachment(options: argparse.Namespace, record: Record, seen: Standing, *, stands: bool) -> Iterator[Symptom]:
    """What is wrong with an attachment."""
    found, refused = ((), "") if stands else _behind(record, seen)
    today = (
        (Difference(refused),) if refused and refused not in faults_in(feed_of(record.config), seen.faults_of) else ()
    )
    for item in dict.fromkeys((*found, *today, *_drift(options, record, rules_stand=stands))):
        yield Symptom(called(record), record.attachment, item)


def called(record: Record) -> str:
    """What people call an attachment: the pod, and which of its interfaces where that is not the usual one."""
    if not record.pod:
        return str(record.attachment)
    return record.pod if record.attachment.ifname == "eth0" else f"{record.pod} {record.attachment.ifname}"


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
        reported = reported_of(record, options.cache_dir)
        conf = given(record.config, record.plugin) | {"prevResult": reported}
        verbs.check(plugin.load(record.plugin), call, conf, lambda _: None, rules_stand=rules_stand)
    except Drift as drift:
        return tuple(item for item in drift.differences if not (item.resource and item.resource.configured))
    except CniError as error:
        return (Difference(error.msg),)
    except (KeyError, TypeError, AttributeError):
        return (Difference("another release recorded what this one does not know"),)
    return ()
