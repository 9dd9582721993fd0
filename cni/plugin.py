"""Loading the two nouns of an executable in plugins/: a file without suffix, read as a module."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, cast

from cni.protocol.config import PLUGINS

if TYPE_CHECKING:
    from cni.nouns import Plugin


class _Uncached(SourceFileLoader):
    """Bytecode is read where an installation has it, and never written."""

    def set_data(self, *_: object, **__: object) -> None:
        return


def names() -> list[str]:
    """The names of the suite's plugins."""
    return sorted(file.name.removesuffix(".schema.json") for file in PLUGINS.glob("*.schema.json"))


@cache
def load(name: str) -> Plugin:
    """The nouns of a plugin."""
    module_name = f"plugins.{name.replace('-', '_')}"
    loader = _Uncached(module_name, str(PLUGINS / name))
    spec = importlib.util.spec_from_loader(module_name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    loader.exec_module(module)
    module.name = name  # type: ignore[attr-defined]
    return cast("Plugin", module)
