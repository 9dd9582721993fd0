"""Loading the two nouns of an executable in plugins/: a file without suffix, read as a module."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from cni.verbs import Plugin


class _Uncached(SourceFileLoader):
    """The bin folders of container runtimes hold executables only, so no bytecode is written there."""

    def set_data(self, *_: object, **__: object) -> None:
        return


def load(path: str, name: str) -> Plugin:
    """The module of an executable, named as it is. FileNotFoundError if there is none."""
    module_name = f"plugins.{name.replace('-', '_')}"
    loader = _Uncached(module_name, path)
    spec = importlib.util.spec_from_loader(module_name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    loader.exec_module(module)
    module.name = name  # type: ignore[attr-defined]
    return cast("Plugin", module)
