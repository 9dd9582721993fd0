"""What a host makes of a cluster: an oracle that looks at everything each time says the same as what follows each change."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from cni.cluster.blocks import block_of, first_block, host_address, next_block
from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Network, Node
from cni.cluster.pools import Pool
from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Change, Listing
from cni.naming import link_local, mac_of_address
from cni.overlay.peers import NO_UPLINK, Overlay, Peers, Uplink, peers_of
from cni.resources import PeerAddress, PeerNeighbour, PeerRefusal, PeerRoute, PeerRow
from cni.resources.remote import RemoteRow

V4 = Pool("10.10.0.0/24", "10.10.0.1", "10.10.0.254", "10.10.0.1")
V6 = Pool("fd00:10::/120", "fd00:10::1", "fd00:10::ff", "fd00:10::1")
POOLS = {"IPv4": (V4,), "IPv6": (V6,), "both": (V4, V6)}
ME = Node("node-a", "machine-a", "192.0.2.1", "fe:00:00:00:00:0a")
OTHERS = [Node(f"node-{letter}", f"machine-{letter}", f"192.0.2.{number}", f"fe:00:00:00:00:0{letter}")
          for number, letter in enumerate("bcd", 2)]  # fmt: skip
B, C, D = OTHERS
GATEWAY_MAC = mac_of_address(ip_address("10.10.0.1"))


#: Node B is on it, C and D are, and who moves to 192.0.2.9 is not any more.
UPLINK = Uplink("eth0", "192.0.2.0/29")


def network(mode: str = "l2", pools: tuple[Pool, ...] = (V4,)) -> Network:
    return Network("net", pools, 16, mode.removesuffix(" direct"), 100, direct="direct" in mode)


def overlay(of: Network) -> Overlay:
    return Overlay(of, "vxlan100", "" if of.mode == "l3" else "br0")


def block(span: str, node: Node = B) -> Block:
    return Block("net", span, node.name, node.machine)


def endpoint(address: str, node: Node = B, mac: str = "") -> Endpoint:
    return Endpoint("net", address, node.name, mac or mac_of_address(ip_address(address)), "container", "eth0")


def peers(*items: Item, of: Network | None = None, me: Node = ME) -> Peers:
    snapshot = Snapshot(me.name)
    snapshot.apply(Listing(1, items))
    return peers_of(me, snapshot, overlay(of or network()))


def rows(*items: Item, of: Network | None = None, me: Node = ME) -> set[RemoteRow]:
    return set(peers(*items, of=of, me=me).resources())


def reason(*items: Item, of: Item) -> str:
    """Why nothing is made of one of several items."""
    found = peers(*items)
    assert not any(of.key[2] in str(vars(row)) for row in found.resources() if not isinstance(row, PeerRoute))
    return found.refused[of.key]


# --- what there is to be


def test_l2_an_endpoint_elsewhere_is_a_row_and_a_neighbour():
    pod = endpoint("10.10.0.20")
    assert rows(B, block("10.10.0.16/28"), pod) == {
        PeerRow("vxlan100", pod.mac, "192.0.2.2"),
        PeerNeighbour("br0", "10.10.0.20", pod.mac),
    }


def test_l2_a_host_speaks_by_the_first_address_of_its_first_block_to_both_halves():
    assert rows(block("10.10.0.16/28", ME), endpoint("10.10.0.20", ME)) == {
        PeerAddress("br0", "10.10.0.16/32"),
        PeerRoute("br0", "10.10.0.0/25", "", "10.10.0.16"),
        PeerRoute("br0", "10.10.0.128/25", "", "10.10.0.16"),
    }


def test_what_a_host_speaks_by_stays_when_it_has_more_blocks():
    """Those it asks for itself, in the order in which it does: a block that was another host's seldom comes first."""
    of, taken = network(), list[str]()
    while span := next_block(of, of.pools[0], ME.name, taken):
        taken.append(span)
        own = [row for row in rows(*(block(it, ME) for it in sorted(taken)), of=of) if isinstance(row, PeerAddress)]
        assert own == [PeerAddress("br0", f"{host_address(of, taken[0])}/32")]
    assert len(taken) > 2


def test_l3_a_block_elsewhere_is_a_route_by_the_gateway_of_our_own():
    items = [B, block("10.10.0.16/28"), block("fd00:10::20/124"), block("10.10.0.32/28", ME), endpoint("10.10.0.20")]
    far = str(link_local(B.mac))
    assert rows(*items, block("fd00:10::40/124", ME), of=network("l3", (V4, V6))) == {
        PeerAddress("vxlan100", "fd00:10::41/128"),
        PeerAddress("vxlan100", "10.10.0.33/32"),
        PeerRow("vxlan100", B.mac, "192.0.2.2"),
        PeerNeighbour("vxlan100", "192.0.2.2", B.mac),
        PeerNeighbour("vxlan100", far, B.mac),
        PeerRoute("vxlan100", "10.10.0.16/28", "192.0.2.2", "10.10.0.33"),
        PeerRoute("vxlan100", "fd00:10::20/124", far, "fd00:10::41"),
    }


@pytest.mark.parametrize("uplink", [UPLINK, Uplink("eth0", "192.0.2.0/31"), Uplink("eth0", "2001:db8::/64"), NO_UPLINK])
def test_direct_a_block_of_a_neighbour_is_a_route_by_itself_and_of_others_in_the_tunnel(uplink: Uplink):
    """IPv6 goes by the tunnel, where the neighbour is one by IPv4."""
    of = network("l3 direct", (V4, V6))
    snapshot = Snapshot(ME.name)
    blocks = [
        block("10.10.0.16/28"),
        block("fd00:10::20/124"),
        block("10.10.0.32/28", ME),
        block("fd00:10::40/124", ME),
    ]
    snapshot.apply(Listing(1, (B, *blocks)))
    made = peers_of(ME, snapshot, overlay(of), uplink)
    routes = {row for row in made.resources() if isinstance(row, PeerRoute)}
    link = "eth0" if uplink == UPLINK else "vxlan100"
    far = str(link_local(B.mac))
    assert routes == {
        PeerRoute(link, "10.10.0.16/28", "192.0.2.2", "10.10.0.33"),
        PeerRoute("vxlan100", "fd00:10::20/124", far, "fd00:10::41"),
    }
    assert set(made.links_of(PeerRoute)) == {"vxlan100", uplink.link} - {""}
    assert made.links_of(PeerRow) == ("vxlan100",)


def test_l3_a_host_without_a_block_of_its_own_has_no_way_there():
    """What it sent it would send by its own address, and the answers would come past the tunnel."""
    found = rows(B, block("10.10.0.16/28"), block("fd00:10::20/124"), of=network("l3", (V4, V6)))
    assert found == {PeerRow("vxlan100", B.mac, "192.0.2.2")}


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_an_address_of_the_network_is_sought_nowhere_else_while_the_cluster_has_it(mode: str):
    of = network(mode)
    snapshot = Snapshot("node-a")
    snapshot.apply(Listing(1, (B,)))
    found = peers_of(ME, snapshot, overlay(of))
    assert set(found.resources()) == set()
    refusal = PeerRefusal("lo", V4.subnet)
    assert found.touched(snapshot.apply(Change(2, (of,), ()))) == ([refusal], [])
    assert set(peers_of(ME, snapshot, Overlay(of, "", "")).resources()) == {refusal}
    assert found.touched(snapshot.apply(Change(3, (), (of.key,)))) == ([], [refusal])


def test_l3_over_ipv6_everybody_is_reached_by_a_link_local_address():
    me, far = (Node(n.name, n.machine, f"2001:db8::{n.vtep[-1]}", n.mac) for n in (ME, B))
    assert rows(far, block("10.10.0.16/28"), block("10.10.0.32/28", ME), of=network("l3"), me=me) == {
        PeerAddress("vxlan100", "10.10.0.33/32"),
        PeerRow("vxlan100", B.mac, "2001:db8::2"),
        PeerNeighbour("vxlan100", str(link_local(B.mac)), B.mac),
        PeerRoute("vxlan100", "10.10.0.16/28", str(link_local(B.mac)), "10.10.0.33"),
    }


def test_two_addresses_of_a_pod_are_one_row():
    items = B, block("10.10.0.16/28"), block("fd00:10::10/124")
    four = endpoint("10.10.0.20")
    found = rows(*items, four, endpoint("fd00:10::14", mac=four.mac), of=network(pools=(V4, V6)))
    assert {type(row) for row in found} == {PeerRow, PeerNeighbour}
    assert len(found) == 3


# --- what waits


@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize("missing", [B, block("10.10.0.16/28")], ids=["its host", "its block"])
def test_what_an_endpoint_stands_on_may_come_after_it(mode: str, missing: Item):
    every = [B, block("10.10.0.16/28"), endpoint("10.10.0.20")]
    snapshot = Snapshot("node-a")
    snapshot.apply(Listing(1, tuple(item for item in every if item != missing)))
    waiting = peers_of(ME, snapshot, overlay(network(mode)))
    assert list(waiting.resources()) == []
    assert waiting.refused == {}
    there, gone = waiting.touched(snapshot.apply(Change(2, (missing,), ())))
    assert (set(there), gone) == (rows(*every, of=network(mode)), [])


def test_an_address_that_moves_is_one_replacement():
    snapshot = Snapshot("node-a")
    pod = endpoint("10.10.0.20")
    snapshot.apply(Listing(1, (B, C, block("10.10.0.16/28"), pod)))
    moving = peers_of(ME, snapshot, overlay(network()))
    moved = Change(2, (block("10.10.0.16/28", C), endpoint("10.10.0.20", C)), ())
    assert moving.touched(snapshot.apply(moved)) == ([PeerRow("vxlan100", pod.mac, "192.0.2.3")], [])


# --- what is refused, by name


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (endpoint("127.0.0.5"), "no host's address"),
        (endpoint("224.0.0.5"), "no host's address"),
        (endpoint("192.168.0.5"), "of no pool"),
        (endpoint("fd00:10::14"), "of no pool"),
        (endpoint("10.10.0.0"), "subnet's own"),
        (endpoint("10.10.0.255"), "subnet's own"),
        (endpoint("10.10.0.1"), "gateway's"),
        (endpoint("10.10.0.20", mac=GATEWAY_MAC), "gateway's"),
        (endpoint("10.10.0.20", mac=ME.mac), "another host's"),
        (endpoint("10.10.0.20", mac=C.mac), "another host's"),
        (endpoint("10.10.0.40"), "in a block of node-c"),
        (endpoint("10.10.0.60"), "in a block of node-a"),
    ],
    ids=lambda value: value.address + value.mac if isinstance(value, Endpoint) else "",
)
def test_an_endpoint_that_cannot_be_right_is_refused(item: Endpoint, why: str):
    blocks = [block("10.10.0.0/28"), block("10.10.0.16/28"), block("10.10.0.32/28", C), block("10.10.0.48/28", ME)]
    assert why in reason(B, C, *blocks, block("10.10.0.240/28"), item, of=item)


def test_an_endpoint_with_the_address_of_a_vtep_is_refused():
    inside = Pool("192.0.0.0/16", "192.0.0.1", "192.0.255.254", "")
    found = peers(block("192.0.2.0/28"), endpoint("192.0.2.1"), B, of=network(pools=(inside,)))
    assert "VTEP" in found.refused["addresses", "net", "192.0.2.1"]


@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize(
    "node",
    [
        Node("node-b", "m", "127.0.0.1", B.mac),
        Node("node-b", "m", "239.1.1.1", B.mac),
        Node("node-b", "m", "2001:db8::2", B.mac),
        Node("node-b", "m", "10.10.0.77", B.mac),
        Node("node-b", "m", ME.vtep, B.mac),
        Node("node-b", "m", B.vtep, ME.mac),
        Node("node-b", "m", B.vtep, GATEWAY_MAC),
    ],
    ids=["loopback", "multicast", "another family", "in the pool", "our VTEP", "our MAC", "the gateway's MAC"],
)
def test_a_host_that_cannot_be_right_is_refused(node: Node, mode: str):
    found = peers(node, block("10.10.0.16/28"), endpoint("10.10.0.20"), of=network(mode))
    assert node.key in found.refused
    assert list(found.resources()) == []


def test_of_two_hosts_with_one_vtep_the_one_that_is_alive_is_believed():
    stale = Node("node-0", "old", B.vtep, "fe:00:00:00:00:00")
    for items in ((B, stale, Alive("node-b", "x")), (stale, Alive("node-b", "x"), B)):
        assert set(peers(*items).refused) == {stale.key}


@pytest.mark.parametrize("span", ["10.10.0.0/16", "10.10.0.16/29", "192.168.0.0/28", "fd00:10::/124"])
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_a_block_that_is_none_of_the_network_is_refused(span: str, mode: str):
    found = peers(B, block(span), of=network(mode))
    assert found.refused[block(span).key] == "it is no block of the network"
    assert list(found.resources()) == []


def test_a_mac_is_one_hosts_and_who_has_it_by_his_address_before_others():
    rightful = endpoint("10.10.0.40", C)
    thief = endpoint("10.10.0.20", B, rightful.mac)
    items = B, C, block("10.10.0.16/28"), block("10.10.0.32/28", C)
    found = peers(*items, thief, rightful)
    assert set(found.resources()) == rows(*items, rightful)
    assert found.refused == {thief.key: f"node-c has its MAC {rightful.mac}"}


def test_nobody_has_the_mac_of_a_pod_of_our_own():
    ours = endpoint("10.10.0.20", ME, "0a:00:00:00:00:01")
    thief = endpoint("10.10.0.40", C, ours.mac)
    items = C, block("10.10.0.16/28", ME), block("10.10.0.32/28", C), ours
    assert rows(*items, thief) == rows(*items)


# --- an oracle


def some_items(chance: random.Random, of: Network) -> Iterator[Item]:
    """More of what may be believed than of what may not."""
    nodes = [*OTHERS, ME, Node("node-b", "machine-b", "192.0.2.9", B.mac), Node("node-c", "x", "192.0.2.4", C.mac)]
    yield chance.choice(nodes)
    yield Alive(chance.choice(nodes).name, str(chance.random()))
    subnet = ip_network(chance.choice(of.pools).subnet)
    address = subnet[chance.randrange(64)]
    span = block_of(of, address)
    assert span
    yield block(span if chance.random() < 0.9 else f"{subnet[16]}/{subnet.max_prefixlen - 3}", chance.choice(nodes))
    owner, mac = chance.choice(nodes), chance.choice(["", "", "", "0a:00:00:00:00:01", C.mac, GATEWAY_MAC])
    yield endpoint(str(address), owner, mac)


def some_news(chance: random.Random, of: Network) -> Iterator[Listing | Change]:
    said: dict[Key, Item] = {}
    for revision in range(1, 80):
        put = {item.key: item for _ in range(chance.randrange(1, 6)) for item in some_items(chance, of)}
        gone = tuple(key for key in chance.sample(list(said), min(3, len(said))) if key not in put)
        said = {key: item for key, item in said.items() if key not in gone} | put
        yield (
            Listing(revision, tuple(said.values()))
            if chance.random() < 0.1
            else Change(revision, (*put.values(),), gone)
        )


def by_seniority(snapshot: Snapshot) -> list[Node]:
    return sorted(snapshot.nodes.values(), key=lambda node: (node.name not in snapshot.alive, node.name))


def oracle(snapshot: Snapshot, of: Network) -> set[RemoteRow]:
    """The same by looking through everything for each question."""
    believed: dict[str, Node] = {ME.name: ME}
    ranked = by_seniority(snapshot)
    for number, node in enumerate(ranked):
        rivals = [other for other in (ME, *ranked[:number]) if other.name != node.name]
        if not any({node.vtep, node.mac} & {other.vtep, other.mac} for other in rivals):
            believed[node.name] = node
    known = snapshot.blocks.get("net", {})
    owners = {span: one.node for span, one in known.items() if block_of(of, ip_network(span)[0]) == span}
    return (_routed if of.mode == "l3" else _stretched)(snapshot, of, believed, owners)


def _own(of: Network, owners: dict[str, str], snapshot: Snapshot) -> Iterator[tuple[Pool, str]]:
    for pool in of.pools:
        mine = [ip_network(span) for span, name in owners.items() if name == ME.name]
        mine = sorted(net for net in mine if net.version == ip_network(pool.subnet).version)
        if mine:
            first = first_block(of, pool, ME.name, map(str, mine))
            assert first
            yield pool, host_address(of, first)


def _stretched(snapshot: Snapshot, of: Network, nodes: dict[str, Node], owners: dict[str, str]) -> set[RemoteRow]:
    standing = []
    for address, (name, mac) in snapshot.endpoints.get("net", {}).items():
        parsed = ip_address(address)
        never = {str(net[0]) for net in (ip_network(pool.subnet) for pool in of.pools)} | {
            pool.gateway for pool in of.pools
        }
        theirs = {node.mac: node.name for node in [*by_seniority(snapshot)[::-1], ME]}
        reserved = (
            mac in {mac_of_address(ip_address(pool.gateway)) for pool in of.pools} or theirs.get(mac, name) != name
        )
        if address not in never and not reserved and owners.get(block_of(of, parsed) or "") == name and name in nodes:
            standing.append((name != ME.name, mac_of_address(parsed) != mac, int(parsed), address, mac, name))
    found: set[RemoteRow] = set()
    for *_, address, mac, name in standing:
        holder = min(item for item in standing if item[4] == mac)[5]
        if holder == name != ME.name:
            found |= {PeerRow("vxlan100", mac, nodes[name].vtep), PeerNeighbour("br0", address, mac)}
    for pool, own in _own(of, owners, snapshot):
        net = ip_network(pool.subnet)
        found |= {PeerAddress("br0", f"{own}/{net.max_prefixlen}")}
        found |= {PeerRoute("br0", str(half), "", own) for half in net.subnets()}
    return found


def _routed(snapshot: Snapshot, of: Network, nodes: dict[str, Node], owners: dict[str, str]) -> set[RemoteRow]:
    sources = {ip_address(own).version: own for _, own in _own(of, owners, snapshot)}
    found: set[RemoteRow] = {PeerAddress("vxlan100", f"{ip}/{32 if v == 4 else 128}") for v, ip in sources.items()}
    for span, name in owners.items():
        if name in nodes and name != ME.name:
            node, version = nodes[name], ip_network(span).version
            gateway = node.vtep if version == 4 else str(link_local(node.mac))
            found |= {PeerRow("vxlan100", node.mac, node.vtep)}
            if version in sources and of.direct and version == 4 and ip_address(node.vtep) in ip_network(UPLINK.span):
                found |= {PeerRoute("eth0", span, node.vtep, sources[version])}
            elif version in sources:
                found |= {PeerNeighbour("vxlan100", gateway, node.mac)}
                found |= {PeerRoute("vxlan100", span, gateway, sources[version])}
    return found


@pytest.mark.parametrize("mode", ["l2", "l3", "l3 direct"])
@pytest.mark.parametrize("pools", POOLS)
def test_what_follows_each_change_is_what_all_of_it_says(mode: str, pools: str):
    of = network(mode, POOLS[pools])
    made = 0
    for seed in range(12):
        snapshot, followed, applied = Snapshot("node-a"), None, dict[object, RemoteRow]()
        for news in some_news(random.Random(f"{mode} {pools} {seed}"), of):
            keys = snapshot.apply(news)
            if followed is None:
                followed = peers_of(ME, snapshot, overlay(of), UPLINK)
                applied = {row.place: row for row in followed.resources()}
                continue
            there, gone = followed.touched(keys)
            assert all(applied.get(row.place) != row for row in there)
            applied |= {row.place: row for row in there}
            for row in gone:
                assert applied.pop(row.place) == row
            assert set(applied.values()) == set(followed.resources()) == oracle(snapshot, of)
            assert followed.refused == peers_of(ME, snapshot, overlay(of)).refused
            made += len(there)
    assert made > 200
