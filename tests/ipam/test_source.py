"""Where addresses come from; a delegate is faked at the process door."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_subprocess import FakeProcess

from cni.errors import AddressTaken, CniError, DecodingFailure, Delegated, ToolFailed, Unavailable
from cni.ipam.config import IpamConfig
from cni.ipam.own import Nothing, Own
from cni.ipam.source import Delegate, Source
from cni.protocol.call import Call
from cni.protocol.result import IPConfig, Result
from cni.state import Record, Store

CONF = {"cniVersion": "1.0.0", "name": "pods", "type": "bridge-vxlan", "ipam": {"type": "host-local", "foo": 1}}
ANSWER = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}]}


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder of CNI_PATH with an executable host-local."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "host-local").touch(0o755)
    return folder


@pytest.fixture
def delegate(bin_folder: Path) -> Delegate:
    path = ("/nowhere", str(bin_folder))
    environ = {"CNI_COMMAND": "DEL", "CNI_IFNAME": "eth9", "LANG": "C", "LEASES": "/leases"}
    return Delegate(CONF, Call("ADD", "c1", "/run/netns/c1", "eth0", "IP=10.0.0.2", path, environ=environ))


class Answering:
    """Registers what host-local will say, and remembers what it was asked."""

    def __init__(self, fp: FakeProcess, executable: Path) -> None:
        self.fp = fp
        self.executable = str(executable)
        self.asked: list[Any] = []

    def say(self, stdout: object = "", code: int = 0, stderr: str = "") -> None:
        text = stdout if isinstance(stdout, str) else json.dumps(stdout)
        self.recorder = self.fp.register(
            [self.executable], stdout=text, stderr=stderr, returncode=code, stdin_callable=self._heard
        )

    def _heard(self, text: str) -> None:
        self.asked.append(json.loads(text))

    @property
    def environ(self) -> dict[str, str]:
        return self.recorder.first_call.kwargs["env"]


@pytest.fixture
def host_local(fp: FakeProcess, bin_folder: Path) -> Answering:
    return Answering(fp, bin_folder / "host-local")


def reserved(source: Source, store: Store, record: Record) -> Result:
    """What an ADD gets."""
    with source.reserving(store, record) as lease:
        return lease


def test_add_asks_the_delegate(delegate: Delegate, host_local: Answering, store: Store, record: Record):
    host_local.say(ANSWER)
    assert reserved(delegate, store, record) == Result(ips=(IPConfig("10.0.0.2/24", "10.0.0.1"),))
    assert host_local.asked == [CONF]
    assert host_local.environ == {
        "LANG": "C",
        "LEASES": "/leases",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IP=10.0.0.2",
        "CNI_PATH": f"/nowhere:{delegate.call.path[1]}",
    }


@pytest.mark.parametrize(
    ("verb", "ask"),
    [
        ("DEL", lambda delegate: delegate.release()),
        ("GC", lambda delegate: delegate.sweep()),
        ("STATUS", lambda delegate: delegate.refuse_when_exhausted(None, "pods")),
        ("CHECK", lambda delegate: list(delegate.differences(None, None, Result()))),
    ],
)
def test_other_verbs_are_forwarded(delegate: Delegate, host_local: Answering, verb: str, ask: Callable[[Any], Any]):
    host_local.say()
    assert not ask(delegate)
    assert host_local.environ["CNI_COMMAND"] == verb
    assert host_local.asked == [CONF]


@pytest.mark.parametrize(
    ("answer", "code", "msg"),
    [
        ({"code": 11, "msg": "later", "details": "more"}, 11, "IPAM plugin 'host-local': later"),
        ({"code": 123, "msg": "its own"}, 123, "IPAM plugin 'host-local': its own"),
        ({"msg": "no code"}, 106, "IPAM plugin 'host-local': no code"),
        ({"code": "odd", "msg": "hm"}, 106, "IPAM plugin 'host-local': hm"),
        ({"code": True, "msg": "hm"}, 106, "IPAM plugin 'host-local': hm"),
        ({"code": 1 << 32, "msg": "hm"}, 106, "IPAM plugin 'host-local': hm"),
        ({"code": 999, "msg": "full"}, 106, "IPAM plugin 'host-local': full"),
    ],
    ids=["whole", "of its own", "without a code", "odd", "true", "no uint", "the reference's for anything"],
)
def test_the_delegates_error_is_passed_on_with_its_code(
    delegate: Delegate, host_local: Answering, answer: dict[str, Any], code: int, msg: str
):
    host_local.say(answer, 1)
    with pytest.raises(Delegated) as caught:
        delegate.release()
    assert (caught.value.code, caught.value.msg) == (code, msg)
    assert caught.value.details == answer.get("details", "")


@pytest.mark.parametrize(
    ("stdout", "code", "error"),
    [
        ("panic", 0, DecodingFailure),
        ("5", 0, DecodingFailure),
        ('"text"', 0, DecodingFailure),
        ("null", 0, DecodingFailure),
        ("[]", 0, DecodingFailure),
        ("", 0, DecodingFailure),
        ("{}", 0, DecodingFailure),
        ('{"ips": [{"address": "here"}]}', 0, DecodingFailure),
        ("[1]", 1, CniError),
        ("panic", 2, CniError),
        ("", 1, ToolFailed),
        ("{}", 1, ToolFailed),
    ],
)
def test_an_answer_that_is_none_is_refused_by_name(
    delegate: Delegate,
    host_local: Answering,
    store: Store,
    record: Record,
    stdout: str,
    code: int,
    error: type[CniError],
):
    host_local.say(stdout, code)
    with pytest.raises(error) as caught:
        reserved(delegate, store, record)
    assert "'host-local'" in caught.value.msg


def test_without_an_answer_stderr_is_the_reason(delegate: Delegate, host_local: Answering):
    host_local.say("", 127, "no such library\n")
    with pytest.raises(ToolFailed, match=r"failed \(127\): no such library$"):
        delegate.release()


def test_check_tells_what_the_delegate_misses(delegate: Delegate, host_local: Answering, store: Store, record: Record):
    host_local.say({"code": 999, "msg": "no lease"}, 1)
    assert list(delegate.differences(store, record, Result())) == ["IPAM plugin 'host-local': no lease"]


@pytest.mark.parametrize("code", [50, 51])
def test_a_delegate_that_cannot_serve_makes_us_unavailable(delegate: Delegate, host_local: Answering, code: int):
    host_local.say({"code": code, "msg": "full"}, 1)
    with pytest.raises(Unavailable, match="full"):
        delegate.refuse_when_exhausted(None, "pods")


@pytest.mark.parametrize(
    "ask",
    [lambda delegate: delegate.refuse_when_exhausted(None, "pods"), lambda delegate: delegate.sweep()],
    ids=["STATUS", "GC"],
)
@pytest.mark.parametrize("code", [1, 4], ids=["version", "verb"])
def test_a_delegate_too_old_for_a_verb_is_taken_to_be_fine(
    delegate: Delegate, host_local: Answering, ask: Callable[[Delegate], None], code: int
):
    host_local.say({"code": code, "msg": "unknown CNI_COMMAND"}, 1)
    ask(delegate)


def test_another_failure_of_gc_is_passed_on(delegate: Delegate, host_local: Answering):
    host_local.say({"code": 5, "msg": "disk"}, 1)
    with pytest.raises(Delegated, match="disk"):
        delegate.sweep()


@pytest.mark.parametrize(
    "name",
    [
        "dhcp",
        "../bin/host-local",
        "./host-local",
        "bin/host-local",
        "/bin/sh",
        ".",
        "..",
        "",
        "host-local\n",
        "data",
        "folder",
    ],
)
def test_what_is_no_executable_of_cni_path_is_refused_before_anything_is_written(
    bin_folder: Path, store: Store, record: Record, fp: FakeProcess, name: str
):
    (bin_folder / "data").touch(0o644)
    (bin_folder / "folder").mkdir()
    delegate = Delegate(CONF | {"ipam": {"type": name}}, Call("ADD", path=(str(bin_folder),)))
    with pytest.raises(ToolFailed, match="is not in CNI_PATH"):
        reserved(delegate, store, record)
    assert store.records() == []
    assert not fp.calls


def own(*asked: str) -> Own:
    conf = {"cniVersion": "1.0.0", "ipam": {"subnet": "10.0.0.0/30"}, "runtimeConfig": {"ips": list(asked)}}
    return Own(IpamConfig.read(conf, Call("ADD")))


def test_our_ipam_writes_leases_with_the_record(store: Store, record: Record):
    with own().reserving(store, record) as lease:
        assert [ip.address for ip in lease.ips] == ["10.0.0.2/30"]
        store.put(record)
    assert store.records() == [record]
    assert [str(address) for address in store.leases(record.attachment, record.plugin)] == ["10.0.0.2"]


def recorded(source: Source, store: Store, record: Record) -> None:
    with store.planning():
        store.put(record)
        reserved(source, store, record)


def test_our_ipam_writes_neither_when_it_cannot_lease(store: Store, record: Record):
    with pytest.raises(AddressTaken):
        recorded(own("10.0.0.1"), store, record)
    assert store.records() == []
    assert store.all_leases() == []


def test_our_ipam_names_a_lost_lease(store: Store, record: Record):
    given = reserved(own(), store, record)
    assert list(own().differences(store, record, given)) == []
    store.forget(record.attachment, record.plugin)
    assert list(own().differences(store, record, given)) == ["lease of 10.0.0.2/30 in network 'pods' is missing"]


def test_our_ipam_foresees_exhaustion_as_50(store: Store, record: Record):
    own().refuse_when_exhausted(None, "pods")
    own().refuse_when_exhausted(store, "pods")
    reserved(own(), store, record)
    with pytest.raises(Unavailable, match=r"^network 'pods': no free address in 10\.0\.0\.1-10\.0\.0\.2$"):
        own().refuse_when_exhausted(store, "pods")


def test_layer_2_attachments_have_no_address(store: Store, record: Record):
    assert reserved(Nothing(), store, record) == Nothing().preview() == Result()
    assert store.all_leases() == []
