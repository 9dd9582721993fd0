"""A folder of Kubernetes objects, as an outside manager or ``kubectl get … -o yaml`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cni.errors import InvalidConfig
from cni.policy.kubernetes import Cluster

_SUFFIXES = {".yaml", ".yml", ".json"}


def load(folder: Path) -> Cluster:
    """Read every object of a folder, lists taken apart. Raises InvalidConfig naming the file at fault."""
    if not folder.is_dir():
        raise InvalidConfig(f"policyDir: {folder} is no folder")
    files = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
    found = [item for file in files for item in _objects(file)]
    kinds = {
        kind: tuple(item for item in found if item.get("kind") == kind)
        for kind in ("NetworkPolicy", "Pod", "Namespace")
    }
    return Cluster(kinds["NetworkPolicy"], kinds["Pod"], kinds["Namespace"])


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    import yaml  # only a configuration with a policyDir pays for it

    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidConfig(f"policyDir: {file}: {' '.join(str(error).split())}") from None
    for document in documents:
        if document is not None and not isinstance(document, dict):
            raise InvalidConfig(f"policyDir: {file}: not a Kubernetes object")
        yield from _apart(document or {})


def _apart(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if str(document.get("kind", "")).endswith("List"):
        yield from document.get("items") or ()
    else:
        yield document
