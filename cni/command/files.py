"""What can be said of a configuration file without a node."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cni import plugin
from cni.command.output import print_json
from cni.errors import CniError, InvalidConfig
from cni.kernel import netfilter
from cni.naming import Attachment
from cni.protocol import config
from cni.protocol.call import Call
from cni.protocol.config import Config
from cni.protocol.result import Result
from cni.protocol.versions import SUPPORTED
from cni.resources import Host, HostPort, Plan, Resource, Uplink

_SAMPLE = Call("ADD", "CONTAINER", "NETNS", "eth0")
#: What somebody else's plugin may have made before one of ours in a chain.
_MADE = {
    "interfaces": [{"name": "HOSTEND"}, {"name": "eth0", "mac": "0a:58:0a:00:00:02", "sandbox": "NETNS"}],
    "ips": [{"address": "10.0.0.2/24", "interface": 1}],
}


def validate(options: argparse.Namespace) -> int:
    """Judge a configuration or list; every error with its JSON path."""
    judged = [{"where": where, "type": conf.get("type"), **judgement(conf)} for where, conf in plugins_of(options.file)]
    if options.json:
        print_json({"file": str(options.file), "plugins": judged})
    for item in () if options.json else judged:
        for fault in item["faults"]:
            print(f"{options.file}: {item['where']}: {fault}", file=sys.stderr)
        if not item["faults"]:
            said = "ok" if item["ours"] else "not a plugin of this suite; not judged"
            print(f"{options.file}: {item['where']}: {item['type']}: {said}")
    return 1 if any(item["faults"] for item in judged) else 0


def judgement(conf: Config) -> dict[str, Any]:
    """Whether a configuration is of one of our plugins, and its faults."""
    try:
        config.refuse_wrong_header(conf, "ADD")
        return {"ours": _planned(conf) is not None, "faults": []}
    except CniError as error:
        return {"ours": True, "faults": error.msg.split("; ")}


def explain(options: argparse.Namespace) -> int:
    """Print the plan of an ADD on an empty node. The kernel is neither changed nor asked."""
    before: dict[str, Any] = {}
    explained = []
    for where, conf in plugins_of(options.file):
        plan = _planned(conf | before)
        before = {"prevResult": plan.result.render() if plan and plan.result != Result() else _MADE}
        explained.append({"where": where, "type": conf["type"], "ours": plan is not None, **_explained(plan, conf)})
    if options.json:
        print_json({"file": str(options.file), "plugins": explained})
    for item in () if options.json else explained:
        _print_plan(item)
    return 0


def _explained(plan: Plan | None, conf: Config) -> dict[str, Any]:
    if plan is None:
        return {}
    return {
        "resources": list(map(_described, plan.resources)),
        "result": plan.result.render(config.version_of(conf)),
    }


def _described(resource: Resource) -> dict[str, Any]:
    return {"says": resource.describe(), "shared": resource.shared, "details": list(resource.details())}


def _print_plan(item: dict[str, Any]) -> None:
    print(f"{item['type']} ({item['where']})" + ("" if item["ours"] else ": not a plugin of this suite"))
    for resource in item.get("resources", ()):
        print(f"  {'shared ' if resource['shared'] else '       '}{resource['says']}")
        for line in resource["details"]:
            print(f"           {line}")
    if item["ours"]:
        print(f"  result {json.dumps(item['result'], indent=2)}".replace("\n", "\n  "))


def plugins_of(file: Path) -> Iterator[tuple[str, Config]]:
    """Each plugin's configuration as libcni would send it, and where it stands in the file."""
    conf = config.parse(file.read_bytes(), "$")
    if "plugins" not in conf:
        yield "$", conf
        return
    plugins = conf["plugins"]
    if not isinstance(plugins, list) or not plugins or not all(isinstance(item, dict) for item in plugins):
        raise InvalidConfig("$.plugins: not a list of objects, or empty")
    header = {"cniVersion": _newest_version(conf), "name": conf.get("name")}
    for number, item in enumerate(conf["plugins"]):
        yield f"$.plugins[{number}]", item | header


def _newest_version(conf: Config) -> str:
    """The highest we know, as libcni chooses, of cniVersion and cniVersions."""
    listed = conf.get("cniVersions") or []
    if not isinstance(listed, list):
        raise InvalidConfig("$.cniVersions: not a list")
    versions = [item for item in (conf.get("cniVersion"), *listed) if item]
    known = [item for item in SUPPORTED if item in versions]
    return known[-1] if known else str(conf.get("cniVersion") or "")


def _planned(conf: Config) -> Plan | None:
    name = conf.get("type")
    if name not in plugin.names():
        return None
    config.refuse_wrong_header(conf, "ADD")
    config.validate(conf, name)
    nouns = plugin.load(name)
    read = nouns.Config.read(conf, _SAMPLE)
    uplink = Uplink(read.uplink.dev or "UPLINK", 1500) if read.uplink else None
    rules = (read.rules or netfilter.NFTABLES) if read.rules is not None else ""
    pod_rules = (read.sidecar.backend or netfilter.IPTABLES_NFT) if read.sidecar else ""
    port = HostPort(read.ports[-1]) if read.ports else None
    host = Host(_SAMPLE.netns, uplink, rules, pod_rules, (4, 6), port=port)
    return nouns.plan(read, Attachment(conf["name"], _SAMPLE.container, _SAMPLE.ifname), read.ipam.preview(), host)
