"""Addresses as an operator sees them: how full, whose, and given back by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from cni.cluster.model import Block
from cni.naming import Attachment
from cni.state import Record, Store

SECTION = {"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.10"}]], "reserved": ["10.1.0.9-10.1.0.99"]}


@pytest.fixture
def leased(folder: Path, attach: Callable[..., Record]) -> Callable[..., Record]:
    """Record an attachment whose configuration has ranges."""

    def attached(container: str, address: str, *, section: Any = SECTION, **how: bool) -> Record:
        record = attach(container, address, **how)
        store = Store.open(folder)
        with store.transaction():
            store.put(record.having(config=record.config | {"ipam": section}))
        store.close()
        return record

    return attached


def leases(folder: Path) -> list[str]:
    store = Store.reading(folder)
    assert store
    found = [str(address) for address, *_ in store.all_leases()]
    store.close()
    return found


def test_usage_counts_what_may_be_given_and_what_is(agent: Any, folder: Path, leased: Callable[..., Record]):
    leased("c1", "10.1.0.2")
    leased("c2", "10.1.0.3")
    said = agent("ipam", "--data-dir", folder)
    assert [line.split() for line in said.out.splitlines() if line] == [
        ["network", "range", "size", "leased", "free"],
        ["pods", "10.1.0.1-10.1.0.10", "7", "2", "5"],
    ]
    row = {"network": "pods", "range": "10.1.0.1-10.1.0.10", "size": 7, "leased": 2, "free": 5}
    assert json.loads(agent("ipam", "--json", "--data-dir", folder).out) == [row]


def test_what_an_ipv6_subnet_has_is_legible_and_exact_in_json(agent: Any, folder: Path, leased: Callable[..., Record]):
    leased("c1", "fd00::2", section={"ranges": [[{"subnet": "fd00::/64"}]]})
    said = agent("ipam", "--data-dir", folder).out.splitlines()[1].split()
    assert said[2:] == ["~2^63", "1", "~2^63"]
    (row,) = json.loads(agent("ipam", "--json", "--data-dir", folder).out)
    assert (row["size"], row["free"]) == (2**64 - 2, 2**64 - 3)


@pytest.mark.parametrize("section", [{"type": "dhcp"}, {}, {"ranges": []}])
def test_ranges_of_others_and_broken_ones_are_left_out(
    agent: Any, folder: Path, leased: Callable[..., Record], section: Any
):
    leased("c1", "10.1.0.2", section=section)
    said = agent("ipam", "--data-dir", folder)
    assert (said.status, said.out) == (0, "no attachment has addresses of ours\n")


def test_who_holds_an_address(agent: Any, folder: Path, leased: Callable[..., Record]):
    leased("c1", "10.1.0.2")
    (held,) = json.loads(agent("ipam", "10.1.0.2", "--json", "--data-dir", folder).out)
    assert (held["container"], held["state"]) == ("c1", "attached")
    said = agent("ipam", "10.1.0.7", "--data-dir", folder)
    assert (said.status, said.out) == (1, "nobody holds 10.1.0.7\n")
    assert agent("ipam", "10.1.0.9", "--data-dir", folder).out.endswith(": it is reserved in network pods\n")
    assert agent("ipam", "10.1.0.1", "--data-dir", folder).out.endswith(": it is a gateway in network pods\n")


def test_what_a_pod_uses_is_given_back_only_by_force(agent: Any, folder: Path, leased: Callable[..., Record]):
    leased("c1", "10.1.0.2")
    said = agent("ipam", "10.1.0.2", "--release", "--data-dir", folder)
    assert (said.status, "pods/c1/eth0 uses it" in said.err, leases(folder)) == (1, True, ["10.1.0.2"])
    said = agent("ipam", "10.1.0.2", "--release", "--force", "--data-dir", folder)
    assert (said.status, said.out, leases(folder)) == (
        0,
        "10.1.0.2 is free in network pods, while pods/c1/eth0 uses it\n",
        [],
    )


@pytest.mark.parametrize("alive", [False, None], ids=["a pod that is gone", "nobody"])
def test_what_nobody_uses_is_given_back(agent: Any, folder: Path, leased: Callable[..., Record], alive: bool | None):
    record = leased("c1", "10.1.0.2", alive=False)
    if alive is None:
        store = Store.open(folder)
        with store.transaction():
            store.forget(record.attachment, record.plugin)
            store.lease(record.attachment, record.plugin, ip_address("10.1.0.2"))
        store.close()
    assert agent("ipam", "10.1.0.2", "--release", "--data-dir", folder).status == 0
    assert leases(folder) == []


def test_an_address_that_changes_hands_meanwhile_is_not_given_back(
    agent: Any, folder: Path, leased: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
):
    leased("c1", "10.1.0.2", alive=False)
    monkeypatch.setattr(Store, "holder", lambda *_: Attachment("pods", "c2", "eth0"))
    said = agent("ipam", "10.1.0.2", "--release", "--data-dir", folder)
    assert (said.status, "somebody else holds it by now" in said.err, leases(folder)) == (1, True, ["10.1.0.2"])


def test_two_networks_with_one_address_are_told_apart(agent: Any, folder: Path, leased: Callable[..., Record]):
    leased("c1", "10.1.0.2", alive=False)
    store = Store.open(folder)
    with store.transaction():
        store.lease(Attachment("other", "c9", "eth0"), "agent-ipam", ip_address("10.1.0.2"))
    store.close()
    said = agent("ipam", "10.1.0.2", "--release", "--data-dir", folder)
    assert (said.status, "name one with --network" in said.err) == (1, True)
    assert agent("ipam", "10.1.0.2", "--release", "--network", "other", "--data-dir", folder).status == 0
    assert leases(folder) == ["10.1.0.2"]


def test_what_nobody_holds_cannot_be_given_back(agent: Any, folder: Path):
    folder.mkdir()
    said = agent("ipam", "10.1.0.2", "--release", "--data-dir", folder)
    assert (said.status, said.out, said.err) == (1, "", "agent-cni: 10.1.0.2: nobody holds it\n")
    assert not list(folder.iterdir())


def test_usage_of_one_network(agent: Any, folder: Path, leased: Callable[..., Record]):
    leased("c1", "10.1.0.2")
    ask = ("ipam", "--json", "--data-dir", folder, "--network")
    assert len(json.loads(agent(*ask, "pods").out)) == 1
    said = agent(*ask, "other")
    assert (said.status, "there are: pods" in json.loads(said.out)["error"]) == (1, True)


def test_an_address_is_taken_as_show_prints_it(agent: Any, folder: Path, leased: Callable[..., Record]):
    leased("c1", "10.1.0.2")
    assert agent("ipam", "10.1.0.2/24", "--data-dir", folder).status == 0


def test_of_a_network_of_the_cluster_the_blocks_of_this_host_are_counted(
    agent: Any, no_node: Path, attach: Callable[..., Record]
):
    section = {"cluster": True, "blockSize": 8, "subnet": "10.1.0.0/24", "reserved": ["10.1.0.20"]}
    with closing(Store.open(no_node)) as store, store.transaction():
        for number, first in enumerate((9, 17), 1):
            record = Record(
                Attachment("pods", f"c{number}", "eth0"), "bridge-vxlan", "", "", {"name": "pods", "ipam": section}
            )
            store.put(record)
            store.lease(record.attachment, record.plugin, ip_address(f"10.1.0.{first}"))
        for span in ("10.1.0.8/29", "10.1.0.16/29"):
            store.put_block(Block("pods", span, "node-a", "machine-a"))
    said = agent("ipam", "--data-dir", no_node)
    assert [line.split() for line in said.out.splitlines() if line][1:] == [
        ["pods", "10.1.0.16-10.1.0.23", "6", "1", "5"],
        ["pods", "10.1.0.8-10.1.0.15", "7", "1", "6"],
    ]
    assert "it is reserved in network pods" in agent("ipam", "10.1.0.16", "--data-dir", no_node).out
