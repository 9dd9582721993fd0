"""`agent-cni names`: a server of DNS for each network, by the files that calls write."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import AGENT_CNI, Lab, eventually
from names import DNSMASQ, Names, asked
from serving import Scene

from cni.kernel import hostsdir


@pytest.fixture
def scene(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    host = lab.host()
    monkeypatch.setattr(hostsdir, "FOLDER", host.names)
    yield Scene(host)
    with Names(host) as names:
        assert eventually(lambda: names.process is not None)
    assert eventually(lambda: not names.servers())


def test_each_network_has_a_server_that_knows_its_own_names_alone(scene: Scene):
    one, other = scene.network("one", 1), scene.network("other", 2)
    scene.entry("one", "web", "10.1.0.2", "fd00::2")
    scene.entry("other", "db", "10.2.0.2")
    with Names(scene.host) as names:
        assert eventually(lambda: sorted(names.servers()) == ["one", "other"])
        answers = lambda server, *question: asked(scene.host, server, *question)  # noqa: E731
        assert eventually(lambda: _quietly(answers, one, "web") == ["10.1.0.2"])
        assert answers(one, "web", "AAAA") == ["fd00::2"]
        assert answers(one, "10.1.0.2", "PTR") == ["web"]
        assert (answers(one, "db"), answers(other, "web")) == ([], [])
        assert answers(other, "db") == ["10.2.0.2"]
        late = scene.entry("one", "late", "10.1.0.3")
        assert eventually(lambda: answers(one, "late") == ["10.1.0.3"])
        hostsdir.drop([late.path])
        assert eventually(lambda: answers(one, "late") == [])


def test_servers_are_nobodys_and_end_with_the_daemon_however_that_ends(scene: Scene):
    scene.network("one", 1)
    with Names(scene.host) as names:
        assert eventually(names.servers)
        pid = names.servers()["one"]
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == ["65534"] * 4
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << 10  # CAP_NET_BIND_SERVICE
        assert status["NoNewPrivs"].strip() == "1"
        assert names.kill() == -9
        assert eventually(lambda: not names.servers())
        names.start()
        assert eventually(names.servers)
        assert names.stop() == 0
        assert not names.servers()


def test_a_server_that_is_killed_comes_back_and_one_that_cannot_be_is_named_once(scene: Scene):
    one = scene.network("one", 1)
    scene.entry("one", "web", "10.1.0.2")
    with Names(scene.host) as names:
        assert eventually(names.servers)
        before = names.servers()["one"]
        os.kill(before, 9)
        assert eventually(lambda: names.servers().get("one", before) != before)
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "web")) == ["10.1.0.2"])
        scene.configure("one", "br1", "no-such-option\n")
        assert eventually(lambda: "bad option" in names.said())
        assert eventually(lambda: not names.servers())
        scene.configure("one", "br1")
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "web")) == ["10.1.0.2"])
        assert names.said().count("bad option") == 1


def test_a_network_that_goes_has_no_server_any_more_and_one_that_changes_another(scene: Scene):
    one, other = scene.network("one", 1), scene.network("other", 2)
    scene.entry("one", "web", "10.1.0.2")
    with Names(scene.host) as names:
        assert eventually(lambda: sorted(names.servers()) == ["one", "other"])
        before = names.servers()
        scene.configure("one", "br1", "host-record=more,10.1.0.9\n")
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "more")) == ["10.1.0.9"])
        assert names.servers()["one"] != before["one"]
        hostsdir.drop([hostsdir.FOLDER / "one" / hostsdir.CONF])
        assert eventually(lambda: sorted(names.servers()) == ["other"])
        assert names.servers()["other"] == before["other"]
        with pytest.raises(TimeoutError):
            asked(scene.host, one, "web")
        assert asked(scene.host, other, "web") == []


def test_what_is_no_file_of_names_is_passed_over_and_all_may_go_and_come(scene: Scene):
    one = scene.network("one", 1)
    (scene.host.names / "one/here/folder").mkdir(parents=True)
    (scene.host.names / "stray").write_text("")
    scene.entry("one", "web", "10.1.0.2")
    with Names(scene.host) as names:
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "web")) == ["10.1.0.2"])
        shutil.rmtree(scene.host.names / "one")
        assert eventually(lambda: not names.servers())
        scene.configure("one", "br1")
        scene.entry("one", "again", "10.1.0.3")
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "again")) == ["10.1.0.3"])
        assert names.said() == ""


def test_who_asks_by_another_bridge_is_not_answered(scene: Scene, lab: Lab):
    """Nor is he by the address of one where his own host routes."""
    one, other = scene.network("one", 1), scene.network("other", 2)
    scene.entry("one", "web", "10.1.0.2")
    pod = lab.pod()
    scene.wire(pod, "br2", "10.2.0.9/16")
    pod.run("ip", "route", "add", "default", "via", other)
    scene.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    with Names(scene.host):
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "web")) == ["10.1.0.2"])
        assert eventually(lambda: _quietly(lambda: asked(pod, other, "web")) == [])
        with pytest.raises(TimeoutError):
            asked(pod, one, "web")


@pytest.mark.parametrize("lost", ["here", "there", ""])
def test_folders_that_are_taken_away_are_served_again_when_they_are_there_again(scene: Scene, lost: str):
    one = scene.network("one", 1)
    scene.entry("one", "web", "10.1.0.2")
    with Names(scene.host) as names:
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "web")) == ["10.1.0.2"])
        shutil.rmtree(hostsdir.FOLDER / "one" / lost)
        scene.configure("one", "br1")
        scene.entry("one", "late", "10.1.0.3")
        hostsdir.put(hostsdir.FOLDER / "one/there/far", "10.1.0.4 far\n")
        for name, address in (("late", "10.1.0.3"), ("far", "10.1.0.4")):
            assert eventually(lambda n=name, a=address: _quietly(lambda: asked(scene.host, one, n)) == [a], 10), name
        shutil.rmtree(hostsdir.FOLDER / "one" / lost)
        assert eventually(lambda: (hostsdir.FOLDER / "one/there").is_dir() or not lost)
        assert names.process.poll() is None


def test_a_file_that_is_damaged_harms_nobody_else(scene: Scene):
    one = scene.network("one", 1)
    web = scene.entry("one", "web", "10.1.0.2")
    with Names(scene.host) as names:
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "web")) == ["10.1.0.2"])
        for number, text in enumerate((b"\xff\n", b'#pod c eth0\n#health {"tcp": 80}\n', b"#pod c eth0\n#\n", b"")):
            (web.path.parent / f"{number:032x}").write_bytes(text)
        (web.path.parent / "folder").mkdir()
        names.kill()
        names.start()
        scene.entry("one", "late", "10.1.0.3")
        assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "late")) == ["10.1.0.3"], 20)
        assert names.process.poll() is None


def test_who_has_port_53_already_is_said_once_and_a_server_comes_when_he_is_gone(scene: Scene):
    one = scene.network("one", 1)
    scene.entry("one", "web", "10.1.0.2")
    hog = "import socket as s; it = s.socket(); it.bind(('10.1.0.1', 53)); it.listen(); print('ready', flush=True); input()"
    with scene.host.start("python3", "-c", hog) as taken:
        assert taken.stdout
        assert taken.stdout.readline() == "ready\n"
        with Names(scene.host) as names:
            assert eventually(lambda: "Address already in use" in names.said())
            time.sleep(3)  # it is tried some times more meanwhile
            warnings = [line for line in names.said().splitlines() if "warning" in line]
            assert [line for line in warnings if "listening socket for 10.1.0.1" not in line] == []
            assert len(warnings) == 1
            taken.communicate("\n")
            assert eventually(lambda: _quietly(lambda: asked(scene.host, one, "web")) == ["10.1.0.2"])


def test_a_second_daemon_is_refused(scene: Scene):
    scene.network("one", 1)
    with Names(scene.host) as names:
        assert eventually(names.servers)
        done = scene.host.run(AGENT_CNI, "names", check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert "a server of names runs on this host already" in done.stderr


def test_without_dnsmasq_it_says_which_package_has_it(scene: Scene):
    scene.network("one", 1)
    hide = "for it in $0 /usr/sbin/dnsmasq; do [ ! -e $it ] || mount --bind /dev/null $it; done"
    with Names(scene.host, "sh", "-c", f'{hide}; exec "$@"', f"{DNSMASQ}/dnsmasq") as names:
        assert eventually(lambda: "dnsmasq-base" in names.said())


def _quietly(ask, *words: object) -> list[str] | None:
    """What is answered; None while nobody does."""
    try:
        return ask(*words)
    except TimeoutError:
        return None
