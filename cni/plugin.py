"""What a plugin is, two nouns: what it accepts, and what must exist; and how those of an executable in plugins/ are loaded."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast

from cni.errors import ToolFailed
from cni.protocol.schema import PLUGINS

if TYPE_CHECKING:
    from cni.ipam.source import Source
    from cni.names.config import Names
    from cni.naming import Attachment
    from cni.policy.model import Policy
    from cni.protocol.call import Call
    from cni.protocol.config import NetConf
    from cni.protocol.result import Result
    from cni.resources import Host, Plan, UplinkQuery
    from cni.sidecar.model import Interception


class PluginConfig:
    """What a plugin accepts, as far as verbs ask; a plugin says what it has besides its IPAM.

    `sidecar` is what it does to the pod's traffic, `policy` what it lets through, `names` what it is called. `uplink` and `rules` say what `plan`
    must know of the host: the link traffic leaves by, and the rule backend (a wish, empty for the node's own); None for
    neither. `links` must exist for an ADD to succeed, and the host must have `address`, if it is not empty; `ports` are the host links that plugins before it in the chain
    have made. One that is `chained` makes no interface and passes the result on. What it makes has an end on the host if it
    `has_port`, on the `bridge` of that name.
    """

    ipam: Source
    sidecar: Interception | None = None
    policy: Policy | None = None
    names: Names | None = None
    uplink: UplinkQuery | None = None
    rules: str | None = None
    links: tuple[str, ...] = ()
    address: str = ""
    ports: tuple[str, ...] = ()
    bridge: str = ""
    chained: bool = False
    enters_pod: ClassVar[bool] = True
    has_port: ClassVar[bool] = False

    @classmethod
    def read(cls, netconf: NetConf, call: Call) -> Self:
        """Read a validated configuration. Raises InvalidConfig for what its schema cannot say."""
        raise NotImplementedError


class Plugin(Protocol):
    """The two nouns, and the name of the executable that holds them."""

    name: str
    Config: type[PluginConfig]

    def plan(self, config: Any, attachment: Attachment, lease: Result, host: Host) -> Plan: ...


class _Uncached(SourceFileLoader):
    """Bytecode is read where an installation has it, and never written."""

    def set_data(self, *_: object, **__: object) -> None:
        return


def names() -> list[str]:
    """The names of the suite's plugins."""
    return sorted(file.name.removesuffix(".schema.json") for file in PLUGINS.glob("*.schema.json"))


#: The reference plugins whose names ours may have, for who calls nobody else: nerdctl, podman.
STANDS_FOR = {"bridge": "bridge-vxlan", "ptp": "custom-plugin", "host-local": "agent-ipam"}


def name_of(executable: str) -> str:
    """The plugin in a file: the one it is called after, or that it links to, or that stands for the reference's of its name.

    Raises ToolFailed where that is none.
    """
    called = [Path(path).name for path in (executable, os.path.realpath(executable))]
    for name in (*called, *(STANDS_FOR.get(name, "") for name in called)):
        if name and (PLUGINS / f"{name}.schema.json").is_file():
            return name
    raise ToolFailed(f"{executable}: is called like no plugin of this suite, and like none that one stands for")


@cache
def load(name: str) -> Plugin:
    """The two nouns of a plugin: its executable, a file without suffix, read as a module."""
    module_name = f"plugins.{name.replace('-', '_')}"
    loader = _Uncached(module_name, str(PLUGINS / name))
    module = ModuleType(module_name)
    sys.modules[module_name] = module
    loader.exec_module(module)
    module.name = name  # type: ignore[attr-defined]
    return cast(Plugin, module)
