"""What has questions judged by the DNS gate and belongs to no attachment, and what takes it away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cni.command.doctor.leftovers import Leftover
from cni.kernel import gatedir, netfilter, nftables
from cni.naming import DNS_TABLE
from cni.resources import Asking, AskingPod, AskingTable
from cni.resources.verdicts import Verdict, verdicts
from cni.state import Record

_CHAIN = "ask-"


def gate_leftovers(read: Callable[[], Iterable[Record]]) -> Iterator[Leftover]:
    """Files that tell the gate of a pod, and on the host the table, its chains and what leads there, that no record stands for.

    They are looked at before the records are read: an ADD writes its record before it makes anything. Raises Unavailable.
    """
    told = [*gatedir.entries()]
    listed = netfilter.nft_list(f"table {DNS_TABLE}") if nftables.present() else ""
    known = [item for record in read() for item in record.resources]
    own = {item.token for item in known if isinstance(item, AskingPod)}
    for entry in told:
        if entry.token not in own:
            what = f"{entry.path}, by which the DNS gate knows {entry.pod or 'a pod'}, is of no attachment"
            yield Leftover(what, f"rm {entry.path}")
    if listed and not any(isinstance(item, AskingTable) and not item.netns for item in known):
        yield Leftover(
            f"table {DNS_TABLE}, which has questions judged, is of no attachment", f"nft delete table {DNS_TABLE}"
        )
        return
    held = {item.token for item in known if isinstance(item, Asking)}
    led = [item for item in verdicts(listed) if item.owner not in held]
    for chain in sorted({item.chain for item in led if item.chain.startswith(_CHAIN)}):
        yield _chain(chain, [item for item in led if item.chain == chain])


def _chain(name: str, led: Iterable[Verdict]) -> Leftover:
    """With what leads to it: it cannot go before that."""
    steps = [f"delete element {DNS_TABLE} {item.map} {{ {item.key} }}" for item in led]
    steps += [f"delete element {DNS_TABLE} asked{item.map[-1]} {{ {item.key} }}" for item in led]
    who = ", ".join(item.key for item in led)
    command = f"nft '{'; '.join([*steps, f'delete chain {DNS_TABLE} {name}'])}'"
    return Leftover(f"DNS chain {name}, by which questions of {who} are judged, is of no attachment", command)
