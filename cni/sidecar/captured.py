"""What interception needs in a pod, as resources, and whether the kernel takes its rules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from cni.errors import Conflict
from cni.kernel import netfilter, sysctl
from cni.protocol.result import Result
from cni.resources import Host, PodLoopback, PodRules, ProxyAddress, Resource, SourceLabels, WayBack
from cni.sidecar.earlier import same_of_the_release_before
from cni.sidecar.model import Interception
from cni.sidecar.rule import MARK, ROUTE_TABLE, spelled
from cni.sidecar.rules import PASSTHROUGH, tables
from cni.values import replace


def captured(wanted: Interception, link: str, attached: Result, host: Host) -> tuple[Resource, ...]:
    """What `intercepting` says of a pod that has interception, and raises."""
    known = replace(wanted, resolvers=wanted.resolvers or attached.dns.resolvers)
    families = sorted({4, *host.pod_families, *(ip.family for ip in attached.ips)})
    return _agreed(tuple(_resources(known, link, families, host)), host)


def refuse_impossible(wanted: Interception) -> None:
    """Rehearse the rules, so that a kernel without a module is known before a pod comes.

    Raises Unavailable with the reason of the kernel or the program.
    """
    backend = netfilter.choose_in_pod(wanted.backend, netfilter.legacy_in_use())
    for family in (4, 6) if sysctl.read("net.ipv6.conf.all.disable_ipv6") is not None else (4,):
        netfilter.rehearse(backend, family, _text(wanted, family))


def _resources(wanted: Interception, link: str, families: list[int], host: Host) -> Iterator[Resource]:
    yield PodLoopback()
    if 6 in families:
        yield ProxyAddress(link, PASSTHROUGH[6])
        yield SourceLabels(host.netns, PASSTHROUGH[6])
    for family in families if wanted.transparent else ():
        yield WayBack(host.netns, family, int(MARK, 16), ROUTE_TABLE)
    for family in families:
        if text := _text(wanted, family):
            yield PodRules(host.netns, host.pod_rules, family, text, sparing=not wanted.deny_uncaptured)


@lru_cache(maxsize=64)
def _text(wanted: Interception, family: int) -> str:
    return spelled(tables(wanted, family), family)


def _agreed(resources: tuple[Resource, ...], host: Host) -> tuple[Resource, ...]:
    """One pod has one interception: a second one would change the rules under the first, which CHECK would call drift."""
    own = {(item.backend, item.family): item for item in resources if isinstance(item, PodRules)}
    for owner, other in () if host.lost else host.others(host.netns):
        if isinstance(other, PodRules):
            mine = own.get((other.backend, other.family))
            if mine and same_of_the_release_before(other.text, mine.text):
                own[mine.backend, mine.family] = replace(mine, text=other.text, sparing=other.sparing)
            elif not mine or mine.text != other.text:
                told = "other interception rules in this pod; its attachments need the same sidecar"
                raise Conflict(f"{owner} has {told}")
    return tuple(own[item.backend, item.family] if isinstance(item, PodRules) else item for item in resources)
