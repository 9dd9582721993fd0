"""One call's hold on the node: its state, one attachment locked, and the world to change."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from pathlib import Path

from cni import engine
from cni.errors import InvalidNetns, Unavailable
from cni.kernel.files import refuse_strangers
from cni.kernel.locks import PATIENCE, LockFile
from cni.kernel.netns import Netns, home_identity, is_own, whereabouts
from cni.naming import OWN_IPAM, Attachment, digest_of
from cni.protocol.call import Call
from cni.protocol.config import NetConf
from cni.resources import Resource, Said, World, key_of, uses_of
from cni.resources.base import Unknown
from cni.resources.world import Peers
from cni.retirement import end_use, wait_for_retirements
from cni.state import DEFAULT_FOLDER, Record, Store, said_by
from cni.state.uses import node_lock
from cni.values import dataclass, replace


@dataclass
class Node:
    """`record` is what is known of the attachment now, None before an ADD and after a DEL."""

    store: Store
    world: World
    attachment: Attachment
    plugin: str
    record: Record | None

    def seen_from(self, world: World) -> Node:
        """The same, whose `world` asks it what others have."""
        node = replace(self, world=world)
        world.networks, world.at_rest = cache(node.others_say), node.at_rest
        world.peers, world.selecting, world.withdraw = node.peers, node.selecting, node.withdraw
        return node

    def new_record(self, call: Call, netconf: NetConf) -> Record:
        """What an ADD begins with: who, and in which namespace of which node."""
        netns_id = self.world.netns.identity if self.world.netns else ""
        return Record(
            self.attachment, self.plugin, call.netns, call.pod, netconf, netns_id=netns_id, home=whereabouts()
        )

    def write(self, record: Record, planned: Sequence[Resource] | None = None) -> Record:
        """Keep a changed record; with `planned`, what its attachment is to have now and who may ask about it."""
        if planned is not None:
            record = record.having(resources=tuple(planned))
        with self.store.transaction():
            self.store.put(record)
            if planned is not None:
                self.store.put_uses(record, uses_of(planned, record.lasting))
        self.record = record
        return record

    def complete(self, record: Record) -> None:
        """Keep the record of an ADD that is done, and that its network says now what it has."""
        with self.store.transaction():
            self.store.put(record)
            for place, resources in said_by(record) if not self.world.settled else ():
                self.store.put_configured(place, resources)
        self.record = record

    def others_say(self) -> list[Said]:
        """What the node's other networks say."""
        return self.store.said_on_node([place for place, _ in said_by(self.record)] if self.record else ())

    def apply(self, resources: Sequence[Resource]) -> None:
        """Make resources so that the record has, when nobody takes away any more what they share."""
        assert self.record
        wait_for_retirements(self.store, self.record, resources)
        self.world.settled = all(self.store.is_configured(*said) for said in said_by(self.record))
        engine.apply(resources, self.world)

    def begin(self, wanted: Sequence[Resource]) -> None:
        """Have the record be of both, what it is of and what is wanted, until `keep_only`: a DEL that comes between finds both."""
        assert self.record
        places = {item.place for item in wanted}
        gone = (item for item in self.record.resources if item not in wanted and item.place not in places)
        self.write(self.record, (*wanted, *gone))

    def keep_only(self, kept: Sequence[Resource]) -> None:
        """Remove what the record has besides, but for another release's; what of it others may use too goes if this attachment
        was the last.
        """
        assert self.record
        kept = (*kept, *(item for item in self.record.resources if isinstance(item, Unknown) and item not in kept))
        record, keys = self.record, {key_of(item, self.record.lasting) for item in kept if item.retires}
        gone = [item for item in record.resources if item not in kept]
        engine.remove(gone, self.world)
        shared = [item for item in gone if item.retires and key_of(item, record.lasting) not in keys]
        end_use(self.store, self.world, record, shared, partial(self.write, record, kept))

    def shared_by_others(self) -> frozenset[Resource] | None:
        """What other attachments of the node have and may share, and what their networks say now; None where nobody can say.
        It reads every record.
        """
        records = self.store.records_on_node()
        own = (self.attachment, self.plugin)
        others = [record for record in records or () if (record.attachment, record.plugin) != own]
        shared = (item for record in others for item in record.resources if item.shared and not item.configured)
        networks = {record.attachment.network for record in others}
        said = (item for said in self.store.said_on_node(()) if said.network in networks for item in said.resources)
        return frozenset((*shared, *said)) if records is not None else None

    def others(self, *values: str) -> Iterator[tuple[Attachment, Resource]]:
        """What other attachments of this node have that mention one of some values, and whose it is."""
        own = self.world.netns
        asked = (own.identity or value if own and value == own.path else value for value in values)
        for record in self.store.users_on_node(asked):
            if (record.attachment, record.plugin) != (self.attachment, self.plugin):
                yield from ((record.attachment, item) for item in record.resources)

    def peers(self) -> Peers:
        """Whom policies select; to be asked again in each turn."""
        from cni.policy.peering import Peering  # hardly anything is in any set where nobody has such a policy

        return Peering(self.store, self.record)

    def selecting(self) -> bool:
        """Whether anybody on the node has a set of peers."""
        return bool(self.store.sets_in_use())

    def withdraw(self, addresses: Iterable[str]) -> None:
        """Have nobody take these for the attachment's any more, while it is recorded still."""
        if self.record:
            with self.store.transaction():
                self.store.end_uses(self.record, addresses)

    def at_rest(self, value: str) -> Iterator[Resource]:
        """The same of attachments no call is at; none begins while what they have is looked at."""
        for record in self.store.resting_on_node(value, self.attachment):
            yield from record.resources

    def forget(self, record: Record | None) -> None:
        """Forget the attachment last, after what of `record` only it used."""
        ended = partial(self.store.forget, self.attachment, self.plugin)
        if record:
            end_use(self.store, self.world, record, record.resources, ended)
        else:
            with self.store.transaction():
                ended()
        self.record = None


@contextmanager
def opened(
    plugin: str,
    call: Call,
    netconf: NetConf,
    enters_pod: bool = False,
    patience: float = PATIENCE,
) -> Iterator[Node]:
    """The node with the call's attachment locked.

    With `enters_pod` the pod's namespace must be there: InvalidNetns before anything is made. Without,
    it is opened if it is there; a runtime that does not name it (any more) means the recorded one. Another namespace
    than the recorded one is not the pod's, whatever its path: it is as good as gone. So is the node's own, where a path of
    a dead pod leads to it by now: DEL does what is to be done outside.
    """
    attachment = Attachment(netconf["name"], call.container, call.ifname)
    if call.command in ("ADD", "CHECK"):
        _refuse_own_netns(call)
    with ExitStack() as held:
        netns = held.enter_context(closing(Netns(call.netns))) if enters_pod else None
        store = held.enter_context(closing(Store.open(folder_of(netconf), patience)))
        held.enter_context(store.lock.exclusive(_turn(attachment, plugin), str(attachment), patience))
        record = store.record(attachment, plugin)
        paths = () if enters_pod else (call.netns, record.netns if record else "")
        for path in dict.fromkeys(paths):
            found = Netns.if_there(path) if path and not _is_taken_for_own(path, call, record) else None
            if found:
                held.enter_context(closing(found))
                netns = found if record is None or is_of(record, found) else netns
        world = held.enter_context(closing(World(netns, store.lock)))
        yield _at(store, world, attachment, plugin, record)


@contextmanager
def beside_calls() -> Iterator[World]:
    """The host's world for who is at no attachment; its doors and the lock file end with it."""
    with closing(LockFile(node_lock())) as lock, closing(World(None, lock)) as world:
        yield world


@contextmanager
def held(store: Store, attachment: Attachment, plugin: str, *, enters: bool = False) -> Iterator[Node]:
    """The same of one of several whose state is open; its namespace is entered only by who says so, if it is there. Raises TryAgainLater
    at once where a call is at it.
    """
    turn = store.lock.exclusive(_turn(attachment, plugin), str(attachment), patience=0)
    with turn, ExitStack() as doors:
        record = store.record(attachment, plugin)
        netns = Netns.if_there(record.netns) if enters and record else None
        if netns:
            doors.enter_context(closing(netns))
        known = netns if record and record.netns_id and is_of(record, netns) else None
        world = doors.enter_context(closing(World(known, store.lock)))
        yield _at(store, world, attachment, plugin, record)


def _at(store: Store, world: World, attachment: Attachment, plugin: str, record: Record | None) -> Node:
    return Node(store, world, attachment, plugin, record).seen_from(world)


def _turn(attachment: Attachment, plugin: str) -> str:
    """Whose calls wait for each other. An IPAM is asked within a call of the plugin it gives an address for, of ours too."""
    return digest_of(f"{OWN_IPAM} {attachment}") if plugin == OWN_IPAM else attachment.digest


def is_of(record: Record, netns: Netns | None) -> bool:
    """Whether a namespace may be the one a record is about: it is not where both say who they are, and differ."""
    return netns is None or not record.netns_id or record.netns_id == netns.identity


def folder_of(netconf: NetConf) -> Path:
    """Where a network's state is: `dataDir`, also of our own ``ipam`` section, or the default."""
    ipam = netconf.get("ipam")
    section = ipam if isinstance(ipam, dict) and ipam.get("type", OWN_IPAM) == OWN_IPAM else {}
    return Path(netconf.get("dataDir") or section.get("dataDir") or DEFAULT_FOLDER)


def refuse_unwritable(folder: Path) -> None:
    """Raise Unavailable where no state could be written; asks only, makes nothing."""
    if folder.exists():
        refuse_strangers(folder)
    existing = next(item for item in (folder, *folder.parents) if item.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Unavailable(f"the state folder {folder} cannot be written")


def _is_taken_for_own(path: str, call: Call, record: Record | None) -> bool:
    """Whether a path leads to the node's own namespace, and nobody said that this is the pod's."""
    meant = call.own_netns_allowed or (record and record.netns_id == home_identity() != "")
    return not meant and is_own(path)


def _refuse_own_netns(call: Call) -> None:
    if call.netns and not call.own_netns_allowed and is_own(call.netns):
        raise InvalidNetns(f"CNI_NETNS: {call.netns!r} is this plugin's own namespace")
