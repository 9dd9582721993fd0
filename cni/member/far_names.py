"""What pods of other hosts are called: files beside those of this host's own, for whoever serves names here (kernel/hostsdir.py).

One for each host of each network that has names here. A host of which nobody hears has no pod that is answered; one that is not
well its own host says.
"""

from __future__ import annotations

from pathlib import Path

from cni.cluster.model import Alive, Endpoint, Key, Network
from cni.cluster.store import Change, Listing
from cni.errors import CniError
from cni.kernel import hostsdir
from cni.member.trouble import Trouble
from cni.names.spelling import believed, known_as
from cni.naming import digest_of
from cni.protocol.call import is_name

#: A network's name, and a host's.
Place = tuple[str, str]


class FarNames:
    """What is heard of them, and kept in files by the hand."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._there: dict[Place, dict[str, Endpoint]] = {}
        self._node: dict[tuple[str, str], str] = {}
        self._alive: set[str] = set()
        #: The networks whose pods have names, as some host says.
        self._named: set[str] = set()
        self._due: set[Place] = set()
        #: The domains that names were written by.
        self._domains: dict[str, str] = {}
        self._trouble = Trouble("names")

    def heard(self, news: Listing | Change) -> None:
        """Know it in the next `keep`."""
        if isinstance(news, Listing):
            self._due |= {*self._there, *_written()}
            self._there, self._node, self._alive, self._named = {}, {}, set(), set()
        put = news.items if isinstance(news, Listing) else news.put
        self._named |= {item.name for item in put if isinstance(item, Network) and item.names}
        named = {*self._named, *hostsdir.networks()}
        for key in () if isinstance(news, Listing) else news.gone:
            self._gone(key)
        for item in put:
            if isinstance(item, Endpoint):
                self._put(item, is_named=bool(item.names) or (bool(item.pod) and item.network in named))
            elif isinstance(item, Alive):
                self._lives(item.node, alive=True)

    def keep(self) -> None:
        """Have the files say so, of each network whose can be written."""
        why = ""
        for network in sorted({network for network, _ in (*self._due, *self._there)}):
            try:
                self._keep(network)
            except CniError as error:
                why = why or error.msg
        if why:
            self._trouble.is_so(why)
        else:
            self._trouble.over()

    def _keep(self, network: str) -> None:
        served = hostsdir.served(network)
        domain = served.domain if served else ""
        if domain != self._domains.get(network):
            self._due |= {place for place in self._there if place[0] == network}
        self._domains[network] = domain
        self._write(network, domain)

    def _write(self, network: str, domain: str) -> None:
        for place in [place for place in self._due if domain and place[0] == network]:
            node = place[1]
            endpoints = self._there.get(place, {}).values() if self._lives_on(node) else ()
            lines = [f"{one.address} {names}\n" for one in endpoints if (names := _names(one, domain))]
            if lines:
                hostsdir.put(_file(network, node), "".join(lines))
            else:
                hostsdir.drop([_file(network, node)])
            self._due.discard(place)

    def _lives_on(self, node: str) -> bool:
        """Whether a host is heard of; where none is, the store says that of nobody (Kubernetes)."""
        return node in self._alive or not self._alive

    def _gone(self, key: Key) -> None:
        if key[0] == Alive.room:
            self._lives(key[1], alive=False)
        elif key[0] == Endpoint.room and len(key) == 3:
            self._take(key[1], key[2])

    def _put(self, item: Endpoint, *, is_named: bool) -> None:
        """Of networks without names nothing is kept: there may be 50,000."""
        self._take(item.network, item.address)
        if is_named and item.node != self._me and is_name(item.network):  # by which there is a folder
            place = item.network, item.node
            self._node[item.network, item.address] = item.node
            self._there.setdefault(place, {})[item.address] = item
            self._due.add(place)

    def _take(self, network: str, address: str) -> None:
        if node := self._node.pop((network, address), ""):
            place = network, node
            del self._there[place][address]
            if not self._there[place]:
                del self._there[place]
            self._due.add(place)

    def _lives(self, node: str, *, alive: bool) -> None:
        self._due |= {place for place in self._there if place[1] == node}
        (self._alive.add if alive else self._alive.discard)(node)


def forget() -> None:
    """Have nobody elsewhere be answered any more. Raises Unavailable."""
    hostsdir.drop(_file(network, node) for network, node in _written())


def _names(endpoint: Endpoint, domain: str) -> str:
    """Under which it is answered. One that a store tells by its pod alone is called like that."""
    if endpoint.unhealthy:
        return ""
    namespace, _, name = endpoint.pod.partition("/")
    return " ".join(believed(endpoint.names.split()) if endpoint.names else known_as([name], namespace, domain))


def _file(network: str, node: str) -> Path:
    name = node if is_name(node) and not node.endswith("~") else digest_of(node)[:32]
    return hostsdir.FOLDER / network / hostsdir.THERE / name


def _written() -> list[Place]:
    """Of whom there are files."""
    return [(network, node) for network in hostsdir.networks() for node in hostsdir.hosts(network)]
