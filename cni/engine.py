"""The loops over a plan's resources. They know no kind of resource and no verb."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby

from cni import log
from cni.errors import CniError, Conflict, Incomplete, own_terms
from cni.kernel.signals import end_if_asked, uninterrupted
from cni.protocol.result import Interface, Result
from cni.resources import Difference, Resource, World
from cni.values import dataclass, field, replace

#: What is put right may take something along that is put right then: a link that goes up has lost its routes.
_ROUNDS = 4
_OUT_OF_THE_WAY = "put that out of the way, then agent-cni repair; or delete the pod"


@dataclass
class Repaired:
    """What a repair found to be made again, line by line, and what it could not make so: of which resource, and why."""

    mended: list[str] = field(default_factory=list)
    failed: list[Difference] = field(default_factory=list)


def apply(resources: Iterable[Resource], world: World) -> None:
    """Ensure each in order, neighbours of one batch together. A signal ends the loop between two steps only.

    What was created stands in `world.undo`; the caller decides whether it stays.
    """
    with uninterrupted():
        for batch, items in groupby(resources, lambda item: item.batch):
            if batch:
                end_if_asked()
                together = list(items)
                with _step("ensure", together):
                    batch.ensure(together, world)
                continue
            for item in items:
                end_if_asked()
                with _step("ensure", (item,)):
                    item.ensure(world)


def differences(resources: Iterable[Resource], world: World, reported: Result) -> list[Difference]:
    """Every difference of every resource, as far as later plugins of the chain did not report it."""
    found = []
    for item in filter(None, (resource.accepting(reported) for resource in resources)):
        with _step("check", (item,)):
            found += [Difference(line, item.mend, item) for line in item.differences(world)]
    return found


def lacking(resources: Sequence[Resource], world: World) -> Repaired:
    """What `repair` would find to be made again, and what of it it could not. Changes nothing."""
    found = Repaired()
    for item in resources:
        with _told(item, found):
            found.mended += [f"{item.describe()} is to be made anew"] * item.is_lost(world)
            found.mended += item.lacking(world)
    return found


def repair(resources: Sequence[Resource], world: World) -> Repaired:
    """Make so again what is not, in place and as far as possible; a pod's link that is lost is made anew, with all that follows it.

    What was made for that stands in `world.undo`, if it cannot be completed: then the failure is raised, and the caller takes it back.
    """
    found = Repaired()
    at = _lost(resources, world, found)
    if at is not None:
        _rounds(resources[:at], world, found)
        with uninterrupted():
            end_if_asked()
            resources[at].remove(world)
        for stays, items in groupby(resources[at:], lambda item: item.stays):
            with _staying(world, stays=stays):
                apply(items, world)
        found.mended.append(f"{resources[at].describe()} is made anew")
    _rounds(resources, world, found)
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


def _lost(resources: Sequence[Resource], world: World, found: Repaired) -> int | None:
    """The place of the link that is lost, if one is."""
    for at, item in enumerate(resources):
        with _told(item, found):
            if item.is_lost(world):
                return at
    return None


def _rounds(resources: Sequence[Resource], world: World, found: Repaired) -> None:
    """Look, and put right, until nothing is left that could be."""
    seen: dict[str, None] = {}
    before: dict[Resource, list[str]] = {}
    tried, unknown = Repaired(), Repaired()
    for number in range(_ROUNDS + 1):
        unknown, lines = Repaired(), {}
        for item in resources:
            with _told(item, unknown):
                lines[item] = list(item.lacking(world))
        if number == _ROUNDS or lines == before or not any(lines.values()):
            break
        seen |= dict.fromkeys(line for item in lines.values() for line in item)
        again = any(lines.get(item) for item in resources if item.of_link)
        tried, before = Repaired(), lines
        _put_right([item for item in resources if lines.get(item) or (again and item.follows)], world, tried)
    left = {line: item for item, them in lines.items() for line in them}
    why = {item.resource: item for item in tried.failed}
    found.mended += (line for line in seen if line not in left)
    found.failed += dict.fromkeys(why.get(item) or Difference(line, item.mend, item) for line, item in left.items())
    found.failed += unknown.failed


def _put_right(due: Iterable[Resource], world: World, tried: Repaired) -> None:
    """Neighbours of one batch together, unless that is refused: one by one it is told which."""
    for batch, items in groupby(due, lambda item: item.batch if type(item).repair is Resource.repair else None):
        group = list(items)
        if batch and _made_together(group, world):
            continue
        for item in group:
            with _told(item, tried), uninterrupted(), _staying(world, stays=item.stays):
                end_if_asked()
                with _step("ensure", (item,)):
                    item.repair(world)


def _made_together(items: list[Resource], world: World) -> bool:
    try:
        with _staying(world, stays=items[0].stays):
            apply(items, world)
    except CniError:
        return False
    return True


@contextmanager
def _staying(world: World, *, stays: bool) -> Iterator[None]:
    """What `stays` is not taken back: an undo would open a pod that was held, if to something else."""
    before, world.undo = world.undo, ExitStack() if stays else world.undo
    try:
        yield
    finally:
        if stays:
            world.undo.pop_all()
            world.undo = before


@contextmanager
def _step(verb: str, items: Sequence[Resource]) -> Iterator[None]:
    """Something done with resources. Whatever the machine refuses of it raises a CniError, so that an undo and a removal go on."""
    with own_terms, log.step(verb, items):
        yield


@contextmanager
def _told(item: Resource, found: Repaired) -> Iterator[None]:
    try:
        with own_terms:
            yield
    except CniError as error:
        found.failed.append(Difference(error.msg, _OUT_OF_THE_WAY if isinstance(error, Conflict) else item.mend, item))


def _all_of(resources: Sequence[Resource], world: World) -> None:
    failed = []
    with uninterrupted():
        for resource in resources:
            end_if_asked()
            try:
                with _step("remove", (resource,)):
                    resource.remove(world)
            except CniError as error:
                failed.append(error.msg)
    if failed:
        raise Incomplete("; ".join(failed))


def _seen(item: Interface, world: World) -> Interface:
    link = None if item.sandbox else world.host.cached_link(item.name)
    return replace(item, mac=link.mac, mtu=link.mtu) if link else item
