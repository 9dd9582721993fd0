"""agent-cni as an operator meets it: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni import verbs
from cni.conflist.file import judgement
from cni.errors import TryAgainLater
from cni.state import Record, Store

PLUGIN = {"type": "bridge-vxlan", "ipam": {"subnet": "10.1.0.0/24"}}
CONFLIST = {"cniVersion": "1.0.0", "name": "pods", "plugins": [PLUGIN]}


@pytest.mark.parametrize("verb", ["validate", "explain"])
def test_a_file_that_does_not_end_is_refused(agent: Any, verb: str):
    said = agent(verb, "/dev/zero")
    assert (said.status, said.err) == (1, "agent-cni: /dev/zero: File too large\n")


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


def test_several_files_are_judged_one_by_one(agent: Any, write: Any, tmp_path: Path):
    good, bad, gone = tmp_path / "good.conflist", tmp_path / "bad.conflist", tmp_path / "gone.conflist"
    good.write_text(json.dumps(CONFLIST))
    bad.write_text("{")
    said = agent("validate", bad, gone, good)
    assert (said.status, said.out) == (1, f"{good}: $.plugins[0]: bridge-vxlan: ok\n")
    assert [line.partition(": ")[2].split(":")[0] for line in said.err.splitlines()] == [str(bad), str(gone)]
    assert agent("validate", good, good).status == 0
    assert agent("validate", "--json", good, good).out == 2 * agent("validate", "--json", good).out
    explained = agent("explain", good).out
    assert agent("explain", good, good).out == 2 * f"{good}:\n{explained}"


@pytest.mark.parametrize(
    ("keys", "guessed"), [({}, True), ({"mtu": 1400}, False), ({"vxlan": {"id": 1, "mtu": 1400}}, False)]
)
def test_explaining_says_that_an_mtu_is_guessed(agent: Any, write: Any, keys: dict[str, Any], guessed: bool):
    file = write(CONFLIST | {"plugins": [PLUGIN | keys]})
    assert ("  assumed: the uplink has an MTU of 1500\n" in agent("explain", file).out) == guessed
    assert json.loads(agent("explain", "--json", file).out)["plugins"][0]["uplinkMTU"] == (1500 if guessed else None)


def test_what_a_right_policy_says_for_nothing_is_a_line_and_no_fault(agent: Any, write: Any):
    policy = {"egress": [{"to": [{"domainNames": ["a.b"]}]}, {}]}
    file = write({"cniVersion": "1.0.0", "name": "n", "type": "custom-plugin", "policy": policy})
    said = agent("validate", file)
    assert said.status == 0
    assert said.out == f"{file}: $: custom-plugin: ok\n"
    assert said.err.startswith(f"{file}: $: $.policy.egress[0]: domainNames do nothing")
    (found,) = json.loads(agent("validate", "--json", file).out)["plugins"]
    assert (found["faults"], len(found["hints"])) == ([], 1)


def test_every_fault_of_every_plugin_is_a_line(agent: Any, write: Any):
    wrong = {"type": "bridge-vxlan", "mtu": "big", "isGatewy": True}
    redirect = {"type": "sidecar-redirect", "port": 15001}
    file = write(CONFLIST | {"plugins": [wrong, redirect, PLUGIN | {"mtu": 5}]})
    said = agent("validate", file)
    assert said.status == 1
    assert said.out == f"{file}: $.plugins[1]: sidecar-redirect: ok\n"
    assert [line.split(": ")[1:3] for line in said.err.splitlines()] == [
        ["$.plugins[0]", "$.isGatewy"],
        ["$.plugins[0]", "$.mtu"],
        ["$.plugins[2]", "$.mtu"],
    ]


@pytest.mark.parametrize("name", ["cluster.json", "draft"])
def test_how_a_host_is_in_a_cluster_is_judged_too(agent: Any, tmp_path: Path, name: str):
    file = tmp_path / name
    file.write_text(json.dumps({"etcd": {"endpoints": ["https://192.0.2.1:2379"]}}))
    said = agent("validate", file)
    assert (said.status, said.out, said.err) == (0, f"{file}: ok, by it a host is in a cluster\n", "")
    assert json.loads(agent("validate", "--json", file).out) == {"file": str(file), "cluster": {"faults": []}}
    file.write_text(json.dumps({"etcd": {"endpoint": "https://192.0.2.1:2379"}, "vtep": "me"}))
    said = agent("validate", file)
    assert (said.status, said.out) == (1, "")
    assert [line.split(": ")[1] for line in said.err.splitlines()] == ["$.etcd", "$.etcd.endpoint", "$.vtep"]
    assert len(json.loads(agent("validate", "--json", file).out)["cluster"]["faults"]) == 3


def test_what_the_node_agent_is_told_is_judged_too(agent: Any, tmp_path: Path):
    file = tmp_path / "agent.json"
    file.write_text(json.dumps({"otlp": {"endpoint": "http://127.0.0.1:4318"}}))
    said = agent("validate", file)
    assert (said.status, said.out, said.err) == (0, f"{file}: ok, by it the node agent runs\n", "")
    file.write_text(json.dumps({"otlp": {"endpoints": "http://127.0.0.1:4318"}}))
    said = agent("validate", file)
    assert (said.status, said.out) == (1, "")
    assert [line.split(": ")[1] for line in said.err.splitlines()] == ["$.otlp", "$.otlp.endpoints"]
    assert len(json.loads(agent("validate", "--json", file).out)["agent"]["faults"]) == 2


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": ""}, '$.type: "" is no name of a plugin'),
        ({"type": 5}, "$.type: 5 is no name of a plugin"),
        (
            {"type": "none"},
            "$.type: 'none' is one of Docker's drivers and no plugin (a pod with nothing but loopback has no configuration: its runtime calls no plugin)",
        ),
        (
            {"type": "bridge-vxlann"},
            "$.type: 'bridge-vxlann' is no plugin of this suite (did you mean 'bridge-vxlan'?)",
        ),
        (
            {"plugins": [PLUGIN, {"mtu": 5}]},
            "$.plugins[1]: $.type: missing: it is the name of a plugin's executable, such as bridge-vxlan",
        ),
        ({"pluginss": [PLUGIN]}, "$.pluginss: unknown key (did you mean 'plugins'?)"),
        ({"plugins": [PLUGIN], "disableChek": True}, "$.disableChek: unknown key (did you mean 'disableCheck'?)"),
        ({}, "$: a .conflist needs a list of plugins"),
        (
            {"type": "macvlan", "plugins": [PLUGIN]},
            "$.plugins: runtimes read a .conf as one plugin; a list is a .conflist",
        ),
        ({"plugins": [PLUGIN], "name": "a/b"}, "$.name: 'a/b' must be letters, digits, '_', '.', '-'"),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "explain"])
def test_a_file_that_names_no_plugin_is_wrong(agent: Any, write: Any, verb: str, content: Any, said: str):
    answer = agent(verb, write({"cniVersion": "1.0.0", "name": "pods"} | content))
    assert answer.status == 1
    assert answer.err.rstrip().endswith(said.rpartition("]: ")[2])


def test_a_foreign_plugins_address_giver_is_judged_if_it_is_ours(agent: Any, write: Any):
    bridge = {"type": "bridge", "ipam": {"type": "agent-ipam", "subnet": "10.1.0.0/99"}}
    said = agent("validate", write(CONFLIST | {"plugins": [bridge]}))
    assert (said.status, "$.ipam.subnet" in said.err) == (1, True)
    bridge["ipam"]["subnet"] = "10.1.0.0/24"
    said = agent("validate", write(CONFLIST | {"plugins": [bridge]}))
    assert said.out.endswith(": bridge: not a plugin of this suite; its ipam is ok, the rest not judged\n")
    said = agent("validate", write(CONFLIST | {"plugins": [PLUGIN | {"ipam": {"type": "host-local"}}]}))
    assert said.out.endswith(": bridge-vxlan: ok; its ipam, host-local, is not judged\n")


@pytest.mark.parametrize("kind", ["bridge", "bridge-vxlan"])
def test_a_misspelt_address_giver_is_a_fault(agent: Any, write: Any, kind: str):
    section = {"type": "agent-ipm", "subnet": "10.1.0.0/24"}
    said = agent("validate", write(CONFLIST | {"plugins": [{"type": kind, "ipam": section}]}))
    assert (said.status, said.err.strip().rpartition(": ")[2]) == (1, "'agent-ipm' (did you mean 'agent-ipam'?)")


@pytest.mark.parametrize(
    ("plugins", "said"),
    [
        (
            [{"type": "sidecar-redirect", "port": 15001}, PLUGIN],
            "sidecar-redirect follows a plugin that makes an interface",
        ),
        ([PLUGIN, PLUGIN], "bridge-vxlan makes an interface, which the first plugin of a list does"),
        ([{"type": "bridge"}, {"type": "macvlan", "master": "eth0"}], "macvlan makes an interface"),
        ([{"type": "loopback"}, PLUGIN, PLUGIN], "plugins[2]: $.type: bridge-vxlan makes an interface"),
        ([{"type": "loopback"}, {"type": "sidecar-redirect"}], "sidecar-redirect follows a plugin that makes"),
    ],
)
def test_plugins_in_an_impossible_order_are_a_fault(agent: Any, write: Any, plugins: Any, said: str):
    answer = agent("validate", write(CONFLIST | {"plugins": plugins}))
    assert (answer.status, said in answer.err) == (1, True)


@pytest.mark.parametrize("kind", ["bridge-vxlan", "macvlan", "custom-plugin"])
def test_a_list_may_begin_with_loopback(agent: Any, write: Any, kind: str):
    after = [{"type": "sidecar-redirect"}, {"type": "firewall"}]
    own = {"type": kind, "ipam": {"subnet": "10.1.0.0/24"}}
    file = write(CONFLIST | {"plugins": [{"type": "loopback"}, own, *after]})
    assert agent("validate", file).status == 0
    said = agent("explain", file)
    assert "  assumed: it makes lo in the pod with 127.0.0.1/8, ::1/128\n" in said.out
    assert said.out.count("assumed: it makes") == 1


@pytest.mark.parametrize(
    "plugins",
    [
        [
            PLUGIN,
            {"type": "sidecar-redirect", "port": 15001},
            {"type": "custom-plugin", "policy": {"defaultDeny": True}},
        ],
        [{"type": "custom-plugin", "ipam": {"subnet": "10.1.0.0/24"}}, {"type": "portmap"}],
    ],
)
def test_plugins_in_a_possible_order_are_fine(agent: Any, write: Any, plugins: Any):
    assert agent("validate", write(CONFLIST | {"plugins": plugins})).status == 0


def test_a_key_of_a_section_is_found_there(agent: Any, write: Any):
    err = agent(
        "validate", write(CONFLIST | {"plugins": [PLUGIN | {"defaultDeny": True, "id": 7, "proxyUIDs": [1]}]})
    ).err
    assert all(f"did you mean '{name}'" in err for name in ("policy.defaultDeny", "vxlan.id", "sidecar.proxyUIDs"))


@pytest.mark.parametrize(
    "keys",
    [
        {"sidecar": {"when": {"annotation": ["a"]}}},
        {"sidecar": {"when": {"annotation": "a"}}, "runtimeConfig": "x"},
        {"bridge": "\ud800"},
        {"dataDir": "/tmp/a\0"},
        {"dataDir": "/tmp/\udfff"},
        {"dns": {"nameservers": ["\0"]}},
        {"\ud800": 1},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("verb", ["validate", "explain"])
def test_odd_values_are_faults_and_no_bugs(agent: Any, write: Any, verb: str, keys: Any):
    said = agent(verb, write(CONFLIST | {"plugins": [PLUGIN | keys]}))
    assert (said.status, "a bug" in said.err) == (1, False)
    assert "$.plugins[0]" in said.err


def test_standard_input_is_a_file_too(write: Any):
    argv = [sys.executable, "-m", "cni.command.main", "validate", "-"]
    done = subprocess.run(argv, input=json.dumps(CONFLIST), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "-: $.plugins[0]: bridge-vxlan: ok\n")


def test_a_closed_stdout_is_one_line(write: Any):
    script = f'exec "{sys.executable}" -m cni.command.main validate "{write(CONFLIST)}" >&-'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "agent-cni: stdout is closed\n")


def test_an_unknown_key_hides_no_contradiction(agent: Any, write: Any):
    wrong = PLUGIN | {
        "isGatewy": True,
        "hairpinMode": True,
        "promiscMode": True,
        "ipam": {"subnet": "10.1.0.0/24", "x": 1},
    }
    said = agent("validate", write(CONFLIST | {"plugins": [wrong]}))
    assert len(said.err.splitlines()) == 3
    assert "promiscMode" in said.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"policy": {"ingress": ["10.0.0.0/40"]}}, "'10.0.0.0/40'"),
        ({"policy": {"ingress": [5]}}, "$.policy.ingress[0]: 5 is not of type 'string' or of type 'object'"),
        ({"sidecar": {"when": "never"}}, '$.sidecar.when: "never" is not "always" or of type \'object\''),
        ({"sidecar": {"when": {"annotaton": "x"}}}, "annotat"),
        ({"sidecar": {"includeInboundPorts": ["x"]}}, "$.sidecar.includeInboundPorts[0]: 'x' is not of type 'integer'"),
    ],
)
def test_of_several_forms_the_one_that_was_meant_is_judged(agent: Any, write: Any, keys: Any, said: str):
    err = agent("validate", write(CONFLIST | {"plugins": [PLUGIN | keys]})).err
    assert said in err
    assert "given schemas" not in err


def test_explaining_says_in_which_plugin_something_is_wrong(agent: Any, write: Any):
    said = agent("explain", write(CONFLIST | {"plugins": [{"type": "bridge"}, {"type": "sidecar-redirect", "prt": 1}]}))
    assert ": $.plugins[1]: $.prt: unknown key" in said.err


def test_explaining_takes_host_locals_ranges_for_what_they_are(agent: Any, write: Any):
    def assumed(ipam: Any) -> str:
        return agent("explain", write(CONFLIST | {"plugins": [{"type": "bridge", "ipam": ipam}]})).out.splitlines()[1]

    assert "with 10.9.0.2/24," in assumed({"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]})
    assert "with 10.0.0.2/24," in assumed({"type": "host-local", "subnet": "nonsense"})
    assert "with 10.0.0.2/24," in assumed({"type": "dhcp"})


def test_explaining_a_chain_says_what_it_assumes(agent: Any, write: Any):
    bridge = {"type": "bridge", "ipam": {"type": "agent-ipam", "subnet": "10.9.0.0/24"}}
    redirect = {"type": "sidecar-redirect", "port": 15001, "when": {"annotation": "mesh/inject"}}
    file = write(CONFLIST | {"plugins": [bridge, redirect, {"type": "portmap"}]})
    said = agent("explain", file).out
    assert said.endswith("portmap ($.plugins[2]): not a plugin of this suite\n")
    assert "  assumed: it makes eth0 in the pod with 10.9.0.2/24, and a host end\n" in said
    assert "  assumed: the pod is annotated mesh/inject: true\n" in said
    assert "REDIRECT --to-ports 15001" in said
    foreign, ours, _ = json.loads(agent("explain", "--json", file).out)["plugins"]
    assert foreign["assumed"]["ips"][0]["address"] == "10.9.0.2/24"
    assert ours["assumed"] == {"mesh/inject": "true"}


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
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            "portmap ($.plugins[0]): not a plugin of this suite",
            "  assumed: it makes eth0 in the pod with 10.0.0.2/24, and a host end",
        ],
    )


def test_explaining_asks_the_kernel_nothing(agent: Any, write: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cni.resources.World.__init__", lambda *_: pytest.fail("a world was opened"))
    monkeypatch.setattr("cni.kernel.process.run", lambda *_: pytest.fail("a program was run"))
    assert agent("explain", write(CONFLIST | {"plugins": [PLUGIN | {"ipMasq": True}]})).status == 0


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["validate"],
        ["validate", ""],
        ["show", "--colour"],
        ["trace", ""],
        ["ipam", "banana"],
        ["ipam", "10.1.0.300"],
        ["ipam", "--release"],
        ["ipam", "--force"],
        ["ipam", "10.1.0.2", "--force"],
        ["uninstall", "--root", "here"],
        ["serve", "--workers", "0"],
        ["serve", "--deadline", "-1"],
        ["serve", "--workers", "100000"],
        ["serve", "--socket", "here"],
        ["show", "--data-dir", ""],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(agent: Any, argv: list[str]):
    said = agent(*argv)
    assert said.status == 2
    assert said.err.startswith("usage: agent-cni")


@pytest.mark.parametrize(
    "words",
    [
        *(["validate", "/nowhere"], ["explain", "/nowhere"], ["ipam", "10.1.0.2", "--release"], ["show"]),
        ["install", "--conf", "nonsense"],
        ["uninstall", "--root", "/proc/version"],
        ["install", "--root", "/nowhere/at/all"],
    ],
    ids=" ".join,
)
def test_a_failure_is_json_too_where_that_was_asked(agent: Any, folder: Path, tmp_path: Path, words: list[str]):
    data = ["--data-dir", tmp_path / "no"] if words[0] in ("ipam", "show") else []
    place = ["--prefix", tmp_path / "opt", "--bin-dir", tmp_path / "bin"] if words[0] == "install" else []
    said = agent(*words, *data, *place, "--json")
    assert said.status == 1
    assert said.err == f"agent-cni: {json.loads(said.out)['error']}\n"


@pytest.mark.parametrize("words", ["--help", "completion bash", "validate {}"])
def test_what_cannot_be_written_is_one_line(write: Any, words: str):
    argv = words.format(write(CONFLIST)).split()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cni.command.main", *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "agent-cni: stdout: No space left on device\n")


def test_who_has_read_enough_hears_nothing_more(write: Any):
    command = f"{sys.executable} -m cni.command.main completion bash | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("#", "")


def test_verbose_says_all_there_is(agent: Any, write: Any):
    file = write("{")
    plain, verbose = agent("validate", file), agent("validate", "-v", file)
    assert plain.err.count("\n") == 1
    assert verbose.err.startswith(plain.err)
    assert "DecodingFailure, code 6" in verbose.err
    assert "config.py:" in verbose.err


def test_a_bug_is_one_line_and_where_it_was_only_if_asked(agent: Any, write: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cni.command.files.judged", lambda file, text: 1 / 0)
    assert (
        agent("validate", write("")).err == "agent-cni: a bug, please report it: ZeroDivisionError: division by zero\n"
    )
    assert "test_command.py:" in agent("validate", "-v", write("")).err


def test_help_names_every_command(agent: Any):
    said = agent("--help")
    assert said.status == 0
    assert {"validate", "explain", "show", "gc"} <= set(said.out.split())


def test_nothing_to_show(agent: Any, folder: Path):
    folder.mkdir()
    said = agent("show", "--data-dir", folder)
    assert (said.status, said.out) == (
        0,
        "no attachments\nno leases\nno bridges in use\nno VTEPs in use\nno rules\nno names\n",
    )
    assert not list(folder.iterdir())


@pytest.mark.parametrize("words", [["show"], ["gc"], ["refresh"], ["ipam"], ["ipam", "10.1.0.2"]], ids=" ".join)
def test_a_data_dir_that_is_none_is_said(agent: Any, folder: Path, words: list[str]):
    said = agent(*words, "--data-dir", folder)
    assert (said.status, said.out, said.err) == (1, "", f"agent-cni: there is no folder {folder}\n")
    assert not folder.exists()
    folder.write_text("")
    assert agent(*words, "--data-dir", folder).err == f"agent-cni: {folder} is no folder\n"


def test_attachments_and_leases_are_shown_as_tables(agent: Any, folder: Path, attach: Callable[..., Record]):
    attach("c1", "10.1.0.2")
    attach("c2", "10.1.0.3", alive=False)
    attach("c3", "10.1.0.4", complete=False)
    said = agent("show", "--data-dir", folder)
    assert (said.status, said.err) == (0, "")
    assert [line.split() for line in said.out.splitlines()] == [
        ["pod", "container", "ifname", "network", "addresses", "state", "plugin"],
        ["default/web", "c1", "eth0", "pods", "10.1.0.2/24", "attached", "bridge-vxlan"],
        ["default/web", "c2", "eth0", "pods", "10.1.0.3/24", "stale", "bridge-vxlan"],
        ["default/web", "c3", "eth0", "pods", "incomplete", "bridge-vxlan"],
        [],
        ["network", "address", "container", "ifname"],
        ["pods", "10.1.0.2", "c1", "eth0"],
        ["pods", "10.1.0.3", "c2", "eth0"],
        ["pods", "10.1.0.4", "c3", "eth0"],
        [],
        ["no", "bridges", "in", "use"],
        ["no", "VTEPs", "in", "use"],
        ["no", "rules"],
        ["no", "names"],
    ]


def test_a_table_has_the_first_twelve_of_a_containers_id_and_fits_a_terminal(
    agent: Any, folder: Path, attach: Callable[..., Record]
):
    attach("4b" * 32, "10.1.0.2")
    lines = agent("show", "--data-dir", folder).out.splitlines()
    assert lines[1].split()[:2] == ["default/web", "4b4b4b4b4b4b"]
    assert max(map(len, lines)) <= 80
    assert "4b" * 32 in agent("show", "--json", "--data-dir", folder).out


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
    folder.mkdir()
    assert agent("refresh", "--data-dir", folder).out == "changed 0 of 0 attachments with a policyDir\n"
    assert not list(folder.iterdir())


def test_refresh_leaves_attachments_that_no_folder_feeds(agent: Any, folder: Path, attach: Callable[..., Record]):
    attach("c1", "10.1.0.2")
    said = agent("refresh", "--data-dir", folder)
    assert (said.status, said.out, said.err) == (0, "changed 0 of 0 attachments with a policyDir\n", "")


def test_gc_without_state_makes_none(agent: Any, folder: Path):
    folder.mkdir()
    assert agent("gc", "--data-dir", folder).out == "removed 0 of 0 stale attachments\n"
    assert not list(folder.iterdir())


def test_gc_does_not_count_what_another_call_holds(
    agent: Any, folder: Path, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
):
    attach("c1", "10.1.0.2", alive=False)

    def busy(*_: object, **__: object) -> None:
        raise TryAgainLater("another call holds it")

    monkeypatch.setattr(verbs, "opened", busy)
    said = agent("gc", "--data-dir", folder)
    assert said.out == "removed 0 of 1 stale attachments\n"


def test_gc_removes_what_a_plugin_left_that_this_release_lacks(agent: Any, folder: Path, attach: Callable[..., Record]):
    record = attach("c1", "10.1.0.2", alive=False)
    store = Store.open(folder)
    with store.transaction():
        store.forget(record.attachment, record.plugin)
        store.put(record.having(plugin="gone"))
    store.close()
    said = agent("gc", "--data-dir", folder)
    assert (said.status, said.out, said.err) == (0, "removed 1 of 1 stale attachments\n", "")
    with closing(Store.open(folder)) as store:
        assert store.records() == []


@pytest.mark.parametrize("more", [{}, {"policy": {"ingress": []}}, {"isDefaultGateway": True}], ids=str)
@pytest.mark.parametrize("kind", ["bridge-vxlan", "macvlan", "custom-plugin"])
def test_another_ipam_counts_as_one_that_gives_addresses(agent: Any, write: Any, kind: str, more: Any):
    ipam = {"type": "static", "addresses": [{"address": "10.9.0.2/24"}]}
    if kind == "custom-plugin" and "isDefaultGateway" in more:
        more = {"ipMasq": True}
    file = write(CONFLIST | {"plugins": [{"type": kind, "ipam": ipam, **more}]})
    assert agent("validate", file).status == 0
    assert "  assumed: its ipam, static, gives 10.0.0.2/24\n" in agent("explain", file).out


def test_a_configuration_of_the_clusters_documents_is_right_on_a_host_that_was_told_none(no_node: Path):
    netconf = {"cniVersion": "1.0.0", "name": "net", "type": "custom-plugin", "policy": {"cluster": True}}
    assert judgement(netconf)["faults"] == []
    wrong = judgement(netconf | {"policy": {"cluster": True, "policyDir": "/x"}})["faults"]
    assert wrong == ["$.policy: has both cluster and policyDir; a pod's documents come from one place"]
