"""What a report of a fault needs, in one file, and nothing of what is nobody's business."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni.agent import settings
from cni.command.doctor import attached, bundle
from cni.state import Record

PLANTED = "s3cr3tV4lue"
PEM = f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("fails", [False, True], ids=["as it is", "without answers of the kernel"])
def test_secrets_that_stand_everywhere_stand_in_none_of_it(
    agent: Any,
    attach: Callable[..., Record],
    folder: Path,
    tmp_path: Path,
    log_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
):
    """In configurations, this host's cluster and agent, logs, records, findings, and what programs print."""
    monkeypatch.setattr(attached.verbs, "check", lambda *_, **__: None)
    said = f'table inet x comment "token={PLANTED}"\npeer https://root:{PLANTED}@h/'
    (tmp_path / "net.d").mkdir()
    conf = {
        "cniVersion": "1.0.0",
        "name": "x",
        "type": "other",
        "password": PLANTED,
        "args": {"cni": {"apiToken": PLANTED}},
    }
    (tmp_path / "net.d/10-x.conf").write_text(json.dumps(conf | {"url": f"https://u:{PLANTED}@registry"}))
    (tmp_path / "net.d/20-cut.conf").write_text(f'{{"name": "y", "token": "{PLANTED}')
    store = {"etcd": {"endpoints": [f"https://root:{PLANTED}@etcd:2379"], "password": PLANTED, "key": PEM}}
    (tmp_path / "cluster.json").write_text(json.dumps(store))
    (tmp_path / "agent.json").write_text(json.dumps({"otlp": {"endpoint": "https://c", "headers": {"x": PLANTED}}}))
    monkeypatch.setattr(settings, "PATH", tmp_path / "agent.json")
    log_folder.mkdir()
    line = {"container": "c1", "error": f"403 for Bearer {PLANTED}", "details": PEM, "args": f"A=b;MY_TOKEN={PLANTED}"}
    (log_folder / "bridge-vxlan.log").write_text(json.dumps(line) + f"\nTraceback: https://u:{PLANTED}@h/\n")
    attach("c1", "10.1.0.2", token=PLANTED, runtimeConfig={"io.kubernetes.cri.pod-annotations": {"secret": PLANTED}})
    monkeypatch.setattr(bundle, "_answered", lambda argv: (_ for _ in ()).throw(OSError(said)) if fails else said)
    file = tmp_path / "report.tar.gz"
    file.write_text("")
    file.chmod(0o644)
    words = ("--data-dir", folder, "--conf-dir", tmp_path / "net.d", "--config", tmp_path / "cluster.json", "--socket", tmp_path / "s")  # fmt: skip
    told = agent("doctor", "--bundle", file, *words).out
    assert f"{file} has all of it, without keys, tokens and passwords" in told
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        content = {name.partition("/")[2]: archive.extractfile(name).read().decode() for name in archive.getnames()}  # type: ignore[union-attr]
    assert {
        "about.json",
        "doctor.json",
        "attachments.json",
        "leases.json",
        "files/10-x.conf",
        "files/20-cut.conf",
    } <= content.keys()
    assert {"files/cluster.json", "files/agent.json", "logs/bridge-vxlan.log", "kernel/nftables.txt"} <= content.keys()
    assert [name for name, text in content.items() if PLANTED in text] == []
    assert "default/web" in content["attachments.json"]
    assert json.loads(content["doctor.json"]).keys() >= {"programs", "attachments"}


def test_a_bundle_that_cannot_be_written_is_one_line(agent: Any, tmp_path: Path, folder: Path):
    folder.mkdir(mode=0o700)
    said = agent("doctor", "--bundle", tmp_path / "no/where", "--data-dir", folder, "--conf-dir", tmp_path, "--socket", tmp_path / "s")  # fmt: skip
    assert (said.status, len(said.err.splitlines())) == (1, 1)
