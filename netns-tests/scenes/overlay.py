"""Hosts whose bridges are one network: their configurations, and what their tunnels know."""

from __future__ import annotations

import re

from lab import Host, Lab, Pod, sh


def conf(remotes: list[str] | None = None, slot: int = 1, **keys: object) -> dict:
    """A host's configuration: its own slice of the common subnet."""
    ranges = [[{"subnet": "10.1.0.0/16", "rangeStart": f"10.1.{slot}.1", "rangeEnd": f"10.1.{slot}.254"}]]
    vxlan = {"id": 100} | ({"remotes": remotes} if remotes is not None else {}) | keys.pop("vxlan", {})
    base = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True}
    return base | {"vxlan": vxlan, "ipam": {"ranges": ranges}} | keys


def pair(lab: Lab, mtu: int = 1500, **keys: object) -> tuple[list[Host], list[Pod], list[dict]]:
    """Two hosts with one pod each, and the pods' results."""
    hosts, pods = [lab.host(), lab.host()], [lab.pod(), lab.pod()]
    lab.underlay(*hosts, mtu=mtu)
    confs = [conf([f"192.0.2.{12 - slot}"], slot, **keys) for slot in (0, 1)]
    return hosts, pods, [host.add(one, pod) for host, one, pod in zip(hosts, confs, pods, strict=True)]


def address(result: dict) -> str:
    return result["ips"][0]["address"].split("/")[0]


def flooded(host: Host, device: str = "vxlan100") -> set[str]:
    """The VTEPs a tunnel sends to what has no row of its own."""
    rows = sh("bridge", "-n", host.name, "fdb", "show", "dev", device).stdout.splitlines()
    return {found[1] for row in rows if row.startswith("00:00") and (found := re.search(r"dst (\S+)", row))}


def tunnels(host: Host) -> dict[str, str]:
    """The VXLAN devices of a host, and the bridge each is on."""
    kinds = ((item, item.get("linkinfo", {}).get("info_kind")) for item in host.ip("link", "show"))
    return {item["ifname"]: item.get("master", "") for item, kind in kinds if kind == "vxlan"}
