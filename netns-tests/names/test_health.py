"""Pods that are probed: whose names are answered, and when that is another."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import AGENT_CNI, Lab, Pod, eventually
from names import Names, Web, asked
from serving import Scene

from cni.kernel import hostsdir
from cni.kernel.hostsdir import NOT_PROBED, Entry
from cni.kernel.locks import LockFile

NEW = f"2026-01-01 00:00:00 UTC: {NOT_PROBED}"


def health(**keys: object) -> str:
    return json.dumps(
        {"http": "/healthz", "port": 8080, "interval": 0.5, "timeout": 0.5, "failures": 3, "passes": 2} | keys
    )


@pytest.fixture
def scene(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(lab.host())
    monkeypatch.setattr(hostsdir, "FOLDER", made.host.names)
    made.server = made.network("net", 1)
    return made


@pytest.fixture
def pod(scene: Scene, lab: Lab) -> Pod:
    """A pod with as many addresses as anybody wants, 10.1.1.0/24 and on."""
    made = lab.pod()
    scene.wire(made, "br1", *(f"10.1.1.{number}/16" for number in range(1, 251)))
    return made


@pytest.fixture
def web(pod: Pod, tmp_path: Path) -> Iterator[Web]:
    with Web(pod, tmp_path / "web") as made:
        yield made


def read(entry: Entry) -> Entry | None:
    return Entry.read(entry.attachment.network, hostsdir.read(entry.path))


def is_answered(scene: Scene, entry: Entry) -> bool:
    return asked(scene.host, scene.server, entry.names[0]) == list(entry.addresses)


def test_a_pod_is_answered_from_its_first_pass_and_not_after_some_failures(scene: Scene, web: Web):
    entry = scene.entry("net", "web", "10.1.1.1", health=health(), unhealthy=NEW)
    with Names(scene.host) as names:
        assert eventually(names.servers)
        assert eventually(lambda: is_answered(scene, entry))
        web.say("503 Service Unavailable", "10.1.1.1")
        began = time.monotonic()
        assert eventually(lambda: not is_answered(scene, entry))
        assert 0.9 < time.monotonic() - began < 3 * 0.5 + 1
        assert read(entry).unhealthy.endswith(": GET /healthz of port 8080 says: 503")
        web.say("204 No Content", "10.1.1.1")
        began = time.monotonic()
        assert eventually(lambda: is_answered(scene, entry))
        assert 0.4 < time.monotonic() - began < 2 * 0.5 + 1
        assert read(entry).unhealthy == ""
        assert set(web.asked()) == {"GET /healthz HTTP/1.1"}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("silent", "GET /healthz of port 8080: no answer within 0.5 s"),
        ("endless", "GET /healthz of port 8080: what answers speaks no HTTP"),
        ("404 Not Found", "GET /healthz of port 8080 says: 404"),
        ("200", ""),
        ("302 Found", ""),
        ("399 Whatever", ""),
        ("400 Bad Request", "GET /healthz of port 8080 says: 400"),
    ],
)
def test_what_a_status_says(scene: Scene, web: Web, said: str, why: str):
    web.say(said, "10.1.1.1")
    entry = scene.entry("net", "web", "10.1.1.1", health=health(), unhealthy=NEW)
    with Names(scene.host):
        assert eventually(lambda: not read(entry).unhealthy.endswith(NOT_PROBED))
        assert read(entry).unhealthy.partition("UTC: ")[2] == why
        assert not any("elsewhere" in line for line in web.asked())


@pytest.mark.parametrize(
    ("address", "port", "why"),
    [
        ("10.1.1.1", 8080, ""),
        ("10.1.1.1", 8081, "port 8081: Connection refused"),
        ("10.1.9.9", 8080, "port 8080: no answer within 0.5 s"),
    ],
)
def test_a_port_is_probed_by_a_connection(scene: Scene, web: Web, address: str, port: int, why: str):
    said = json.dumps({"tcp": port, "interval": 0.5, "timeout": 0.5, "failures": 2})
    entry = scene.entry("net", "web", address, health=said, unhealthy=NEW)
    with Names(scene.host):
        assert eventually(lambda: not read(entry).unhealthy.endswith(NOT_PROBED))
        assert read(entry).unhealthy.partition("UTC: ")[2] == why


def test_hundreds_are_probed_each_second_and_those_that_flap_are_told_apart(scene: Scene, web: Web):
    """Of 250 each tenth turns unhealthy; no other's answer is withheld."""
    said = health(interval=1.0, timeout=1.0)
    entries = [scene.entry("net", f"web{it}", f"10.1.1.{it}", health=said, unhealthy=NEW) for it in range(1, 251)]
    with Names(scene.host) as names:
        assert eventually(lambda: not any(read(it).unhealthy for it in entries))
        sick = entries[::10]
        for entry in sick:
            web.say("500 Internal Server Error", entry.addresses[0])
        began = time.monotonic()
        assert eventually(lambda: all(read(it).unhealthy for it in sick))
        took = time.monotonic() - began
        assert took < 3 + 1 + 1
        before = len(web.asked())
        time.sleep(5)
        rate = (len(web.asked()) - before) / 5
        assert 150 < rate < 260  # a busy machine is late, and nobody is early
        assert [it for it in entries if it not in sick and read(it).unhealthy] == []
        assert names.process.poll() is None
        used = sum(map(float, Path(f"/proc/{names.pid}/stat").read_text().split()[13:15])) / 100
        print(
            f"250 pods probed each second: {rate:.0f} probes/s; {used:.2f} s of processor so far, unhealthy after {took:.2f} s"
        )


def test_while_some_flap_each_question_is_answered_with_all_that_are_well(scene: Scene, web: Web):
    """Of ten pods under one name three flap, and somebody asks without a pause."""
    said = health(interval=0.2, timeout=0.2, failures=1, passes=1)
    flapping = [scene.entry("net", f"w{it}", f"10.1.1.{it}", health=said, alias="all") for it in range(1, 4)]
    entries = [scene.entry("net", f"w{it}", f"10.1.1.{it}", alias="all") for it in range(4, 11)]
    well = {it.addresses[0] for it in entries}
    with Names(scene.host) as names:
        assert eventually(names.servers)
        assert eventually(lambda: is_answered(scene, entries[-1]))
        seen, until, status = set[int](), time.monotonic() + 8, True
        while time.monotonic() < until or len(seen) < 2:
            status = not status
            for entry in flapping:
                web.say("200 OK" if status else "500 Internal Server Error", entry.addresses[0])
            for _ in range(10):
                answer = asked(scene.host, scene.server, "all", seconds=5)
                assert well <= {*answer}
                assert len(answer) == len({*answer})
                seen.add(len(answer))
            assert time.monotonic() < until + 60
        assert max(seen) > len(well)


def test_a_pod_that_is_taken_away_stays_so_whatever_its_probe_says(scene: Scene, web: Web):
    """While a call holds the attachment nothing is written; after it took the file nobody writes it again."""
    entry = scene.entry("net", "web", "10.1.1.1", health=health(failures=1, interval=0.2))
    with Names(scene.host) as names:
        assert eventually(web.asked)
        lock = LockFile(scene.host.folder / "lock")
        with lock.exclusive(entry.attachment.digest, "a test"):
            web.say("500 Internal Server Error", "10.1.1.1")
            time.sleep(1)
            assert read(entry).unhealthy == ""
            hostsdir.drop([entry.path])
        lock.close()
        time.sleep(1)
        assert not entry.path.exists()
        before = len(web.asked())
        time.sleep(0.5)
        assert len(web.asked()) == before
        assert names.process.poll() is None


def test_a_daemon_that_is_killed_goes_on_by_what_its_files_say(scene: Scene, web: Web):
    web.say("500 Internal Server Error", "10.1.1.1")
    sick = scene.entry("net", "sick", "10.1.1.1", health=health(), unhealthy=NEW)
    well = scene.entry("net", "well", "10.1.1.2", health=health(), unhealthy=NEW)
    with Names(scene.host) as names:
        assert eventually(lambda: not read(well).unhealthy and not read(sick).unhealthy.endswith(NOT_PROBED))
        before = read(sick)
        names.kill()
        names.start()
        time.sleep(2)
        assert (read(sick), read(well).unhealthy) == (before, "")
        web.say("200 OK", "10.1.1.1")
        assert eventually(lambda: not read(sick).unhealthy)


def test_health_that_cannot_be_read_is_named_and_harms_nobody_else(scene: Scene, web: Web):
    scene.entry("net", "odd", "10.1.1.1", health='{"http": "no path", "port": 8080}', unhealthy=NEW)
    well = scene.entry("net", "well", "10.1.1.2", health=health(), unhealthy=NEW)
    with Names(scene.host) as names:
        assert eventually(lambda: not read(well).unhealthy)
        assert "'no path' is no path" in names.said()


def test_what_changes_is_in_the_log_and_in_a_pods_trace(scene: Scene, web: Web):
    entry = scene.entry("net", "logged", "10.1.1.1", health=health(), unhealthy=NEW)
    with Names(scene.host):
        assert eventually(lambda: not read(entry).unhealthy)
        web.say("500 Internal Server Error", "10.1.1.1")
        assert eventually(lambda: read(entry).unhealthy)
    lines = [json.loads(line) for line in Path("/var/log/agent-cni/names.log").read_text().splitlines()]
    told = [
        (line["verb"], line.get("why", "")) for line in lines if line.get("container") == entry.attachment.container
    ]
    assert told == [("healthy", ""), ("unhealthy", read(entry).unhealthy)]
    assert "unhealthy" in scene.host.run(AGENT_CNI, "trace", entry.attachment.container).stdout
