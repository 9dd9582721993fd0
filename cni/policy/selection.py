"""Which pods a rule means, apart from which those are today: what one set of addresses in the kernel stands for.

Equal selections of several documents are one set. A pod that comes, goes or changes its labels changes elements of sets,
and no rule.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any

from cni.naming import IPAddress
from cni.policy.book import Book
from cni.policy.labels import Labels, Requirement, Selector
from cni.policy.objects import NamedPort, Pod
from cni.values import dataclass

#: IP protocols' numbers (IANA).
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True)
class Selection:
    """Pods of a feed that `pods` selects: of one `namespace`, or of those that `namespaces` selects, where that is not None.

    With a `port` it means the ports of that name in these pods, by their numbers there. With a `doubt` it means pods without an object
    ``too``, or ``only``, unless what is known of them speaks against it: who denies may not go by what nobody knows yet.
    """

    feed: str
    namespace: str = ""
    namespaces: Selector | None = None
    pods: Selector = Selector()
    port: NamedPort | None = None
    doubt: str = ""

    @classmethod
    def read(cls, text: str) -> Selection:
        """The selection a `text` spells."""
        raw = json.loads(text)
        spaces, port = raw.get("namespaces"), raw.get("port")
        return cls(
            raw["feed"],
            raw.get("namespace", ""),
            None if spaces is None else _selector(spaces),
            _selector(raw["pods"]),
            NamedPort(*port) if port else None,
            raw.get("doubt", ""),
        )

    @cached_property
    def text(self) -> str:
        """Its one spelling as JSON, which a record keeps."""
        said: dict[str, Any] = {"feed": self.feed, "pods": _spelled(self.pods)}
        if self.namespaces is None:
            said["namespace"] = self.namespace
        else:
            said["namespaces"] = _spelled(self.namespaces)
        if self.port:
            said["port"] = [self.port.protocol, self.port.name]
        if self.doubt:
            said["doubt"] = self.doubt
        return json.dumps(said, sort_keys=True, separators=(",", ":"))

    def selects(self, pod: Pod, labels_of: Callable[[str], Labels]) -> bool:
        """Whether a pod is known to be meant, or may be and there is a doubt; `labels_of` says those of a namespace."""
        near = (
            pod.namespace == self.namespace
            if self.namespaces is None
            else self.namespaces.selects(labels_of(pod.namespace))
        )
        own = self.pods.selects(pod.labels)
        if not pod.labels.complete:
            return bool(self.doubt) and False not in (near, own)
        return bool(self.doubt != "only" and near and own)

    def members(self, book: Book, family: int) -> frozenset[bytes]:
        """The elements its set of a family (4 or 6) is to have, as the kernel keeps them."""
        near = self._spaces(book) if self.doubt != "only" else ()
        chosen = (pod for space in near for pod in book.pods_of(space, self.pods))
        known = (pod for pod in chosen if self.pods.selects(pod.labels))
        others = (pod for pod in (book.unknown_pods() if self.doubt else ()) if self.selects(pod, book.labels_of))
        meant = chain(known, others)
        return frozenset(element for pod in meant for element in self.elements(pod, pod.addresses, family))

    def _spaces(self, book: Book) -> list[str]:
        """The namespaces that it means, which have pods."""
        spaces = self.namespaces
        if spaces is None:
            return [self.namespace]
        return [name for name in book.namespaces() if spaces.selects(book.labels_of(name))]

    def has(self, address: IPAddress, protocol: str, port: int, book: Book) -> bool:
        """Whether what goes to an address and port, or comes from it, is among its members."""
        key = address.packed + _port_key(protocol, port) if self.port else address.packed
        return key in self.members(book, address.version)

    def elements(self, pod: Pod, addresses: Iterable[str], family: int) -> Iterator[bytes]:
        """What a pod that is meant has in its set by some addresses: each packed, before a protocol's and a port's number
        where it has a `port`, every part filled up to four bytes.
        """
        found = [address.packed for text in addresses if (address := ipaddress.ip_address(text)).version == family]
        if self.port is None:
            yield from found
            return
        numbers = [number for port, number in pod.ports if port == self.port]
        yield from (packed + _port_key(self.port.protocol, number) for packed in found for number in numbers)


def _port_key(protocol: str, number: int) -> bytes:
    return bytes([_NUMBERS.get(protocol, 0), 0, 0, 0]) + number.to_bytes(2, "big") + b"\0\0"


def _spelled(selector: Selector) -> list[list[Any]]:
    return sorted([item.key, item.operator, sorted(item.values)] for item in set(selector.requirements))


def _selector(raw: list[list[Any]]) -> Selector:
    return Selector(tuple(Requirement(key, operator, frozenset(values)) for key, operator, values in raw))
