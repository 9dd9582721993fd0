"""A pod's iptables rules without iptables: it makes them once, in a namespace of their own, and pods get what it made as from a template.

Starting it takes 10 ms a family; a template half of one. Only a process that serves many calls gains by that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from cni.errors import CniError, KernelRefused
from cni.kernel import netfilter, netns, replica
from cni.kernel.netlink.channel import DumpInterrupted

#: Whether this process serves many calls.
worthwhile = False

_PROTOCOLS = {"tcp": 6, "udp": 17, "ipv6-icmp": 58}


def instantiate(backend: str, texts: dict[int, str]) -> bool:
    """Make what iptables-save prints by family (4 or 6) in the namespace this thread is in; whether that was done.

    It is not where templates are not worthwhile, where a family has a table already (also one that is not wanted any more),
    where the namespace is another user namespace's, whose members alone may write rules about owners, and where the kernel
    refuses.
    Raises ToolFailed where iptables refuses the rules themselves.
    """
    if not _can_be(backend):
        return False
    with netns.foreign_users() as users:
        if users is not None:
            return False
    try:
        return replica.instantiate({family: _template(family, text) for family, text in texts.items()})
    except (KernelRefused, DumpInterrupted, ValueError):
        return False


def remove(backend: str, family: int, text: str) -> bool:
    """Take such rules away again, tables and all; whether that was done. It is not where there is anything else, and
    where there is nothing to compare with: rules that iptables refuses now can be taken away all the same.
    """
    if not _can_be(backend):
        return False
    try:
        return replica.remove(family, _template(family, text))
    except (CniError, DumpInterrupted, ValueError):
        return False


def _can_be(backend: str) -> bool:
    return worthwhile and backend == netfilter.IPTABLES_NFT


@lru_cache(maxsize=128)
def _template(family: int, text: str) -> replica.Template:
    with netns.fresh():
        netfilter.restore(netfilter.IPTABLES_NFT, family, text)
        return replica.template_of(family, _protocols(text))


def _protocols(text: str) -> Iterator[tuple[replica.Place, int]]:
    """Each rule's table and chain, and the protocol it is for. Raises ValueError for one without a number here."""
    table = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            yield (table, words[1]), _protocol(words)


def _protocol(words: list[str]) -> int:
    place = words.index("-p") if "-p" in words else 0
    if not place:
        return 0
    name = words[place + 1]
    if name not in _PROTOCOLS or words[place - 1] == "!":
        raise ValueError(f"{name}: no number for this protocol")
    return _PROTOCOLS[name]
