"""Isolated pods and names: who may not leave asks his network's resolver where `allowDNS` says so, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest
from lab import Host, Lab, Pod, eventually
from names import Names, asked

NAMED = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}"


def answer(pod: Pod, server: str, name: str) -> list[str]:
    try:
        return asked(pod, server, name, seconds=0.5)
    except TimeoutError:
        return ["nobody"]


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_allow_dns_is_the_networks_resolver(host: Host, lab: Lab, conf: dict[str, Any], chained: bool, family: int):
    conf |= {"names": {}}
    other = conf | {
        "name": "other",
        "bridge": "br1",
        "ipam": {"ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]},
    }
    web, asking, shut, stranger = (lab.pod() for _ in range(4))
    host.add(conf, web, CNI_ARGS=NAMED.format("web"))
    host.add(other, stranger, CNI_ARGS=NAMED.format("web"))
    open_to_dns, nothing = {"defaultDeny": True, "allowDNS": True}, {"defaultDeny": True}
    for pod, policy in ((asking, open_to_dns), (shut, nothing)):
        if chained:
            result = host.add(conf, pod, CNI_ARGS=NAMED.format(pod.name))
            later = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "policy": policy}
            host.add(later | {"prevResult": result}, pod, CNI_ARGS=NAMED.format(pod.name))
        else:
            host.add(conf | {"policy": policy}, pod, CNI_ARGS=NAMED.format(pod.name))
    own, theirs = ("10.1.0.1", "10.2.0.1") if family == 4 else ("fd00:1::1", "fd00:2::1")
    with Names(host):
        assert eventually(lambda: answer(web, own, "web") == ["10.1.0.2"])
        assert eventually(lambda: answer(stranger, theirs, "web") == ["10.2.0.2"])
        assert answer(asking, own, "web") == ["10.1.0.2"]
        assert answer(shut, own, "web") == ["nobody"]
        assert answer(asking, theirs, "web") == ["nobody"]
        assert answer(web, theirs, "web") == ["nobody"]
