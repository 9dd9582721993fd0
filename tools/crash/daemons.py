"""What runs for long, what puts it there and takes it away, and what it is told: killed, refused and sent signals anywhere."""

from __future__ import annotations

from collections.abc import Callable

from crash import commanding, installing, joining, judging, naming, recording, serving, traced
from crash.ordered import HOW
from crash.story import Told

WHAT = "installations, the agent, the member, its commands, the DNS gate, names and flows: killed at each effect, refused it, or sent a signal"
FIXED = ("upgrade killed, every 25th", "launcher killed at ADD, every 10th")

INSTALLATIONS = ("install", "upgrade", "quiet", "uninstall", "container")
_KINDS: dict[str, Callable[[str, str], Told]] = {
    "install": installing.tell, "upgrade": installing.tell, "quiet": installing.tell, "uninstall": installing.tell,
    "container": installing.tell,
    "launcher": serving.launcher, "agent": serving.first,
    "member": joining.tell, "gate": judging.tell, "names": naming.tell, "flows": recording.tell,
    "leave": commanding.tell, "refresh": commanding.tell, "repair": commanding.tell,
}  # fmt: skip
_ALL = (
    *(f"{verb} {how}" for verb in INSTALLATIONS for how in ("killed", "refused", "traced")),
    "launcher killed at ADD", "launcher killed at DEL", *(f"agent {how}" for how in serving.SENT),
    *(f"member {how} in {mode}, {number} of 24" for how in HOW for mode in ("l2", "l3") for number in range(1, 25)),
    *(f"member traced in {mode}, {number} of 6" for mode in ("l2", "l3") for number in range(1, 7)),
    *(f"gate {how}, {number} of 12" for how in HOW for number in range(1, 13)),
    *(
        f"{verb} {how} in {mode}, {number} of 2"
        for verb in ("leave", "refresh", "repair") for how in ("killed", "refused") for mode in ("l2", "l3") for number in (1, 2)
    ),
    *(f"{daemon} {how}, {number} of 4" for daemon in ("names", "flows") for how in HOW for number in range(1, 5)),
)  # fmt: skip


def stories() -> list[str]:
    return [*_ALL, *FIXED]


def tell(story: str, seed: str) -> Told:
    if story.split(maxsplit=1)[0] in INSTALLATIONS and story.endswith(" traced"):
        return traced.tell(story, seed)
    return _KINDS[story.split(maxsplit=1)[0]](story, seed)
