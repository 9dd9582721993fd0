"""conf.d/50-macvlan.conflist as a runtime uses it: through real libcni."""

from __future__ import annotations

import json
import subprocess

from lab import BIN_DIR, CNITOOL, ROOT, Host, Lab, Pod, Site

NAME = "50-macvlan.conflist"


def cnitool(host: Host, verb: str, pod: Pod, check: bool = True) -> subprocess.CompletedProcess:
    """One real cnitool call; libcni's cache is the host's own."""
    cache = host.folder / "libcni"
    cache.mkdir(exist_ok=True)
    bind = 'mkdir -p /var/lib/cni && mount --bind "$0" /var/lib/cni && exec "$@"'
    env = {"CNI_PATH": str(BIN_DIR), "NETCONFPATH": str(host.folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return host.run(
        "unshare", "--mount", "sh", "-c", bind, cache, CNITOOL, verb, "physical", pod.path, env=env, check=check
    )


def test_cnitool_adds_checks_and_deletes_pods_of_the_example(site: Site, lab: Lab):
    (site.host.folder / NAME).write_text((ROOT / "conf.d" / NAME).read_text())
    pods = [lab.pod(), lab.pod()]
    results = [json.loads(cnitool(site.host, "add", pod).stdout) for pod in pods]
    addresses = [result["ips"][0]["address"].split("/")[0] for result in results]
    for pod in pods:
        cnitool(site.host, "check", pod)
        assert all(pod.pings(address) for address in ("192.0.2.11", "192.0.2.12", "192.0.2.1", *addresses))
    assert all(site.outside.pings(address) and site.host.pings(address) for address in addresses)
    pods[0].run("ip", "route", "del", "default")
    refused = cnitool(site.host, "check", pods[0], check=False)
    assert (refused.returncode, "route 0.0.0.0/0" in refused.stdout + refused.stderr) == (1, True)
    for pod in pods:
        cnitool(site.host, "del", pod)
        assert not pod.link("eth0")
