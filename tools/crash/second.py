"""A second opinion of histories, by docs/histories.md alone; it shares no line with `history`.

python3 tools/crash/second.py FILE...
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from math import inf
from pathlib import Path
from typing import Any

LATEST, OF_LATE = 120, 60
Line = dict[str, Any]


class Second:
    """What a history says of each container: its app and node, when its ADD began, what it was given and when, and its end: when it began, and when it was over."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines: list[Line] = [json.loads(line) for line in lines]
        self.add: dict[str, Line] = {}
        self.given: dict[str, Line] = {}
        self.ends: dict[str, float] = defaultdict(lambda: inf)
        self.over: dict[str, float] = defaultdict(lambda: inf)
        self.calls: dict[int, tuple[Line, Line | None]] = {}
        self.networks = {line["network"] for line in self.of("call")}
        self._loses = -inf
        for line in self.lines:
            self._read(line)
        self.astray = {container for line in self.of("astray") for container in line["containers"]}

    def _read(self, line: Line) -> None:
        match line["is"]:
            case "call":
                self.calls[line["call"]] = line, None
                if line["verb"] == "ADD":
                    self.add[line["container"]] = line
                else:
                    self._ends(line["container"], line["at"])
            case "answer":
                call, _ = self.calls[line["call"]]
                self.calls[line["call"]] = call, line
                if call["verb"] == "ADD" and line["code"] == 0:
                    self.given[call["container"]] = line
                elif line["code"] is not None and (call["verb"] == "ADD") == (line["code"] != 0):
                    self._ends(call["container"], inf, line["at"])
            case "gone":
                self._ends(line["container"], line["began"], line["at"])
            case "fault" if line["loses"]:
                self._loses = line["at"]
            case "astray":
                for container in line["containers"]:
                    self._ends(container, self._loses if self._loses > -inf else inf, line["at"])

    def _ends(self, container: str, began: float, over: float = inf) -> None:
        self.ends[container], self.over[container] = min(self.ends[container], began), min(self.over[container], over)

    def of(self, kind: str) -> list[Line]:
        return [line for line in self.lines if line["is"] == kind]

    def opinion(self) -> Iterator[tuple[int, str]]:
        """By which rule of the page something is wrong, and what."""
        yield from self._once_each()
        probes = self.of("probe")
        yield from (fault for probe in probes for fault in self._answered(probe))
        for rest, awake, between in self._rests():
            if awake - rest > LATEST:
                yield 4, f"{awake - rest} s"
            yield from self._well(rest, awake, between)
            yield from self._sent(rest, awake, [line for line in between if line["is"] == "kernel"])
        sizes = defaultdict(set)
        for line in self.of("filled"):
            sizes[line["network"]].add(len(line["addresses"]))
        yield from ((6, f"{network}: {size}") for network, size in sizes.items() if len(size) > 1)
        yield from self._ended(
            {net["name"] for line in self.of("history") for net in line["networks"] if net["scarce"]}
        )
        yield from [(8, f"{line['what']}") for line in self.of("left") if line["what"]] or [(8, "nobody looked")] * (
            not self.of("left")
        )

    def _once_each(self) -> Iterator[tuple[int, str]]:
        turns = [
            (line["at"], True, name, address) for name, line in self.given.items() for address in line["addresses"]
        ]
        turns += [(self.ends[name], False, name, address) for _, _, name, address in turns if self.ends[name] < inf]
        has: dict[str, set[str]] = defaultdict(set)
        for at, comes, name, address in sorted(turns):
            if comes and self.ends[name] > at:
                has[address].add(name)
                if len(has[address]) > 1:
                    yield 1, f"{address}: {has[address]} at {at}"
            elif not comes:
                has[address].discard(name)

    def _perhaps(self, name: str, began: float, ended: float, before: float = 0) -> bool:
        return name in self.add and self.add[name]["at"] <= ended and began - before <= self.over[name]

    def _answered(self, probe: Line) -> Iterator[tuple[int, str]]:
        asker, began, ended = probe["from"], probe["began"], probe["at"]
        for address, name in probe["answers"].items():
            if name is None or name == asker:
                continue
            if not self._perhaps(name, began, ended) or (
                name in self.given and address not in self.given[name]["addresses"]
            ):
                yield 2, f"{name} at {address}, {ended}"
            elif self._is_denied(asker, name, began):
                mine = set(self.given.get(asker, {"addresses": ()})["addresses"])
                policy = self.of("policy")[0]
                if not any(self.add[other]["app"] in policy["from"] and self._perhaps(other, began, ended, OF_LATE) and mine & {*line["addresses"]} for other, line in self.given.items()):  # fmt: skip
                    yield 3, f"{asker} hears {name} at {ended}"

    def _is_denied(self, asker: str, name: str, when: float) -> bool:
        """Whether a policy is in force by which a pod does not hear another."""
        for policy in self.of("policy"):
            force = next((line["at"] for line in self.of("awake") if line["at"] > policy["at"]), inf)
            if force <= when and asker in self.add and self.add[asker]["app"] not in policy["from"]:
                return asker != name and self.add[name]["app"] == policy["held"]
        return False

    def _rests(self) -> Iterator[tuple[float, float, list[Line]]]:
        starts = [number for number, line in enumerate(self.lines) if line["is"] == "rest"]
        for start in starts:
            end = next(
                (number for number in range(start, len(self.lines)) if self.lines[number]["is"] == "awake"), None
            )
            if end:
                yield self.lines[start]["at"], self.lines[end]["at"], self.lines[start:end]

    def _living(self, rest: float, awake: float) -> dict[str, str]:
        return {address: name for name, line in self.given.items() if line["at"] <= rest and self.ends[name] >= awake for address in line["addresses"]}  # fmt: skip

    def _well(self, rest: float, awake: float, between: list[Line]) -> Iterator[tuple[int, str]]:
        last: dict[str, dict[str, str | None]] = defaultdict(dict)
        lacks: dict[str, set[str]] = defaultdict(set)
        for line in between:
            if line["is"] == "probe":
                last[line["from"]] |= line["answers"]
            elif line["is"] == "kernel":
                lacks[line["node"]] = {f"{net} {family}" for net in self.networks for family in (4, 6)} - {
                    *line["holds"]
                }
        for asker, heard in ((asker, heard) for asker, heard in last.items() if asker not in self.astray):
            for address, name in self._living(rest, awake).items():
                held = {policy["held"] for policy in self.of("policy")}
                friend = asker == name or (asker in self.add and self.add[asker]["app"] in self.of("policy")[0]["from"])
                either = self.add[name]["app"] in held and not friend
                family, host, there = 6 if ":" in address else 4, self.add.get(asker, {"node": asker}), self.add[name]
                either |= f"{there['network']} {family}" in lacks[host["node"]]
                either |= "network" in host and f"{host['network']} {family}" in lacks[there["node"]]
                if name not in self.astray and not either and heard.get(address) != name:
                    yield 4, f"{asker} does not hear {name} at {address} by {awake}"

    def _sent(self, rest: float, awake: float, kernels: list[Line]) -> Iterator[tuple[int, str]]:
        whose = {end: line["node"] for line in kernels for end in line["own"]}
        known = {address for line in self.given.values() for address in line["addresses"]}
        living = self._living(rest, awake)
        astray = {address for name in self.astray & self.given.keys() for address in self.given[name]["addresses"]}
        for line in kernels:
            for address in (known & line["far"].keys()) - living.keys() - astray:
                yield 5, f"{line['node']} sends {address}, which nobody has"
            spans = sorted(map(ip_network, line["blocks"]), key=lambda span: -span.prefixlen)
            for address, name in living.items():
                span = next((str(span) for span in spans if ip_address(address) in span), "")
                ends = [end for end in (line["far"].get(address), line["blocks"].get(span)) if end]
                there = self.add[name]["node"]
                if there != line["node"] and any(whose.get(end) != there for end in ends):
                    yield 5, f"{line['node']} sends {address} to {ends}, and {there} has it"

    def _ended(self, small: set[str]) -> Iterator[tuple[int, str]]:
        deleted: dict[str, int | None] = {}
        for call, answer in self.calls.values():
            allowed = (None, 0, 11, 103) if call["network"] in small else (None, 0, 11)
            if not answer or answer["code"] not in allowed or answer["at"] - call["at"] > LATEST:
                yield 7, f"{call}: {answer}"
            if call["verb"] == "DEL":
                deleted[call["container"]] = answer["code"] if answer else None
        yield from ((7, f"{name} was not deleted") for name in self.add if deleted.get(name) != 0)


if __name__ == "__main__":
    found = [(name, *fault) for name in sys.argv[1:] for fault in Second(Path(name).read_text().splitlines()).opinion()]
    print("\n".join(f"{name}: rule {rule}: {what}" for name, rule, what in found) or "nothing is wrong")
    sys.exit(bool(found))
