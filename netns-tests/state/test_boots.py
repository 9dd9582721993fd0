"""A `dataDir` on a disk outlives the boot, as host-local's users have it; pods and what was in the kernel do not."""

from __future__ import annotations

import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, BIN_DIR, Lab, Pod, environment

SMALL = {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.4"}


class Booted:
    """A node after a boot: what runs there reads another boot_id."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.host, self.file = lab.host(), folder / f"boot-{uuid.uuid4()}"
        self.file.write_text(f"{uuid.uuid4()}\n")

    def run(self, *argv: object, **options: Any) -> str:
        script = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
        return self.host.run("unshare", "--mount", "sh", "-c", script, self.file, *argv, **options).stdout

    def cni(self, verb: str, conf: dict[str, Any], pod: Pod, path: str = str(BIN_DIR)) -> dict[str, Any]:
        env = environment(verb, pod) | {"AGENT_CNI_SOCKET": "", "CNI_PATH": path}
        return json.loads(self.run(BIN_DIR / conf["type"], input=json.dumps(conf), env=env) or "{}")

    def shown(self) -> list[str]:
        attachments = json.loads(self.run(AGENT_CNI, "show", "--json"))["attachments"]
        return [item["container"] for item in attachments]


@pytest.mark.tried("a dataDir on a disk, a full range, a boot", "every address is free, what is sticky comes back")
def test_addresses_do_not_leak_over_boots(lab: Lab, tmp_path: Path, conf: dict[str, Any]):
    sent = conf | {"dataDir": str(tmp_path / "state"), "ipMasq": False, "policy": {"ingress": []}, "ipam": SMALL}
    for _ in range(3):
        node, pods = Booted(lab, tmp_path), [lab.pod() for _ in range(3)]
        given = [node.cni("ADD", sent, pod)["ips"][0]["address"] for pod in pods]
        assert sorted(given) == ["10.1.0.2/24", "10.1.0.3/24", "10.1.0.4/24"]
        assert node.shown() == sorted(pod.container for pod in pods)
        last = pods
        for pod in pods:
            pod.delete()
    node, pod = Booted(lab, tmp_path), lab.pod()
    assert node.shown() == []
    node.cni("DEL", sent, last[0])
    node.cni("ADD", sent, pod)
    node.cni("DEL", sent, pod)
    assert node.shown() == []
    assert "agent_cni" not in node.host.run("nft", "list", "tables").stdout


def test_who_gave_an_address_is_told_after_the_boot(lab: Lab, tmp_path: Path, conf: dict[str, Any]):
    script = tmp_path / "giver"
    answer = json.dumps({"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]})
    script.write_text(f"#!/bin/sh\necho $CNI_COMMAND $CNI_CONTAINERID >>{tmp_path}/told\necho '{answer}'\n")
    script.chmod(0o755)
    sent = conf | {"dataDir": str(tmp_path / "state"), "ipMasq": False, "ipam": {"type": "giver"}}
    pods = [lab.pod() for _ in range(3)]
    node = Booted(lab, tmp_path)
    for pod in pods[:2]:
        node.cni("ADD", sent, pod, str(tmp_path))
        pod.delete()
    node = Booted(lab, tmp_path)
    node.cni("ADD", sent, pods[2], str(tmp_path))
    with sqlite3.connect(tmp_path / "state/state.db") as db:
        assert {row[0] for row in db.execute("SELECT container FROM uses")} == {pods[2].container}
    node.cni("DEL", sent, pods[0], str(tmp_path))
    node.run(AGENT_CNI, "gc", "--cni-path", tmp_path)
    told = (tmp_path / "told").read_text().splitlines()
    assert [line for line in told if line.startswith("DEL")] == [f"DEL {pod.container}" for pod in pods[:2]]
    assert node.shown() == [pods[2].container]
    node.cni("DEL", sent, pods[2], str(tmp_path))
