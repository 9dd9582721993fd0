"""What runs for long, and what puts it there and takes it away: killed and refused anywhere."""

from __future__ import annotations

from collections.abc import Callable

from crash import installing, joining, judging, serving
from crash.story import Told

WHAT = "installations, the node agent, the member and the DNS gate: killed at each effect, or refused it"
FIXED = ("upgrade killed, every 25th", "launcher killed at ADD, every 10th")

_KINDS: dict[str, Callable[[str, str], Told]] = {
    "install": installing.tell, "upgrade": installing.tell, "quiet": installing.tell, "uninstall": installing.tell,
    "launcher": serving.launcher, "agent": serving.first,
    "member": joining.tell, "gate": judging.tell,
}  # fmt: skip
_ALL = (
    *(f"{verb} {how}" for verb in ("install", "upgrade", "quiet", "uninstall") for how in ("killed", "refused")),
    "launcher killed at ADD", "launcher killed at DEL", "agent killed",
    *(f"member {how} in {mode}, {number} of 24" for how in ("killed", "refused") for mode in ("l2", "l3") for number in range(1, 25)),
    *(f"gate {how}, {number} of 12" for how in ("killed", "refused") for number in range(1, 13)),
)  # fmt: skip


def stories() -> list[str]:
    return [*_ALL, *FIXED]


def tell(story: str, seed: str) -> Told:
    return _KINDS[story.split(maxsplit=1)[0]](story, seed)
