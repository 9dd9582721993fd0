from __future__ import annotations

import os

import pytest
from lab import Host, Lab, Pod


def pytest_sessionstart(session: pytest.Session) -> None:
    """These tests change links and rules: refuse to do so in the machine's own namespaces."""
    if "AGENT_CNI_ISOLATED" not in os.environ:
        pytest.exit("run these as `tools/isolated .venv/bin/python3 -m pytest netns-tests`", 2)


@pytest.fixture
def lab():
    made = Lab()
    yield made
    made.close()


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host()


@pytest.fixture
def pod(lab: Lab) -> Pod:
    return lab.pod()
