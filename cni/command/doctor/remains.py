"""What a host has still of a cluster it is in no more, by `leave --force` or because it was never told to leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from cni.command.doctor.leftovers import Leftover
from cni.kernel import netfilter, nftables, ruleset
from cni.kernel.netlink import Rtnl
from cni.naming import FENCE_TABLES, OWNER, VTEP_TABLE, is_host_end
from cni.overlay.wireguard import DEVICE
from cni.resources import Resource, VxlanLink
from cni.state import Store

_NAMED = 5


def remains(folder: Path) -> Iterator[Leftover]:
    """What of it a state folder and the kernel know of, for a host that is in none. Raises CniError where they cannot be read."""
    tables = tables_there()
    with closing(Rtnl()) as host:
        links = {link.name for link in host.links() if link.alias == OWNER}
    pods, idle = _of_state(folder)
    if pods and tables:
        some = ", ".join(pods[:_NAMED]) + (f" and {len(pods) - _NAMED} more" if len(pods) > _NAMED else "")
        what = f"pods are left on overlays of a cluster that this host is not in, and get no VXLAN from anybody: {some}"
        yield Leftover(what, "delete them; then agent-cni doctor says what else is left")
        return
    for table in tables:
        yield Leftover(f"table {table} is of a cluster that this host is not in", f"nft delete table {table}")
    for name in sorted(links & {*idle, DEVICE}):
        yield Leftover(f"{name} is a tunnel of a cluster that this host is not in", f"ip link delete {name}")


def tables_there() -> list[str]:
    """The tables of a host in a cluster that there are: who may send VXLAN here, and what cuts its pods off."""
    tables = (VTEP_TABLE, *FENCE_TABLES) if nftables.present() else ()
    return [table for table in tables if netfilter.nft_list(f"table {table}")]


def take_tables() -> tuple[list[str], list[str]]:
    """Delete those tables: the ones that are gone, and the ones that stay because they keep others from pods that are left here."""
    tables = tables_there()
    with closing(Rtnl()) as host:
        if any(link.kind == "veth" and is_host_end(link.name, link.mac) for link in host.links()):
            return [], tables
    for table in tables:
        ruleset.delete_table(table)
    return tables, []


def _of_state(folder: Path) -> tuple[list[str], list[str]]:
    """The pods on overlays of a cluster, and the devices of those that no pod is on. Other hosts of a cluster know a device's MAC."""
    if not (store := Store.reading(folder)):
        return [], []
    with closing(store):
        said, records = list(store.said().values()), store.records()
    pods = [record.pod or str(record.attachment) for record in records if list(_tunnels(record.resources))]
    return sorted(pods), [name for item in said if not item.in_use for name in _tunnels(item.resources)]


def _tunnels(resources: Iterable[Resource]) -> Iterator[str]:
    return (item.name for item in resources if isinstance(item, VxlanLink) and item.mac)
