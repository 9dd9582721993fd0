"""Every conflist of conf.d validates, and runs through the real cnitool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import AGENT_CNI, BIN_DIR, CNITOOL, PATIENCE, REFERENCE_DIR, ROOT, Lab

FILES = sorted((ROOT / "conf.d").glob("*.conflist"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_conflist_works_as_it_stands(lab: Lab, file: Path):
    host, pod = lab.host(), lab.pod()
    lab.underlay(host, first=12 if "second-host" in file.name else 11)
    host.run(AGENT_CNI, "validate", file)
    (host.folder / file.name).write_text(file.read_text())
    network = json.loads(file.read_text())["name"]
    env = {
        "CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}",
        "NETCONFPATH": str(host.folder),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }

    remembered = host.folder / "cache"  # libcni's, whose gc would end the pods of another test with this network's name
    remembered.mkdir()
    Path("/var/lib/cni").mkdir(parents=True, exist_ok=True)
    bound = ["sh", "-c", 'mount --bind "$0" /var/lib/cni && exec "$@"', remembered]

    def cnitool(verb: str) -> str:
        return host.run(*bound, CNITOOL, verb, network, pod.path, env=env).stdout

    result = json.loads(cnitool("add"))
    assert pod.addresses("eth0") == {ip["address"] for ip in result["ips"]}
    guarded = any(key in file.read_text() for key in ("denyUncaptured", "policy"))
    waited = 1 if guarded else PATIENCE
    assert [pod.pings(ip["gateway"], waited) for ip in result["ips"]] == [not guarded] * len(result["ips"])
    cnitool("check")
    if "reference" not in file.name:  # Debian's bridge is older than STATUS and GC
        cnitool("status")
        cnitool("gc")  # it names no valid attachment, so libcni deletes every one it remembers
        assert pod.link("eth0") is None
    cnitool("del")
    cnitool("del")
    assert pod.link("eth0") is None
    assert host.state() == {"attachments": [], "leases": []}
