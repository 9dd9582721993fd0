"""Addresses: how full the ranges are, who holds one, and how to give one back by hand."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from cni.command.node import reading
from cni.command.output import print_json, print_table, say
from cni.errors import CniError, Conflict, InvalidConfig
from cni.ipam.config import TYPE, IpamConfig
from cni.ipam.ranges import Range
from cni.liveness import STATES, Liveness, Witness
from cni.naming import Attachment, IPAddress
from cni.protocol.call import Call
from cni.state import Record, Store

_USAGE = ("network", "range", "size", "leased", "free")
#: States of a pod that may be using its addresses.
_IN_USE = (STATES[Liveness.ALIVE], STATES[Liveness.UNSEEN])
_HELD = ("network", "address", "container", "ifname", "plugin", "state")


def ipam(options: argparse.Namespace) -> int:
    """Print how full each range is, or who holds an ADDRESS; with --release give it back."""
    if options.release and options.address is None:
        options.refuse("--release: which ADDRESS?")
    if options.force and not options.release:
        options.refuse("--force belongs to --release")
    store = reading(options.data_dir)
    if options.network and options.network not in (known := sorted(_networks(store))):
        raise InvalidConfig(
            f"nothing is attached to a network {options.network!r}; there are: {', '.join(known) or 'none'}"
        )
    if options.address is None:
        rows = [row for row in _usage(store) if options.network in ("", row["network"])] if store else []
        print_json(rows) if options.json else print_table("no attachment has addresses of ours", _USAGE, rows)
        return 0
    held = list(_held(store, options.address, options.network)) if store else []
    if options.release:
        return _release(options, held)
    nobody = f"nobody holds {options.address}{_never_given(store, options.address)}"
    print_json(held) if options.json else print_table(nobody, _HELD, held)
    return 0 if held else 1


def _networks(store: Store | None) -> set[str]:
    """The networks that have attachments or leases."""
    if store is None:
        return set()
    return {record.attachment.network for record in store.records()} | {
        held.network for _, held, _ in store.all_leases()
    }


def _never_given(store: Store | None, address: IPAddress) -> str:
    """In which network an address is never given, and why, or nothing."""
    for record in store.records() if store else ():
        for ours in _ours(record):
            spans = ours.reserved_in(address.version, address, address)
            if any(low <= int(address) <= high for low, high in spans):
                why = "a gateway" if address in ours.gateways else "reserved"
                return f": it is {why} in network {record.attachment.network}"
    return ""


def _usage(store: Store) -> Iterator[dict[str, Any]]:
    """Each range of each network that has attachments, once."""
    ranges = {(record.attachment.network, str(part)): (part, ours) for record in store.records()
              for ours in _ours(record) for item in ours.sets for part in item.ranges}  # fmt: skip
    for (network, spelled), (part, ours) in sorted(ranges.items()):
        size = int(part.last) - int(part.first) + 1 - _withheld(ours, part)
        leased = sum(1 for _ in store.leased(network, part.first, part.last))
        yield {"network": network, "range": spelled, "size": size, "leased": leased, "free": size - leased}


def _ours(record: Record) -> Iterator[IpamConfig]:
    """The ranges an attachment was given addresses from, if we gave them."""
    section = record.config.get("ipam")
    if isinstance(section, dict) and section and section.get("type", TYPE) == TYPE:
        try:
            yield IpamConfig.read(record.config, Call("ADD"))
        except CniError:
            return


def _withheld(ours: IpamConfig, part: Range) -> int:
    """How many addresses of a range are never given: reserved ones and gateways, each counted once."""
    count, reached = 0, int(part.first) - 1
    for low, high in sorted(ours.reserved_in(part.subnet.version, part.first, part.last)):
        first, last = max(low, reached + 1), min(high, int(part.last))
        count += max(0, last - first + 1)
        reached = max(reached, last)
    return count


def _held(store: Store, address: IPAddress, network: str) -> Iterator[dict[str, Any]]:
    for held, attachment, plugin in store.all_leases():
        if held == address and network in ("", attachment.network):
            record = store.record(attachment, plugin)
            state = STATES[Witness().of(record)] if record else "nobody's"
            yield {"address": str(held), **attachment._asdict(), "plugin": plugin, "state": state}


def _release(options: argparse.Namespace, held: list[dict[str, Any]]) -> int:
    """Give back what one network holds. What a pod uses stays, unless forced: it could be given twice."""
    if len(held) != 1:
        networks = ", ".join(item["network"] for item in held)
        said = f"several networks hold it ({networks}): name one with --network" if held else "nobody holds it"
        raise Conflict(f"{options.address}: {said}")
    (lease,) = held
    owner = Attachment(lease["network"], lease["container"], lease["ifname"])
    if lease["state"] in _IN_USE and not options.force:
        raise Conflict(f"{options.address}: {owner} uses it; --force gives it back all the same")
    store = Store.open(options.data_dir)
    with store.transaction():
        if store.holder(lease["network"], options.address) != owner:  # it was read before the transaction
            raise Conflict(f"{options.address}: somebody else holds it by now")
        store.release(lease["network"], options.address)
    store.close()
    still = f", while {owner} uses it" if lease["state"] in _IN_USE else ""
    print_json(lease) if options.json else say(f"{lease['address']} is free in network {lease['network']}{still}")
    return 0
