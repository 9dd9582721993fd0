"""The plugins' schemas, as they are written."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


@cache
def written(name: str) -> Any:
    """What a file of schemas says."""
    return json.loads((PLUGINS / name).read_text())


def resolved(schema: dict[str, Any], root: str) -> tuple[dict[str, Any], str]:
    """A schema with what it refers to, and the file that is in."""
    while "$ref" in schema:
        file, _, path = schema["$ref"].partition("#")
        root = file or root
        found = written(root)
        for step in filter(None, path.split("/")):
            found = found[step]
        schema = {key: value for key, value in schema.items() if key != "$ref"} | found
    return schema, root
