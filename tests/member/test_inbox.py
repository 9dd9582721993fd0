from __future__ import annotations

import threading
import time

import pytest

from cni.cluster.store import Change
from cni.errors import Internal
from cni.member.inbox import Ended, Inbox, started


def change(revision: int) -> Change:
    return Change(revision, (), ())


def test_news_are_taken_in_their_order_and_wishes_once():
    inbox = Inbox()
    for number in range(3):
        inbox.put(change(number))
        inbox.look()
    brought = inbox.take(0)
    assert [news.revision for news in brought.news] == [0, 1, 2]
    assert brought.look
    brought = inbox.take(0)
    assert brought[:2] == ((), False)


def test_who_brings_too_much_waits_until_it_is_taken():
    inbox = Inbox()
    bringing = threading.Thread(target=lambda: [inbox.put(change(number)) for number in range(200)], daemon=True)
    bringing.start()
    seen: list[int] = []
    most = 0
    while len(seen) < 200:
        news = inbox.take(30).news
        most = max(most, len(news))
        seen += [item.revision for item in news]
    assert seen == list(range(200))
    assert most <= 64


def test_what_comes_wakes_who_waits():
    inbox = Inbox()
    for bring in (inbox.look, lambda: inbox.put(change(1))):
        later = threading.Timer(0.02, bring)
        later.start()
        began = time.monotonic()
        assert inbox.take(30)[:2] != ((), False)
        assert time.monotonic() - began < 20
        later.join()


def test_an_end_is_heard_before_all_else_and_the_first_one_counts():
    inbox = Inbox()
    inbox.put(change(1))
    inbox.end(Ended())
    inbox.end(ValueError())
    with pytest.raises(Ended):
        inbox.take(30)
    with pytest.raises(Ended):
        inbox.rest(30)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_a_thread_that_dies_ends_the_hand_by_what_it_died_of(error: BaseException):
    inbox = Inbox()

    def work() -> None:
        raise error

    started("work", work, inbox).join()
    with pytest.raises(type(error)) as raised:
        inbox.take(30)
    assert raised.value is error


def test_a_thread_that_is_done_ends_the_hand_too():
    inbox = Inbox()
    started("work", lambda: None, inbox).join()
    with pytest.raises(Internal, match="work thread ended"):
        inbox.rest(30)
