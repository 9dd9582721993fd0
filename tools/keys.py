"""Write docs/keys/NAME.md from each plugin's schema, and from those of cluster.json and agent.json: every key, what it takes, what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs/keys"
#: Sections that several plugins have: where their keys are listed.
ELSEWHERE = {"sidecar": ("sidecar-redirect", ""), "ipam": ("agent-ipam", "ipam"), "policy": ("custom-plugin", "policy")}

SCHEMAS = {
    file.name: file
    for folder in ("plugins", "cni/cluster", "cni/agent")
    for file in (ROOT / folder).glob("*.schema.json")
}

Schema = dict[str, Any]


def names() -> list[str]:
    """The plugins, by their schemas, the cluster's and the agent's."""
    return sorted(file.name.removesuffix(".schema.json") for file in SCHEMAS.values())


def page(name: str) -> str:
    """A plugin's page, the cluster's or the agent's."""
    file = f"{name}.schema.json"
    schema = _schema(file)
    rows = [f"| `{key}` | {kind} | {meaning} |" for key, kind, meaning in _rows(name, schema, "")]
    head = (
        f"# Keys of {name}\n\n{schema['description']} Made from [its schema](../../{SCHEMAS[file].relative_to(ROOT)})."
    )
    header = "| key | takes | meaning |\n|---|---|---|"
    return "\n".join([head, "", header, *rows, ""])


def _rows(name: str, schema: Schema, before: str) -> Iterator[tuple[str, str, str]]:
    required = schema.get("required", ())
    for key, raw in schema.get("properties", {}).items():
        value = _resolved(name, raw)
        meaning = _plain(_meaning(value)) + (" Required." if key in required else "")
        there, section = ELSEWHERE.get(key, ("", ""))
        if there and (there != name or section != key):
            yield f"{before}{key}", "object", f"{meaning} Its keys: [{there}]({there}.md)."
            continue
        yield f"{before}{key}", _kind(name, value), meaning
        yield from _inside(name, value, f"{before}{key}")


def _inside(name: str, value: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    """The keys of an object, of the objects in a list, or of any alternative that is one."""
    for part in (value, *(_resolved(name, item) for item in value.get("anyOf", ()))):
        yield from _rows(name, part, f"{path}.")
        if isinstance(part.get("items"), dict):
            yield from _inside(name, _resolved(name, part["items"]), f"{path}[]")


def _kind(name: str, value: Schema) -> str:
    if "enum" in value:
        return ", ".join(f"`{json.dumps(item)}`" for item in value["enum"])
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_kind(name, _resolved(name, item)) for item in value["anyOf"]))
    kinds = value.get("type", "anything")
    spelled = [_one(name, value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    return " or ".join(spelled)


def _one(name: str, value: Schema, kind: str) -> str:
    if kind == "array":
        return f"list of {_kind(name, _resolved(name, value['items']))}" if "items" in value else "list"
    if kind == "string" and "format" in value:
        return str(value["format"])
    if kind == "integer" and "maximum" in value:
        return f"{value.get('minimum', 0)} to {value['maximum']}"
    return kind


def _resolved(name: str, raw: Schema) -> Schema:
    """What a reference stands for, with what is said beside it."""
    if "$ref" not in raw:
        return raw
    file, _, path = raw["$ref"].partition("#")
    owner = file or f"{name}.schema.json"
    value: Schema = _schema(owner)
    for part in filter(None, path.split("/")):
        value = value[part]
    return _resolved(owner.removesuffix(".schema.json"), value) | {key: raw[key] for key in raw if key != "$ref"}


@cache
def _schema(file: str) -> Schema:
    found: Schema = json.loads(SCHEMAS[file].read_text())
    return found


def _meaning(value: Schema) -> str:
    not_yet = value.get("unsupported")
    return f"Only this value: {not_yet}." if not_yet else str(value.get("description", ""))


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write every page."""
    PAGES.mkdir(exist_ok=True)
    for name in names():
        (PAGES / f"{name}.md").write_text(page(name))


if __name__ == "__main__":
    main()
