"""Names of pods: what an ADD tells of them, what a resolver in the pod is given, and what is left when they go."""

from __future__ import annotations

from typing import Any

import pytest
from lab import AGENT_CNI, Host, Lab, Pod

WEB = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"


@pytest.fixture
def conf(conf: dict[str, Any]) -> dict[str, Any]:
    return conf | {"names": {}, "capabilities": {"aliases": True}}


def files(host: Host) -> list[str]:
    return sorted(str(file.relative_to(host.names)) for file in host.names.rglob("*") if file.is_file())


def told(host: Host) -> list[str]:
    """What a server of the network answers of this host's pods."""
    lines = (line for file in (host.names / "net/here").iterdir() for line in file.read_text().splitlines())
    return sorted(line for line in lines if not line.startswith("#"))


def test_a_pod_is_told_under_its_names_and_asks_its_gateways(host: Host, pod: Pod, conf: dict[str, Any]):
    result = host.add(conf, pod, CNI_ARGS=WEB)
    assert result["dns"] == {"nameservers": ["10.1.0.1", "fd00:1::1"], "domain": "net", "search": ["shop.net", "net"]}
    assert told(host) == ["10.1.0.2 web.shop.net web.net web", "fd00:1::2 web.shop.net web.net web"]
    host.check(conf, pod, result, CNI_ARGS=WEB).ok()
    host.delete_pod(conf, pod)
    assert files(host) == []


def test_aliases_are_told_too(host: Host, pod: Pod, conf: dict[str, Any]):
    conf |= {"runtimeConfig": {"aliases": {"net": ["sql"]}}, "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]]}}
    host.add(conf, pod, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=db")
    assert told(host) == ["10.1.0.2 db.net sql.net db sql"]


def test_the_last_pod_takes_the_server_with_it_and_no_other(host: Host, lab: Lab, conf: dict[str, Any]):
    one, two = lab.pod(), lab.pod()
    host.add(conf, one, CNI_ARGS=WEB)
    host.add(conf, two, CNI_ARGS=WEB)
    assert len(told(host)) == 4
    host.delete_pod(conf, one)
    assert len(told(host)) == 2
    assert "net/dnsmasq.conf" in files(host)
    host.delete_pod(conf, two)
    assert files(host) == []


def test_a_pod_without_a_name_has_a_resolver_all_the_same(host: Host, pod: Pod, conf: dict[str, Any]):
    assert host.add(conf, pod)["dns"]["nameservers"] == ["10.1.0.1", "fd00:1::1"]
    assert files(host) == ["net/dnsmasq.conf"]


@pytest.mark.parametrize("missing", ["here", "conf", "changed"])
def test_check_names_what_is_not_told_any_more_and_refresh_tells_it(
    host: Host, pod: Pod, conf: dict[str, Any], missing: str
):
    result = host.add(conf, pod, CNI_ARGS=WEB)
    before = {name: (host.names / name).read_text() for name in files(host)}
    (file,) = (host.names / "net/here").iterdir()
    file = host.names / "net/dnsmasq.conf" if missing == "conf" else file
    if missing == "changed":
        file.write_text(file.read_text().replace("10.1.0.2", "10.1.0.3"))
    else:
        file.unlink()
    assert file.name in host.check(conf, pod, result, CNI_ARGS=WEB).failed(104)
    host.run(AGENT_CNI, "refresh")
    assert {name: (host.names / name).read_text() for name in files(host)} == before
    host.check(conf, pod, result, CNI_ARGS=WEB).ok()


def test_a_lost_state_takes_its_own_file_and_leaves_others(host: Host, lab: Lab, conf: dict[str, Any]):
    one, two = lab.pod(), lab.pod()
    host.add(conf, one, CNI_ARGS=WEB)
    host.add(conf, two, CNI_ARGS=WEB)
    host.lose_state()
    host.delete_pod(conf, one)
    assert len(told(host)) == 2
    assert "net/dnsmasq.conf" in files(host)
    host.delete_pod(conf, two)
    assert files(host) == []


def test_an_add_that_fails_tells_nothing(host: Host, lab: Lab, conf: dict[str, Any]):
    first, pod = lab.pod(), lab.pod()
    host.add(conf, first, CNI_ARGS=WEB)
    before = files(host)
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    assert host.cni("ADD", conf, pod, CNI_ARGS=WEB).code
    assert files(host) == before


def test_two_networks_with_names_want_a_bridge_each(host: Host, lab: Lab, conf: dict[str, Any]):
    one, two = lab.pod(), lab.pod()
    other = conf | {"name": "other", "ipam": {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100"}}
    host.add(conf, one, CNI_ARGS=WEB)
    before = host.snapshot()
    assert "network net has its names on br0" in host.cni("ADD", other, two, CNI_ARGS=WEB).failed(101)
    assert host.snapshot() == before
    host.add(other | {"bridge": "br1"} | {"ipam": {"subnet": "10.2.0.0/24"}}, two, CNI_ARGS=WEB)


@pytest.mark.parametrize("place", ["", "net", "net/here"])
def test_status_says_that_a_folder_is_not_ours(host: Host, lab: Lab, conf: dict[str, Any], place: str):
    host.cni("STATUS", conf).ok()
    assert files(host) == []
    host.add(conf, lab.pod(), CNI_ARGS=WEB)
    host.cni("STATUS", conf).ok()
    folder = host.names / place
    folder.chmod(0o777)
    assert "is no folder of ours" in host.cni("STATUS", conf).failed(50)
    assert host.cni("ADD", conf, lab.pod(), CNI_ARGS=WEB).failed(50)
    folder.chmod(0o755)
    host.cni("STATUS", conf).ok()


def test_what_is_no_name_fails_the_add_and_nothing_is_left(host: Host, pod: Pod, conf: dict[str, Any]):
    conf |= {"runtimeConfig": {"aliases": {"net": ["a b"]}}}
    assert "$.runtimeConfig.aliases" in host.cni("ADD", conf, pod, CNI_ARGS=WEB).failed(7)
    assert files(host) == []
