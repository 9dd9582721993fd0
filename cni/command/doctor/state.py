"""What is wrong with this node's state: folders and files, leases of nobody, ranges without an address, disks without room."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path

from cni import log
from cni.command.ipam import usage
from cni.command.node import folders_of, reading
from cni.diagnosis.finding import Finding, Severity
from cni.errors import CniError
from cni.liveness import Liveness, Witness
from cni.node import refuse_unwritable
from cni.state import Store
from cni.state.leases import ANOTHER_NETWORK

#: What a call may write before it is over: SQLite's log, in bytes. A disk with less left is as good as full.
_ROOM = 1 << 20


def state_faults(options: argparse.Namespace) -> Iterator[Finding]:
    """Every folder with state, and where log lines go."""
    try:
        folders = folders_of(options.data_dir, options.conf_dir)
    except CniError as error:
        yield Finding(error.msg, "agent-cni doctor, as root on the node")
        folders = [options.data_dir]
    for folder in folders:
        yield from _in_folder(folder, "" if folder == options.data_dir else f" --data-dir {folder}")
        yield from _of_disk(folder, "no pod can be attached", Severity.BROKEN)
    yield from _of_disk(log.FOLDER, "what plugins did is lost", Severity.WARNING)


def _in_folder(folder: Path, named: str) -> Iterator[Finding]:
    try:
        refuse_unwritable(folder)
        store = reading(folder)
        with closing(store) if store else nullcontext():
            recorded = {(record.attachment, record.plugin) for record in store.records()} if store else set()
            leases = store.all_leases() if store else []
            full = list(_full(store)) if store else []
    except CniError as error:
        mend = f"rm {folder}/state.db*, then restart this node's pods"
        yield Finding(error.msg, mend if folder.is_dir() else "name a dataDir of this node")
        return
    yield from full
    for address, attachment, holder in leases:
        if holder == ANOTHER_NETWORK:
            said = f"{address} of network {attachment.network} is a pod's of another network, behind {attachment.container}"
            yield Finding(said, "delete that pod; it is made anew by ours", Severity.WARNING)
        elif (attachment, holder) not in recorded:
            mend = f"agent-cni ipam {address} --release --network {attachment.network}{named}"
            yield Finding(
                f"{address} of network {attachment.network} is leased to nobody that is attached",
                mend,
                Severity.WARNING,
            )


def _full(store: Store) -> Iterator[Finding]:
    """Ranges without a free address, and whether dead pods hold some."""
    witness = Witness()
    for row in usage(store):
        if row["free"] <= 0:
            network = row["network"]
            dead = [
                it for it in store.records() if it.attachment.network == network and witness.of(it) is Liveness.GONE
            ]
            held = f", {len(dead)} of them to pods that are gone" if dead else ""
            what = f"range {row['range']} of network {network} has no free address: {row['leased']} are leased{held}"
            yield Finding(
                what, "agent-cni gc" if dead else f"give network {network} a larger range", cause="range-full"
            )


def _of_disk(folder: Path, harm: str, severity: Severity) -> Iterator[Finding]:
    """A disk that is full, of bytes or of inodes, or that takes no writes."""
    place = next(item for item in (folder, *folder.parents) if item.exists())
    with suppress(OSError):
        said = os.statvfs(place)
        left, inodes = said.f_bavail * said.f_frsize, said.f_favail if said.f_files else 1
        why = f"has {left >> 10} KiB left" if left < _ROOM else "has no inode left" if not inodes else ""
        if said.f_flag & os.ST_RDONLY:
            why = "is read-only"
        if why:
            mend = f"mount -o remount,rw {place}" if "only" in why else f"make room: df {place}; du -xsh {place}/*"
            yield Finding(f"the disk of {folder} {why}: {harm}", mend, severity, "disk-full")
