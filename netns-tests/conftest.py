from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Collection, Iterator

import pytest
from agents import Agent, serving
from lab import PATIENCE, Host, Lab, Pod, Site, eventually
from order import WHOLE, dealt, sampled
from warm import MODE, Transcript, stop


def pytest_sessionstart(session: pytest.Session) -> None:
    """These tests change links and rules: refuse to do so in the machine's own namespaces."""
    if "AGENT_CNI_ISOLATED" not in os.environ:
        pytest.exit("run these as `tools/isolated .venv/bin/python3 -m pytest netns-tests`", 2)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With node agents only what meets one: the rest would be the cold run once more. Unless all is wanted, of a test's parameters so many at
    most as it says, and with node agents two. What takes long begins first.
    """
    chosen = [item for item in items if MODE == "cold" or meets_agent(item.fixturenames)]
    if not WHOLE:
        chosen = sampled(chosen, lambda item: item.nodeid.split("[")[0], most)
    config.hook.pytest_deselected(items=[*set(items) - set(chosen)])
    items[:] = chosen
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = dealt(items, lambda item: item.get_closest_marker("long") is not None, workers)


def most(item: pytest.Item) -> int:
    """So many of its parameters are tried."""
    sweep = item.get_closest_marker("sweep")
    return 2 if MODE == "warm" else sweep.kwargs.get("most", sys.maxsize) if sweep else sys.maxsize


def meets_agent(fixtures: Collection[str]) -> bool:
    """Without a lab there is no host that makes a call, and of `node` the agent was stopped."""
    return "node" not in fixtures and not {"lab", "scene"}.isdisjoint(fixtures)


@pytest.fixture
def lab(request: pytest.FixtureRequest):
    once = any(request.node.get_closest_marker(name) for name in ("sweep", "long"))
    compared = not once and meets_agent(request.fixturenames)
    made = Lab(request.node.nodeid, Transcript(request.node.nodeid) if compared else None)
    yield made
    made.close()


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host()


@pytest.fixture
def pod(lab: Lab) -> Pod:
    return lab.pod()


@pytest.fixture
def node(host: Host) -> Host:
    """A host without an agent of the test run's; nothing may be left on it."""
    if host.agent:
        stop(host.agent)
        host.agent = 0
    return host


@pytest.fixture
def agent(node: Host) -> Iterator[Agent]:
    made = serving(node)
    yield made
    made.send(signal.SIGCONT)
    made.process.terminate()
    made.process.communicate(timeout=PATIENCE)


CONF = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge-vxlan",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipMasqBackend": "nftables",
    "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}


@pytest.fixture
def conf() -> dict:
    """A dual-stack bridge with everything on; tests change what they are about."""
    return copy.deepcopy(CONF)


@pytest.fixture
def settled(lab: Lab, conf: dict) -> Iterator[Host]:
    """A host that had a pod before, so the shared bridge is there; it must end as it began."""
    host, first = lab.host(), lab.pod()
    host.add(conf, first)
    host.delete_pod(conf, first)
    before = host.snapshot()
    assert before["rules"] == ""
    yield host
    assert host.snapshot() == before


@pytest.fixture
def net() -> dict:
    """A macvlan network on the wire of `site`; tests change what they are about."""
    span = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
    return {"cniVersion": "1.1.0", "name": "physical", "type": "macvlan", "master": "eth0", "ipam": span}


@pytest.fixture
def dual(net: dict) -> dict:
    """The same with IPv4 and IPv6 addresses."""
    six = {"subnet": "fd00:2::/64", "rangeStart": "fd00:2::100", "rangeEnd": "fd00:2::199"}
    return net | {"ipam": {"ranges": [[net["ipam"]], [six]]}}


@pytest.fixture
def site(lab: Lab) -> Iterator[Site]:
    """A node on a physical network; nothing may be left on it."""
    made = lab.site()
    before = made.host.snapshot()
    yield made
    eventually(lambda: made.host.snapshot() == before)  # the kernel forgets a namespace's links in its own time
    assert made.host.snapshot() == before
