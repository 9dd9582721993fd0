"""agent-cni as an operator calls it, and a state to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cni.command.main import main
from cni.kernel.netns import home_identity, whereabouts
from cni.naming import Attachment
from cni.state import Record, Store

Agent = Callable[..., SimpleNamespace]
Write = Callable[[Any], Path]


@pytest.fixture
def agent(capsys: pytest.CaptureFixture[str]) -> Agent:
    """Run agent-cni with arguments: its exit status, what it printed and what it complained."""

    def run(*argv: object) -> SimpleNamespace:
        try:
            status = main([str(arg) for arg in argv])
        except SystemExit as exited:
            status = exited.code
        return SimpleNamespace(status=status, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(content: Any) -> Path:
        single = isinstance(content, dict) and "type" in content
        file = tmp_path / ("it.conf" if single else "it.conflist")
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return written


@pytest.fixture
def attach(folder: Path, tmp_path: Path) -> Callable[..., Record]:
    """Record an attachment; `alive` means that its namespace exists, and any will do."""

    def attached(container: str, address: str, *, alive: bool = True, complete: bool = True, **keys: Any) -> Record:
        netns = tmp_path / f"netns-{container}"
        if alive:
            netns.symlink_to("/proc/self/ns/net")
        conf = {"name": "pods", "dataDir": str(folder)} | keys
        result = {"ips": [{"address": f"{address}/24"}]} if complete else None
        who = Attachment("pods", container, "eth0")
        gone = home_identity().partition(":")[0] + ":0"
        seen = {"netns_id": home_identity() if alive else gone, "home": whereabouts()}
        record = Record(who, "bridge-vxlan", str(netns), "default/web", conf, (), result, complete, **seen)
        store = Store.open(folder)
        with store.transaction():
            store.put(record)
            store.lease(who, record.plugin, ip_address(address))
        store.close()
        return record

    return attached
