"""Putting what is there right in place: attachments, and what their networks share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cni import plugin
from cni.command.libcni import reported_of
from cni.command.node import folders_of, records_of, unseen_from_here
from cni.command.output import complain, print_json, say
from cni.configured import Network, behind, networks
from cni.configured import refresh as reconfigured
from cni.conflist.file import configurations, plugins_of
from cni.engine import Repaired
from cni.errors import CniError, InvalidConfig, TryAgainLater
from cni.liveness import Liveness, Witness
from cni.policy.feeds import reading_once
from cni.protocol.call import Call
from cni.protocol.config import NetConf
from cni.repair import repair as repaired
from cni.resources.base import REATTACH, REFRESH
from cni.state import Record
from cni.values import dataclass, field, replace

#: What the outcome of a network begins with.
_NETWORK = "network "
_AGAIN = "agent-cni repair, once that call is over"
_OURS_AGAIN = "put that right, then agent-cni repair"


@dataclass(frozen=True)
class Outcome:
    """What became of one attachment, or of what one network shares: lines of what was mended, and of what cannot be, each with its mend."""

    who: str
    mended: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def repair(options: argparse.Namespace) -> int:
    """Make so again, in place, what CHECK calls different of attachments, and what they share by what is configured now."""
    if bool(options.target) is bool(options.all):
        options.refuse("name one attachment, or --all")
    records, faults = records_of(options.data_dir, options.conf_dir)
    chosen = _chosen(options.target, records)
    witness = Witness()
    with reading_once(keep=not options.dry_run):
        outcomes = [_of_attachment(record, witness.of(record), options) for record in chosen]
    outcomes += _of_networks(options, {(record.folder, record.attachment.network) for record in chosen})
    _told(outcomes, faults, options)
    found = any(item.mended for item in outcomes) if options.dry_run else False
    return 1 if found or faults or any(item.left for item in outcomes) else 0


def _chosen(target: str, records: list[Record]) -> list[Record]:
    """All of them, or a pod's, or a container's by the beginning of its id: who makes a link comes before who stands on it."""
    found = [
        record for record in records
        if not target or target == record.pod or record.attachment.container.startswith(target)
    ]  # fmt: skip
    by_id = {record.attachment.container for record in found if target and target != record.pod}
    if len(by_id) > 1 and target not in by_id:
        raise InvalidConfig(f"{target!r} is the beginning of several containers' ids")
    if target and not found:
        there = ", ".join(sorted({record.pod or record.attachment.container[:12] for record in records})) or "none"
        raise InvalidConfig(f"no attachment of {target!r} is on this node; there are: {there}")
    return sorted(found, key=lambda record: not any(item.of_link for item in record.resources))


def _of_attachment(record: Record, fate: Liveness, options: argparse.Namespace) -> Outcome:
    who = f"{record.pod} " * bool(record.pod) + f"({record.attachment})"
    if kept := _kept_from(record, fate):
        return Outcome(who, left=[kept])
    try:
        loaded, reported = plugin.load(record.plugin), reported_of(record, options.cache_dir)
        found = repaired(loaded, record, Call("REPAIR"), reported, dry=options.dry_run)
    except TryAgainLater as error:
        return Outcome(who, left=[(error.msg, _AGAIN)])
    except CniError as error:
        return Outcome(who, left=[(error.msg, REATTACH)])
    except (KeyError, TypeError, AttributeError):
        return Outcome(who, left=[("another release recorded what this one does not know", REATTACH)])
    return Outcome(who, found.mended, list(_left(found)), list(_notes(record, found, options.conf_dir)))


def _kept_from(record: Record, fate: Liveness) -> tuple[str, str] | None:
    """Why nothing of an attachment can be put right, and what can be done instead."""
    if fate is Liveness.UNSEEN:
        return unseen_from_here(record), "agent-cni repair, there"
    if fate is Liveness.GONE:
        return "its pod is gone, what it had is not", "agent-cni gc"
    if not record.complete:
        return "its ADD or DEL never ended", "delete the pod, then agent-cni gc"
    if record.plugin not in plugin.names():
        return f"this release has no plugin {record.plugin}", REATTACH
    return None


def _left(found: Repaired) -> Iterator[tuple[str, str]]:
    yield from ((item.line, _OURS_AGAIN if item.mend == REFRESH else item.mend) for item in dict.fromkeys(found.failed))


def _notes(record: Record, found: Repaired, conf_dir: Path) -> Iterator[str]:
    """What somebody else's plugin of the chain made on a link that was made anew went with the one before."""
    if any(line.endswith(" anew") for line in found.mended):
        theirs = [name for name in _chain_of(record.attachment.network, conf_dir) if name not in plugin.names()]
        if theirs:
            yield f"what {', '.join(theirs)} made on {record.attachment.ifname} is theirs and is not made again: {REATTACH}"


def _chain_of(network: str, conf_dir: Path) -> list[str]:
    for file in configurations(conf_dir):
        with suppress(CniError, OSError):
            found = [netconf for _, netconf in plugins_of(file)]
            if found and found[0].get("name") == network:
                return [str(netconf.get("type")) for netconf in found]
    return []


def _of_networks(options: argparse.Namespace, which: set[tuple[Path | None, str]]) -> Iterator[Outcome]:
    """What networks share besides, as far as their configurations say it anew."""
    every = networks(folders_of(options.data_dir, options.conf_dir), list(_configurations(options)))
    for network in every:
        if options.all or (network.folder, network.place.network) in which:
            yield _of_network(network, every, options)


def _of_network(network: Network, every: list[Network], options: argparse.Namespace) -> Outcome:
    outcome = Outcome(f"{_NETWORK}{network.place.network}")
    if network.refused:
        outcome.left.append((network.refused, f"put the configuration of {network.place.network} right"))
    try:
        lines = [item.line for item in behind(network, every)]
        if lines and not options.dry_run:
            reconfigured(network, every)
            left = [item.line for item in behind(replace(network, said=network.wanted), every)]
            outcome.left.extend((line, _OURS_AGAIN) for line in left)
            lines = [line for line in lines if line not in left]
        outcome.mended.extend(lines)
    except CniError as error:
        outcome.left.append((error.msg, _OURS_AGAIN))
    return outcome


def _configurations(options: argparse.Namespace) -> Iterator[NetConf]:
    """What the node is configured with; a file that is named counts before the folder's, and must be readable."""
    if options.conf:
        yield from (netconf for _, netconf in plugins_of(options.conf))
    for file in configurations(options.conf_dir):
        with suppress(CniError, OSError):
            yield from (netconf for _, netconf in plugins_of(file))


def _told(outcomes: list[Outcome], faults: list[str], options: argparse.Namespace) -> None:
    if options.json:
        rows = [vars(item) | {"left": [{"what": what, "mend": mend} for what, mend in item.left]} for item in outcomes]
        print_json({"outcomes": [row for row in rows if row["mended"] or row["left"]], "failed": faults})
        return
    word = "would mend" if options.dry_run else "mended"
    for item in outcomes:
        if item.mended:
            say(f"{item.who}: {word}: {'; '.join(dict.fromkeys(item.mended))}")
        complain(*(f"{item.who}: {note}" for note in item.notes))
        complain(*(f"{item.who}: not mended: {what}; {mend}" for what, mend in item.left))
    complain(*(f"agent-cni: {line}" for line in faults))
    counts = [
        f"{sum(bool(item.mended) for item in some)} of {len(some)} {kind}{'s' * (len(some) != 1)}"
        for kind, some in (
            ("attachment", _of_kind(outcomes, networks=False)),
            ("network", _of_kind(outcomes, networks=True)),
        )
        if some or kind == "attachment"
    ]
    stuck = sum(bool(item.left) for item in outcomes)
    say(f"{word} {' and '.join(counts)}" + f"; {stuck} with what cannot be mended here" * bool(stuck))


def _of_kind(outcomes: list[Outcome], *, networks: bool) -> list[Outcome]:
    return [item for item in outcomes if item.who.startswith(_NETWORK) is networks]
