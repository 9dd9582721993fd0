"""One call's hold on the node: its state, one attachment locked, and the world to change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cni import engine
from cni.errors import InvalidNetns, Unavailable
from cni.ipam.config import TYPE as OWN_IPAM
from cni.kernel.files import PATIENCE
from cni.kernel.netns import Netns, is_own
from cni.naming import Attachment
from cni.protocol.call import Call
from cni.protocol.config import Config
from cni.resources import World, decode, encode
from cni.state import DEFAULT_FOLDER, Record, Store


@dataclass
class Node:
    """`record` is what is known of the attachment now, None before an ADD and after a DEL."""

    store: Store
    world: World
    attachment: Attachment
    plugin: str
    record: Record | None

    def write(self, record: Record) -> None:
        """Keep a changed record."""
        with self.store.transaction():
            self.store.put(record)
        self.record = record

    def forget(self) -> None:
        """Forget the record last, and retire what only it used: nobody can begin to use it meanwhile,
        because an ADD writes its record before it changes the kernel.
        """
        resources = [decode(raw) for raw in (self.record.resources if self.record else ())]
        with self.store.transaction():
            self.store.forget(self.attachment, self.plugin)
            unused = [item for item in resources if item.retires and not self.store.mentions(encode(item))]
            engine.retire(unused, self.world)
        self.record = None


@contextmanager
def opened(
    plugin: str, call: Call, conf: Config, enters_pod: bool = False, patience: float = PATIENCE
) -> Iterator[Node]:
    """The node with the call's attachment locked.

    With `enters_pod` the pod's namespace must be there: InvalidNetns before anything is made. Without,
    it is opened if it is there; a runtime that does not name it (any more) means the recorded one.
    """
    attachment = Attachment(conf["name"], call.container, call.ifname)
    _refuse_own_netns(call)
    with ExitStack() as held:
        netns = held.enter_context(closing(Netns(call.netns))) if enters_pod else None
        store = held.enter_context(closing(Store.open(folder_of(conf), patience)))
        held.enter_context(store.lock.exclusive(attachment.digest, str(attachment), patience))
        record = store.record(attachment, plugin)
        if netns is None:
            netns = Netns.if_there(call.netns or (record.netns if record else ""))
            held.enter_context(closing(netns) if netns else nullcontext())
        world = held.enter_context(closing(World(netns, store.lock)))
        yield Node(store, world, attachment, plugin, record)


def folder_of(conf: Config) -> Path:
    """Where a network's state is: `dataDir`, also of our own ``ipam`` section, or the default."""
    ipam = conf.get("ipam")
    section = ipam if isinstance(ipam, dict) and ipam.get("type", OWN_IPAM) == OWN_IPAM else {}
    return Path(conf.get("dataDir") or section.get("dataDir") or DEFAULT_FOLDER)


def refuse_unwritable(folder: Path) -> None:
    """Raise Unavailable where no state could be written; asks only, makes nothing."""
    existing = next(item for item in (folder, *folder.parents) if item.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Unavailable(f"the state folder {folder} cannot be written")


def _refuse_own_netns(call: Call) -> None:
    if call.netns and not call.own_netns_allowed and is_own(call.netns):
        raise InvalidNetns(f"CNI_NETNS: {call.netns!r} is this plugin's own namespace")
