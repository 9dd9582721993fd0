"""Holding what attachments share to what their network's configuration says now, without a new pod.

A network's latest ADD says what its tunnel is to be (`Resource.configured`). `agent-cni refresh` reads the configurations again,
and makes so what they say differently by now, and what of it the kernel has no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from cni import engine, plugin, uplink
from cni.errors import CniError, TryAgainLater
from cni.naming import Attachment
from cni.node import folder_of
from cni.protocol import config
from cni.protocol.call import Call
from cni.protocol.config import NetConf
from cni.protocol.result import Result
from cni.resources import Difference, Host, Resource, Said, VxlanLink, World
from cni.resources.base import REFRESH
from cni.state import Place, Store
from cni.survey import uplink_of
from cni.values import dataclass

#: What is each pod's own, and needs facts of it.
_OF_PODS = ("policy", "sidecar", "ipMasq", "nonMasqueradeCIDRs", "prevResult")
_SAMPLE = Call("ADD", "CONTAINER", "NETNS", "eth0")


@dataclass(frozen=True)
class Network:
    """What a network of a folder `said` of a place, and what is `wanted`: the same where no configuration says otherwise,
    or where that is `refused`. `in_use`: attachments of this node have it. `netconf` is its configuration, if there is one.
    """

    folder: Path
    place: Place
    said: tuple[Resource, ...]
    wanted: tuple[Resource, ...]
    in_use: bool
    refused: str = ""
    netconf: NetConf | None = None


def networks(folders: Iterable[Path], configurations: Sequence[NetConf]) -> list[Network]:
    """Every network of some state folders that said something, judged by the configurations of a node; who reads the records
    hears of a folder that cannot be read.
    """
    given = {(folder_of(item), item.get("name"), item.get("type")): item for item in reversed(configurations)}
    found: list[Network] = []
    for folder in folders:
        with suppress(CniError):
            found += _of_folder(folder, given)
    return found


def _of_folder(folder: Path, given: Mapping[tuple[Path, Any, Any], NetConf]) -> Iterator[Network]:
    store = Store.reading(folder)
    if store is None:
        return
    with closing(store), closing(World(None, store.lock)) as world:
        for place, said in store.said().items():
            netconf = given.get((folder, place.network, place.plugin))
            wanted, refused = _judged(netconf, place, said.resources, world, store)
            yield Network(folder, place, said.resources, wanted, said.in_use, refused, netconf)


def behind(network: Network, every: Sequence[Network]) -> list[Difference]:
    """What `refresh` would mend of a network's; `every` is all of the node's. Changes nothing."""
    with _standing(network, every) as (_, world):
        return _behind(network, world)


def refresh(network: Network, every: Sequence[Network]) -> bool:
    """Make what a network has as its configuration says now. Says whether there was anything to do.

    Raises what an ADD would, as where another network that says otherwise has it; then it is as it was.
    """
    with _standing(network, every) as (store, world):
        if not _behind(network, world):
            return False
        store.lock.share_node()
        try:
            engine.apply(network.wanted, world)
        except BaseException:
            world.undo.close()
            raise
        with store.transaction():
            store.put_configured(network.place, network.wanted)
        return True


@contextmanager
def _standing(network: Network, every: Sequence[Network]) -> Iterator[tuple[Store, World]]:
    others = [other for other in every if other is not network]
    with closing(Store.open(network.folder, patience=1)) as store, closing(World(None, store.lock)) as world:
        world.networks = lambda: [Said(other.place.network, other.wanted, other.in_use) for other in others]
        yield store, world


def _behind(network: Network, world: World) -> list[Difference]:
    """A tunnel that no pod has may be gone; the next ADD makes it."""
    devices = (item.name for item in network.wanted if isinstance(item, VxlanLink))
    if not network.in_use and not all(map(world.host.link_ref, devices)):
        return []
    another = (
        [Difference("its configuration says something else now", REFRESH)] if network.wanted != network.said else []
    )
    return another + engine.differences(network.wanted, world, Result())


def _judged(
    netconf: NetConf | None, place: Place, said: tuple[Resource, ...], world: World, store: Store
) -> tuple[tuple[Resource, ...], str]:
    """What is wanted of a place, and why what the configuration says cannot be had."""
    if netconf is None:
        return said, ""
    try:
        found = _planned(netconf, world, store)
    except (CniError, TypeError, KeyError, ValueError) as error:
        return said, getattr(error, "msg", "") or f"its configuration cannot be read: {error}"
    # one that moved, or has none any more, is for the next ADD
    here = any(place.place in item.mentions for item in found)
    return found if here else said, ""


def _planned(netconf: NetConf, world: World, store: Store) -> tuple[Resource, ...]:
    config.validate(netconf, netconf["type"])
    loaded = plugin.load(netconf["type"])
    read = loaded.Config.read({key: value for key, value in netconf.items() if key not in _OF_PODS}, _SAMPLE)
    query, vtep = uplink_of(store, read)
    if read.ipam.clustered and vtep is None and query and query.vtep:
        raise TryAgainLater("this host is in no cluster: agent-cni join")
    link = uplink.find(world.host, query) if query else None
    somebody = Attachment(netconf["name"], _SAMPLE.container, _SAMPLE.ifname)
    plan = loaded.plan(read, somebody, read.ipam.preview(), Host(_SAMPLE.netns, link, vtep=vtep))
    return tuple(item for item in plan.resources if item.configured)
