"""What a change of documents would change for the pods that are there: which connections, by judging each before and after.

Documents tell peers apart by labels, named ports and blocks, and ports by the numbers that stand in rules: of what no document tells
apart one is asked for all.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping

from cni.naming import IPAddress
from cni.policy.amended import place_of
from cni.policy.book import Book
from cni.policy.domains import together
from cni.policy.judgement import Judgement, Other, judged
from cni.policy.model import ASKING, Peers, Port
from cni.policy.objects import ClusterPolicy, ClusterRule, KubeNode, NetworkPolicy, Pod, Rule, names_of, unknown
from cni.policy.subjects import about
from cni.values import dataclass, replace

_PROTOCOLS = ("tcp", "udp", "sctp")
_LAST = 65535
#: Addresses that documents hardly speak of: of documentation (RFC 5737, RFC 3849), and others if they do.
_SOMEWHERE = {
    4: [int(ipaddress.IPv4Address(text)) for text in ("203.0.113.1", "198.51.100.1", "9.9.9.9", "172.32.0.1")],
    6: [int(ipaddress.IPv6Address(text)) for text in ("2001:db8::1", "2600::1", "3fff::1")],
}
_KINDS: dict[int, Callable[[int], IPAddress]] = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}
_BITS = {4: 32, 6: 128}


@dataclass(frozen=True)
class End:
    """One end of a connection: an address, and the names (``namespace/name``) of the pods it stands for, or none; a `node` is asked as a
    target alone, for no document keeps it from its own pods. With a `name` it is whatever that is resolved to: a pattern stands for all names
    that it alone means.
    """

    address: str
    pods: tuple[str, ...] = ()
    node: bool = False
    name: str = ""


@dataclass(frozen=True)
class Change:
    """Connections of one protocol to ports `first` to `last` that would be let through, or not any more.

    `why` is the word of the end that decides about it after the change.
    """

    source: End
    target: End
    protocol: str
    first: int
    last: int
    allowed: bool
    why: Judgement


def changes(before: Book, after: Book, here: Iterable[Pod]) -> Iterator[Change]:
    """What would change for the pods of this node, of whatever both books know: in order of the ends' names."""
    everybody = {_name(pod): pod for pod in (*before.pods(), *after.pods(), *here) if pod.addresses}
    spoken = _Spoken(before, after, everybody)
    for family in (4, 6):
        ends = _ends(everybody.values(), spoken, family)
        mine = {_name(pod) for pod in here}
        near = [end for end in ends if mine & set(end.pods)]
        changed = {end for end in ends if end.pods and spoken.changed(everybody[end.pods[0]])}
        both = ((one, other) for one in near for other in ends if one in changed or other in changed)
        pairs = dict.fromkeys(pair for ends in both for pair in (ends, ends[::-1]) if not pair[0].node)
        pairs |= dict.fromkeys((one, End("", name=it)) for one in near if one in changed for it in spoken.names)
        for source, target in pairs:
            yield from _changes(before, after, *_apart(source, target, everybody), spoken)


def _apart(source: End, target: End, everybody: dict[str, Pod]) -> tuple[End, End]:
    """The ends as two that differ, where both stand for the same pods."""
    if source != target or len(target.pods) < 2:
        return source, target
    family = ipaddress.ip_address(target.address).version
    return source, End(_address(everybody[target.pods[1]], family), target.pods)


def _changes(before: Book, after: Book, source: End, target: End, spoken: _Spoken) -> Iterator[Change]:
    if source.address == target.address:
        return
    for protocol in _PROTOCOLS:
        found: Change | None = None
        points = spoken.points(protocol)
        for first, last in zip(points, [*(point - 1 for point in points[1:]), _LAST], strict=True):
            (was, _), (now, why) = (
                _verdict(book, (source, target), spoken, protocol, first) for book in (before, after)
            )
            if was is now:
                continue
            if found and found.last == first - 1 and (found.allowed, found.why) == (now, why):
                found = replace(found, last=last)
                continue
            if found:
                yield found
            found = Change(source, target, protocol, first, last, now, why)
        if found:
            yield found


def _verdict(book: Book, ends: tuple[End, End], spoken: _Spoken, protocol: str, port: int) -> tuple[bool, Judgement]:
    """Whether both ends let a connection through, and the word of the one that decides."""
    source, target = ends
    out, into = (spoken.pod(book, end) for end in ends)
    said = [Judgement(True, "default")]
    if out:
        said.append(judged(book, out, "egress", Other(target.address, into, protocol, port, target.name)))
    if into:
        said.append(judged(book, into, "ingress", Other(source.address, out, protocol, port)))
    decisive = next((item for item in said if not item.allowed), said[-1])
    return decisive.allowed, decisive


class _Spoken:
    """What documents of two books speak of: the ports and blocks in their rules, and whom they are about."""

    def __init__(self, before: Book, after: Book, everybody: Mapping[str, Pod]) -> None:
        self._books, self._everybody = (before, after), everybody
        spaces = {pod.namespace for book in self._books for pod in book.pods()}
        policies: list[NetworkPolicy | ClusterPolicy] = [
            item for book in self._books for space in spaces for item in book.policies(space)
        ]
        policies += [item for book in self._books for item in book.cluster_policies()]
        self._rules: list[Rule | ClusterRule] = [
            rule for item in policies for rule in (*(item.ingress or ()), *(item.egress or ()))
        ]
        self.blocks = list(
            dict.fromkeys(peer for rule in self._rules for peer in rule.peers or () if isinstance(peer, tuple))
        )
        self.names = together(name for rule in self._rules for name in names_of(rule))
        self.nodes = {text for book in self._books for node in book.nodes() for text in node.addresses}
        self._alike = (
            _by_place(before.pods()) == _by_place(after.pods())
            and _by_place(before.nodes()) == _by_place(after.nodes())
            and all(before.labels_of(space) == after.labels_of(space) for space in spaces)
        )

    def pod(self, book: Book, end: End) -> Pod | None:
        """The pod that an end is by a book; one that the book does not know may have any labels."""
        if not end.pods:
            return None
        place, addresses = end.pods[0].split("/"), self._everybody[end.pods[0]].addresses
        return book.pod(*place) or replace(unknown(*place), addresses=addresses)

    def changed(self, pod: Pod) -> bool:
        """Whether what is said about a pod differs, or who is meant by it may."""
        return not self._alike or _about(self._books[0], pod) != _about(self._books[1], pod)

    def points(self, protocol: str) -> list[int]:
        """The ports of a protocol at which something may differ from the port before."""
        spans = [
            (port.first, port.last)
            for rule in self._rules
            for port in rule.ports or ()
            if isinstance(port, Port) and port.protocol == protocol and port.first
        ]
        named = {
            number
            for book in self._books
            for pod in book.pods()
            for port, number in pod.ports
            if port.protocol == protocol
        }
        edges = {
            1,
            *(first for first, _ in spans),
            *(last + 1 for _, last in spans),
            *named,
            *(number + 1 for number in named),
            *(edge for number in ASKING if self.names for edge in (number, number + 1)),
        }
        return sorted(edge for edge in edges if edge <= _LAST)

    def kind_of(self, pod: Pod, address: str) -> Hashable:
        """What documents may tell a pod apart by."""
        number = ipaddress.ip_address(address)
        within = tuple(_covers(block, int(number), number.version) for block in self.blocks)
        known = tuple(book.pod(pod.namespace, pod.name) for book in self._books)
        return (
            pod.namespace,
            tuple((tuple(sorted(item.labels.known.items())), item.ports) if item else None for item in known),
            within,
        )


def _ends(pods: Iterable[Pod], spoken: _Spoken, family: int) -> list[End]:
    """Whom to ask: of pods that no document tells apart one, of each block an address, and one of nobody's."""
    kinds: dict[Hashable, list[Pod]] = {}
    for pod in sorted(pods, key=_name):
        if address := _address(pod, family):
            kinds.setdefault(spoken.kind_of(pod, address), []).append(pod)
    found = [End(_address(alike[0], family), tuple(map(_name, alike))) for alike in kinds.values()]
    taken = {ipaddress.ip_address(text) for pod in pods for text in pod.addresses}
    nodes = {text for text in spoken.nodes if ipaddress.ip_address(text).version == family} - set(map(str, taken))
    return [
        *found,
        *(End(str(at)) for at in _nobodys(spoken.blocks, family, taken)),
        *(End(text, node=True) for text in sorted(nodes)),
    ]


def _nobodys(blocks: Iterable[tuple[Peers, ...]], family: int, taken: Collection[IPAddress]) -> list[IPAddress]:
    """Addresses no pod has: one that no block covers, and the first of each kind that blocks tell apart."""
    kind, edges = _KINDS[family], defaultdict[int, set[int]](set, {0: set()})
    for at, block in enumerate(blocks):
        for low, high in (span for peers in block if peers.family == family for span in peers.ranges):
            edges[low] ^= {at}
            edges[high + 1] ^= {at}
    within, alike = set[int](), defaultdict[frozenset[int], list[int]](list)
    for edge, end in itertools.pairwise([*sorted(edges), 1 << _BITS[family]]):
        within ^= edges[edge]
        usual = () if within else (it for it in _SOMEWHERE[family] if edge <= it < end)
        free = (it for it in itertools.chain(usual, range(edge, end)) if kind(it) not in taken)
        alike[frozenset(within)] += itertools.islice(free, 1)
    return [kind(next((it for it in _SOMEWHERE[family] if it in found), found[0])) for found in alike.values() if found]


def _about(book: Book, pod: Pod) -> tuple[object, ...]:
    now = book.pod(pod.namespace, pod.name) or pod
    own = [item for item in book.policies(pod.namespace) if item.selector.selects(now.labels) is not False]
    cluster = [item for item in book.cluster_policies() if about(item.subject, now, book.labels_of) is not False]
    return sorted(own, key=lambda item: item.name), sorted(cluster, key=lambda item: item.name)


def _by_place(items: Iterable[Pod | KubeNode]) -> dict[object, object]:
    return {place_of(item): item for item in items}


def _covers(block: tuple[Peers, ...], number: int, family: int) -> bool:
    return any(peers.family == family and any(low <= number <= high for low, high in peers.ranges) for peers in block)


def _address(pod: Pod, family: int) -> str:
    return next((text for text in pod.addresses if (":" in text) is (family == 6)), "")


def _name(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.name}"
