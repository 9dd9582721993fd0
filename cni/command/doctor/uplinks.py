"""What is wrong with the links by which others reach this host."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import combinations

from cni.kernel import sysctl
from cni.kernel.netlink.reachability import Asking
from cni.kernel.view import ANSWERS, FIXED
from cni.member.uplinks.way import Way, ways
from cni.resources import Difference

#: The member asks again every second who is silent: after so many looks, each so many seconds later, he is.
_LOOKS, _STEP = 6, 0.2
_STRICT = "1"


def uplink_faults(names: Sequence[str], before: str) -> Iterator[Difference]:
    """A line for each, where a host has several; `before` is where others send to. Raises KernelRefused."""
    with closing(Asking()) as host:
        found = ways(host, names, before)
        for way in found:
            yield from _of_one(host, way)
    for one, other in combinations(found, 2):
        yield from _of_two(one, other)
    if len({span for way in found for span in way.spans(4)}) > 1:
        yield from (fault for way in found for fault in _strict(way))


def _of_one(host: Asking, way: Way) -> Iterator[Difference]:
    if way.link is None:
        yield Difference(f"uplink {way.name}: there is no such link", "have it made, or agent-cni join --uplinks")
    elif not way.carries:
        at = f"ip link set {way.link.name} up" if not way.link.up else "look at its cable, and at the other end"
        why = f"it has no carrier ({way.link.state})" if way.link.up else "it is set down"
        yield Difference(f"uplink {way.name} carries nothing: {why}", at)
    elif not way.address:
        yield Difference(f"uplink {way.name} has no address others could send to", f"ip address show {way.link.name}")
    elif (gateway := way.gateways.get(way.family)) and gateway.gateway and not _answers(host, way, gateway.gateway):
        at = f"ip neighbour show {gateway.gateway}; look at the gateway, and at the switch"
        yield Difference(f"uplink {way.name}: its gateway {gateway.gateway} is silent", at)


def _answers(host: Asking, way: Way, gateway: str) -> bool:
    """By what the kernel knows since the member asked."""
    for _ in range(_LOOKS):
        if way.link and host.reachability(way.link, gateway) in (ANSWERS, FIXED):
            return True
        time.sleep(_STEP)
    return False


def _of_two(one: Way, other: Way) -> Iterator[Difference]:
    if not (one.link and other.link):
        return
    if one.link.index == other.link.index:
        text = f"uplinks {one.name} and {other.name} are one link, {one.link.name}, which decides itself"
        yield Difference(text, f"agent-cni join --uplinks {one.link.name}")
    elif one.link.mtu != other.link.mtu:
        text = f"uplinks {one.name} and {other.name} have MTUs {one.link.mtu} and {other.link.mtu}"
        yield Difference(
            f"{text}: by the lesser larger packets are lost", f"ip link set {other.name} mtu {one.link.mtu}"
        )


def _strict(way: Way) -> Iterator[Difference]:
    """Where uplinks are in different subnets what comes by one may be answered by another: the kernel is not to refuse it."""
    keys = [f"net.ipv4.conf.{name}.rp_filter" for name in ("all", way.link.name.replace(".", "%"))] if way.link else []
    said = [sysctl.read(key) or "0" for key in keys]
    if keys and max(said) == _STRICT:
        text = f"uplink {way.name}: the kernel takes only what it would answer by it (rp_filter 1)"
        yield Difference(f"{text}, and hosts at different uplinks are answered by another", f"sysctl -w {keys[1]}=2")
