"""The executables as a runtime starts them: stdin, stdout, stderr and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni import __version__, log, main
from cni.errors import IoFailure, TryAgainLater
from cni.protocol.versions import ANSWER, SUPPORTED

ROOT = Path(__file__).parent.parent
PLUGINS = ["bridge-vxlan", "agent-ipam"]
#: What the executable is, with the node's own log left alone.
START = (
    "import sys, pathlib, cni.log; cni.log.FOLDER = pathlib.Path('/dev/null/log');"
    "exec(open(sys.argv[1]).read(), {'__name__': '__main__', '__file__': sys.argv[1]})"
)
ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/nowhere/netns",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/nowhere",
}
CONF = {"cniVersion": "0.4.0", "name": "pods", "type": "bridge-vxlan"}


def call(plugin: str, environ: dict[str, str], stdin: Any = "", **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a plugin of this checkout; it fails before it can touch the node."""
    argv = [sys.executable, "-c", START, str(ROOT / "plugins" / plugin)]
    text = stdin if isinstance(stdin, str) else json.dumps(stdin)
    environ = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(
        argv, cwd=ROOT, env=environ, input=text, text=True, check=False, **{"capture_output": True, **how}
    )


def failure(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The error document: stdout holds it and nothing else."""
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_version_needs_no_configuration(plugin: str):
    done = call(plugin, {"CNI_COMMAND": "VERSION"}, "not even JSON")
    assert (done.returncode, done.stdout, done.stderr) == (0, ANSWER, "")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_wrong_environment_is_code_4_in_the_newest_version(plugin: str):
    done = call(plugin, ADD | {"CNI_IFNAME": "", "CNI_NETNS": ""})
    assert failure(done) == {
        "cniVersion": SUPPORTED[-1],
        "code": 4,
        "msg": "ADD needs CNI_NETNS, CNI_IFNAME in the environment",
    }
    assert done.stderr == ""


@pytest.mark.parametrize("environ", [{}, {"CNI_COMMAND": ""}, {"CNI_CONTAINERID": "c1", "CNI_PATH": "/x"}], ids=str)
@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_person_who_starts_a_plugin_is_told_what_it_is(plugin: str, environ: dict[str, str]):
    done = call(plugin, environ, "no JSON")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"CNI {plugin} plugin of agent-cni {__version__}; a container runtime calls it, see agent-cni --help\n"
        f"CNI protocol versions supported: {', '.join(SUPPORTED)}\n"
    )


@pytest.mark.parametrize(
    ("stdin", "code", "version"),
    [
        ("{", 6, "1.1.0"),
        ("[]", 6, "1.1.0"),
        (CONF | {"cniVersion": "9.9.9"}, 1, "1.1.0"),
        ({"name": "pods", "cniVersion": ["1.0.0"]}, 1, "1.1.0"),
        (CONF | {"name": "a/b"}, 7, "0.4.0"),
        (CONF | {"foo": 1}, 2, "0.4.0"),
        (CONF | {"mtu": "big"}, 7, "0.4.0"),
        ({"name": "pods", "mtu": "big"}, 7, "0.1.0"),
        ({"cniVersion": "", "name": "pods", "mtu": "big"}, 7, "0.1.0"),
        (CONF, 8, "0.4.0"),
        (CONF | {"runtimeConfig": {"mac": 5}}, 7, "0.4.0"),
    ],
    ids=[
        *("no JSON", "no object", "unknown version", "no version", "wrong name", "unknown key", "wrong value"),
        *("version absent", "version empty", "no such netns", "wrong runtimeConfig"),
    ],
)
def test_an_error_is_one_document_in_the_configurations_version(stdin: Any, code: int, version: str):
    document = failure(call("bridge-vxlan", ADD, stdin))
    assert (document["code"], document["cniVersion"]) == (code, version)


def test_our_own_namespace_is_refused():
    document = failure(call("bridge-vxlan", ADD | {"CNI_NETNS": "/proc/self/ns/net"}, CONF))
    assert document["code"] == 8
    assert "own namespace" in document["msg"]


def test_a_file_that_is_no_namespace_is_refused(tmp_path: Path):
    (tmp_path / "netns").touch()
    document = failure(call("bridge-vxlan", ADD | {"CNI_NETNS": str(tmp_path / "netns")}, CONF))
    assert document["code"] == 8
    assert "is not a network namespace" in document["msg"]


def test_a_closed_stdout_is_an_exit_code_and_no_traceback():
    done = call(
        "bridge-vxlan",
        {"CNI_COMMAND": "VERSION"},
        capture_output=False,
        stderr=subprocess.PIPE,
        preexec_fn=close_stdout,
    )
    assert (done.returncode, done.stderr) == (1, "")


def close_stdout() -> None:
    os.close(1)


def test_a_configuration_without_end_is_refused():
    document = failure(call("bridge-vxlan", ADD, " " * (main.MAX_CONFIG_BYTES + 1)))
    assert (document["code"], document["msg"]) == (5, "stdin: more than 16 MiB")


def test_a_call_is_one_json_line_in_the_log(log_folder: Path, capfd: pytest.CaptureFixture[str]):
    log.event("bridge-vxlan", "ADD", network="pods", seconds=0.004)
    log.event("bridge-vxlan", "DEL", network="pods")
    lines = [json.loads(line) for line in (log_folder / "bridge-vxlan.log").read_text().splitlines()]
    assert [(line["verb"], line["network"]) for line in lines] == [("ADD", "pods"), ("DEL", "pods")]
    assert lines[0]["time"].endswith("Z")
    assert capfd.readouterr() == ("", "")


def test_a_bug_is_logged_with_its_traceback_there_and_on_stderr(log_folder: Path, capfd: pytest.CaptureFixture[str]):
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        error.add_note("and more")
        log.event("bridge-vxlan", "ADD", error)
    printed = capfd.readouterr()
    assert printed.out == ""
    line = json.loads(printed.err)
    assert (line["code"], line["error"], line["notes"]) == (999, "division by zero", ["and more"])
    assert "ZeroDivisionError" in line["traceback"]
    assert json.loads((log_folder / "bridge-vxlan.log").read_text()) == line


def test_a_log_that_cannot_be_written_fails_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(log, "FOLDER", tmp_path / "file" / "log")
    assert log.event("bridge-vxlan", "ADD") is None


def test_what_was_printed_stands_and_its_code_is_the_calls(capfd: pytest.CaptureFixture[str]):
    for code in (0, 1):
        stdout = main.Stdout()
        stdout.write("{}\n", code)
        assert stdout.fail(TryAgainLater("too late")) == code
        assert capfd.readouterr().out == "{}\n"


def test_a_document_may_be_printed_elsewhere_with_its_code():
    printed: list[tuple[int, bytes]] = []
    stdout = main.Stdout(lambda code, document: printed.append((code, document)))
    assert main.main("/x/macvlan", {"CNI_COMMAND": "NONSENSE"}, stdout) == 1
    [(code, document)] = printed
    assert (code, json.loads(document)["code"]) == (1, 4)


def test_a_document_nobody_prints_is_a_failure_and_no_traceback():
    def refuse(_: int, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    stdout = main.Stdout(refuse)
    with pytest.raises(IoFailure, match="stdout: No space left on device"):
        stdout.write("{}")
    assert stdout.fail(TryAgainLater("again")) == 1


def test_an_error_into_a_full_disk_is_an_exit_code_and_no_traceback():
    with Path("/dev/full").open("w") as full:
        done = call(
            "bridge-vxlan", {"CNI_COMMAND": "NONSENSE"}, capture_output=False, stdout=full, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("text", ["", "plain", '"\\', "\x00\x08\t\n\x0c\r\x1f\x7f", "ä€", "\U0001f600", "\udc80"])
def test_a_text_is_quoted_as_json_does(text: str):
    assert main._quoted(text) == json.dumps(text)


def test_who_cannot_let_go_of_the_installation_answers_all_the_same():
    begun = "import sys; sys.prefix = '/proc/self/fd/9999'; from cni import main; sys.exit(main.cold('macvlan'))"
    environ = os.environ | {"CNI_COMMAND": "VERSION"}
    done = subprocess.run([sys.executable, "-c", begun], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["cniVersion"]
