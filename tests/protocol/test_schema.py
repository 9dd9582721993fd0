"""What is told of a configuration without jsonschema is what jsonschema tells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from cni.plugin import names
from cni.protocol import schema as ours
from cni.protocol.config import validator
from cni.protocol.schema import Unjudged, is_right, load, schema_of

ROOT = Path(__file__).parent.parent.parent

SCALARS = [None, True, False, 0, 1, 1.0, 1.5, -1, 65536, "", "a", "true", "agent-ipam"]
VALUES = [
    *SCALARS,
    [],
    [1],
    [1, 1],
    [1, True],
    [1, 1.0],
    ["a", "a"],
    {},
    {"a": 1},
    {"a": "a"},
    {"b": 1},
    {"ab": 1, "a": 1},
]
TEXTS = {
    "cidr": ["10.0.0.0/8", "fd00::/64", "10.0.0.1/8", "0.0.0.0/0", "x", ""],
    "interface": ["10.0.0.1/8", "fd00::1/64", "10.0.0.1", "", "10.0.0.1/33"],
    "address": ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.1/8", ""],
    "nameserver": ["1.1.1.1", "fe80::1%eth0", "", "x"],
    "mac": ["02:00:00:00:00:01", "01:00:00:00:00:01", "", "02-00-00-00-00-01", "x"],
    "name": ["agent-ipam", "a/b", "", ".."],
    "ifname": ["eth0", "", "a/b", "x" * 16, "é" * 8],
}
RUNTIME_KEYS = ["ips", "IPs", "mac", "Dns", "servers", "ipRanges", "io.kubernetes.cri.pod-annotations"]


@pytest.mark.parametrize(
    "schema",
    [
        *({"type": kind} for kind in ("array", "boolean", "integer", "null", "number", "object", "string")),
        {"type": ["object", "null"]},
        *({"const": value} for value in SCALARS),
        {"enum": [1, "a", None, False]},
        {"minimum": 1},
        {"maximum": 1},
        {"minLength": 1},
        {"pattern": "^a"},
        {"items": {"type": "integer"}},
        {"items": False},
        {"minItems": 1},
        {"maxItems": 1},
        {"uniqueItems": True},
        {"uniqueItems": False},
        {"properties": {"a": {"type": "integer"}}},
        {"patternProperties": {"^a": {"type": "integer"}}},
        {"additionalProperties": False},
        {"properties": {"a": True}, "additionalProperties": False},
        {"properties": {"a": True}, "patternProperties": {"^a": True}, "additionalProperties": {"type": "string"}},
        {"required": ["a"]},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"if": {"type": "integer"}, "then": {"minimum": 1}, "else": {"type": "string"}},
        {"if": {"type": "integer"}, "then": {"minimum": 1}},
        {"$defs": {"x": {"items": {"$ref": "#/$defs/y"}}, "y": {"type": "integer"}}, "$ref": "#/$defs/x"},
        {"$ref": "#/$defs/x", "minItems": 1, "$defs": {"x": {"type": "array"}}},
    ],
    ids=json.dumps,
)
def test_every_keyword_means_what_it_means_to_jsonschema(schema: dict[str, Any]):
    from jsonschema import Draft202012Validator

    for value in VALUES:
        try:
            told = ours._fits(value, schema, schema)
        except Unjudged:
            assert isinstance(value, list | dict), value
            continue
        assert told == Draft202012Validator(schema).is_valid(value), value


@pytest.mark.parametrize("schema", [{"unheardOf": 1}, {"items": {"contains": {}}}, {"const": [1]}], ids=json.dumps)
def test_what_is_not_known_here_is_left_to_jsonschema(schema: dict[str, Any]):
    with pytest.raises(Unjudged):
        ours._fits([1], schema, schema)


def test_every_keyword_of_our_schemas_is_known_and_each_that_is_known_is_used():
    used = {word for plugin in names() for word in keywords(schema_of(plugin))}
    assert used - ours._SAYS_NOTHING == ours._JUDGES.keys()


def keywords(schema: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    yield from schema
    for word in ("properties", "patternProperties", "$defs"):
        for part in schema.get(word, {}).values():
            yield from keywords(part)
    for part in (
        *schema.get("anyOf", ()),
        *(schema.get(word) for word in ("items", "additionalProperties", "if", "then")),
    ):
        yield from keywords(part)


def near(schema: Any, root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that are right by a schema, or almost."""
    if not isinstance(schema, dict):
        return st.sampled_from(VALUES)
    if "$ref" in schema:
        file, _, path = schema["$ref"].partition("#")
        found = root = load(file) if file else root
        for step in path.split("/")[1:]:
            found = found[step]
        return near(found, root)
    return st.one_of(*_forms(schema, root), *_forms(schema, root), st.sampled_from(VALUES))


def _forms(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[st.SearchStrategy[Any]]:
    kinds = schema.get("type", [])
    yield from (near(part, root) for part in (*schema.get("anyOf", ()), *filter(None, [schema.get("then")])))
    if "const" in schema or "enum" in schema:
        yield st.sampled_from([*schema.get("enum", []), schema.get("const")])
    if "string" in kinds:
        yield st.sampled_from(TEXTS.get(schema.get("format", ""), ["", "a", "/a", "*", "x" * 300]))
    if "integer" in kinds:
        low, high = schema.get("minimum", 0), schema.get("maximum", 65535)
        yield st.sampled_from([low - 1, low, low + 1, high, high + 1, float(low), low + 0.5])
    if "array" in kinds:
        yield st.lists(near(schema.get("items"), root), max_size=3)
    if "object" in kinds:
        known = {key: near(part, root) for key, part in schema.get("properties", {}).items()}
        odd = {key: st.sampled_from(VALUES) for key in ("zzz", "cni.dev/zzz")}
        for pattern, part in schema.get("patternProperties", {}).items():
            odd |= {key: near(part, root) for key in RUNTIME_KEYS if key.lower() in pattern.lower()}
        needed = {key: known.pop(key) for key in schema.get("required", ()) if key in known}
        yield st.fixed_dictionaries(needed, optional=known)
        yield st.fixed_dictionaries({}, optional=needed | known | odd)


def confs(plugin: str) -> st.SearchStrategy[Any]:
    schema = schema_of(plugin)
    return near(schema, schema)


@pytest.mark.parametrize("plugin", names())
def test_configurations_are_right_when_jsonschema_says_so(plugin: str):
    @given(confs(plugin))
    def agree(conf: Any) -> None:
        assert is_right(conf, plugin) == validator(plugin).is_valid(conf)

    agree()


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("plugin", names())
def test_such_configurations_are_right_and_wrong(plugin: str, right: bool):
    assert find(confs(plugin), lambda conf: isinstance(conf, dict) and conf and is_right(conf, plugin) == right)


def test_what_we_ship_is_right_and_nobody_is_asked():
    plugins = [
        conf
        for file in sorted((ROOT / "conf.d").glob("*.conflist"))
        for conf in json.loads(file.read_text())["plugins"]
    ]
    shipped = [conf for conf in plugins if conf["type"] in names()]
    script = (
        "import json, sys; from cni.protocol.config import validate\n"
        "for conf in json.loads(sys.argv[1]): validate(conf, conf['type'])\n"
        "sys.exit('jsonschema' in sys.modules)"
    )
    assert {conf["type"] for conf in shipped} == {*names()} - {"agent-ipam"}
    subprocess.run([sys.executable, "-c", script, json.dumps(shipped)], cwd=ROOT, check=True)
