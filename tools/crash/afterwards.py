"""What a runtime, or an operator, may do after a call that was killed, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from killing import Killed, Node, inside
from lab import REFERENCE_DIR, Pod

from crash.chains import EDITED, say


@dataclass
class Kill:
    """A pod one of whose calls was killed, beside a neighbour."""

    node: Node
    pod: Pod
    neighbour: Pod
    call: Killed
    others: tuple[Pod, ...] = ()
    found: list[str] = field(default_factory=list)

    def must(self, wrong: str) -> None:
        """Note what was wrong with what follows, if anything was."""
        if wrong:
            self.found.append(wrong)


def again(kill: Kill) -> None:
    """The runtime repeats the ADD, and has what it asked for."""
    whole, last = kill.node.is_complete(kill.pod), len(kill.node.chain) - 1
    if wrong := kill.node.add(kill.pod, first=last):
        kill.must("" if whole and '"code": 105' in wrong else wrong)
    else:
        kill.must(kill.node.check(kill.pod))
    here, there = (set(it.addresses("eth0")) if it.link("eth0") else set() for it in (kill.pod, kill.neighbour))
    kill.must(f"an address twice: {here & there}" if here & there else "")
    kill.must(kill.node.delete(kill.pod))


def deleted(kill: Kill) -> None:
    """It gives up, and says nothing of a result."""
    kill.must(kill.node.delete(kill.pod, previous=False))


def deleted_fully(kill: Kill) -> None:
    """It gives up, and says what it knows."""
    kill.must(kill.node.delete(kill.pod))


def deleted_unnamed(kill: Kill) -> None:
    """It does not say where the namespace is, which is there."""
    kill.must(kill.node.delete(kill.pod, CNI_NETNS=""))


def deleted_edited(kill: Kill) -> None:
    """Its configuration is another by now."""
    kill.must(kill.node.delete(kill.pod, edit=EDITED))


def deleted_gone(kill: Kill) -> None:
    """The namespace is gone."""
    kill.pod.delete()
    kill.must(kill.node.delete(kill.pod, previous=False))


def deleted_replaced(kill: Kill) -> None:
    """Another namespace is at the same path, with a link of that name."""
    kill.pod.delete()
    kill.pod.create()
    kill.pod.run("ip", "link", "add", "eth0", "type", "bridge")
    kill.pod.run("ip", "addr", "add", "10.1.0.77/24", "dev", "eth0")
    before = inside(kill.pod)
    kill.must(kill.node.delete(kill.pod, previous=False))
    after = inside(kill.pod)
    kill.must(f"another's namespace was changed: {before ^ after}" if before != after else "")


def collected(kill: Kill) -> None:
    """Nothing but the neighbour is valid. There is no GC before 1.1.0."""
    again = kill.node.delete if kill.node.chain[-1]["cniVersion"] < "1.1.0" else None
    kill.must(again(kill.pod) if again else kill.node.collect(kill.neighbour))


def swept(kill: Kill) -> None:
    """An operator takes away what is of no namespace any more."""
    for pod in (kill.pod, *kill.others):
        pod.delete()
    kill.must(kill.node.command("gc", "--cni-path", str(REFERENCE_DIR)))


def elsewhere(kill: Kill) -> None:
    """The pod is made anew under its path, and attached. An IPAM plugin does not look at namespaces."""
    if kill.node.chain[-1]["type"] == "agent-ipam":
        kill.must(kill.node.delete(kill.pod))
    kill.pod.delete()
    kill.pod.create()
    kill.node.results.pop(kill.pod.name, None)
    kill.must(kill.node.add(kill.pod) or kill.node.check(kill.pod))
    kill.must(kill.node.delete(kill.pod))


def checked(kill: Kill) -> None:
    """What was not to be changed is as it was."""
    kill.must(kill.node.check(kill.pod))
    kill.must(kill.node.delete(kill.pod))


def mended(kill: Kill) -> None:
    """The repair is repeated, and nothing is wrong any more."""
    kill.must(kill.node.command("repair", "--all", "--conf-dir", "/nowhere"))
    kill.must(kill.node.check(kill.pod) or kill.node.check(kill.neighbour))
    kill.must(kill.node.delete(kill.pod))


def given_up(kill: Kill) -> None:
    """The pod is deleted half repaired; the neighbour is repaired."""
    kill.must(kill.node.delete(kill.pod))
    kill.must(kill.node.command("repair", "--all", "--conf-dir", "/nowhere"))
    kill.must(kill.node.check(kill.neighbour))


def refreshed(kill: Kill) -> None:
    """The refresh is repeated, and nothing is behind any more; then the documents are as they were."""
    kill.must(kill.node.command("refresh"))
    kill.must(kill.node.check(kill.pod) or kill.node.check(kill.neighbour))
    kill.must(kill.node.delete(kill.pod))
    _unsaid(kill)


def let_go(kill: Kill) -> None:
    """The pod is deleted half refreshed, and the documents are as they were."""
    kill.must(kill.node.delete(kill.pod))
    _unsaid(kill)


def _unsaid(kill: Kill) -> None:
    say(changed=False)
    kill.must(kill.node.command("refresh"))
    kill.must(kill.node.check(kill.neighbour))


Then = Callable[[Kill], None]
ENDS: tuple[Then, ...] = (
    deleted,
    deleted_gone,
    deleted_replaced,
    deleted_unnamed,
    deleted_edited,
    collected,
    swept,
    deleted_fully,
)
THEN: dict[str, tuple[Then, ...]] = {
    "ADD": (again, *ENDS[:3], elsewhere, *ENDS[3:]),
    "FIRST": (again, *ENDS[:2], elsewhere, collected),
    "DEL": (again, *ENDS[:3], elsewhere, *ENDS[3:]),
    "CHECK": (checked, *ENDS),
    "GC": (*ENDS,),
    "hurt": (mended, given_up),
    "lost": (mended, given_up),
    "flushed": (mended, given_up),
    "refresh": (refreshed, let_go),
}
