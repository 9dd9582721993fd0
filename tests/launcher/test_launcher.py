"""The launcher against agents that are not there, hang, lie or die: one run of the work in every case, never two."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cni.kernel.folders import unheld
from cni.kernel.writing import exchanged
from cni.protocol.versions import ANSWER

ROOT = Path(__file__).parent.parent.parent
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fPIE", "-pie")
COLD = "cold\n"
WORKER_ENDED = (
    '{"cniVersion": "1.1.0", "code": 11, "msg": "the node agent\'s worker ended while it served this call; '
    'what it made is recorded, and DEL takes it away"}\n'
)
DOCUMENT = '{"cniVersion": "1.0.0", "ips": []}\n'


@dataclass
class Launcher:
    """A compiled launcher in an installation whose Python says `cold` and notes each of its runs."""

    program: Path
    socket: Path
    runs: Path

    def start(self, **environ: str) -> subprocess.Popen[str]:
        self.runs.write_text("")
        env = {"AGENT_CNI_SOCKET": str(self.socket), "RUNS": str(self.runs), "PATH": os.environ["PATH"], **environ}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([str(self.program), "/plugins/macvlan", "word"], env=env, encoding="latin-1", **pipes)

    def run(self, **environ: str) -> tuple[int, str, int]:
        """Exit code, stdout, and how often the cold run happened."""
        process = self.start(**environ)
        out, err = process.communicate(timeout=60)
        assert "Sanitizer" not in err, err
        assert "runtime error" not in err, err
        return process.returncode, out, self.cold_runs()

    def cold_runs(self) -> int:
        return len(self.runs.read_text().splitlines())


@pytest.fixture(scope="module", params=["as installed", "sanitized"])
def launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    prefix = tmp_path_factory.mktemp("prefix")
    (prefix / "bin").mkdir()
    program = prefix / "bin/agent-cni-launcher"
    flags = SANITIZED if request.param == "sanitized" else ()
    subprocess.run([ROOT / "launcher/compile", program, "1.2.3", *flags], check=True)
    python = prefix / "bin/python3"
    python.write_text('#!/bin/sh\necho "$@" >>"$RUNS"\necho cold\nexit 7\n')
    python.chmod(0o755)
    return Launcher(program, prefix / "agent.sock", prefix / "runs")


@dataclass
class Said:
    """A document and its exit code, as an agent says them; what is in `file` goes as a file."""

    code: int
    document: bytes
    file: bytes = b""

    def tell(self, connection: socket.socket) -> bytes:
        """Say it; what the launcher answers."""
        fds = []
        if self.file:
            fds.append(os.memfd_create("document"))
            os.write(fds[0], self.file)
            os.lseek(fds[0], 0, os.SEEK_SET)
        socket.send_fds(connection, [b"X" + bytes([self.code]) + self.document], fds)
        for fd in fds:
            os.close(fd)
        return connection.recv(16)


def go(connection: socket.socket) -> bytes:
    """Take the call; what the launcher says to it, after closing what came with it."""
    connection.send(b"A")
    said, fds, _, _ = socket.recv_fds(connection, 16, 8)
    for fd in fds:
        os.close(fd)
    return said


class Agent:
    """A listening socket and what it does with its first connection."""

    def __init__(self, path: Path, act: Callable[[socket.socket], None]) -> None:
        path.unlink(missing_ok=True)
        self.path, self._act, self.seen = path, act, b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake who accepts
        self._thread.join(60)
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            self.seen = connection.recv(1 << 20)
            try:
                self._act(connection)
            except OSError:
                return


@pytest.fixture(autouse=True)
def fresh(launcher: Launcher) -> Iterator[None]:
    launcher.socket.unlink(missing_ok=True)
    yield
    launcher.socket.unlink(missing_ok=True)


def test_without_an_agent_the_script_runs_with_its_arguments(launcher: Launcher):
    assert launcher.run() == (7, COLD, 1)
    assert launcher.runs.read_text() == "-I /plugins/macvlan word\n"


def test_a_call_is_of_one_installation_whatever_is_put_in_its_place(launcher: Launcher, tmp_path: Path):
    """What it imports late would be another release's; and nobody takes that of a call away before its end."""
    place, other = tmp_path / "place", tmp_path / "other"
    for folder in (place, other):
        (folder / "bin").mkdir(parents=True)
        shutil.copy(launcher.program, folder / "bin")
        (folder / "bin/python3").write_text('#!/bin/sh\necho begun; read go; cat "${0%/bin/python3}/release"\n')
        (folder / "bin/python3").chmod(0o755)
        (folder / "release").write_text(folder.name)
    script = tmp_path / "script"
    script.write_text(f"#!{place}/bin/agent-cni-launcher\n")
    script.chmod(0o755)
    environ = {"PATH": os.environ["PATH"], "AGENT_CNI_SOCKET": ""}
    with subprocess.Popen([script], env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as call:
        assert call.stdin
        assert call.stdout
        assert call.stdout.readline() == "begun\n"
        exchanged(other, place)
        with unheld(place, 0) as free:
            assert free
        with unheld(other, 0) as free:
            assert not free
        call.stdin.write("go\n")
        call.stdin.close()
        assert call.stdout.read() == "place"
    with (
        unheld(other, 0) as free,
        subprocess.Popen([script], env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as call,
    ):
        assert free
        assert call.communicate()[0] == b"begun\nother"


def test_version_is_answered_without_anybody(launcher: Launcher):
    with Agent(launcher.socket, lambda end: None) as agent:
        assert launcher.run(CNI_COMMAND="VERSION") == (0, ANSWER, 0)
        assert agent.seen == b""


def test_a_version_nobody_reads_is_for_python_to_complain_of(launcher: Launcher):
    environ = {"CNI_COMMAND": "VERSION", "RUNS": str(launcher.runs), "PATH": os.environ["PATH"]}
    launcher.runs.write_text("")
    subprocess.run(["sh", "-c", '"$0" /plugins/macvlan >&-', launcher.program], env=environ, check=False)
    assert launcher.cold_runs() == 1


def test_an_agent_that_is_switched_off_is_not_asked(launcher: Launcher):
    with Agent(launcher.socket, lambda end: None) as agent:
        assert launcher.run(AGENT_CNI_SOCKET="") == (7, COLD, 1)
        assert agent.seen == b""


def test_a_stale_socket_is_no_agent(launcher: Launcher):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(launcher.socket))
    assert launcher.run() == (7, COLD, 1)


def test_what_is_handed_over(launcher: Launcher):
    def act(end: socket.socket) -> None:
        said.append(go(end))
        end.send(b"X\x05")

    said: list[bytes] = []

    with Agent(launcher.socket, act) as agent:
        assert launcher.run(CNI_COMMAND="ADD") == (5, "", 0)
    protocol, version, prefix, script, *environ = agent.seen.decode().split("\0")
    assert (protocol, version, script) == ("agent-cni/2", "1.2.3", "/plugins/macvlan")
    assert Path(prefix).samefile(launcher.program.parent.parent)
    assert said == [b"Gd02"]
    assert "CNI_COMMAND=ADD" in environ


def test_an_agent_that_hangs_before_it_took_the_call_is_left_in_time(launcher: Launcher):
    left = threading.Event()

    def hang(end: socket.socket) -> None:
        left.wait(60)

    with Agent(launcher.socket, hang):
        began = time.monotonic()
        assert launcher.run() == (7, COLD, 1)
        assert 0.9 < time.monotonic() - began < 30
        left.set()


def test_an_agent_that_takes_others_calls_is_waited_for(launcher: Launcher):
    """Its socket's file has the time of the last one."""

    def at_last(end: socket.socket) -> None:
        for _ in range(10):
            time.sleep(0.25)
            os.utime(launcher.socket)
        go(end)
        Said(0, DOCUMENT.encode()).tell(end)
        end.send(b"X\x00")

    with Agent(launcher.socket, at_last):
        assert launcher.run() == (0, DOCUMENT, 0)


def test_an_agent_that_hangs_holds_no_pipe_of_the_caller(launcher: Launcher):
    left = threading.Event()
    with Agent(launcher.socket, lambda end: left.wait(60)):
        process = launcher.start()
        assert process.stdout
        assert process.stdout.read() == COLD  # to its end: nobody else has it open
        left.set()
        process.communicate()


def test_an_agent_that_wakes_up_too_late_learns_that_nobody_waits(launcher: Launcher):
    said: list[bytes] = []

    def late(end: socket.socket) -> None:
        time.sleep(1.5)
        end.send(b"A")
        said.append(end.recv(1))

    with Agent(launcher.socket, late):
        assert launcher.run() == (7, COLD, 1)
        time.sleep(1)
    assert said in ([], [b""])


def test_an_agent_that_dies_during_the_call_is_reported_and_the_work_is_not_done_again(launcher: Launcher):
    def die(end: socket.socket) -> None:
        go(end)

    with Agent(launcher.socket, die):
        code, out, runs = launcher.run()
    assert (code, runs) == (1, 0)
    assert json.loads(out)["code"] == 11
    assert "worker ended" in json.loads(out)["msg"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_is_passed_on_once_and_the_end_is_waited_for(launcher: Launcher, number: signal.Signals):
    begun, heard = threading.Event(), list[bytes]()

    def act(end: socket.socket) -> None:
        go(end)
        begun.set()
        heard.append(end.recv(1))
        time.sleep(0.3)
        end.send(b"X\x01")

    with Agent(launcher.socket, act):
        process = launcher.start()
        assert begun.wait(60)
        process.send_signal(number)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert (process.returncode, heard, launcher.cold_runs()) == (1, [b"S"], 0)


def test_the_last_word_counts_even_if_the_agent_did_not_hear_ours(launcher: Launcher):
    begun = threading.Event()

    def act(end: socket.socket) -> None:
        go(end)
        begun.set()
        time.sleep(0.5)
        end.send(b"X\x09")

    with Agent(launcher.socket, act):
        process = launcher.start()
        assert begun.wait(60)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (9, "")


def test_an_environment_too_large_for_a_packet_runs_cold(launcher: Launcher):
    with Agent(launcher.socket, lambda end: None) as agent:
        assert launcher.run(LARGE1="x" * 120_000, LARGE2="y" * 120_000) == (7, COLD, 1)
    assert agent.seen == b""


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_streams_the_caller_closed_are_not_handed_over(launcher: Launcher, closed: str):
    said: list[bytes] = []

    def act(end: socket.socket) -> None:
        said.append(go(end))
        end.send(b"X\x00")

    with Agent(launcher.socket, act):
        env = {"AGENT_CNI_SOCKET": str(launcher.socket)}
        done = subprocess.run(["/bin/sh", "-c", f'exec "$0" /x {closed}', launcher.program], env=env, check=False)
    assert done.returncode == 0
    missing = {"<&-": "0", "2>&-": "2"}
    expected = "Gd" + "".join(n for n in "02" if n not in {missing[word] for word in closed.split()})
    assert said == [expected.encode()]


def ended(words: list[bytes]) -> tuple[int, str]:
    """What the launcher makes of what an agent says after GO."""
    first = words[0] if words else b""
    if first[:1] != b"X" or len(first) < 2:
        return 1, WORKER_ENDED
    return first[1], first[2:].decode("latin-1")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.binary(max_size=5), max_size=4))
@example([b"A", b"X"])
@example([b"A", b"X\x00\x00"])
@example([b"AX\x00"])
@example([b"A", b"X\x00{}", b"X\x01"])
@example([b"A", b"X\x00{}", b"X\x01[]"])
@example([b"A", b"X\x00{}", b"?"])
@example([b"A", b"X\x01", b"X\x00{}"])
@example([b"A", b"A", b"X\x00"])
@example([b"G"])
@example([b""])
def test_whatever_an_agent_says_the_work_is_done_at_most_once(launcher: Launcher, words: list[bytes]):
    def act(end: socket.socket) -> None:
        for word in words:
            end.send(word)
        end.settimeout(0.2)
        end.recv(1)

    with Agent(launcher.socket, act):
        code, out, runs = launcher.run()
    took = bool(words) and words[0][:1] == b"A"
    if not took:
        assert (code, out, runs) == (7, COLD, 1)
    else:
        assert runs == 0
        assert (code, out) == ended(words[1:])


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,12}", fullmatch=True),
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=300),
        max_size=8,
    )
)
def test_any_environment_arrives_whole(launcher: Launcher, environ: dict[str, str]):
    def act(end: socket.socket) -> None:
        go(end)
        end.send(b"X\x00")

    environ = {name: value for name, value in environ.items() if name not in ("PATH", "RUNS")}
    with Agent(launcher.socket, act) as agent:
        assert launcher.run(**environ)[0] == 0
    sent = set(agent.seen.decode().split("\0")[4:-1])
    assert {f"{name}={value}" for name, value in environ.items()} <= sent


def test_without_a_script_it_says_what_it_is(launcher: Launcher):
    done = subprocess.run([launcher.program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def unusable(python: Path, how: str) -> None:
    """Make an interpreter that cannot be executed."""
    if how == "a folder":
        python.mkdir()
    elif how == "a dangling link":
        python.symlink_to("/nowhere/python3")
    elif how != "missing":
        python.write_bytes(
            b"#!/nowhere/python3\n" if how == "made for one that is missing" else b"\x7fELF and nonsense"
        )
        python.chmod(0o644 if how == "not executable" else 0o755)


@pytest.mark.parametrize("verb", ["ADD", "DEL", "STATUS", ""])
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("missing", "No such file or directory"),
        ("a dangling link", "No such file or directory"),
        ("made for one that is missing", "No such file or directory"),
        ("not executable", "Permission denied"),
        ("a folder", "Permission denied"),
        ("no program", "Exec format error"),
    ],
)
def test_an_interpreter_that_cannot_be_executed_is_one_document(
    launcher: Launcher, tmp_path: Path, how: str, why: str, verb: str
):
    prefix = tmp_path / 'with "quotes" and \\'
    (prefix / "bin").mkdir(parents=True)
    copy = shutil.copy(launcher.program, prefix / "bin")
    unusable(prefix / "bin/python3", how)
    env = {"AGENT_CNI_SOCKET": "", "CNI_COMMAND": verb}
    done = subprocess.run([copy, "/x"], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    named = f"{prefix}/bin/python3: {why}"
    said = named.replace('"', "?").replace("\\", "?")
    assert json.loads(done.stdout) == {"cniVersion": "1.1.0", "code": 106, "msg": said}
    assert done.stderr == f"agent-cni-launcher: {named}\n"
    version = subprocess.run([copy, "/x"], capture_output=True, text=True, check=True, env={"CNI_COMMAND": "VERSION"})
    assert version.stdout == ANSWER


@pytest.mark.parametrize("size", [0, 3, 100_000, (192 << 10) - 2])
@pytest.mark.parametrize("more", [0, 1, 500_000, 3 << 20])
def test_a_document_is_printed_whole_and_its_code_is_the_exit_code(launcher: Launcher, size: int, more: int):
    answers = list[bytes]()

    def act(end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        go(end)
        answers.append(Said(4, b"x" * size, b"y" * more).tell(end) if size or more else b"")

    with Agent(launcher.socket, act):
        code, out, runs = launcher.run()
    if not size and not more:
        assert (code, out, runs) == (1, WORKER_ENDED, 0)
        return
    assert answers == [b"P\0"]
    assert (code, len(out), runs) == (4, size + more, 0)
    assert out == "x" * size + "y" * more


@pytest.mark.parametrize("then", ["dies", "says another code", "says another document", "says nonsense"])
def test_a_printed_document_and_its_code_stay_together(launcher: Launcher, then: str):
    def act(end: socket.socket) -> None:
        go(end)
        Said(0, DOCUMENT.encode()).tell(end)
        if then != "dies":
            end.send({"code": b"X\x01", "document": b"X\x01{}", "nonsense": b"\xff"}[then.rsplit(maxsplit=1)[-1]])

    with Agent(launcher.socket, act):
        assert launcher.run() == (0, DOCUMENT, 0)


def test_a_document_that_is_too_long_is_none(launcher: Launcher):
    def act(end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        go(end)
        end.send(b"X\0" + b"x" * (192 << 10))

    with Agent(launcher.socket, act):
        assert launcher.run() == (1, WORKER_ENDED, 0)


def test_files_nobody_asked_for_are_no_document(launcher: Launcher):
    def act(end: socket.socket) -> None:
        go(end)
        socket.send_fds(end, [b"X\0{}"], [0, 1, 2])

    with Agent(launcher.socket, act):
        assert launcher.run() == (1, WORKER_ENDED, 0)


@pytest.mark.parametrize(
    ("stdout", "number"),
    [(">/dev/full", errno.ENOSPC), ("1</dev/null", errno.EBADF), ("> >(true)", errno.EPIPE)],
    ids=["a full disk", "no output", "nobody reads"],
)
@pytest.mark.parametrize("document", [Said(0, DOCUMENT.encode()), Said(0, b"", b"x" * 100_000)], ids=["short", "long"])
def test_a_document_that_cannot_be_printed_is_told_and_the_agent_says_the_code(
    launcher: Launcher, stdout: str, number: int, document: Said
):
    answers = list[bytes]()

    def act(end: socket.socket) -> None:
        go(end)
        answers.append(document.tell(end))
        end.send(b"X\x05")

    with Agent(launcher.socket, act):
        env = {"AGENT_CNI_SOCKET": str(launcher.socket), "PATH": os.environ["PATH"]}
        script = f'{{ wait $!; "$0" /x; echo $? >&2; }} {stdout}'
        done = subprocess.run(
            ["bash", "-c", script, launcher.program], env=env, capture_output=True, text=True, check=True
        )
    assert answers == [b"P" + bytes([number])]
    assert (done.stdout, done.stderr) == ("", "5\n")


def test_an_agent_that_dies_when_its_document_could_not_be_printed_is_a_failure(launcher: Launcher):
    def act(end: socket.socket) -> None:
        go(end)
        Said(0, DOCUMENT.encode()).tell(end)

    with Agent(launcher.socket, act):
        env = {"AGENT_CNI_SOCKET": str(launcher.socket)}
        done = subprocess.run(["/bin/sh", "-c", 'exec "$0" /x >/dev/full', launcher.program], env=env, check=False)
    assert done.returncode == 1


def test_a_call_whose_stdout_is_closed_is_not_handed_over(launcher: Launcher):
    with Agent(launcher.socket, lambda end: None) as agent:
        launcher.runs.write_text("")
        env = {"AGENT_CNI_SOCKET": str(launcher.socket), "RUNS": str(launcher.runs), "PATH": os.environ["PATH"]}
        subprocess.run(["/bin/sh", "-c", 'exec "$0" /x >&-', launcher.program], env=env, check=False)
    assert launcher.cold_runs() == 1
    assert agent.seen == b""


def seconds_of_a_cold_run(launcher: Launcher) -> float:
    began = time.monotonic()
    assert launcher.run() == (7, COLD, 1)
    return time.monotonic() - began


def test_a_full_queue_is_not_waited_for(launcher: Launcher):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(launcher.socket))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as first:
            first.connect(str(launcher.socket))
            assert min(seconds_of_a_cold_run(launcher) for _ in range(5)) < 0.8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_while_the_agent_dies_is_one_document(launcher: Launcher, number: signal.Signals):
    begun, over = threading.Event(), threading.Event()

    def act(end: socket.socket) -> None:
        go(end)
        begun.set()
        over.wait(60)

    with Agent(launcher.socket, act):
        process = launcher.start()
        assert begun.wait(60)
        process.send_signal(number)
        over.set()
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, WORKER_ENDED)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (f"--nofile={63}", "files: 64"), (f"--as={127 << 20}", "address space: 128 MiB"),
        (f"--data={63 << 20}", "data: 64 MiB"), (f"--stack={1 << 19}", "stack: 1 MiB"),
    ],
)  # fmt: skip
def test_too_little_for_python_is_said_before_anything_is_begun(launcher: Launcher, limit: str, said: str):
    launcher.runs.write_text("")
    command = ["prlimit", limit, str(launcher.program), "/plugins/macvlan"]
    done = subprocess.run(command, env={"AGENT_CNI_SOCKET": ""}, capture_output=True, text=True, check=False)
    if "Sanitizer" in done.stderr:
        pytest.skip("the sanitizer itself needs more")
    document = json.loads(done.stdout)
    assert (done.returncode, document["code"], launcher.cold_runs()) == (1, 11, 0)
    assert document["msg"].startswith(f"{said} is the least a call needs")


def test_what_may_be_raised_is_raised(launcher: Launcher):
    launcher.runs.write_text("")
    command = ["prlimit", "--nofile=20:4096", str(launcher.program), "/plugins/macvlan"]
    env = {"AGENT_CNI_SOCKET": "", "RUNS": str(launcher.runs)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, launcher.cold_runs()) == (COLD, 1)


def test_closed_streams_are_nobodys_numbers(launcher: Launcher):
    python = launcher.program.with_name("python3")
    before = python.read_text()
    python.write_text("#!/bin/sh\nreadlink /proc/self/fd/0 /proc/self/fd/2\n")
    try:
        command = ["sh", "-c", 'exec "$0" /plugins/macvlan <&- 2>&-', str(launcher.program)]
        done = subprocess.run(command, env={"AGENT_CNI_SOCKET": ""}, stdout=subprocess.PIPE, text=True, check=False)
    finally:
        python.write_text(before)
    assert done.stdout == "/dev/null\n/dev/null\n"
