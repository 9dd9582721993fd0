"""What is wrong with this host's part in its cluster: its member, what it has, and the way to the other hosts."""

from __future__ import annotations

import argparse
import ipaddress
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple

from cni.cluster.config import ClusterConfig, EtcdConfig
from cni.cluster.engines import store_of
from cni.cluster.model import Alive, Network, Node
from cni.cluster.store import Listing
from cni.command.doctor import far_rows
from cni.command.doctor.uplinks import uplink_faults
from cni.errors import CniError
from cni.kernel import vteps, wireguard
from cni.kernel.clock import boottime
from cni.kernel.netlink import Rtnl
from cni.overlay.vxlan import OVERHEAD
from cni.overlay.wireguard import DEVICE
from cni.resources import Difference, VxlanLink
from cni.state import DEFAULT_FOLDER, Store
from cni.state.daemons import MEMBER, is_running
from cni.state.membership import LOST, Holding, Member

#: A bell that was lost is missed for a second (member/publisher.py): what is left after this nobody is about to do.
_MOMENT = 1.5
#: Of how many other hosts the VTEPs are asked, each by two sockets.
_MOST_ASKED = 200
#: How many addresses of a block are counted: it has no more (cluster/model.py).
_MOST = 4096
_START = "systemctl start agent-cni-member.service, or agent-cni join"
_AGAIN = "systemctl restart agent-cni-member.service; why: journalctl -u agent-cni-member"


class _Part(NamedTuple):
    """What there is to look at; `away` is why the store says nothing, `listing` is empty then."""

    config: ClusterConfig
    state: Store
    member: Member
    runs: bool
    listing: Listing
    away: str

    def nodes(self) -> list[Node]:
        """The other hosts the store has heard of within a session, and this one's record."""
        alive = {item.node for item in self.listing.items if isinstance(item, Alive)}
        return [item for item in self.listing.items if isinstance(item, Node) and item.name in alive]


def is_in_cluster(options: argparse.Namespace) -> bool:
    """Whether this host is told of a cluster, or is in one."""
    if options.config.exists():
        return True
    with suppress(CniError), _state() as state:
        return state is not None and state.member() is not None
    return False


@contextmanager
def _state() -> Iterator[Store | None]:
    state = Store.reading(DEFAULT_FOLDER)
    try:
        yield state
    finally:
        if state:
            state.close()


def cluster_faults(options: argparse.Namespace) -> Iterator[Difference]:
    """All of it; nothing on a host that is in no cluster. Raises CniError where the state cannot be read."""
    if not is_in_cluster(options):
        return
    try:
        config = ClusterConfig.load(options.config)
    except CniError as error:
        yield Difference(error.msg, f"edit {options.config}, or agent-cni join --etcd URL, or --kubernetes")
        return
    listing, away = _asked(config)
    runs = is_running(MEMBER)
    if not runs:
        yield Difference("no member runs on this host: nothing of the cluster is heard, had or told", _START)
    with _state() as state:
        member = state.member() if state else None
        if state and member:
            part = _Part(config, state, member, runs, listing, away)
            if apart := list(_of_address(part)):  # nothing of the cluster is reached, and that follows
                yield from apart
                return
            for look in (
                _of_store,
                _of_member,
                _of_networks,
                _of_blocks,
                _of_what_waits,
                _of_rows,
                _of_links,
                lambda part: uplink_faults(part.config.uplinks, part.member.underlay or part.member.vtep),
                _of_tunnels,
                _of_hosts,
            ):
                yield from look(part)
    yield from _of_metrics(config) if runs else ()


def _asked(config: ClusterConfig) -> tuple[Listing, str]:
    try:
        return store_of(config).listing(), ""
    except CniError as error:
        return Listing(0, ()), error.msg


def _of_store(part: _Part) -> Iterator[Difference]:
    store = part.config.store
    if part.away and not (part.runs and (part.member.trouble or store.is_for_pods)):  # which says it, and since when
        yield Difference(part.away, f"look at {store}, and at what filters the way to it")
    for line in part.listing.refused:
        key = line.partition(" in the store: ")[0]
        at_etcd = isinstance(store, EtcdConfig) and f"etcdctl del {store.prefix}/{key}"
        yield Difference(line, f"look who writes there, then {at_etcd or 'mend the object (kubectl edit)'}")


def _of_member(part: _Part) -> Iterator[Difference]:
    member, config = part.member, part.config
    if part.runs and member.trouble:
        names = f"agent-cni join --node gives this host another name; if the other is gone for good: agent-cni node remove {config.node}"
        at_store = f"look at {config.store} and at what filters the way to it; {_AGAIN}"
        mend = names if "may not be" in member.trouble else at_store
        back = f"agent-cni join --node {member.node}, as it was; or agent-cni leave, once its pods are gone"
        yield Difference(member.trouble, back if "it cannot be" in member.trouble else mend)
    elif part.runs and not part.away and member.node not in {node.name for node in part.nodes()}:
        yield Difference(f"the cluster has not heard of {member.node} for a session: its member stands still", _AGAIN)
    if member.node != config.node:
        yield Difference(f"this host is {member.node} in the cluster, and {config.node} in its configuration", _AGAIN)
    left = member.fenced_at - boottime()
    fences = member.fences or config.free_after
    if fences and member.fenced_at and left <= 0:
        what = f"no address is given here: the cluster has not heard of this host for half of freeAfter, {fences} s"
        yield Difference(what, "bring the store or the way to it back; before three quarters, or pods here are cut off")
    if member.no_tunnel:
        yield Difference(member.no_tunnel, _AGAIN)


def _of_networks(part: _Part) -> Iterator[Difference]:
    for network, refused in part.state.shared():
        if refused:
            yield Difference(f"network {network.name}: {refused}", "have its configuration alike on every host")
    known = [item for item in part.listing.items if isinstance(item, Network) and item.vni]
    several = {vni for vni, many in Counter(item.vni for item in known).items() if many > 1}
    for vni in sorted(several):
        names = " and ".join(sorted(item.name for item in known if item.vni == vni))
        yield Difference(f"networks {names} have one VNI, {vni}: their pods share a wire", "give each its own vxlan.id")


def _of_blocks(part: _Part) -> Iterator[Difference]:
    """Blocks that are somebody else's by now, and the pods that are cut off with them."""
    for lost in (item for item in part.state.blocks() if item.state == LOST):
        pods = sorted(_pods_in(part.state, lost))
        what = f"block {lost.block.span} of network {lost.block.network} is another host's by now; cut off: {', '.join(pods)}"
        yield Difference(
            what, "delete these pods: they come back with other addresses, and the block goes with the last"
        )


def _pods_in(state: Store, lost: Holding) -> Iterator[str]:
    names = {record.attachment: record.pod for record in state.records()}
    span = lost.block.addresses
    for address, attachment in state.leases_between(lost.block.network, span[0], span[-1]):
        yield f"{names.get(attachment) or attachment.container[:13]} ({address})"


def _of_what_waits(part: _Part) -> Iterator[Difference]:
    """What the member should have done by now, looked at twice."""
    before = _waiting(part.state) if part.runs and not part.member.trouble and not part.away else set()
    if before:
        time.sleep(_MOMENT)
        yield from sorted(before & _waiting(part.state))


def _waiting(state: Store) -> set[Difference]:
    """What is of one of this host's blocks it tells; of an address in none of them it can tell nothing."""
    networks = {network.name for network, refused in state.shared() if not refused}
    unsaid = Counter[str]()
    for block in (holding.block for holding in state.blocks() if holding.state != LOST):
        unsaid[block.network] += len(state.unsaid_of(block, _MOST))
    found = {
        Difference(f"network {name}: {many} addresses are not told to the cluster", _AGAIN)
        for name, many in unsaid.items()
        if many
    }
    for wish in state.wishes():
        if not wish.answer and wish.network in networks:
            what = wish.address or f"a block of IPv{wish.family}"
            found.add(Difference(f"network {wish.network}: a call waits for {what}", _AGAIN))
    for name in networks:
        if outside := ", ".join(state.outside_blocks(name)):
            what = f"network {name}: pods have addresses that are in no block of this host, such as {outside}"
            found.add(
                Difference(what, "delete them: other hosts may give these addresses; agent-cni ipam has whose they are")
            )
    return found


def _of_rows(part: _Part) -> Iterator[Difference]:
    """Rows of the kernel that are not as the store says, looked at twice; a member that stands still mends none."""
    if part.away or part.member.trouble:
        return
    found = far_rows.faults(DEFAULT_FOLDER, part.member.node, part.listing)
    if found:
        time.sleep(_MOMENT)
        listing, _ = _asked(part.config)
        found &= far_rows.faults(DEFAULT_FOLDER, part.member.node, listing) if listing.revision else set()
    for line in far_rows.told(found):
        yield Difference(line, _AGAIN if part.runs else _START)


def _of_address(part: _Part) -> Iterator[Difference]:
    """Whether this host still has the address others send to."""
    with closing(Rtnl()) as host:
        if not part.member.no_tunnel and not host.holding(ipaddress.ip_address(part.member.vtep)):
            mend = "give it back, with its routes, or agent-cni join --vtep ADDRESS"
            yield Difference(f"no link of this host has {part.member.vtep}, which the others send to", mend)


def _of_links(part: _Part) -> Iterator[Difference]:
    """Whether packets of this host's pods fit into what leads to the others."""
    member = part.member
    with closing(Rtnl()) as host:
        vtep = ipaddress.ip_address(member.vtep)
        link = host.link_by_index(host.holding(vtep))
        if link is None:
            return
        room = link.mtu - OVERHEAD[vtep.version]
        for device in _devices(part):
            tunnel = host.link_by_name(device.name)
            if tunnel and tunnel.mtu > room:
                what = (
                    f"{device.name} has MTU {tunnel.mtu}, and {link.name} has room for {room}: larger packets are lost"
                )
                yield Difference(
                    what, f"raise the MTU of {link.name}, or lower the network's mtu and make its pods anew"
                )


def _devices(part: _Part) -> list[VxlanLink]:
    """The tunnels of this host's clustered networks."""
    shared = {network.name for network, _ in part.state.shared()}
    records = (record for record in part.state.records() if record.attachment.network in shared)
    every = (item for record in records for item in record.resources if isinstance(item, VxlanLink))
    return list({item.name: item for item in every}.values())


def _of_tunnels(part: _Part) -> Iterator[Difference]:
    """WireGuard peers that never proved their key."""
    if not part.member.encryption or part.member.no_tunnel:
        return
    names = {node.wireguard: node.name for node in part.nodes()}
    try:
        shown = wireguard.show(DEVICE).tunnels
    except CniError as error:
        yield Difference(f"encryption: {error.msg}", _AGAIN)
        return
    for key, tunnel in shown.items():
        if key in names and not tunnel.heard:
            what = f"no tunnel to {names[key]}: nobody with its key answers at {tunnel.peer.endpoint}"
            port = tunnel.peer.endpoint.rpartition(":")[2]
            yield Difference(what, f"look at that host's member, and at what filters UDP port {port}")


def _of_hosts(part: _Part) -> Iterator[Difference]:
    """Other hosts that are heard of by the store, and do not answer."""
    ports = {device.port for device in _devices(part)}
    others = {node.vtep: node.name for node in part.nodes() if node.name != part.member.node}
    asked = sorted(others)[:_MOST_ASKED]
    for port in sorted(ports) if asked else ():
        for vtep, why in vteps.unreachable(asked, port).items():
            what = f"{others[vtep]} at {vtep}, UDP port {port}: {why}"
            yield Difference(what, f"look at that host, and at what filters UDP port {port}")


def _of_metrics(config: ClusterConfig) -> Iterator[Difference]:
    from cni.member import metrics  # and HTTP with it

    if config.metrics and not metrics.answers(config.metrics, encrypted=bool(config.metrics_cert)):
        why = "somebody else has that port" + (", or its files of TLS are not right" if config.metrics_cert else "")
        yield Difference(
            f"the member does not answer at {config.metrics}: {why}", "free it, or agent-cni join --metrics HOST:PORT"
        )
