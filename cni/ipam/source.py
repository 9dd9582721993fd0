"""Where an attachment's addresses come from. Three sources with one contract:

* `Own`: our ranges and leases, in the same transaction as the record
* `Delegate`: another IPAM plugin, named by ``ipam.type`` and found in CNI_PATH
* `Nothing`: no addresses; the attachment is layer 2 only
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

from cni import log
from cni.decoding import decoded
from cni.errors import (
    CniError,
    DecodingFailure,
    Delegated,
    IncompatibleVersion,
    Internal,
    InvalidConfig,
    ToolFailed,
    Unavailable,
)
from cni.ipam.config import IpamConfig, routes_of
from cni.ipam.own import Nothing, Own
from cni.naming import OWN_IPAM, VXLAN_PORT
from cni.protocol.call import Call, is_name
from cni.protocol.config import NetConf, listed
from cni.protocol.result import IPConfig, Result
from cni.state import Record, Store
from cni.values import dataclass

#: What stands for an address that only another plugin knows.
SAMPLE = "10.0.0.2/24"


class Source(Protocol):
    """Who is `delegated` is another plugin, which `refuse_missing` looks for and which is to see the link first; one that
    `speaks_on_link` is told to release while that is there. An ADD writes its record with its plan within `reserving`, which gives
    its addresses, and then what others are to know of them (`told`); `release` tells who gave them, before the record is forgotten;
    `on_the_whole` says of a lease what the network's own subnets are; `differences` names lost ones, and `restore` has those again that are nobody else's; `refuse_when_exhausted` serves STATUS; `sweep` serves GC; `preview` shows what an ADD on an
    empty node would get. One that is `clustered` gives what no other host of the cluster gives.
    """

    delegated: ClassVar[bool]
    clustered: ClassVar[bool]

    @property
    def speaks_on_link(self) -> bool: ...
    def refuse_missing(self) -> None: ...
    def reserving(self, store: Store, record: Record) -> AbstractContextManager[Result]: ...
    def told(self, store: Store, record: Record, result: Result) -> None: ...
    def on_the_whole(self, lease: Result) -> Result: ...
    def release(self) -> None: ...
    def preview(self) -> Result: ...
    def differences(self, store: Store, record: Record, given: Result) -> Iterator[str]: ...
    def restore(self, store: Store, record: Record, given: Result) -> None: ...
    def refuse_when_exhausted(self, store: Store | None, network: str) -> None: ...
    def sweep(self) -> None: ...


@dataclass(frozen=True)
class Delegate(Nothing):
    """A foreign IPAM plugin, called as the specification's section 4 "Plugin Delegation" says."""

    netconf: NetConf
    call: Call
    delegated: ClassVar[bool] = True

    @property
    def speaks_on_link(self) -> bool:
        """A DHCPRELEASE goes out by the pod's own link (RFC 2131, 4.4.6); others give an address again at once, so the kernel has
        let go of it first.
        """
        return self.type == "dhcp"

    def refuse_missing(self) -> None:
        """Raise ToolFailed when there is no such plugin."""
        self._executable()

    def preview(self) -> Result:
        """An address: which one, it says when it is asked."""
        return Result(ips=(IPConfig(SAMPLE),))

    @contextmanager
    def reserving(self, store: Store, record: Record) -> Iterator[Result]:
        """Ask it. No transaction waits for a foreign plugin; the record is there before, so that a DEL reaches it whatever happens."""
        answer = self._result(self._run("ADD"))
        if not answer.ips:
            raise DecodingFailure(f"IPAM plugin {self.type!r} answered without an address")
        yield answer

    def release(self) -> None:
        """Tell the delegate to release; one that does not speak the version never gave anything."""
        try:
            self._run("DEL")
        except Delegated as error:
            if error.code != IncompatibleVersion.code:
                raise

    def differences(self, store: Store, record: Record, given: Result) -> Iterator[str]:
        """Pass on what the delegate's CHECK says."""
        try:
            self._run("CHECK")
        except CniError as error:
            yield error.msg

    def refuse_when_exhausted(self, store: Store | None, network: str) -> None:
        """Pass on the delegate's STATUS; one too old to know STATUS is taken to be fine."""
        try:
            self._run("STATUS")
        except Delegated as error:
            if error.code in (50, 51):  # the specification's two answers to STATUS that mean no
                raise Unavailable(error.msg, error.details) from None

    def sweep(self) -> None:
        """Pass GC on; one too old to know GC has nothing to sweep."""
        try:
            self._run("GC")
        except Delegated as error:
            if error.code not in (1, 4):  # a version, or a CNI_COMMAND, that it does not know
                raise

    @property
    def type(self) -> str:
        """The delegate's name."""
        return str(self.netconf["ipam"]["type"])

    def _run(self, command: str) -> dict[str, Any]:
        from cni.kernel import process  # our own IPAM is no program

        with log.step(command, (self.type,)):  # which is whose part it is
            environ = {
                **self.call.environ,
                "CNI_COMMAND": command, "CNI_CONTAINERID": self.call.container, "CNI_NETNS": self.call.netns,
                "CNI_IFNAME": self.call.ifname, "CNI_ARGS": self.call.args, "CNI_PATH": ":".join(self.call.path),
            }  # fmt: skip
            done = process.run([self._executable()], json.dumps(self.netconf), environ)
        return _answer(self.type, done.returncode, done.stdout, done.stderr)

    def _result(self, raw: dict[str, Any]) -> Result:
        try:
            return Result.read(raw)
        except DecodingFailure as error:
            raise DecodingFailure(f"IPAM plugin {self.type!r}: {error.msg}") from None

    def _executable(self) -> str:
        for folder in self.call.path if is_name(self.type) else ():
            candidate = Path(folder, self.type)
            with suppress(OSError):  # a name of no file, or a folder nobody may look into
                if candidate.is_file() and os.access(candidate, os.X_OK):
                    return str(candidate)
        raise ToolFailed(f"IPAM plugin {self.type!r} is not in CNI_PATH ({':'.join(self.call.path)})")


def source_of(netconf: NetConf, call: Call, vni: int = 0, mode: str = "", port: int = VXLAN_PORT) -> Source:
    """Where a configuration's addresses come from: the flat form, our IPAM, a delegate, or nowhere; `vni`, `mode` and `port` are
    those of the overlay they are in.
    """
    if "ip" in netconf:
        return Own(_flat(netconf))
    if not netconf.get("ipam"):
        return Nothing()
    if not is_delegated(netconf):
        return ours(netconf, call, vni, mode, port)
    with suppress(KeyError, TypeError, ValueError, AttributeError):  # whatever else is wrong is the delegate's to say
        routes_of(netconf["ipam"])
    return Delegate(netconf, call)


def ours(netconf: NetConf, call: Call, vni: int = 0, mode: str = "", port: int = VXLAN_PORT) -> Own:
    """Our IPAM, for this host or for all of its cluster. Raises InvalidConfig."""
    config, ipam = IpamConfig.read(netconf, call), netconf["ipam"]
    if ipam.get("cluster"):
        from cni.ipam.shared import Shared  # a network of one host loads nothing of it

        return Shared.read(config, netconf, vni, mode, port)
    if ipam.get("blockSize"):
        raise InvalidConfig("$.ipam.blockSize: belongs to cluster")
    return Own(config)


def is_clustered(netconf: NetConf) -> bool:
    """Whether addresses are given once over all hosts of a cluster; also of a configuration nobody judged."""
    ipam = netconf.get("ipam")
    return "ip" not in netconf and isinstance(ipam, dict) and bool(ipam.get("cluster")) and not is_delegated(netconf)


def is_delegated(netconf: NetConf) -> bool:
    """Whether addresses come from somebody else's plugin; also of a configuration nobody judged."""
    ipam = netconf.get("ipam")
    return isinstance(ipam, dict) and bool(ipam) and ipam.get("type", OWN_IPAM) != OWN_IPAM


def _flat(netconf: NetConf) -> IpamConfig:
    """The documents' flat form: the pod's own address and its gateway, without an ``ipam`` section."""
    if netconf.get("ipam"):
        raise InvalidConfig("$.ip: excludes ipam")
    return IpamConfig.fixed(listed(netconf["ip"]), listed(netconf.get("gateway")))


def _answer(plugin: str, code: int, stdout: str, stderr: str) -> dict[str, Any]:
    raw = _decoded(plugin, stdout)
    if code == 0:
        return raw
    if raw.get("msg"):
        raise Delegated(
            _own_code(raw.get("code")), f"IPAM plugin {plugin!r}: {raw['msg']}", str(raw.get("details") or "")
        )
    raise ToolFailed(f"IPAM plugin {plugin!r} failed ({code}): {(stderr or stdout).strip()[:200] or 'no reason given'}")


def _own_code(said: object) -> int:
    """A delegate's code (a uint), if it says more than that something failed: the reference says 999 of anything, and we of bugs."""
    own = said if isinstance(said, int) and said is not True else 0
    return own if 0 < own < 1 << 32 and own != Internal.code else ToolFailed.code


def _decoded(plugin: str, stdout: str) -> dict[str, Any]:
    try:
        raw = decoded(stdout.encode()) if stdout.strip() else {}
    except ValueError:
        raise DecodingFailure(f"IPAM plugin {plugin!r} answered no JSON: {stdout[:200]!r}") from None
    if not isinstance(raw, dict):
        raise DecodingFailure(f"IPAM plugin {plugin!r} answered no JSON object: {stdout[:200]!r}")
    return raw
