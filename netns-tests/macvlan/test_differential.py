"""The same configurations through Debian's reference macvlan and ours: every difference is in a table, with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab import BIN_DIR, REFERENCE_DIR, Lab, Pod, Site, eventually, sh

EVERYWHERE = {
    "kernel alias": "marks the link as ours, so that DEL never deletes one that is not",
    "kernel nodad": "an IPv6 address is usable at return, without waiting for duplicate detection",
    "mac": "derived from the address: a pod that comes back keeps it, and neighbours need not learn",
    "error code": "says what is wrong and who must act; the reference nearly always says 999",
    "error version": "an error document has a cniVersion, which the reference leaves out",
}
FREED = {"DEL": "DEL succeeds whatever today's configuration says; the reference's fails for ever, its pod Terminating"}
ONLY = {
    "an MTU above the master's": FREED,
    "a master that is not there": FREED,
    "a queue length": {"kernel queue": "Debian's reference (1.1) does not know bcqueuelen yet"},
    "a master in the pod": {
        **FREED,
        "outcome": "Debian's reference (1.1) does not know linkInContainer yet and looks on the host",
    },
    "a misspelt key": {"outcome": "a key nobody knows is refused, not ignored"},
}
FIXED = "0a:00:00:00:00:05"
V4 = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199"}
V6 = {"subnet": "fd00:2::/64", "rangeStart": "fd00:2::100", "rangeEnd": "fd00:2::199"}
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "gw": "192.0.2.9"}]
CASES: dict[str, dict[str, Any]] = {
    "the least": {},
    "bridge": {"mode": "bridge"},
    "private": {"mode": "private"},
    "vepa": {"mode": "vepa"},
    "passthru": {"mode": "passthru"},
    "an MTU": {"mtu": 1400},
    "MTU 0": {"mtu": 0},
    "a mac key": {"mac": FIXED},
    "a MAC of runtimeConfig": {"runtimeConfig": {"mac": FIXED}, "capabilities": {"mac": True}},
    "a MAC of CNI_ARGS": {"CNI_ARGS": f"IgnoreUnknown=1;MAC={FIXED}"},
    "the default route's master": {"master": ""},
    "routes": {"ipam": {"ranges": [[V4 | {"gateway": "192.0.2.1"}]], "routes": ROUTES}},
    "dual stack": {"ipam": {"ranges": [[V4], [V6]], "routes": [{"dst": "::/0"}, *ROUTES]}},
    "DNS": {"dns": {"nameservers": ["192.0.2.1"], "search": ["a.example"]}},
    "layer 2": {"ipam": {}},
    "a queue length": {"bcqueuelen": 2345},
    "a master in the pod": {"master": "up0", "linkInContainer": True},
    "an MTU above the master's": {"mtu": 1501},
    "an unknown mode": {"mode": "brigde"},
    "a master that is not there": {"master": "eth7"},
    "a misspelt key": {"mastre": "eth0"},
}
REFUSED = {"an MTU above the master's", "an unknown mode", "a master that is not there"}


def conf_of(case: dict[str, Any], ipam_type: str, folder: Path) -> dict[str, Any]:
    net = {"cniVersion": "1.0.0", "name": "physical", "type": "macvlan", "master": "eth0", "ipam": {"ranges": [[V4]]}}
    conf = net | {key: value for key, value in case.items() if key != "CNI_ARGS"}
    if conf["ipam"]:
        conf["ipam"] = conf["ipam"] | {"type": ipam_type, "dataDir": str(folder)}
    return conf


def routes_of(pod: Pod) -> set[tuple]:
    keys = ("dst", "gateway", "dev", "scope", "protocol", "metric", "prefsrc")
    shown = [route for family in (4, 6) for route in pod.routes(family)]
    return {tuple(route.get(key) for key in keys) for route in shown if not route["dst"].startswith("fe80")}


def kernel_state(pod: Pod) -> dict[str, Any]:
    link, data = pod.link("eth0"), pod.link("eth0")["linkinfo"]["info_data"]
    shown = sh("ip", "-n", pod.name, "addr", "show", "dev", "eth0", "scope", "global").stdout
    return {
        "kernel addresses": pod.addresses("eth0"),
        "kernel routes": routes_of(pod),
        "kernel mode": data["mode"],
        "kernel queue": data["bcqueuelen"],
        "kernel mtu": link["mtu"],
        "kernel flags": (set(link["flags"]), link["operstate"], link["promiscuity"], link["group"]),
        "kernel alias": link.get("ifalias"),
        "kernel nodad": " nodad" in shown,
        "mac": link["address"],
    }


def told(result: dict[str, Any], pod: Pod) -> dict[str, Any]:
    own = {key: value for key, value in result["interfaces"][0].items() if key != "mac"}
    return {
        "result interface": own | {"sandbox": own["sandbox"] == pod.path},
        "result ips": [sorted(ip.items()) for ip in result.get("ips", [])],
        "result routes": result.get("routes", []),
        "result dns": result.get("dns") or {},
        "result mac is the kernel's": result["interfaces"][0]["mac"] == pod.link("eth0")["address"],
        "result keys": set(result) - {"dns"},
    }


def story(lab: Lab, case: dict[str, Any], bin_dir: Path, ipam_type: str) -> dict[str, Any]:
    """What one implementation did with one configuration, from ADD over CHECK to DEL."""
    site, pod = lab.site(), lab.pod()
    up = ("type", "veth", "peer", "name", "up1")
    pod.run("ip", "link", "add", "up0", "up", *up)
    before = site.host.snapshot()
    conf = conf_of(case, ipam_type, site.host.folder / "ipam")
    env = {"CNI_ARGS": case["CNI_ARGS"]} if "CNI_ARGS" in case else {}
    answer = site.host.cni("ADD", conf, pod, bin_dir=bin_dir, **env)
    if answer.code:
        seen = {"outcome": "refused", "error code": answer.json["code"], "error version": "cniVersion" in answer.json}
    else:
        seen = {"outcome": "attached"} | attached(site, pod, conf, answer.ok(), bin_dir, env)
    seen["DEL"] = [site.host.cni("DEL", conf, pod, bin_dir=bin_dir, **env).code for _ in range(2)]
    seen["left"] = ({link["ifname"] for link in pod.ip("link", "show")}, site.host.snapshot() == before)
    return seen


def attached(site: Site, pod: Pod, conf: dict, result: dict, bin_dir: Path, env: dict) -> dict[str, Any]:
    settled = "tentative"
    assert eventually(lambda: settled not in sh("ip", "-n", pod.name, "addr", "show", "scope", "global").stdout)
    checked = site.host.cni("CHECK", conf | {"prevResult": result}, pod, bin_dir=bin_dir, **env)
    reached = [
        site.outside.pings(ip["address"].split("/")[0], 2) for ip in result.get("ips", []) if conf["master"] != "up0"
    ]
    return {**kernel_state(pod), **told(result, pod), "CHECK": checked.code, "reached": reached}


@pytest.mark.parametrize("name", CASES)
def test_the_reference_and_ours_differ_only_where_it_is_meant(lab: Lab, name: str):
    theirs = story(lab, CASES[name], REFERENCE_DIR, "host-local")
    ours = story(lab, CASES[name], BIN_DIR, "agent-ipam")
    assert "outcome" in ONLY.get(name, {}) or (ours["outcome"] == "refused") == (name in REFUSED)
    meant = EVERYWHERE.keys() | ONLY.get(name, {}).keys()
    if "outcome" in ONLY.get(name, {}):
        assert theirs["outcome"] != ours["outcome"]
        theirs, ours = ({key: seen[key] for key in ("outcome", "DEL", "left")} for seen in (theirs, ours))
    differing = {key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)}
    assert differing <= meant, {key: (theirs.get(key), ours.get(key)) for key in differing - meant}
    assert differing >= ONLY.get(name, {}).keys(), "the table names a difference that is none"
