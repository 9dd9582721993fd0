"""agent-cni as an operator meets it: what it prints, where, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni import verbs
from cni.errors import TryAgainLater
from cni.state import Record, Store

PLUGIN = {"type": "bridge-vxlan", "ipam": {"subnet": "10.1.0.0/24"}}
CONFLIST = {"cniVersion": "1.0.0", "name": "pods", "plugins": [PLUGIN]}


def test_a_valid_list_is_ok_plugin_by_plugin(agent: Any, write: Any):
    file = write(CONFLIST | {"plugins": [PLUGIN, {"type": "portmap"}]})
    said = agent("validate", file)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines() == [
        f"{file}: $.plugins[0]: bridge-vxlan: ok",
        f"{file}: $.plugins[1]: portmap: not a plugin of this suite; not judged",
    ]


def test_a_single_configuration_is_judged_too(agent: Any, write: Any):
    file = write({"cniVersion": "1.0.0", "name": "pods"} | PLUGIN)
    said = agent("validate", file)
    assert (said.status, said.out, said.err) == (0, f"{file}: $: bridge-vxlan: ok\n", "")


def test_every_fault_of_every_plugin_is_a_line(agent: Any, write: Any):
    wrong = {"type": "bridge-vxlan", "mtu": "big", "isGatewy": True}
    file = write(CONFLIST | {"plugins": [wrong, PLUGIN, PLUGIN | {"mtu": 5}]})
    said = agent("validate", file)
    assert said.status == 1
    assert said.out == f"{file}: $.plugins[1]: bridge-vxlan: ok\n"
    assert [line.split(": ")[1:3] for line in said.err.splitlines()] == [
        ["$.plugins[0]", "$.isGatewy"],
        ["$.plugins[0]", "$.mtu"],
        ["$.plugins[2]", "$.mtu"],
    ]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"plugins": 5, "name": "pods"},
        {"plugins": [5], "name": "pods"},
        {"plugins": [], "name": "pods", "cniVersion": "1.0.0"},
        CONFLIST | {"name": None},
        CONFLIST | {"name": "a/b"},
        CONFLIST | {"cniVersion": "9.9.9"},
        CONFLIST | {"cniVersion": 1},
        CONFLIST | {"cniVersions": 5},
        CONFLIST | {"plugins": [PLUGIN | {"runtimeConfig": {"ipRanges": [[{"subnet": "here"}]]}}]},
        CONFLIST | {"plugins": [PLUGIN | {"ipam": {"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.1"}}]},
    ],
    ids=[
        *("no JSON", "no object", "no list of plugins", "no plugin", "empty list", "no name", "wrong name"),
        *("unknown version", "no version", "no list of versions"),
        *("wrong runtimeConfig", "nothing to give"),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "explain"])
def test_a_wrong_file_is_one_line_and_no_traceback(agent: Any, write: Any, verb: str, content: Any):
    said = agent(verb, write(content))
    assert said.status == 1
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["validate", "explain"])
@pytest.mark.parametrize("name", ["absent", "."], ids=["absent", "a folder"])
def test_a_file_that_cannot_be_read_is_one_line(agent: Any, tmp_path: Path, verb: str, name: str):
    said = agent(verb, tmp_path / name)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith(f"agent-cni: {tmp_path}")
    assert len(said.err.splitlines()) == 1


def test_the_highest_version_both_know_is_chosen_as_libcni_does(agent: Any, write: Any):
    said = agent("explain", write(CONFLIST | {"cniVersion": "0.4.0", "cniVersions": ["0.4.0", "1.0.0", "9.9.9"]}))
    assert '"cniVersion": "1.0.0"' in said.out


def test_explaining_foreign_plugins_says_so(agent: Any, write: Any):
    said = agent("explain", write(CONFLIST | {"plugins": [{"type": "portmap"}]}))
    assert (said.status, said.out) == (0, "portmap ($.plugins[0]): not a plugin of this suite\n")


def test_explaining_asks_the_kernel_nothing(agent: Any, write: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cni.resources.World.__init__", lambda *_: pytest.fail("a world was opened"))
    monkeypatch.setattr("cni.kernel.process.run", lambda *_: pytest.fail("a program was run"))
    assert agent("explain", write(CONFLIST | {"plugins": [PLUGIN | {"ipMasq": True}]})).status == 0


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["validate"], ["show", "--colour"]], ids=["nothing", "nonsense", "no file", "no option"]
)
def test_wrong_usage_is_exit_code_2(agent: Any, argv: list[str]):
    said = agent(*argv)
    assert said.status == 2
    assert said.err.startswith("usage: agent-cni")


def test_verbose_says_all_there_is(agent: Any, write: Any):
    file = write("{")
    plain, verbose = agent("validate", file), agent("validate", "-v", file)
    assert plain.err.count("\n") == 1
    assert verbose.err.startswith(plain.err)
    assert "DecodingFailure, code 6" in verbose.err
    assert "config.py:" in verbose.err


def test_a_bug_is_one_line_and_where_it_was_only_if_asked(agent: Any, write: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cni.command.files.plugins_of", lambda file: 1 / 0)
    assert (
        agent("validate", write("")).err == "agent-cni: a bug, please report it: ZeroDivisionError: division by zero\n"
    )
    assert "test_command.py:" in agent("validate", "-v", write("")).err


def test_help_names_every_command(agent: Any):
    said = agent("--help")
    assert said.status == 0
    assert {"validate", "explain", "show", "gc"} <= set(said.out.split())


def test_nothing_to_show(agent: Any, folder: Path):
    said = agent("show", "--data-dir", folder)
    assert (said.status, said.out) == (0, "no attachments\nno leases\nno bridges\nno VTEPs\nno rules\n")
    assert not folder.exists()


def test_attachments_and_leases_are_shown_as_tables(agent: Any, folder: Path, attach: Callable[..., Record]):
    attach("c1", "10.1.0.2")
    attach("c2", "10.1.0.3", alive=False)
    attach("c3", "10.1.0.4", complete=False)
    said = agent("show", "--data-dir", folder)
    assert (said.status, said.err) == (0, "")
    assert [line.split() for line in said.out.splitlines()] == [
        ["network", "container", "ifname", "plugin", "state", "addresses", "pod"],
        ["pods", "c1", "eth0", "bridge-vxlan", "attached", "10.1.0.2/24", "default/web"],
        ["pods", "c2", "eth0", "bridge-vxlan", "stale", "10.1.0.3/24", "default/web"],
        ["pods", "c3", "eth0", "bridge-vxlan", "incomplete", "default/web"],
        [],
        ["network", "address", "container", "ifname"],
        ["pods", "10.1.0.2", "c1", "eth0"],
        ["pods", "10.1.0.3", "c2", "eth0"],
        ["pods", "10.1.0.4", "c3", "eth0"],
        [],
        ["no", "bridges"],
        ["no", "VTEPs"],
        ["no", "rules"],
    ]


def test_attachments_and_leases_are_shown_as_json(agent: Any, folder: Path, attach: Callable[..., Record]):
    record = attach("c1", "10.1.0.2")
    shown = json.loads(agent("show", "--json", "--data-dir", folder).out)
    assert shown["attachments"] == [
        {
            "network": "pods",
            "container": "c1",
            "ifname": "eth0",
            "plugin": "bridge-vxlan",
            "state": "attached",
            "addresses": ["10.1.0.2/24"],
            "pod": "default/web",
            "netns": record.netns,
        }
    ]
    assert shown["leases"] == [
        {"address": "10.1.0.2", "network": "pods", "container": "c1", "ifname": "eth0", "plugin": "bridge-vxlan"}
    ]


def test_a_damaged_state_file_is_one_line(agent: Any, folder: Path):
    folder.mkdir()
    (folder / "state.db").write_bytes(b"nonsense" * 1000)
    for verb in ("show", "gc"):
        said = agent(verb, "--data-dir", folder)
        assert said.status == 1
        assert said.err.startswith("agent-cni: the state in ")
        assert len(said.err.splitlines()) == 1


def test_gc_removes_what_has_no_namespace_any_more(agent: Any, folder: Path, attach: Callable[..., Record]):
    kept = attach("c1", "10.1.0.2")
    attach("c2", "10.1.0.3", alive=False)
    said = agent("gc", "--data-dir", folder)
    assert (said.status, said.out, said.err) == (0, "removed 1 of 1 stale attachments\n", "")
    store = Store.reading(folder)
    assert store.records() == [kept]
    assert [str(address) for address, *_ in store.all_leases()] == ["10.1.0.2"]
    store.close()


def test_refresh_without_state_makes_none(agent: Any, folder: Path):
    assert agent("refresh", "--data-dir", folder).out == "changed 0 of 0 attachments with a policyDir\n"
    assert not folder.exists()


def test_refresh_leaves_attachments_that_no_folder_feeds(agent: Any, folder: Path, attach: Callable[..., Record]):
    attach("c1", "10.1.0.2")
    said = agent("refresh", "--data-dir", folder)
    assert (said.status, said.out, said.err) == (0, "changed 0 of 0 attachments with a policyDir\n", "")


def test_gc_without_state_makes_none(agent: Any, folder: Path):
    assert agent("gc", "--data-dir", folder).out == "removed 0 of 0 stale attachments\n"
    assert not folder.exists()


def test_gc_does_not_count_what_another_call_holds(
    agent: Any, folder: Path, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
):
    attach("c1", "10.1.0.2", alive=False)

    def busy(*_: object, **__: object) -> None:
        raise TryAgainLater("another call holds it")

    monkeypatch.setattr(verbs, "opened", busy)
    said = agent("gc", "--data-dir", folder)
    assert said.out == "removed 0 of 1 stale attachments\n"


def test_gc_survives_a_record_of_a_plugin_that_is_gone(agent: Any, folder: Path, attach: Callable[..., Record]):
    record = attach("c1", "10.1.0.2", alive=False)
    store = Store.open(folder)
    with store.transaction():
        store.forget(record.attachment, record.plugin)
        store.put(record.having(plugin="gone"))
    store.close()
    said = agent("gc", "--data-dir", folder)
    assert said.status == 1
    assert len(said.err.splitlines()) == 1
