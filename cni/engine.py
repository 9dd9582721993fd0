"""The loops over a plan's resources. They know no kind of resource and no verb."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from cni import log
from cni.errors import CniError, Incomplete
from cni.kernel.signals import end_if_asked, uninterrupted
from cni.protocol.result import Interface, Result
from cni.resources import Difference, Resource, World
from cni.values import replace


def apply(resources: Iterable[Resource], world: World) -> None:
    """Ensure each in order, neighbours of one batch together. A signal ends the loop between two steps only.

    What was created stands in `world.undo`; the caller decides whether it stays.
    """
    with uninterrupted():
        for batch, items in groupby(resources, lambda item: item.batch):
            if batch:
                end_if_asked()
                together = list(items)
                with log.step("ensure", together):
                    batch.ensure(together, world)
                continue
            for item in items:
                end_if_asked()
                with log.step("ensure", (item,)):
                    item.ensure(world)


def differences(resources: Iterable[Resource], world: World, reported: Result) -> list[Difference]:
    """Every difference of every resource, as far as later plugins of the chain did not report it."""
    found = []
    for item in filter(None, (resource.accepting(reported) for resource in resources)):
        with log.step("check", (item,)):
            found += [Difference(line, item.mend, item) for line in item.differences(world)]
    return found


def remove(resources: Sequence[Resource], world: World) -> None:
    """Remove each that is not shared, in reverse. Do all that can be done, then raise what failed."""
    _all_of([item for item in reversed(resources) if not item.shared], world)


def retire(resources: Sequence[Resource], world: World) -> None:
    """Remove shared resources nobody uses any more, in reverse."""
    _all_of(list(reversed(resources)), world)


def observed(result: Result, world: World) -> Result:
    """A result with the host links as they are: an existing bridge keeps its MAC and MTU."""
    return result.with_interfaces(_seen(item, world) for item in result.interfaces)


def _all_of(resources: Sequence[Resource], world: World) -> None:
    failed = []
    with uninterrupted():
        for resource in resources:
            end_if_asked()
            try:
                with log.step("remove", (resource,)):
                    resource.remove(world)
            except CniError as error:
                failed.append(error.msg)
    if failed:
        raise Incomplete("; ".join(failed))


def _seen(item: Interface, world: World) -> Interface:
    link = None if item.sandbox else world.host.cached_link(item.name)
    return replace(item, mac=link.mac, mtu=link.mtu) if link else item
