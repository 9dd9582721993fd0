"""The DNS gate killed, or refused, at each of its effects, with files half written beside its own: it goes on, and nothing opens meanwhile."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import effects
from lab import ROOT, Host, Lab, eventually
from resolver import ask
from town import Member, Town

from crash.ordered import Revived, told
from crash.story import Told

sys.path.append(str(ROOT / "netns-tests/dnsgate"))

from test_names import OUTSIDE, WEB, World, reaches

GARBAGE = ("", "{", "[]", '{"token": 1}', "\0" * 100)


@contextmanager
def garbage(host: Host, chance: random.Random) -> Iterator[None]:
    """Files that are none of a pod's, beside those that are."""
    folder = host.folder / "dns"
    folder.mkdir(exist_ok=True, mode=0o700)
    files = [folder / f"{number}.pod" for number in range(len(GARBAGE))] + [folder / ".half.pod", folder / "counted"]
    for file in files:
        file.write_text(chance.choice(GARBAGE))
    yield
    for file in files:
        file.unlink(missing_ok=True)


def tell(story: str, seed: str) -> Told:
    """`gate killed, 1 of 12`: at the first effect, the 13th ..."""
    chance, lab = random.Random(f"garbage of {story} {seed}"), Lab(story)
    try:
        host = lab.host()
        with ExitStack() as held:
            town = Town(host, lab, "bridged", held)
            World(lab, host, held)

            def struck(order: effects.Order) -> list[str]:
                with garbage(host, chance):
                    return once(town, order)

            return told(story, seed, struck)
    finally:
        lab.close()


def once(town: Town, order: effects.Order) -> list[str]:
    """A pod that was there before the gate, another that comes and goes; what was wrong."""
    first = town.member(WEB)
    with Revived(town.host, order, "dnsgate") as gate:
        found = served(first)
        second = town.member(WEB)
        found += served(second)
        town.host.delete_pod(second.conf, second.pod)
        found += served(first)
    town.host.delete_pod(first.conf, first.pod)
    if "agent_cni" in town.host.run("nft", "list", "tables").stdout:
        found.append("a table is left")
    return [*found, *gate.wrong()]


def served(pod: Member) -> list[str]:
    """What is wrong with what a pod may resolve and reach; nobody need answer at once."""
    found = []

    def shut() -> None:
        told = ask(pod.pod, OUTSIDE[4], "evil.example", seconds=0.5)
        if (told and told.addresses) or reaches(pod.actor, "198.51.100.66"):
            found.append("what is not allowed is resolved, or reached")

    def resolved() -> bool:
        told = ask(pod.pod, OUTSIDE[4], "api.example.com", seconds=1)
        return bool(told and told.addresses == ["198.51.100.7"])

    shut()
    if not eventually(resolved, 40):
        found.append("what is allowed is not resolved")
    elif not eventually(lambda: reaches(pod.actor, "198.51.100.7"), 20):
        found.append("what is allowed is not reached")
    shut()
    return found
