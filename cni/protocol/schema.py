"""The plugins' schemas, and whether a configuration is right by one of them, told without jsonschema.

Importing jsonschema and preparing its validator takes longer than all else a call without the node agent does, and nearly every
configuration is right. So it is asked only when one is wrong, to say why (``config.py``), and where a schema has
something that is not known here. What is told here it tells too: ``tests/protocol/test_schema.py`` compares them.

Source: JSON Schema 2020-12, Core sections 8 and 10, Validation section 6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cni.protocol.formats import FORMATS, REFUSALS

Schema = dict[str, Any]

_PACKAGE = Path(__file__).parent.parent
_RUNTIME = _PACKAGE / "protocol" / "runtime.schema.json"

#: The executables and their schemas: in an installation inside this package, in a checkout beside it.
PLUGINS = next(folder for folder in (_PACKAGE / "plugins", _PACKAGE.parent / "plugins", _PACKAGE) if folder.exists())


class Unjudged(Exception):
    """A schema, or a value beside it, is of a sort that only jsonschema judges."""


def load(file: str) -> Schema:
    """A schema by the name of its file."""
    return dict(json.loads((PLUGINS / file).read_text()))


def schema_of(plugin: str) -> Schema:
    """A plugin's schema with the runtime's keys merged in."""
    schema = load(f"{plugin}.schema.json")
    runtime = json.loads(_RUNTIME.read_text())
    return schema | {"properties": runtime["properties"] | schema["properties"]}


def is_right(netconf: Any, plugin: str) -> bool:
    """Whether a configuration has no fault by `plugin`'s schema. False also means that jsonschema is to be asked."""
    return fits(netconf, kept(plugin))


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value has no fault by a schema. False also means that jsonschema is to be asked."""
    try:
        return _fits(value, schema, schema)
    except Unjudged:
        return False


def given(netconf: dict[str, Any], plugin: str) -> dict[str, Any]:
    """What a configuration says: a key of `plugin`'s schema with null, or with "" where a text is meant, says nothing.

    Go's encoding/json reads them so, and Go programs write them for what nobody set.
    """
    schema = kept(plugin)
    return dict(_given(netconf, schema, schema))


#: A plugin's schema, read once.
kept, _referred = cache(schema_of), cache(load)


def _given(value: Any, schema: Schema | bool, root: Schema) -> Any:
    if isinstance(schema, bool):
        return value
    if "$ref" in schema:
        value = _given(value, *_followed(schema, root))
    if isinstance(value, list) and "items" in schema:
        return [_given(item, schema["items"], root) for item in value]
    if not isinstance(value, dict):
        return value
    parts = {key: part_of(schema, key) for key in value}
    value = {key: _given(item, parts[key], root) for key, item in value.items() if _says(item, parts[key], root)}
    for form in schema.get("anyOf", ()):
        value = _given(value, form, root)
    if "if" in schema:
        value = _given(value, schema.get("then" if _fits(value, schema["if"], root) else "else", True), root)
    return value


def part_of(schema: Schema, key: str) -> Schema | bool:
    """What an object's schema says of a key; True for one it does not know."""
    patterns = (part for pattern, part in schema.get("patternProperties", {}).items() if re.search(pattern, key))
    known: Schema | bool = schema.get("properties", {}).get(key) or next(patterns, True)
    return known


def _says(value: Any, schema: Schema | bool, root: Schema) -> bool:
    if isinstance(schema, bool) or value not in (None, ""):
        return True
    while "$ref" in schema:
        schema, root = _followed(schema, root)
    return value is not None and "string" not in schema.get("type", "string" if "enum" in schema else "")


def _fits(value: Any, schema: Schema | bool, root: Schema) -> bool:
    """Whether a value is right by a schema; `root` is the document in which that stands. Raises Unjudged."""
    if isinstance(schema, bool):
        return schema
    return all(_judge(keyword)(value, schema, root) for keyword in schema if keyword not in _SAYS_NOTHING)


def _judge(keyword: str) -> Callable[[Any, Schema, Schema], bool]:
    try:
        return _JUDGES[keyword]
    except KeyError:
        raise Unjudged(keyword) from None


def _type(value: Any, schema: Schema, _: Schema) -> bool:
    wanted = schema["type"]
    return any(_IS[name](value) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: dict[str, Callable[[Any], bool]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "null": lambda value: value is None,
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; true is not 1, though Python says so."""
    if isinstance(one, list | dict) and isinstance(other, list | dict):
        raise Unjudged("equality of what has parts")
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _unique_items(value: Any, schema: Schema, _: Schema) -> bool:
    if not (schema["uniqueItems"] and isinstance(value, list)):
        return True
    try:
        return len({(isinstance(item, bool), item) for item in value}) == len(value)
    except TypeError:
        raise Unjudged("equality of what has parts") from None


def _format(value: Any, schema: Schema, _: Schema) -> bool:
    try:
        if isinstance(value, str) and schema["format"] in FORMATS:
            FORMATS[schema["format"]](value)
    except REFUSALS:
        return False
    return True


def _properties(value: Any, schema: Schema, root: Schema) -> bool:
    known = schema["properties"]
    return not isinstance(value, dict) or all(_fits(value[key], known[key], root) for key in value if key in known)


def _pattern_properties(value: Any, schema: Schema, root: Schema) -> bool:
    return not isinstance(value, dict) or all(
        _fits(value[key], part, root)
        for key in value
        for pattern, part in schema["patternProperties"].items()
        if re.search(pattern, key)
    )


def _additional_properties(value: Any, schema: Schema, root: Schema) -> bool:
    if not isinstance(value, dict):
        return True
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    more = (key for key in value if key not in known and not any(re.search(pattern, key) for pattern in patterns))
    return all(_fits(value[key], schema["additionalProperties"], root) for key in more)


def _if(value: Any, schema: Schema, root: Schema) -> bool:
    return _fits(value, schema.get("then" if _fits(value, schema["if"], root) else "else", True), root)


def _ref(value: Any, schema: Schema, root: Schema) -> bool:
    return _fits(value, *_followed(schema, root))


def _followed(schema: Schema, root: Schema) -> tuple[Schema, Schema]:
    """What a reference stands for, a part of this document or of one beside it, and the document it is in."""
    file, _, path = schema["$ref"].partition("#")
    found = root = _referred(file) if file else root
    for step in path.split("/")[1:]:
        found = found[step]
    return found, root


#: Whether a value is right by one keyword of a schema, which others of it may have a say in.
_JUDGES: dict[str, Callable[[Any, Schema, Schema], bool]] = {
    "type": _type,
    "enum": lambda value, schema, _: any(_same(value, item) for item in schema["enum"]),
    "const": lambda value, schema, _: _same(value, schema["const"]),
    "minimum": lambda value, schema, _: not _is_number(value) or value >= schema["minimum"],
    "maximum": lambda value, schema, _: not _is_number(value) or value <= schema["maximum"],
    "minLength": lambda value, schema, _: not isinstance(value, str) or len(value) >= schema["minLength"],
    "pattern": lambda value, schema, _: not isinstance(value, str) or re.search(schema["pattern"], value) is not None,
    "format": _format,
    "items": lambda value, schema, root: (
        not isinstance(value, list) or all(_fits(item, schema["items"], root) for item in value)
    ),
    "minItems": lambda value, schema, _: not isinstance(value, list) or len(value) >= schema["minItems"],
    "maxItems": lambda value, schema, _: not isinstance(value, list) or len(value) <= schema["maxItems"],
    "uniqueItems": _unique_items,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "required": lambda value, schema, _: not isinstance(value, dict) or value.keys() >= set(schema["required"]),
    "anyOf": lambda value, schema, root: any(_fits(value, form, root) for form in schema["anyOf"]),
    "if": _if,
    "$ref": _ref,
}
#: "then" and "else" belong to "if"; "unsupported" is ours.
_SAYS_NOTHING = {"$schema", "$defs", "$comment", "title", "description", "then", "else", "unsupported"}
