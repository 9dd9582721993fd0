"""null, and "" where a text is meant, say nothing: as Go's encoding/json reads them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from cni.plugin import names
from cni.protocol.config import faults
from cni.protocol.schema import given, load, schema_of

RANGE = {"subnet": "10.0.0.0/24"}
#: What must stand beside a key for the whole to be right, by where it is.
BESIDE: dict[str, dict[str, Any]] = {
    "vxlan": {"id": 5},
    "ipam": RANGE,
    "ranges": RANGE,
    "routes": {"dst": "0.0.0.0/0"},
    "when": {"annotation": "a"},
    "ipBlock": {"cidr": "10.0.0.0/8"},
    "from": {"ipBlock": {"cidr": "10.0.0.0/8"}},
    "to": {"ipBlock": {"cidr": "10.0.0.0/8"}},
}
REQUIRED = {"name", "type", "id", "subnet", "dst", "annotation", "cidr", "ipBlock"}
BY_PATTERN = [
    *(("runtimeConfig", key) for key in ("Ips", "mac", "dns", "IPRanges", "io.kubernetes.cri.pod-annotations")),
    ("runtimeConfig", "DNS", "Servers"),
    *(("runtimeConfig", "IPRanges", 0, 0, key) for key in ("RangeStart", "rangeend", "Gateway")),
]


def keys(schema: Any, root: dict[str, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every key of a schema with its own schema; 0 in its path is a place in a list."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        file, _, inside = schema["$ref"].partition("#")
        found: Any = (root := load(file) if file else root)
        for step in inside.split("/")[1:]:
            found = found[step]
        yield from keys(found, root, path)
    for key, part in schema.get("properties", {}).items():
        yield (*path, key), part
        yield from keys(part, root, (*path, key))
    for part in (*schema.get("anyOf", ()), schema.get("then")):
        yield from keys(part, root, path)
    if "items" in schema:
        yield from keys(schema["items"], root, (*path, 0))


def with_and_without(plugin: str, path: tuple[Any, ...], value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A right configuration with a value at a path, and the same without that key."""
    conf: Any = {"ipam": RANGE} if plugin == "agent-ipam" else {}
    here, above = conf, ""
    for step, following in itertools.pairwise(path):
        beside = BESIDE.get(above if step == 0 else step, {})
        inside: Any = [] if following == 0 else copy.deepcopy(beside)
        if step == 0:
            here.append(inside)
        else:
            here[step] = inside
            above = step
        here = inside
    here.pop(path[-1], None)
    without = copy.deepcopy(conf)
    here[path[-1]] = value
    return conf, without


def cases() -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    for name in names():
        for path, schema in keys(schema_of(name), schema_of(name)):
            if path[-1] not in REQUIRED or path == ("ipam", "type"):
                yield name, path, None
            if "string" in schema.get("type", "") and path not in (("name",), ("cniVersion",)):
                yield name, path, ""
    yield from (("macvlan", path, None) for path in BY_PATTERN)
    yield from (
        ("macvlan", path, "") for path in (("runtimeConfig", "MAC"), ("runtimeConfig", "IPRanges", 0, 0, "Gateway"))
    )


@pytest.mark.parametrize(("plugin", "path", "nothing"), dict.fromkeys(cases()), ids=repr)
def test_what_says_nothing_is_not_there(plugin: str, path: tuple[Any, ...], nothing: Any):
    conf, without = with_and_without(plugin, path, nothing)
    assert given(conf, plugin) == given(without, plugin)


@pytest.mark.parametrize(
    "conf",
    [
        {"ipam": {"type": "whereabouts", "range": None, "exclude": [""]}},
        {"prevResult": {"ips": None, "dns": {"domain": ""}}},
        {"args": {"labels": None}},
        {"runtimeConfig": {"portMappings": None}},
        {"isGateway": "", "mtu": "", "vxlan": ""},
        {"dns": {"nameservers": ["", None]}, "ip": [""]},
    ],
    ids=["another's ipam", "prevResult", "args", "another's capability", "no texts", "in lists"],
)
def test_what_is_not_ours_to_read_and_what_is_no_text_stay(conf: dict[str, Any]):
    assert given(conf, "bridge-vxlan") == conf


def test_an_ipam_without_a_type_is_judged_as_ours():
    conf = {"ipam": {"type": "", "subnet": "10.0.0.0/24", "rangeStart": "", "gateway": None}}
    assert given(conf, "macvlan") == {"ipam": {"subnet": "10.0.0.0/24"}}


@pytest.mark.parametrize("plugin", [name for name in names() if name != "agent-ipam"])
def test_every_configuration_that_says_nothing_is_right(plugin: str):
    nothing = dict.fromkeys(schema_of(plugin)["properties"]) | {"cniVersion": "1.1.0", "name": "net", "type": plugin}
    assert faults(given(nothing, plugin), plugin) == ()
