"""A foreign IPAM in the story: told in time, told again when something fails, faked at the process door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_subprocess import FakeProcess

from cni.errors import Delegated, KernelRefused, ToolFailed

ANSWER = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}


@pytest.fixture
def told(fp: FakeProcess, tmp_path: Path, run: Any) -> list[str]:
    """The verbs a delegate called host-local was told; it answers ADD with one address."""
    executable = tmp_path / "host-local"
    executable.touch(0o755)
    heard: list[str] = []

    def answer(process: Any) -> None:
        verb = process.kwargs["env"]["CNI_COMMAND"]
        heard.append(verb)
        process.stdout.write(json.dumps(ANSWER) if verb == "ADD" else "")
        process.stdout.seek(0)

    fp.register([str(executable)], callback=answer, stdout="", occurrences=20)
    run.conf["ipam"] = {"type": "host-local"}
    run.path = (str(tmp_path),)
    return heard


def test_each_verb_reaches_the_delegate_once(run: Any, told: list[str]):
    result = run("ADD")
    assert result["ips"] == [{"address": "10.9.0.2/24"}]
    run("CHECK", prevResult=result)
    run("STATUS")
    run("GC", **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    run("DEL")
    assert told == ["ADD", "CHECK", "STATUS", "GC", "DEL"]


def test_a_failed_add_releases_what_the_delegate_gave(run: Any, told: list[str], remembered: Any):
    run.faults["ensure last"] = KernelRefused("no")
    with pytest.raises(KernelRefused):
        run("ADD")
    assert told == ["ADD", "DEL"]
    assert remembered() == ([], [])


def test_a_del_without_a_record_still_tells_the_delegate(run: Any, told: list[str]):
    run("DEL")
    assert told == ["DEL"]


def test_gc_tells_the_delegate_of_each_it_detaches(run: Any, told: list[str], remembered: Any):
    run("ADD")
    run("GC", **{"cni.dev/valid-attachments": []})
    assert told == ["ADD", "DEL", "GC"]
    assert remembered() == ([], [])


def test_a_delegate_that_fails_to_release_keeps_the_record_for_the_next_del(
    run: Any, told: list[str], remembered: Any, fp: FakeProcess, tmp_path: Path
):
    run("ADD")
    (tmp_path / "host-local").chmod(0o644)
    with pytest.raises(ToolFailed, match="is not in CNI_PATH"):
        run("DEL")
    assert remembered()[0] == ["c1"]
    (tmp_path / "host-local").chmod(0o755)
    run("DEL")
    assert remembered() == ([], [])


def test_a_delegates_refusal_ends_the_add_with_its_code(run: Any, fp: FakeProcess, tmp_path: Path):
    (tmp_path / "dhcp").touch(0o755)
    refusal = json.dumps({"code": 11, "msg": "no server answered"})
    fp.register([str(tmp_path / "dhcp")], stdout=refusal, returncode=1, occurrences=2)
    run.path = (str(tmp_path),)
    with pytest.raises(Delegated, match="no server answered") as caught:
        run("ADD", ipam={"type": "dhcp"})
    assert caught.value.code == 11
    assert run.notes == []
