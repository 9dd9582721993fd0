"""What a node has and how its calls go, as figures: read from the state and the tally whenever somebody asks, member or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import partial

from cni import __version__
from cni.errors import CniError
from cni.kernel import gatedir, hostsdir, wireguard
from cni.kernel.clock import boottime
from cni.kernel.counters import Counted, counted
from cni.member.exposition import Family
from cni.member.figures import Sample, distribution
from cni.member.steward import free
from cni.naming import POLICY_TABLE
from cni.overlay.wireguard import DEVICE
from cni.state import Store, uses
from cni.state.daemons import GATE, is_running
from cni.state.documents import Documents
from cni.state.membership import HELD, Member
from cni.state.recorded import recorded
from cni.state.tally import BOUNDS, MEND, Calls, calls

#: What a rule's verdict is of a document's.
_RULINGS = {"return": "accept", "drop": "deny", "goto": "pass"}

#: What becomes of a pod's questions, why answers or addresses in them are kept back, and why packets are: see `cni.dnsgate`.
_ASKED, _KEPT, _LOST = ("asked", "refused", "nowhere", "malformed"), ("unasked", "inward", "full"), ("lost", "strange")

#: What tells two values of a name apart: labels, each with what it says.
_Labels = tuple[tuple[str, str], ...]
_Counts = Counter[_Labels]


def of_node() -> list[Family]:
    """All of it; a folder that cannot be read counts nothing, and doctor says so."""
    found = [_gauge("build_info", "The release.", {(("version", __version__),): 1})]
    with suppress(CniError):
        found += _of_calls(calls())
    found += _of_folders()
    with suppress(CniError):
        found += _of_policies(counted(POLICY_TABLE))
    with suppress(CniError):
        found += _of_feeds()
    with suppress(CniError):
        found += _of_names()
    with suppress(CniError):
        found += _of_gate(gatedir.counted())
    with suppress(CniError):
        found += _of_flows()
    with suppress(CniError):
        store = Store.reading(uses.DEFAULT_FOLDER)
        if store:
            with closing(store):
                found += _of_cluster(store)
    return found


def _of_calls(every: list[Calls]) -> Iterator[Family]:
    name = "agent_cni_call_seconds"
    samples: list[Sample] = []
    failures: _Counts = Counter()
    repairs: _Counts = Counter()
    for plugin, verb, code, counts, seconds in every:
        if verb == MEND:
            repairs[("kind", plugin),] += sum(counts)
            continue
        said = (("plugin", plugin), ("verb", verb))
        samples += distribution(name, (*said, ("code", _spoken(code))), BOUNDS, list(counts), seconds)
        failures[said] += sum(counts) if code else 0
    yield Family(name, "histogram", "How long calls took, by how they ended: code 0 is well.", samples)
    yield _counter("call_failures_total", "Calls that ended in an error.", failures)
    yield _counter("repairs_total", "Times something of this node was put right unasked, by what it was.", repairs)


def _of_policies(every: list[Counted]) -> Iterator[Family]:
    packets: _Counts = Counter()
    sizes: _Counts = Counter()
    for item in every:
        said = (("document", item.comment), ("verdict", _RULINGS.get(item.verdict, "")))
        packets[said] += item.packets
        sizes[said] += item.bytes
    means = "of pods of this node that a document decided about since their rules were made; answers are not counted."
    yield _counter("policy_packets_total", f"Packets {means}", packets)
    yield _counter("policy_bytes_total", f"Bytes {means}", sizes)


def _of_feeds() -> Iterator[Family]:
    with closing(Documents.reading()) as documents:
        faults: dict[_Labels, float] = {(("feed", feed),): many for feed, many in documents.faults_counted().items()}
    means = "Parts of a feed of policies that cannot be read, or that their store has lost: what they said last holds."
    yield _gauge("policy_faults", means, faults)


def _of_names() -> Iterator[Family]:
    """How pods with names are; one that was never probed is not well, for nobody is told of it."""
    pods: _Counts = Counter()
    probed: _Counts = Counter()
    unhealthy: _Counts = Counter()
    for network in hostsdir.networks():
        said = (("network", network),)
        for entry in hostsdir.entries(network):
            pods[said] += 1
            probed[said] += bool(entry.health)
            unhealthy[said] += bool(entry.unhealthy)
    yield _gauge("names_pods", "Attachments of this host that have names.", pods)
    yield _gauge("names_probed", "Those that are probed.", probed)
    yield _gauge("names_unhealthy", "Those that are probed, and not answered because of that.", unhealthy)


def _of_gate(counts: Mapping[str, int]) -> Iterator[Family]:
    """What the DNS gate says of itself, where pods are held to names or were since the boot."""
    entries = [*gatedir.entries()]
    if not (entries or counts):
        return
    heard = is_running(GATE) and gatedir.is_heard()
    yield _gauge("dns_pods", "Attachments of this host that are held to names.", {(): len(entries)})
    yield _gauge("dns_gate_works", "Whether a DNS gate judges what they ask.", {(): heard})
    asked: dict[_Labels, float] = {(("outcome", name),): counts.get(name, 0) for name in _ASKED}
    yield _counter("dns_questions_total", "Questions the DNS gate judged, since it started.", asked)
    kept: dict[_Labels, float] = {(("why", name),): counts.get(name, 0) for name in _KEPT}
    yield _counter(
        "dns_kept_back_total", "Answers it did not let through, and addresses of answers it did not admit.", kept
    )
    admitted = counts.get("admitted", 0)
    yield _counter(
        "dns_admitted_total", "Addresses it let a pod reach under a name it was not told before.", {(): admitted}
    )
    reached = counts.get("addresses", 0) if heard else 0
    yield _gauge("dns_addresses", "Addresses that pods may reach by names now.", {(): reached})
    lost: dict[_Labels, float] = {(("why", name),): counts.get(name, 0) for name in _LOST}
    yield _counter(
        "dns_packets_lost_total", "Packets it had no room for, and those that were nobody's question or answer.", lost
    )


def _of_flows() -> Iterator[Family]:
    """What the recorder of flows saw since the boot, where one ran."""
    if counts := recorded():
        kinds: dict[_Labels, float] = {
            (("kind", name),): getattr(counts, name) for name in ("begun", "ended", "denied")
        }
        yield _counter("flows_total", "Flows of this node's pods that the recorder saw begin, end, and denied.", kinds)
        lost: dict[_Labels, float] = {
            (("why", "late"),): counts.shed,
            (("why", "disk"),): counts.unwritten,
            (("why", "collector"),): counts.unsent,
        }
        means = "Events, whosever, that it did not take in time, and sightings that the disk, or who sends them, did not take."
        yield _counter("flows_shed_total", means, lost)


def _spoken(code: int) -> str:
    return "other" if code < 0 else str(code)


def _of_folders() -> Iterator[Family]:
    attachments: _Counts = Counter()
    leases: _Counts = Counter()
    for store in _stores():
        with closing(store), suppress(CniError):
            for (network, plugin, complete), many in store.attachments_counted().items():
                state = "complete" if complete else "incomplete"
                attachments[("network", network), ("plugin", plugin), ("state", state)] += many
            for (network, family), many in store.leases_counted().items():
                leases[("network", network), ("family", str(family))] += many
    yield _gauge("attachments", "Attachments that are recorded; an incomplete one's call has not ended.", attachments)
    yield _gauge("addresses_leased", "Addresses that are given, by network and family.", leases)


def _stores() -> Iterator[Store]:
    folders = [uses.DEFAULT_FOLDER]
    with suppress(CniError):
        folders += uses.other_folders(uses.DEFAULT_FOLDER)
    for folder in folders:
        with suppress(CniError):
            if store := Store.reading(folder):
                yield store


def _of_cluster(store: Store) -> Iterator[Family]:
    """What this host has of its cluster; nothing outside of one."""
    if member := store.member():
        yield from _of_member(member)
        yield from _of_networks(store)
        yield from _of_blocks(store)


def _of_member(member: Member) -> Iterator[Family]:
    who = (("node", member.node), ("encryption", member.encryption))
    yield _gauge("member_info", "Who this host is in its cluster.", {who: 1})
    yield _gauge("member_troubled", "Whether nothing new can be had of the cluster now.", {(): bool(member.trouble)})
    if member.encryption:
        yield _of_tunnels()
    if member.fenced_at:
        left = round(member.fenced_at - boottime(), 3)
        yield _gauge("member_fence_seconds", "Seconds until no address is given any more (freeAfter).", {(): left})


def _of_tunnels() -> Family:
    """How many peers have proved their key since the device was made."""
    try:
        tunnels = wireguard.show(DEVICE).tunnels.values()
    except CniError:  # nothing serves it
        tunnels = {}.values()
    proved = sum(tunnel.heard > 0 for tunnel in tunnels)
    counts: dict[_Labels, float] = {(("state", "proved"),): proved, (("state", "silent"),): len(tunnels) - proved}
    return _gauge("encryption_peers", "Peers of the tunnels, by whether they have ever proved their key.", counts)


def _of_networks(store: Store) -> Iterator[Family]:
    refused = {network.name: bool(refused) for network, refused in store.shared()}
    waiting = Counter(wish.network for wish in store.wishes())
    for name, means, values in (
        ("network_refused", "Whether the cluster has a network otherwise than this host.", refused),
        ("wishes", "What calls wait for of the cluster.", {network: waiting[network] for network in refused}),
        ("endpoints_unpublished", "Addresses the cluster is still to be told about.", store.unsaid_counted()),
    ):
        yield _gauge(name, means, {(("network", network),): value for network, value in values.items()})


def _of_blocks(store: Store) -> Iterator[Family]:
    """By network and family; of a network nobody here shares any more there is nothing to give."""
    networks = {network.name: network for network, _ in store.shared()}
    ours: _Counts = Counter()
    left: _Counts = Counter()
    leased: _Counts = Counter()
    for one in store.blocks():
        pool = (("network", one.block.network), ("family", str(one.block.addresses.version)))
        ours[(*pool, ("state", one.state))] += 1
        leased[pool] += one.leased if one.state == HELD else 0
        left[pool] += free(networks[one.block.network], [one]) if one.block.network in networks else 0
    yield _gauge("blocks", "Blocks of addresses this host has: held, leaving, lost.", ours)
    yield _gauge("block_addresses_free", "Addresses of its blocks this host can still give.", left)
    yield _gauge("block_addresses_leased", "Addresses of its blocks that are given.", leased)


def _family(kind: str, name: str, means: str, values: Mapping[_Labels, float]) -> Family:
    name = f"agent_cni_{name}"
    return Family(name, kind, means, [Sample(name, labels, value) for labels, value in values.items()])


_gauge, _counter = partial(_family, "gauge"), partial(_family, "counter")
