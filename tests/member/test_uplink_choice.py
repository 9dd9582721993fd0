"""Which uplink is taken: by histories of what is behind each, generated and by hand."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from cni.member.uplinks.choice import GATEWAY, HOLD, HOSTS, NOBODY, NOTHING, Choice, Seen

#: Seconds between two looks, as the member has them.
TICK = 0.1
#: After which a better one is taken for certain, and a failure is no longer soon after a return.
SETTLED = 3 * TICK


class Watched:
    """A choice between `a` and `b` that time goes by for, and when it took another."""

    def __init__(self, taken: str = "a", names: str = "ab") -> None:
        self.choice, self.now, self.names = Choice(taken), 100.0, names
        self.switches: list[tuple[float, str]] = []

    def see(self, seconds: float, *behind: int | tuple[int, int]) -> str:
        """Be seen so for a time; what is taken then."""
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            before = self.choice.taken
            seen = [
                Seen(name, *(what if isinstance(what, tuple) else (what,)))
                for name, what in zip(self.names, behind, strict=True)
            ]
            if self.choice.decide(self.now, seen) != before:
                self.switches.append((self.now, self.choice.taken))
        return self.choice.taken


def test_what_carries_nothing_is_left_at_once_and_who_is_silent_after_a_moment():
    host = Watched()
    assert host.see(TICK, NOTHING, GATEWAY) == "b"
    host = Watched()
    assert host.see(TICK, NOBODY, GATEWAY) == "a", "both may be about to fail"
    assert host.see(SETTLED, NOBODY, GATEWAY) == "b"


def test_two_that_fail_at_about_the_same_time_are_not_taken_in_turn():
    host = Watched()
    assert host.see(TICK, NOBODY, GATEWAY) == "a"
    assert host.see(600, NOBODY, NOBODY) == "a"
    assert host.see(600, NOTHING, NOTHING) == "a"
    host = Watched("b")
    assert host.see(600, NOBODY, NOBODY) == "b", "nothing says that the first is any better"
    assert host.see(600, NOTHING, NOTHING) == "b"
    assert not host.switches


def test_the_first_is_taken_back_when_it_was_well_for_a_while():
    host = Watched()
    host.see(1, NOTHING, GATEWAY)
    assert host.see(HOLD - 1, GATEWAY, GATEWAY) == "b"
    host.see(1, NOBODY, GATEWAY)
    assert host.see(HOLD - 1, GATEWAY, GATEWAY) == "b", "it begins anew"
    assert host.see(2, GATEWAY, GATEWAY) == "a"


def test_one_that_comes_and_goes_is_taken_back_ever_more_rarely():
    host = Watched()
    for _ in range(200):
        host.see(HOLD + 1, GATEWAY, GATEWAY)
        host.see(1, NOTHING, GATEWAY)
    back = [at for at, name in host.switches if name == "a"]
    assert len(back) < 15
    host.see(1000, GATEWAY, GATEWAY)
    host.see(1, NOTHING, GATEWAY)
    assert host.see(HOLD + 1, GATEWAY, GATEWAY) == "a", "it was well for long"


def test_hosts_that_answer_are_more_than_a_gateway_that_does_not_and_less_than_one_that_does():
    host = Watched()
    assert host.see(SETTLED, NOBODY, (HOSTS, 1)) == "b"
    assert host.see(SETTLED, GATEWAY, (HOSTS, 9)) == "a", "without waiting: it is better"


def test_the_uplink_is_taken_on_which_more_hosts_are():
    """One of three lost its first uplink: the others are to meet it on the second, though they hear each other on the first."""
    host = Watched()
    assert host.see(SETTLED, (HOSTS, 1), (HOSTS, 2)) == "b"
    host = Watched()
    assert host.see(600, (HOSTS, 1), (HOSTS, 1)) == "a", "a host that is away is so on both"


def test_an_uplink_that_is_none_any_more_is_left():
    assert Watched("c").see(TICK, NOBODY, NOTHING) == "a"


BEHIND = st.one_of(st.sampled_from([NOTHING, NOBODY, GATEWAY]), st.tuples(st.just(HOSTS), st.integers(1, 3)))
HISTORIES = st.lists(st.tuples(st.floats(TICK, 30), st.tuples(BEHIND, BEHIND, BEHIND)), max_size=30)


def worths(behind: Iterable[int | tuple[int, int]]) -> list[tuple[int, int]]:
    return [what if isinstance(what, tuple) else (what, 0) for what in behind]


@given(HISTORIES, st.sampled_from("abc"))
def test_whatever_happens_the_best_is_taken_and_nobody_flaps(
    history: list[tuple[float, tuple[int | tuple[int, int], ...]]], taken: str
):
    host = Watched(taken, "abc")
    for seconds, behind in history:
        before, since = len(host.switches), host.now
        name = host.see(seconds, *behind)
        known = worths(behind)
        worth = known["abc".index(name)]
        if seconds > SETTLED:
            assert worth == max(known), "one that is better is not left out"
        late = [at for at, _ in host.switches[before:] if at > since + SETTLED]
        assert len(late) <= 1, "while nothing becomes another, only the return to one that is to be preferred"
        again = len(host.switches)
        if worth[0] > NOBODY:
            host.see(400, *behind)
            assert host.choice.taken == "abc"[known.index(max(known))], "in the end the first of the best"
        else:
            host.see(400, *behind)
            assert host.switches[again:] == [] or worth < max(known)
