"""An ordinary user of the node, and what he may put where our state and our log are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, BIN_DIR, Host, Lab, Pod, environment, sh

STRANGER = 4242
FILES = ("state.db", "state.db-wal", "state.db-shm", "state.db-journal", "lock")


class Place:
    """A sticky folder everybody may write into, as /tmp is, and what is in it."""

    def __init__(self, name: str) -> None:
        self.top = Path("/run/open") / name
        self.top.mkdir(parents=True)
        self.top.chmod(0o1777)
        self.victim = self.top / "victim"
        self.victim.write_text("as it was\n")
        self.victim.chmod(0o600)

    def his(self, *argv: object) -> None:
        """What the ordinary user does here."""
        sh(*argv, cwd=self.top, user=STRANGER, group=STRANGER, extra_groups=[])

    def root(self, *argv: object) -> None:
        sh(*argv, cwd=self.top)

    def wide(self, *argv: object) -> None:
        """What he does in our folder while it is open to all."""
        self.root("mkdir", "-m", "0777", "state")
        self.his(*argv)


@pytest.fixture
def place(lab: Lab) -> Place:
    return Place(lab.name("place"))


FOLDERS: dict[str, Callable[[Place], object]] = {
    "his own": lambda place: place.his("mkdir", "-m", "0700", "state"),
    "his own, open to all": lambda place: place.his("mkdir", "-m", "0777", "state"),
    "ours in his": lambda place: (place.his("mkdir", "-p", "his"), place.root("mkdir", "-m", "0700", "his/state"),
                                  place.root("ln", "-s", "his", "way")),
    "his link": lambda place: (place.root("mkdir", "-m", "0700", "ours"), place.his("ln", "-s", "ours", "state")),
    "his link to his": lambda place: (place.his("mkdir", "his"), place.his("ln", "-s", "his", "state")),
    "his link to nothing": lambda place: place.his("ln", "-s", "/run/nothing", "state"),
    "ours in one open to all": lambda place: (place.root("mkdir", "-m", "0777", "way"),
                                              place.root("mkdir", "-m", "0700", "way/state")),
    "ours in his group's": lambda place: (place.root("mkdir", "-m", "0775", "way"),
                                          place.root("chgrp", str(STRANGER), "way"),
                                          place.root("mkdir", "-m", "0700", "way/state")),
    "our link to his": lambda place: (place.his("mkdir", "his"), place.root("ln", "-s", "his", "state")),
    "not there yet, in his": lambda place: place.his("mkdir", "way"),
    "open to all, with something else": lambda place: place.wide("touch", "state/other"),
    "his link for the state": lambda place: place.wide("ln", "-s", "../victim", "state/state.db"),
    "his link for the lock": lambda place: place.wide("ln", "-s", "../victim", "state/lock"),
    "his link for the journal": lambda place: place.wide("ln", "-s", "../victim", "state/state.db-wal"),
    "his pipe for the state": lambda place: place.wide("mkfifo", "state/state.db"),
    "his pipe for the lock": lambda place: place.wide("mkfifo", "state/lock"),
    "his file for the state": lambda place: place.wide("touch", "state/state.db"),
    "his file for the lock": lambda place: place.wide("touch", "state/lock"),
    "his folder for the journal": lambda place: place.wide("mkdir", "state/state.db-shm"),
    "another name for the state": lambda place: (place.root("mkdir", "-m", "0700", "state"),
                                                 place.root("ln", "victim", "state/state.db")),
    "another name for the lock": lambda place: (place.root("mkdir", "-m", "0700", "state"),
                                                place.root("ln", "victim", "state/lock")),
}  # fmt: skip


def folder_of(place: Place) -> str:
    return str(place.top / "way" / "state" if (place.top / "way").exists() else place.top / "state")


@pytest.mark.tried(
    "folders, links, pipes, hard links of an ordinary user in the place of our state",
    "refused by name (50), his target untouched",
)
@pytest.mark.parametrize("kind", FOLDERS)
def test_state_that_a_stranger_could_have_written_is_refused_by_name(
    settled: Host, pod: Pod, conf: dict[str, Any], place: Place, kind: str
):
    FOLDERS[kind](place)
    theirs = conf | {"name": "other", "ipam": conf["ipam"] | {"dataDir": folder_of(place)}}
    before = sorted((str(item), item.lstat().st_size) for item in place.top.rglob("*"))
    for verb in ("ADD", "DEL"):
        message = settled.cni(verb, theirs, pod).failed(50)
        assert folder_of(place) in message
        assert any(word in message for word in (f"user {STRANGER}", "others", "no file", "another name"))
    if (Path(folder_of(place)) / "state.db").exists():
        for verb in ("STATUS", "GC"):
            assert folder_of(place) in settled.cni(verb, theirs | {"cni.dev/valid-attachments": []}).failed(50)
    assert place.victim.read_text() == "as it was\n"
    assert sorted((str(item), item.lstat().st_size) for item in place.top.rglob("*")) == before
    assert not Path("/run/nothing").exists()
    assert pod.link("eth0") is None


CONTROLS: dict[str, Callable[[Place], object]] = {
    "ours in a sticky one": lambda place: place.root("mkdir", "-m", "0700", "state"),
    "not there yet, in a sticky one": lambda place: None,
    "our link to ours": lambda place: (place.root("mkdir", "-m", "0700", "ours"), place.root("ln", "-s", "ours", "state")),
    "our link with dots": lambda place: (place.root("mkdir", "-m", "0700", "ours"), place.root("mkdir", "-p", "way"),
                                         place.root("ln", "-s", "../ours", "way/state")),
    "open to all, but empty": lambda place: place.root("mkdir", "-m", "0777", "state"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTROLS)
def test_state_of_our_own_is_used(settled: Host, pod: Pod, conf: dict[str, Any], place: Place, kind: str):
    CONTROLS[kind](place)
    ours = conf | {"name": "other", "ipam": conf["ipam"] | {"dataDir": folder_of(place)}}
    settled.add(ours, pod)
    assert pod.pings("10.1.0.1")
    assert {item.name for item in Path(folder_of(place)).iterdir()} >= {"state.db"}
    assert Path(folder_of(place)).stat().st_mode & 0o777 == 0o700
    settled.delete_pod(ours, pod)


# --- the log


LOGS: dict[str, Callable[[Place], object]] = {
    "his own": lambda place: place.his("mkdir", "-m", "0755", "log"),
    "open to all": lambda place: place.root("mkdir", "-m", "0777", "log"),
    "his pipe": lambda place: (place.root("mkdir", "-m", "0755", "log"), place.root("mkfifo", "log/bridge-vxlan.log")),
    "his link": lambda place: (place.root("mkdir", "-m", "0755", "log"),
                               place.root("ln", "-s", place.victim, "log/bridge-vxlan.log")),
    "another name": lambda place: (place.root("mkdir", "-m", "0755", "log"),
                                   place.root("ln", "victim", "log/bridge-vxlan.log")),
}  # fmt: skip


def cold(host: Host, verb: str, conf: dict[str, Any], pod: Pod, log: Path) -> tuple[int, str]:
    """A call without the agent, where the log's folder is another one."""
    binding = 'mount --bind "$0" /var/log/agent-cni && exec timeout 20 "$@"'
    Path("/var/log/agent-cni").mkdir(exist_ok=True)
    argv = ("unshare", "--mount", "sh", "-c", binding, log, BIN_DIR / conf["type"])
    done = host.run(*argv, input=json.dumps(conf), env=environment(verb, pod) | {"AGENT_CNI_SOCKET": ""}, check=False)
    return done.returncode, done.stderr


@pytest.mark.tried("the same in the place of the log", "the call goes on and says so once")
@pytest.mark.parametrize("kind", LOGS)
def test_a_log_that_a_stranger_could_have_placed_is_not_written_and_said_once(
    settled: Host, pod: Pod, conf: dict[str, Any], place: Place, kind: str
):
    LOGS[kind](place)
    for verb in ("ADD", "DEL"):
        code, said = cold(settled, verb, conf, pod, place.top / "log")
        assert code == 0
        assert "/var/log/agent-cni is not written to" in json.loads(said)["warning"]
    assert place.victim.read_text() == "as it was\n"


def test_our_own_log_is_written(settled: Host, pod: Pod, conf: dict[str, Any], place: Place):
    place.root("mkdir", "-m", "0755", "log")
    assert [cold(settled, verb, conf, pod, place.top / "log") for verb in ("ADD", "DEL")] == [(0, ""), (0, "")]
    lines = (place.top / "log" / "bridge-vxlan.log").read_text().splitlines()
    assert [json.loads(line)["verb"] for line in lines] == ["ADD", "DEL"]


# --- what else he may do


HIDDEN = {
    "a pipe": "mkfifo /mnt/ns",
    "a link to a pipe": "mkfifo /mnt/pipe && ln -s /mnt/pipe /mnt/ns",
    "a link to a terminal": "ln -s /dev/tty /mnt/ns",
    "a link to itself": "ln -s ns /mnt/ns",
    "nothing": "true",
}


@pytest.mark.threat
@pytest.mark.tried(
    "namespaces that a stranger has mounted, and hidden under pipes and links",
    "`gc` and `doctor` wait for nothing, and find who is dead",
)
@pytest.mark.parametrize("kind", HIDDEN)
def test_what_a_stranger_mounts_keeps_nobody_from_finding_pods(
    settled: Host, lab: Lab, conf: dict[str, Any], kind: str
):
    alive, dead = lab.pod(), lab.pod()
    for each in (alive, dead):
        settled.add(conf, each)
    settled.bury(dead)
    mounting = (
        "mount -t tmpfs t /mnt && touch /mnt/ns && mount --bind /proc/self/ns/net /mnt/ns && mount -t tmpfs t /mnt"
    )
    script = f"{mounting} && {HIDDEN[kind]} && echo there && exec sleep 600"
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", script]
    his = subprocess.Popen(command, user=STRANGER, group=STRANGER, extra_groups=[], stdout=subprocess.PIPE, text=True)
    try:
        assert his.stdout
        assert his.stdout.readline() == "there\n"
        for words in (("doctor",), ("gc",)):
            assert settled.run("timeout", "60", AGENT_CNI, *words, check=False).returncode != 124
        said = settled.run(AGENT_CNI, "show", "--json").stdout
        assert (alive.container in said, dead.container in said) == (True, False)
    finally:
        his.kill()
        his.communicate()
    settled.delete_pod(conf, alive)


@pytest.mark.threat
@pytest.mark.tried("an ordinary user calls a plugin himself", "an error, and nothing made")
def test_a_stranger_who_calls_a_plugin_makes_nothing(settled: Host, pod: Pod, conf: dict[str, Any]):
    before = settled.snapshot()
    for verb in ("ADD", "CHECK", "DEL", "GC", "STATUS"):
        ids = ("setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups", "--inh-caps", "-all")
        text = json.dumps(conf | {"cni.dev/valid-attachments": []} if verb == "GC" else conf)
        done = settled.run(*ids, BIN_DIR / conf["type"], input=text, env=environment(verb, pod), check=False)
        assert (done.returncode, "code" in json.loads(done.stdout)) == (1, True), (verb, done.stdout)
    assert settled.snapshot() == before
    assert pod.link("eth0") is None
