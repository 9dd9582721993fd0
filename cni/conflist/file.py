"""A configuration file as libcni reads it: its plugins, and every fault of each."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from cni import plugin
from cni.cluster.model import Network
from cni.errors import CniError, InvalidConfig, TryAgainLater, UnsupportedField
from cni.ipam.shared import Shared
from cni.ipam.source import is_clustered
from cni.kernel import netfilter
from cni.naming import OWN_IPAM, Attachment
from cni.node import folder_of
from cni.policy.hints import hints
from cni.protocol import config, foreign
from cni.protocol.call import Call, is_name
from cni.protocol.config import NetConf
from cni.protocol.schema import given
from cni.protocol.versions import SUPPORTED
from cni.resources import Host, HostPort, Plan, Uplink

#: A call for a pod that nobody has.
_SAMPLE = Call("ADD", "CONTAINER", "NETNS", "eth0", "K8S_POD_NAMESPACE=NAMESPACE;K8S_POD_NAME=POD")
#: What is read of a file at the most, in bytes: a device ends nowhere.
_LONGEST = 16 << 20
#: The keys of a list; libcni overlooks every other.
_LIST_KEYS = ("cniVersion", "cniVersions", "name", "plugins", "disableCheck", "disableGC", "loadOnlyInlinedPlugins")
_LIKENESS = 0.85
_UNTYPED = "missing: it is the name of a plugin's executable, such as bridge-vxlan"
#: What an uplink has where none is asked.
UPLINK_MTU = 1500
#: What somebody else's plugin may have made before one of ours in a chain.
MADE: NetConf = {
    "interfaces": [{"name": "HOSTEND"}, {"name": "eth0", "mac": "0a:58:0a:00:00:02", "sandbox": "NETNS"}],
    "ips": [{"address": "10.0.0.2/24", "interface": 1}],
}
#: What `loopback`, which stands first in some lists (Nomad's), makes: no interface of the pod's own.
LOOPED: NetConf = {
    "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "NETNS"}],
    "ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}],
}


def configurations(folder: Path) -> list[Path]:
    """What libcni reads of a folder, in its order (libcni, ConfFiles)."""
    return sorted(file for suffix in (".conf", ".conflist", ".json") for file in folder.glob(f"*{suffix}"))


def data_dirs(folder: Path) -> Iterator[Path]:
    """Where the networks of a folder's files keep their state, as far as they can be read: after a boot nobody else knows."""
    for file in configurations(folder):
        with suppress(CniError, OSError):
            yield from (place for _, netconf in plugins_of(file) for place in _data_dir(netconf))


def _data_dir(netconf: NetConf) -> Iterator[Path]:
    """Where our plugin, or our IPAM under somebody else's, keeps its state; nothing where that is no path."""
    ipam = netconf.get("ipam")
    if netconf.get("type") in list(plugin.names()) or (isinstance(ipam, dict) and ipam.get("type") == OWN_IPAM):
        with suppress(TypeError):
            folder = folder_of(netconf)
            yield from [folder] if folder.is_absolute() and "\0" not in str(folder) else []


def text_of(file: Path) -> bytes:
    """What is in a file; ``-`` is standard input, which is read once. Raises OSError, also for more than a runtime may send."""
    with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as opened:
        text = opened.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(file))
    return text


def plugins_of(file: Path, text: bytes | None = None) -> Iterator[tuple[str, NetConf]]:
    """Each plugin's configuration as libcni would send it, and where it stands in the file, whose text may have been read.

    Raises CniError for what is wrong with all of them, and OSError.
    """
    netconf = config.parse(text_of(file) if text is None else text, "$")
    if "plugins" not in netconf and ("type" in netconf or foreign.plugin_of(netconf)) and file.suffix != ".conflist":
        yield "$", _as_read(netconf)
        return
    _refuse_misspelt(netconf)
    if "plugins" in netconf and file.suffix in (".conf", ".json"):
        raise InvalidConfig(f"$.plugins: runtimes read a {file.suffix} as one plugin; a list is a .conflist")
    plugins = netconf.get("plugins")
    if plugins is None:
        if file.suffix != ".conflist":
            raise InvalidConfig(f"$.type: {_UNTYPED}; or plugins, a list of such")
        raise InvalidConfig("$: a .conflist needs a list of plugins")
    if not isinstance(plugins, list) or not plugins or not all(isinstance(item, dict) for item in plugins):
        raise InvalidConfig("$.plugins: not a list of objects, or empty")
    header = {"cniVersion": _newest_version(netconf), "name": netconf.get("name")}
    config.refuse_wrong_header(header, "ADD")
    for number, item in enumerate(plugins):
        yield f"$.plugins[{number}]", _as_read(item | header)


def judged(file: Path, text: bytes | None = None) -> Iterator[dict[str, Any]]:
    """Of each plugin of a file where it stands, its type, a judgement of it, and of one that is right what of it does nothing. Raises as
    `plugins_of`.
    """
    before: NetConf = {}
    for where, netconf in plugins_of(file, text):
        found = judgement(netconf)
        if found["ours"] and not found["faults"]:
            found["faults"] = list(_misplaced(netconf, before))
            found["hints"] = list(hints(netconf.get("policy") or {}, "$.policy"))
        yield {"where": where, "type": netconf.get("type"), **found}
        before = {"prevResult": made_by(netconf)} if is_bare(before) else before


def misspelt(file: Path, text: bytes) -> list[str]:
    """What the schemas of ours say against a file that may have no addresses yet, and where. Raises as `plugins_of`."""
    read = [(where, netconf, _reader_of(netconf)) for where, netconf in plugins_of(file, text)]
    return [f"{where}: {line}" for where, netconf, name in read if name for _, line in config.faults(netconf, name)]


def called_in(folder: Path) -> set[str]:
    """The executables of this suite that are called by a folder's files, as far as they can be read."""
    found = set[str]()
    for file in configurations(folder):
        with suppress(CniError, OSError):
            found |= called_by(file)
    return found


def called_by(file: Path) -> set[str]:
    """The executables of this suite that a runtime, or somebody else's plugin, calls by a file. Raises as `plugins_of`, and OSError."""
    found = set[str]()
    for _, netconf in plugins_of(file):
        ipam = netconf.get("ipam")
        ours = netconf.get("type") in plugin.names()
        found |= {str(netconf["type"])} if ours else set()
        found |= {OWN_IPAM} if not ours and isinstance(ipam, dict) and ipam.get("type") == OWN_IPAM else set()
    return found


def networks(file: Path, text: bytes) -> Iterator[Network]:
    """The cluster's networks that a file's plugins share. Raises as `plugins_of`, and InvalidConfig."""
    for _, netconf in plugins_of(file, text):
        if is_clustered(netconf):
            reader = str(netconf["type"] if netconf["type"] in plugin.names() else OWN_IPAM)
            said = {key: value for key, value in netconf.items() if key != "policy"}  # which reads documents
            source = plugin.load(reader).Config.read(said, _SAMPLE).ipam
            yield from [source.network] if isinstance(source, Shared) else []


def made_by(netconf: NetConf) -> NetConf:
    """What somebody's plugin may have made in a bare pod."""
    return LOOPED if netconf.get("type") == "loopback" else MADE


def is_bare(before: NetConf) -> bool:
    """Whether a pod has no interface of its own yet, by the result that the next plugin of a list is given."""
    return before.get("prevResult") in (None, LOOPED)


def judgement(netconf: NetConf) -> dict[str, Any]:
    """Whether a configuration is of one of our plugins, who gives its addresses, and its faults."""
    section = netconf.get("ipam")
    delegate = str(section.get("type") or "") if isinstance(section, dict) else ""
    return {"ours": netconf.get("type") in plugin.names(), "ipam": delegate, "faults": list(_faults(netconf, delegate))}


def _misplaced(netconf: NetConf, before: NetConf) -> Iterator[str]:
    """One plugin makes the pod's interface, and it is the first but for `loopback`."""
    said = {key: value for key, value in netconf.items() if key != "policy"}  # which reads documents
    chained = plugin.load(netconf["type"]).Config.read(said | before, _SAMPLE).chained
    bare = is_bare(before)
    if bare and chained:
        yield f"$.type: {netconf['type']} follows a plugin that makes an interface, and there is none before it"
    if not bare and not chained:
        yield f"$.type: {netconf['type']} makes an interface, which the first plugin of a list does"


def planned(netconf: NetConf) -> Plan | None:
    """The plan of an ADD on an empty node, or None for a plugin of somebody else. Raises CniError."""
    if fault := _type_fault(netconf):
        raise InvalidConfig(fault)
    name = netconf["type"]
    if name not in plugin.names():
        return None
    config.refuse_wrong_header(netconf, "ADD")
    config.validate(netconf, name)
    return _plan(netconf, name)


def _plan(netconf: NetConf, name: str) -> Plan:
    loaded = plugin.load(name)
    read = loaded.Config.read(netconf, _SAMPLE)
    uplink = Uplink(read.uplink.dev or "UPLINK", UPLINK_MTU) if read.uplink else None
    rules = (read.rules or netfilter.NFTABLES) if read.rules is not None else ""
    pod_rules = (read.sidecar.backend or netfilter.IPTABLES_NFT) if read.sidecar else ""
    port = HostPort(read.ports[-1], lent=True) if read.ports else None
    host = Host(_SAMPLE.netns, uplink, rules, pod_rules, (4, 6), port=port, chained=read.chained)
    return loaded.plan(read, Attachment(netconf["name"], _SAMPLE.container, _SAMPLE.ifname), read.ipam.preview(), host)


def _faults(netconf: NetConf, delegate: str) -> Iterator[str]:
    if fault := _type_fault(netconf):
        yield fault
    try:
        config.refuse_wrong_header(netconf, "ADD")
    except CniError as error:
        yield error.msg
        return
    if hint := _hint(delegate, [OWN_IPAM]):
        yield f"$.ipam.type: {delegate!r}{hint}"
    if netconf.get("type") in plugin.names():
        yield from _faults_by(str(netconf["type"]), netconf)
    elif delegate == OWN_IPAM:
        yield from _faults_by(OWN_IPAM, netconf)
    elif netconf.get("type") is None and (meant := foreign.plugin_of(netconf)):
        yield from (text for _, text in config.faults(netconf, meant))


def _faults_by(name: str, netconf: NetConf) -> Iterator[str]:
    """What a plugin says of a configuration: of each key, then, where only unknown keys are wrong, of them together."""
    found = config.faults(netconf, name)
    yield from (text for _, text in found)
    if any(kind is not UnsupportedField for kind, _ in found):
        return
    known = config.without_unknown(netconf, name) if found else netconf
    if config.faults(known, name):
        return  # a value this release does not support
    try:
        _plan(known, name)
    except TryAgainLater:
        return  # what this host was not told yet is no fault of a file
    except CniError as error:
        yield error.msg


def _type_fault(netconf: NetConf) -> str:
    name = netconf.get("type")
    if name is None:
        return f"$.type: {_UNTYPED}"
    if not isinstance(name, str) or not is_name(name):
        return f"$.type: {json.dumps(name)} is no name of a plugin"
    if driver := foreign.no_type(name):
        return f"$.type: {driver}"
    hint = _hint(name, plugin.names())
    return f"$.type: {name!r} is no plugin of this suite{hint}" if hint else ""


def _as_read(netconf: NetConf) -> NetConf:
    """A configuration as our plugin reads it, or our IPAM beneath somebody else's."""
    reader = _reader_of(netconf)
    return given(netconf, reader) if reader else netconf


def _reader_of(netconf: NetConf) -> str | None:
    ipam = netconf.get("ipam")
    types = (netconf.get("type"), ipam.get("type") if isinstance(ipam, dict) else None)
    return next((name for name in types if name in plugin.names()), None)


def _refuse_misspelt(netconf: NetConf) -> None:
    for key in netconf:
        hint = _hint(key, [known for known in _LIST_KEYS if known not in netconf])
        if key not in _LIST_KEYS and hint:
            raise InvalidConfig(f"$.{key}: unknown key{hint}")


def _hint(text: str, known: Sequence[str]) -> str:
    """The known word that another one resembles without being it, as a question, or nothing."""
    return "" if text in known else config.meant(text, known, _LIKENESS)


def _newest_version(netconf: NetConf) -> str:
    """The highest we know, as libcni chooses, of cniVersion and cniVersions."""
    listed = netconf.get("cniVersions") or []
    if not isinstance(listed, list):
        raise InvalidConfig("$.cniVersions: not a list")
    versions = [item for item in (netconf.get("cniVersion"), *listed) if item]
    known = [item for item in SUPPORTED if item in versions]
    return known[-1] if known else str(netconf.get("cniVersion") or "")
