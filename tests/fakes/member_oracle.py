"""What must be so of hosts of a cluster, read from the rows themselves, by none of the member's code."""

from __future__ import annotations

import ipaddress
import json
import sqlite3
from contextlib import closing
from typing import Any

from cluster_memory import Memory
from member_host import Host


def rows(host: Host, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{host.folder}/state.db?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def spelled(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


def stored(memory: Memory, room: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(key[1], key[2]): json.loads(row.text) for key, row in memory.rows.items() if key[0] == room}


def sound(memory: Memory, *hosts: Host) -> None:
    """No address is anybody's twice, the store says of each host what its state does, and nothing is between two states."""
    blocks, endpoints = stored(memory, "blocks"), stored(memory, "addresses")
    given: dict[tuple[str, str], str] = {}
    for host in hosts:
        held = {}
        for name, first, last, state in rows(host, "SELECT network, first, last, state FROM block"):
            (span,) = ipaddress.summarize_address_range(ipaddress.ip_address(first), ipaddress.ip_address(last))
            held[name, str(span)] = state
        assert set(held.values()) <= {"held", "lost"}
        mine = {place for place, value in blocks.items() if value["node"] == host.name}
        assert {place for place, state in held.items() if state == "held"} == mine
        lost = [(name, ipaddress.ip_network(span)) for (name, span), state in held.items() if state == "lost"]
        leased = set()
        for name, packed, container in rows(host, "SELECT network, address, container FROM lease"):
            address = ipaddress.ip_address(packed)
            if any(name == other and address in span for other, span in lost):
                continue
            assert any(name == other and address in ipaddress.ip_network(span) for other, span in mine)
            assert (name, str(address)) not in given
            given[name, str(address)] = host.name
            leased.add((name, str(address), container))
        said = {
            (*place, value["container"]) for place, value in endpoints.items()
            if value["node"] == host.name and "container" in value
        }  # fmt: skip
        assert said == leased, f"{host.name}: {sorted(said ^ leased)}"
        unsaid = rows(host, "SELECT network, address FROM endpoint WHERE wanted IS NOT published")
        assert [
            address for name, address in unsaid
            if not any(name == other and ipaddress.ip_address(address) in span for other, span in lost)
        ] == []  # fmt: skip
    for name, address in endpoints:
        owner = endpoints[name, address]["node"]
        assert any(
            name == other and value["node"] == owner and ipaddress.ip_address(address) in ipaddress.ip_network(span)
            for (other, span), value in blocks.items()
        )
    spans = [(name, ipaddress.ip_network(span)) for name, span in blocks]
    assert not [
        (one, other) for at, one in enumerate(spans) for other in spans[at + 1 :]
        if one[0] == other[0] and one[1].version == other[1].version and one[1].overlaps(other[1])
    ]  # fmt: skip


def duplicates(*hosts: Host) -> list[tuple[str, str]]:
    """The addresses that two hosts have given, but for those that one of them knows to be another's by now."""
    given: dict[tuple[str, str], str] = {}
    twice = []
    for host in hosts:
        lost = [
            (name, int.from_bytes(first), int.from_bytes(last))
            for name, first, last in rows(host, "SELECT network, first, last FROM block WHERE state = 'lost'")
        ]
        for name, packed in rows(host, "SELECT network, address FROM lease"):
            if any(name == other and low <= int.from_bytes(packed) <= high for other, low, high in lost):
                continue
            place = name, spelled(packed)
            twice += [place] if place in given else []
            given[place] = host.name
    return twice
