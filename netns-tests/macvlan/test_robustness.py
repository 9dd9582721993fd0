"""Killed, repeated and parallel calls of macvlan: nothing is left, nothing is given twice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import Lab, Pod, Site, eventually


@pytest.fixture
def conf(dual: dict) -> dict:
    """Everything macvlan makes: link, addresses, routes, shim, host routes."""
    return dual | {"isDefaultGateway": True, "hostAccess": True}


def links(pod: Pod) -> list[str]:
    return [link["ifname"] for link in pod.ip("link", "show")]


def test_del_after_a_kill_at_any_instant_leaves_nothing(site: Site, lab: Lab, conf: dict):
    before = site.host.snapshot()
    for step in range(16):
        pod = lab.pod()
        process = site.host.started(conf, pod)
        time.sleep(step * 0.03)
        process.kill()
        process.wait()
        site.host.delete_pod(conf, pod)
        assert (links(pod), site.host.snapshot()) == (["lo"], before), f"killed after {step * 30} ms"


EVENTS = {
    "the record is written": lambda site, pod: site.host.state()["attachments"],
    "the link is there": lambda site, pod: pod.link("eth0"),
    "an address is set": lambda site, pod: pod.addresses("eth0"),
    "the shim is there": lambda site, pod: site.host.link("mv-eth0"),
    "a host route is set": lambda site, pod: any(route.get("dev") == "mv-eth0" for route in site.host.routes()),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("after", ["DEL", "DEL with the netns gone", "GC", "ADD"])
def test_what_comes_after_a_kill_at_an_event_finds_everything(site: Site, pod: Pod, conf: dict, event: str, after: str):
    process = site.host.started(conf, pod)
    assert eventually(lambda: EVENTS[event](site, pod))
    process.kill()
    process.wait()
    if after == "DEL with the netns gone":
        pod.delete()
    elif after == "GC":
        site.host.cni("GC", conf | {"cni.dev/valid-attachments": []}).ok()
        assert links(pod) == ["lo"]
    elif after == "ADD":
        answer = site.host.cni("ADD", conf, pod)
        assert answer.code == 0 or answer.json["code"] == 105  # the kill came after the last step
        assert site.outside.pings(next(iter(sorted(pod.addresses("eth0")))).split("/")[0])
    site.host.delete_pod(conf, pod)


def test_twenty_parallel_adds_have_addresses_of_their_own_that_outside_reaches(site: Site, lab: Lab, conf: dict):
    pods = [lab.pod() for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda pod: site.host.add(conf, pod), pods))
        addresses = [ip["address"].split("/")[0] for result in results for ip in result["ips"]]
        assert len(set(addresses)) == 40
        assert len({result["interfaces"][0]["mac"] for result in results}) == 20
        assert all(pool.map(site.outside.pings, addresses))
        assert all(pool.map(site.host.pings, [address for address in addresses if "." in address]))
        list(pool.map(lambda pod: site.host.delete_pod(conf, pod), pods))
    assert all(links(pod) == ["lo"] for pod in pods)


def test_of_twenty_parallel_passthru_adds_one_wins(site: Site, lab: Lab, net: dict):
    pods = [lab.pod() for _ in range(20)]
    alone = net | {"mode": "passthru"}
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda pod: site.host.cni("ADD", alone, pod), pods))
    assert [answer.json.get("code") for answer in answers].count(101) == 19
    assert site.outside.pings(next(answer.ok() for answer in answers if not answer.code)["ips"][0]["address"][:-3])
    assert [link for pod in pods for link in links(pod) if link != "lo"] == ["eth0"]
    for pod in pods:
        site.host.delete_pod(alone, pod)


def test_a_second_add_of_a_complete_attachment_is_refused_and_harms_nothing(site: Site, pod: Pod, conf: dict):
    result = site.host.add(conf, pod)
    assert pod.container in site.host.cni("ADD", conf, pod).failed(105)
    assert site.outside.pings("192.0.2.100")
    site.host.check(conf, pod, result).ok()
    site.host.delete_pod(conf, pod)


def test_a_pod_has_two_interfaces_on_one_master(site: Site, pod: Pod, net: dict):
    for number, ifname in enumerate(("eth0", "net1")):
        result = site.host.add(net, pod, ifname=ifname)
        assert result["ips"][0]["address"] == f"192.0.2.{100 + number}/24"
        site.host.check(net, pod, result, ifname=ifname).ok()
    assert all(site.outside.pings(address) for address in ("192.0.2.100", "192.0.2.101"))
    site.host.delete_pod(net, pod, ifname="net1")
    assert links(pod) == ["lo", "eth0"]
    site.host.delete_pod(net, pod)
