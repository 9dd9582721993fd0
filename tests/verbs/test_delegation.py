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


def test_the_link_is_there_and_recorded_when_the_delegate_is_asked(run: Any, told: list[str], remembered: Any):
    seen: list[Any] = []
    run.midst["ensure last"] = lambda: seen.append((list(told), remembered()[0]))
    run.midst["ensure veth-c1"] = lambda: seen.append((list(told), remembered()[0]))
    run("ADD")
    assert seen == [([], ["c1"]), (["ADD"], ["c1"])]
    assert run.notes == ["ensure bridge", "ensure veth-c1", "ensure rules", "ensure last"]


def test_a_link_that_cannot_be_made_asks_the_delegate_for_nothing(run: Any, told: list[str], remembered: Any):
    run.faults["ensure veth-c1"] = KernelRefused("no")
    with pytest.raises(KernelRefused):
        run("ADD")
    assert "ADD" not in told
    assert remembered() == ([], [])


@pytest.mark.parametrize(("kind", "first"), [("host-local", "remove last"), ("dhcp", "DEL")])
def test_who_speaks_on_the_link_releases_while_it_is_there(
    run: Any, told: list[str], fp: FakeProcess, tmp_path: Path, kind: str, first: str
):
    (tmp_path / "dhcp").touch(0o755)

    def answer(process: Any) -> None:
        verb = process.kwargs["env"]["CNI_COMMAND"]
        run.notes.append(verb)
        process.stdout.write(json.dumps(ANSWER) if verb == "ADD" else "")
        process.stdout.seek(0)

    for name in ("dhcp", "host-local"):
        fp.register([str(tmp_path / name)], callback=answer, stdout="", occurrences=20)
    run.conf["ipam"] = {"type": kind}
    run("ADD")
    run.notes.clear()
    run("DEL")
    assert run.notes[0] == first
    assert "remove veth-c1" in run.notes


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


def test_a_delegates_refusal_ends_the_add_with_its_code(run: Any, remembered: Any, fp: FakeProcess, tmp_path: Path):
    (tmp_path / "dhcp").touch(0o755)
    refusal = json.dumps({"code": 11, "msg": "no server answered"})
    fp.register([str(tmp_path / "dhcp")], stdout=refusal, returncode=1, occurrences=2)
    run.path = (str(tmp_path),)
    with pytest.raises(Delegated, match="no server answered") as caught:
        run("ADD", ipam={"type": "dhcp"})
    assert caught.value.code == 11
    assert run.existing == set()
    assert remembered()[0] == ["c1"], "it did not release either"
