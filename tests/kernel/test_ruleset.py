"""What nf_tables is asked and told by name and key, with the kernel's side of the socket played."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from cni.errors import KernelRefused, TryAgainLater
from cni.kernel import nfnetlink, ruleset
from cni.kernel.netlink.channel import DumpInterrupted
from cni.kernel.netlink.wire import attribute, attributes, listed, nested, string
from cni.kernel.nfnetlink import (
    CHAIN,
    DELETE_CHAIN,
    DELETE_ELEMENTS,
    DELETE_TABLE,
    ELEMENTS,
    GENERATION,
    GET,
    TABLE,
    attributes_of,
    kind_of,
    raw_request,
)
from cni.kernel.ruleset import Chain, Element

BEGIN = b"\x10\0"  # of no subsystem
IN4 = Element("inet t in4", bytes([10, 1, 0, 5]))
POD = Chain("inet t", "in-a")
Answer = list[bytes] | int | type[Exception]


def refused(number: int) -> KernelRefused:
    return KernelRefused(os.strerror(number), number)


class Kernel:
    """Answers questions by their kind: messages, an errno, or an exception; `changes` are answers to transactions."""

    def __init__(self) -> None:
        self.there: dict[int, Answer] = {GENERATION: [raw_request(GENERATION, 0, 0, attribute(1, b"\0\0\0\7"))]}
        self.changes: list[int] = []
        self.told: list[list[bytes]] = []

    def ask(self, *requests: bytes) -> list[bytes]:
        if requests[0][4:6] == BEGIN:
            self.told.append(list(requests))
            return self._answer(self.changes.pop(0) if self.changes else [])
        return self._answer(self.there.get(kind_of(requests[0]) - GET, errno.ENOENT))

    def refusals(self, requests: list[bytes]) -> list[KernelRefused | None]:
        said: list[KernelRefused | None] = []
        for request in requests:
            try:
                self.ask(request)
                said.append(None)
            except KernelRefused as error:
                said.append(error)
        return said

    def _answer(self, answer: Answer) -> list[bytes]:
        if isinstance(answer, type):
            raise answer
        if isinstance(answer, int) and answer:
            raise refused(answer)
        return answer or []

    @property
    def kinds(self) -> list[list[int]]:
        """What was told, without what begins and ends it."""
        return [[kind_of(request) for request in requests[1:-1]] for requests in self.told]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(nfnetlink, "opened", lambda: made)
    return made


def element(verdict: bytes = b"") -> list[bytes]:
    """An entry as the kernel tells of it."""
    data = nested(2, nested(2, verdict)) if verdict else b""
    return [raw_request(ELEMENTS, 0, 1, nested(3, nested(1, nested(1, attribute(1, IN4.key)), data)))]


def chain(table: str, name: str) -> bytes:
    return raw_request(CHAIN, 0, 1, attribute(1, string(table)) + attribute(3, string(name)))


def test_an_element_is_named_by_its_key():
    assert IN4.body() == bytes.fromhex(
        "0600 0100 7400 0000"  # table "t"
        "0800 0200 696e3400"  # set "in4"
        "1400 0380 1000 0180 0c00 0180 0800 0100 0a010005"  # elements, the item, its key, the value
    )


def test_an_interval_has_an_end_beside_its_key():
    item = Element("ip t near", b"\1\1\1\1", b"\1\1\1\2").body()
    (body,) = listed(attributes(item)[3])
    assert list(attributes(body)) == [1, 10]
    assert body.endswith(bytes.fromhex("0c000a80 08000100 01010102"))


def test_a_chain_is_named_by_its_table_and_its_name():
    assert POD.body() == bytes.fromhex("0600 0100 7400 0000  0900 0300 696e2d6100 000000")


def test_the_key_of_a_link_is_as_long_as_any():
    assert ruleset.link_key("eth0") == b"eth0" + bytes(12)
    assert ruleset.link_key("a" * 15) == b"a" * 15 + b"\0"


def test_an_element_is_there_or_not(kernel: Kernel):
    assert not ruleset.has_element(IN4)
    kernel.there[ELEMENTS] = element()
    assert ruleset.has_element(IN4)


@pytest.mark.parametrize(
    ("verdict", "leads"),
    [
        (attribute(1, b"\xff\xff\xff\xfd") + attribute(2, string("in-a")), "in-a"),
        (attribute(1, b"\0\0\0\1"), ""),
        (b"", ""),
    ],
    ids=["jump", "accept", "no verdict"],
)
def test_an_entry_that_leads_elsewhere_is_another(kernel: Kernel, verdict: bytes, leads: str):
    kernel.there[ELEMENTS] = element(verdict)
    assert ruleset.has_element(IN4)
    assert ruleset.has_element(IN4._replace(chain="in-a")) is (leads == "in-a")
    assert not ruleset.has_element(IN4._replace(chain="in-b"))
    ruleset.delete_there(elements=[IN4._replace(chain="in-a")])
    assert kernel.kinds == [[DELETE_ELEMENTS]] * (leads == "in-a")


def test_a_set_has_its_keys_or_none(kernel: Kernel):
    assert ruleset.keys("inet t in4") == set()
    kernel.there[ELEMENTS] = [raw_request(ELEMENTS, 0, 1), *element()]
    assert ruleset.keys("inet t in4") == {IN4.key}
    kernel.there[ELEMENTS] = DumpInterrupted
    with pytest.raises(TryAgainLater):
        ruleset.keys("inet t in4")


def test_each_of_several_elements_is_there_or_not(kernel: Kernel):
    assert ruleset.which_there([]) == []
    assert ruleset.which_there([IN4, IN4]) == [False, False]
    kernel.there[ELEMENTS] = element()
    assert ruleset.which_there([IN4, IN4]) == [True, True]


@pytest.mark.parametrize(
    "question",
    [
        lambda: ruleset.has_element(IN4),
        lambda: ruleset.which_there([IN4]),
        lambda: ruleset.is_dormant("inet t"),
    ],
)
def test_a_question_that_is_refused_is_no_answer(kernel: Kernel, question: Callable[[], object]):
    kernel.there = {ELEMENTS: errno.EPERM, TABLE: errno.EPERM}
    with pytest.raises(KernelRefused, match="not permitted"):
        question()


def test_what_is_there_is_deleted_in_one_transaction_entries_first(kernel: Kernel):
    kernel.there |= {ELEMENTS: element(), CHAIN: [chain("t", "in-a")]}
    ruleset.delete_there([POD], [IN4, IN4])
    assert kernel.kinds == [[DELETE_ELEMENTS, DELETE_ELEMENTS, DELETE_CHAIN]]


def test_where_nothing_is_there_nothing_is_told(kernel: Kernel):
    ruleset.delete_there([POD], [IN4])
    assert kernel.told == []


def test_a_chain_that_something_else_leads_to_stays(kernel: Kernel):
    kernel.there[CHAIN] = [chain("t", "in-a")]
    kernel.changes = [errno.EBUSY]
    with pytest.raises(KernelRefused, match=r"^chain in-a of table inet t cannot be deleted: it is in use$"):
        ruleset.delete_there([POD])


def test_elements_that_cannot_be_deleted_are_told(kernel: Kernel):
    kernel.there[ELEMENTS] = element()
    kernel.changes = [errno.EBUSY]
    with pytest.raises(KernelRefused, match="busy"):
        ruleset.delete_there(elements=[IN4])


def test_what_goes_or_changes_meanwhile_is_looked_for_again(kernel: Kernel):
    kernel.there[CHAIN] = [chain("t", "in-a")]
    kernel.changes = [errno.ENOENT, errno.ERESTART]
    ruleset.delete_there([POD])
    assert len(kernel.told) == 3
    assert {attributes_of(told[0])[1] for told in kernel.told} == {b"\0\0\0\7"}, "what was looked at"


def test_an_element_is_added_where_its_set_is(kernel: Kernel):
    kernel.changes = [errno.ENOENT, 0]
    ruleset.add_where_there([IN4, IN4])
    assert kernel.kinds == [[ELEMENTS], [ELEMENTS]]
    kernel.changes = [errno.EPERM]
    with pytest.raises(KernelRefused, match="not permitted"):
        ruleset.add_where_there([IN4])


def test_what_comes_and_goes_forever_is_tried_again_later(kernel: Kernel):
    kernel.there[CHAIN] = [chain("t", "in-a")]
    kernel.changes = [errno.ENOENT] * ruleset._TRIES
    with pytest.raises(TryAgainLater):
        ruleset.delete_there([POD])


def test_a_deletion_that_is_refused_is_a_failure(kernel: Kernel):
    kernel.there |= {CHAIN: [chain("t", "in-a")], TABLE: [b""]}
    for delete in (lambda: ruleset.delete_there([POD]), lambda: ruleset.delete_table("inet t")):
        kernel.changes = [errno.EPERM]
        with pytest.raises(KernelRefused, match="not permitted"):
            delete()


@pytest.mark.parametrize("answer", [0, errno.ENOENT], ids=["there", "gone"])
def test_a_table_is_deleted_by_its_name_alone(kernel: Kernel, answer: int):
    kernel.changes = [answer]
    ruleset.delete_table("netdev agent_cni-a")
    assert kernel.kinds == [[DELETE_TABLE]]
    assert string("agent_cni-a") in kernel.told[0][1]


@pytest.fixture
def idle(kernel: Kernel) -> Kernel:
    """A table with a chain of its own and an empty set, beside one of the same family."""
    kernel.there |= {TABLE: [raw_request(TABLE, 0, 1)], CHAIN: [chain("t", "own"), chain("other", "x")], ELEMENTS: []}
    return kernel


def delete_idle() -> None:
    ruleset.delete_idle("inet t", chains=["own"], sets=["pods"])


def test_an_idle_table_is_deleted_as_long_as_nobody_changed_rules(idle: Kernel):
    delete_idle()
    assert idle.kinds == [[DELETE_TABLE]]
    assert attributes_of(idle.told[0][0]) == {1: b"\0\0\0\7"}


@pytest.mark.parametrize(
    ("kind", "there"),
    [(TABLE, errno.ENOENT), (CHAIN, [chain("t", "own"), chain("t", "in-a")]), (ELEMENTS, element())],
    ids=["gone", "a chain", "an element"],
)
def test_a_table_in_use_stays(idle: Kernel, kind: int, there: Answer):
    idle.there[kind] = there
    delete_idle()
    assert idle.told == []


@pytest.mark.parametrize("number", [errno.ERESTART, errno.EBUSY, errno.ENOENT])
def test_whoever_changes_rules_meanwhile_has_the_table_looked_at_again(idle: Kernel, number: int):
    idle.changes = [number]
    delete_idle()
    assert len(idle.told) == 2


@pytest.mark.parametrize("number", [errno.ERESTART, errno.EPERM])
def test_a_table_that_cannot_be_deleted_is_told(idle: Kernel, number: int):
    idle.changes = [number] * ruleset._TRIES
    with pytest.raises(TryAgainLater if number == errno.ERESTART else KernelRefused):
        delete_idle()


def test_a_list_that_is_interrupted_is_asked_for_again(idle: Kernel):
    idle.there[CHAIN] = DumpInterrupted
    with pytest.raises(TryAgainLater):
        delete_idle()
    assert idle.told == []


@pytest.mark.parametrize(("flags", "dormant"), [(1, True), (0, False), (None, False)])
def test_a_table_sleeps_by_its_flag(kernel: Kernel, flags: int | None, dormant: bool):
    assert not ruleset.is_dormant("inet t")
    said = attribute(2, flags.to_bytes(4, "big")) if flags is not None else b""
    kernel.there[TABLE] = [raw_request(TABLE, 0, 1, attribute(1, string("t")) + said)]
    assert ruleset.is_dormant("inet t") is dormant
