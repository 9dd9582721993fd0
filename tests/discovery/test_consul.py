from __future__ import annotations

import pytest

from cni.discovery import consul
from cni.kernel.hostsdir import Entry
from cni.naming import Attachment

WEB = Attachment("net", "c1", "eth0")


def entry(health: str = "", **keys: object) -> Entry:
    said = {"addresses": ("10.1.0.2", "fd00::2"), "names": ("web", "web.net", "www"), "pod": "shop/web"} | keys
    return Entry(WEB, **said, health=health)


def test_each_short_name_is_a_service_with_the_checks_consul_makes_itself():
    said = consul.services(entry('{"http": "/healthz", "port": 8080, "interval": 2.5, "failures": 4}'), "here")
    assert [*said] == [f"{WEB.digest[:32]}-web", f"{WEB.digest[:32]}-www"]
    one = said[f"{WEB.digest[:32]}-web"]
    meta = one.pop("Meta")
    assert one == {
        "ID": f"{WEB.digest[:32]}-web", "Name": "web", "Address": "10.1.0.2", "Port": 8080,
        "Checks": [{
            "Name": "GET /healthz of port 8080", "HTTP": "http://10.1.0.2:8080/healthz", "DisableRedirects": True,
            "Interval": "2.5s", "Timeout": "1s", "FailuresBeforeCritical": 4, "SuccessBeforePassing": 2,
        }],
    }  # fmt: skip
    assert meta | {"agent-cni-definition": ""} == {
        "external-source": "agent-cni", "network": "net", "pod": "shop/web", "agent-cni-node": "here", "agent-cni-definition": "",
    }  # fmt: skip


@pytest.mark.parametrize("health", ["", "nonsense"])
def test_a_pod_that_is_not_probed_has_no_check(health: str):
    for said in consul.services(entry(health), "here").values():
        assert not {"Port", "Checks"} & said.keys()


def test_a_port_of_an_ipv6_address_is_spelled_as_such():
    said = consul.services(entry('{"tcp": 53}', addresses=("fd00::2",)), "here")
    assert [item["Checks"][0]["TCP"] for item in said.values()] == ["[fd00::2]:53"] * 2


def test_another_definition_is_told_apart_by_its_metadata():
    one, other, same = (
        {key: item["Meta"]["agent-cni-definition"] for key, item in consul.services(entry(health), "here").items()}
        for health in ('{"tcp": 1}', '{"tcp": 2}', '{"tcp": 1}')
    )
    assert one == same
    assert all(one[key] != other[key] for key in one)
