"""Causes before symptoms: what of many lines about many pods is one thing that somebody did to the node.

A symptom that follows from a cause is told with it: the addresses and routes of a link that is gone, every rule of a table that
is. What is left is told once for all pods of which it is so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby

from cni.diagnosis.finding import Finding
from cni.diagnosis.symptom import Symptom, is_guarding, table_of
from cni.naming import Attachment
from cni.values import dataclass, replace

#: Which line of a link, and of an address, others follow from.
_LOST_LINK = re.compile(r"(?:.* )?(?P<name>\S+) is (?P<how>missing|down)(?: in the pod)?")
_LOST_ADDRESS = re.compile(r"(?:gateway )?address (?P<address>\S+) is missing on (?P<link>\S+)(?: in the pod)?")
_LINKS = ("Bridge", "VxlanLink", "VethPair", "Macvlan", "HostShim", "PodLink")
#: Lines that differ in their end alone: of a chain's rules, and of a set's elements.
_ALIKE = (
    re.compile(r"(?P<head>.+): (?P<one>.+ is (?:missing|foreign))"),
    re.compile(r"(?P<head>.+ lacks) (?P<one>\S+)"),
    re.compile(r"(?P<head>policy set \S+ has) (?P<one>\S+)"),
)
#: From how many on lines are told as one.
_MANY = 3

#: The command that mends what some symptoms are of, the first of which is their cause.
Mend = Callable[[Sequence[Symptom]], str]


@dataclass(frozen=True)
class Tables:
    """The nft tables of the host that attachments `wanted`, and which of them are `gone`."""

    wanted: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()


def causes(symptoms: Iterable[Symptom], tables: Tables, mend: Mend) -> list[Finding]:
    """What is wrong with attachments, the worst first."""
    left = list(dict.fromkeys(symptoms))
    found = [*_of_tables(left, tables, mend), *_of_flushed_pods(left, mend)]
    for kind in _LINKS:
        found += _of_links(kind, left, mend)
    found += _of_addresses(left, mend)
    found += _alike(left, mend)
    return sorted(found, key=lambda item: -item.severity)


def _of_tables(left: list[Symptom], tables: Tables, mend: Mend) -> Iterator[Finding]:
    """Take the symptoms of tables that are gone out of those that are `left`."""
    if not tables.gone:
        return
    flushed = tables.gone == tables.wanted
    for table in ("",) if flushed else sorted(tables.gone):
        taken = [item for item in left if _is_in(item, {table} if table else tables.gone, flushed)]
        _take(left, taken)
        if taken:
            open_pods = _many([item.pod for item in taken if is_guarding(item.resource)], "open")
            others = _many([item.pod for item in taken if item.kind == "Masquerade"], "not masqueraded")
            what = "the ruleset was flushed" if flushed else f"table {table} was deleted"
            said = ", ".join(filter(None, (open_pods, others, f"{len(taken)} rules missing")))
            key = "ruleset-flushed" if flushed else "table-deleted"
            found = _finding(key, f"{what}: {said}", taken, mend)
            yield replace(found, severity=max(item.severity for item in taken), counts=True)


def _of_flushed_pods(left: list[Symptom], mend: Mend) -> Iterator[Finding]:
    """Pods that have their rules inside, and have lost the table they were in."""
    for root in [
        item for item in left if item.kind == "PolicyTable" and item.inside and item.line.endswith(" is missing")
    ]:
        taken = [
            item for item in left if item.attachment == root.attachment and (item.inside or item.kind == "PodRules")
        ]
        taken = [item for item in taken if item.kind != "PodRules" or item.line.endswith(" is missing")]
        _take(left, taken)
        if taken:
            what = f"the ruleset in the pod was flushed: {len(taken)} rules missing"
            yield _finding("pod-ruleset-flushed", what, [root, *taken], mend)


def _is_in(symptom: Symptom, tables: Collection[str], flushed: bool) -> bool:
    """Whether it follows from tables that are gone: what iptables made in nf_tables went with a flush."""
    if symptom.resource is None or symptom.scope:
        return False
    flushable = flushed and vars(symptom.resource).get("backend") == "iptables-nft" and symptom.kind.startswith("Masq")
    return flushable or table_of(symptom.resource) in tables


def _many(pods: Iterable[str], how: str) -> str:
    many = len(set(pods))
    return f"{many} pod{'s' * (many != 1)} {how}" if many else ""


def _of_links(kind: str, left: list[Symptom], mend: Mend) -> Iterator[Finding]:
    """Links that are gone or down, each with what is about it."""
    lost = [item for item in left if item.kind == kind and _LOST_LINK.fullmatch(item.line)]
    for line, group in groupby(sorted(lost, key=lambda item: item.line), lambda item: item.line):
        roots = list(group)
        gone = {place for root in roots for place in _places(root)}
        about = [item for item in left if item.kind != kind and any((item.scope, name) in gone for name in item.names)]
        if about:
            _take(left, (*roots, *about))
            yield _finding(kind, f"{line}, and {len(about)} more with it", [*roots, *about], mend)


def _places(root: Symptom) -> set[tuple[Attachment | None, str]]:
    """Where what follows from a lost link is: of a pair that is gone both ends are, of a macvlan's master what stands on it."""
    said = vars(root.resource)
    match = _LOST_LINK.fullmatch(root.line)
    assert match
    places: set[tuple[Attachment | None, str]] = {(root.scope, match["name"])}
    if root.kind == "VethPair" and match["how"] == "missing":
        places.add((root.attachment, said["pod"]))
    if root.kind == "Macvlan":
        places.add((root.attachment, said["name"]))
    return places


def _of_addresses(left: list[Symptom], mend: Mend) -> Iterator[Finding]:
    """Addresses that are gone, with the routes the kernel took with them."""
    for root in [item for item in left if _LOST_ADDRESS.fullmatch(item.line)]:
        match = _LOST_ADDRESS.fullmatch(root.line)
        assert match
        about = [
            item for item in left if "Route" in item.kind and item.scope == root.scope and match["link"] in item.names
        ]
        about = [item for item in about if (":" in match["address"]) == any(":" in name for name in item.names)]
        if about:
            _take(left, (root, *about))
            yield _finding(root.kind, f"{root.line}, and {len(about)} more with it", [root, *about], mend)


def _alike(left: Sequence[Symptom], mend: Mend) -> Iterator[Finding]:
    """The rest: many lines of one thing as one, and one line of many pods once."""
    said: dict[tuple[str, str], list[Symptom]] = {}
    for _, group in groupby(left, lambda item: (item.attachment, item.resource)):
        for line, items in _short(list(group)):
            said.setdefault((line, items[0].difference.mend), []).extend(items)
    like: dict[tuple[str, str], list[tuple[str, list[Symptom]]]] = {}
    for (line, advice), items in said.items():
        like.setdefault((re.sub(r"\S*\d\S*", "…", line), advice), []).append((line, items))
    for alike in like.values():
        lines, together = [line for line, _ in alike], [item for _, items in alike for item in items]
        if len(lines) >= _MANY <= len({item.pod for item in together}):
            yield _finding(together[0].kind, _common(lines), together, mend)
        else:
            yield from (_finding(items[0].kind, line, items, mend) for line, items in alike)


def _short(items: Sequence[Symptom]) -> Iterator[tuple[str, list[Symptom]]]:
    """The lines of one resource; those that differ in their end alone as one, and of an interception all."""
    if items[0].kind == "PodRules" and len(items) >= _MANY:
        head, _, first = items[0].line.partition(": ")
        what = "are missing" if all(item.line.endswith(" is missing") for item in items) else "differ"
        yield f"{head}: {len(items)} {what}, such as {first.removesuffix(' is missing')}", list(items)
        return
    by: dict[str, list[tuple[str, Symptom]]] = {}
    for item in items:
        match = next(filter(None, (shape.fullmatch(item.line) for shape in _ALIKE)), None) if item.resource else None
        by.setdefault(match["head"] if match else item.line, []).append((match["one"] if match else "", item))
    for head, found in by.items():
        if len(found) < _MANY:
            yield from ((item.line, [item]) for _, item in found)
        else:
            what = "rules differ, such as" if " is " in found[0][0] else "addresses, such as"
            joint = ":" if what.startswith("rules") else ""
            yield f"{head}{joint} {len(found)} {what} {found[0][0]}", [item for _, item in found]


def _common(lines: Sequence[str]) -> str:
    """What lines have in common, word by word."""
    words = [line.split(" ") for line in lines]
    return " ".join(each[0] if len(set(each)) == 1 else "…" for each in zip(*words, strict=False))


def _take(left: list[Symptom], found: Iterable[Symptom]) -> None:
    """Take some out of those that are `left`."""
    known = {id(item) for item in found}
    left[:] = [item for item in left if id(item) not in known]


def _finding(key: str, what: str, items: Sequence[Symptom], mend: Mend) -> Finding:
    """One of some symptoms, whose first is the cause."""
    pods = tuple(sorted({item.pod for item in items}))
    lines = tuple(dict.fromkeys(f"{item.pod}: {item.line}" for item in items)) if len(items) > len(pods) else ()
    return Finding(what, mend(items), items[0].severity, key, pods, lines)
