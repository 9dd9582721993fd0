"""What pods of other hosts are called, in files: of who is heard of, and is well; nothing of one that is gone stays."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cni.cluster.model import Alive, Endpoint, Item, Key, Network, Node
from cni.cluster.pools import Pool
from cni.cluster.store import Change, Listing
from cni.kernel import hostsdir
from cni.member.far_names import FarNames, forget


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(hostsdir, "FOLDER", tmp_path)
    serves(tmp_path)
    return tmp_path


def serves(folder: Path, network: str = "net", domain: str = "net") -> None:
    hostsdir.put(folder / network / hostsdir.CONF, f"#domain {domain}\n")


def endpoint(
    number: int, node: str = "b", names: str = "", pod: str = "", *, unhealthy: bool = False, net: str = "net"
) -> Endpoint:
    names = names or ("" if pod else f"p{number}.net p{number}")
    return Endpoint(net, f"10.1.0.{number}", node, "0a:00:00:00:00:01", pod=pod, names=names, unhealthy=unhealthy)


def listed(*items: Item) -> Listing:
    return Listing(1, items)


def put(*items: Item, gone: tuple[Key, ...] = ()) -> Change:
    return Change(2, items, gone)


def said(folder: Path, net: str = "net") -> dict[str, list[str]]:
    return {file.name: sorted(file.read_text().splitlines()) for file in sorted((folder / net / "there").iterdir())}


@pytest.fixture
def room() -> FarNames:
    made = FarNames("a")
    made.heard(listed(Alive("a", "1"), Alive("b", "1"), Alive("c", "1")))
    return made


def test_each_host_is_a_file(room: FarNames, folder: Path):
    room.heard(put(endpoint(2), endpoint(3, "c"), endpoint(4, "a")))
    room.keep()
    assert said(folder) == {"b": ["10.1.0.2 p2.net p2"], "c": ["10.1.0.3 p3.net p3"]}


def test_who_is_not_well_is_not_answered(room: FarNames, folder: Path):
    room.heard(put(endpoint(2), endpoint(3)))
    room.keep()
    room.heard(put(endpoint(2, unhealthy=True)))
    room.keep()
    assert said(folder) == {"b": ["10.1.0.3 p3.net p3"]}
    room.heard(put(endpoint(2)))
    room.keep()
    assert said(folder) == {"b": ["10.1.0.2 p2.net p2", "10.1.0.3 p3.net p3"]}


def test_who_is_gone_is_not_answered(room: FarNames, folder: Path):
    room.heard(put(endpoint(2)))
    room.keep()
    room.heard(put(gone=(endpoint(2).key,)))
    room.keep()
    assert said(folder) == {}


def test_of_a_host_that_is_not_heard_of_nobody_is_answered(room: FarNames, folder: Path):
    room.heard(put(endpoint(2), endpoint(3, "c")))
    room.keep()
    room.heard(put(gone=(Alive("b", "1").key,)))
    room.keep()
    assert said(folder) == {"c": ["10.1.0.3 p3.net p3"]}
    room.heard(put(Alive("b", "2")))
    room.keep()
    assert said(folder).keys() == {"b", "c"}


def test_a_store_that_says_of_nobody_that_he_is_heard_of(folder: Path):
    room = FarNames("a")
    room.heard(listed(Node("b", "m", "192.0.2.2", "0a:00:00:00:00:02"), endpoint(2, pod="shop/web")))
    room.keep()
    assert said(folder) == {"b": ["10.1.0.2 web.shop.net web.net web"]}


def test_an_address_that_moves_is_the_new_hosts(room: FarNames, folder: Path):
    room.heard(put(endpoint(2)))
    room.keep()
    room.heard(put(endpoint(2, "c")))
    room.keep()
    assert said(folder) == {"c": ["10.1.0.2 p2.net p2"]}


def test_a_network_without_names_here_has_no_files(room: FarNames, folder: Path):
    room.heard(put(endpoint(2, net="other")))
    room.keep()
    assert hostsdir.networks() == ["net"]
    serves(folder, "other")
    room.keep()
    assert said(folder, "other") == {"b": ["10.1.0.2 p2.net p2"]}


def test_of_networks_without_names_nothing_is_kept(room: FarNames, folder: Path):
    room.heard(put(endpoint(2, pod="shop/web", net="other")))
    serves(folder, "other")
    room.keep()
    assert said(folder, "other") == {}


def test_a_network_whose_record_says_names_has_pods_known_by_their_pod(room: FarNames, folder: Path):
    known = Network("other", (Pool("10.1.0.0/16", "10.1.0.1", "10.1.255.254", ""),), 16, names=True)
    room.heard(put(endpoint(2, pod="shop/web", net="other"), known))
    serves(folder, "other")
    room.keep()
    assert said(folder, "other") == {"b": ["10.1.0.2 web.shop.net web.net web"]}


def test_another_domain_has_all_written_again(room: FarNames, folder: Path):
    room.heard(put(endpoint(2, pod="shop/web")))
    room.keep()
    serves(folder, domain="pods")
    room.keep()
    assert said(folder) == {"b": ["10.1.0.2 web.shop.pods web.pods web"]}


def test_what_an_earlier_member_left_goes_with_the_first_listing(room: FarNames, folder: Path):
    hostsdir.put(folder / "net" / "there" / "dead", "10.1.0.9 dead\n")
    room.heard(listed(Alive("b", "1"), endpoint(2)))
    room.keep()
    assert said(folder) == {"b": ["10.1.0.2 p2.net p2"]}


def test_who_leaves_has_nobody_elsewhere(room: FarNames, folder: Path):
    room.heard(put(endpoint(2)))
    room.keep()
    forget()
    assert said(folder) == {}


def test_a_host_whose_name_is_no_files_has_one_all_the_same(room: FarNames, folder: Path):
    room.heard(put(Alive("../x", "1"), endpoint(2, "../x")))
    room.keep()
    assert list(said(folder).values()) == [["10.1.0.2 p2.net p2"]]


def test_after_any_history_the_files_are_what_is_true(folder: Path):
    """The oracle keeps the last word of each key, and looks at everything."""
    choose = random.Random(22)
    room, endpoints, alive = FarNames("a"), dict[Key, Endpoint](), {"a", "b", "c"}
    room.heard(listed(*(Alive(name, "1") for name in alive)))
    for _ in range(400):
        number, node = choose.randrange(2, 9), choose.choice("abc")
        one = endpoint(number, node, unhealthy=choose.random() < 0.3)
        match choose.randrange(5):
            case 0:
                room.heard(put(gone=(one.key,)))
                endpoints.pop(one.key, None)
            case 1 if node != "a":
                lives = choose.random() < 0.5
                room.heard(put(Alive(node, "1")) if lives else put(gone=(Alive(node, "1").key,)))
                (alive.add if lives else alive.discard)(node)
            case 2:
                room.heard(listed(*(Alive(name, "1") for name in alive), *endpoints.values()))
            case _:
                room.heard(put(one))
                endpoints[one.key] = one
        if choose.random() < 0.5:
            room.keep()
    room.keep()
    true = dict[str, list[str]]()
    for one in endpoints.values():
        if one.node != "a" and one.node in alive and not one.unhealthy:
            true.setdefault(one.node, []).append(f"{one.address} {one.names}")
    assert said(folder) == {node: sorted(lines) for node, lines in true.items()}


def test_a_network_whose_files_cannot_be_written_keeps_no_other_from_it(room: FarNames, folder: Path):
    serves(folder, "barred")
    (folder / "barred/there").rmdir()
    (folder / "barred/there").write_text("")
    room.heard(put(endpoint(2, net="barred"), endpoint(3)))
    room.keep()
    assert said(folder) == {"b": ["10.1.0.3 p3.net p3"]}
    (folder / "barred/there").unlink()
    room.keep()
    assert said(folder, "barred") == {"b": ["10.1.0.2 p2.net p2"]}


@pytest.mark.threat
def test_a_host_calls_its_own_pods_what_a_name_may_be_and_nothing_else(room: FarNames, folder: Path):
    """A line more would be anybody's address under any name, and some names every resolver takes for something else."""
    names = "web.net web\n10.0.0.9 bank.example #pod wpad localhost 10.1.2.3 -x a..b \u2028 ok"
    room.heard(put(endpoint(2, names=names)))
    room.keep()
    assert said(folder)["b"] == ["10.1.0.2 web.net web bank.example ok"]


@pytest.mark.threat
@pytest.mark.parametrize("network", ["../outside", "net/there", "..", ".", ""])
def test_a_network_is_no_way_out_of_the_folder_of_names(room: FarNames, folder: Path, network: str):
    serves(folder, "x")
    (folder.parent / "outside").mkdir(exist_ok=True)
    (folder.parent / "outside/dnsmasq.conf").write_text("#domain net\n")
    (folder / "net/there/dnsmasq.conf").write_text("#domain net\n")
    before = sorted(folder.parent.rglob("*"))
    room.heard(put(endpoint(2, names="web", net=network)))
    room.keep()
    assert sorted(folder.parent.rglob("*")) == before
