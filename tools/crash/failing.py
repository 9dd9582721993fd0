"""Each effect of a call fails once, and calls on a machine that lacks something: descriptors, memory, room, a file system, its time."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count

from effects import AFTER, BEFORE, TORN, UNHEARD, Order
from lab import Lab

from crash.judged import BROKEN, NETWORKS, Finding, Scene
from crash.lacking import LACKS
from crash.story import Told

WHAT = "each effect of a call fails, before it is done and after; each verb where the machine lacks something"
FIXED = ("DEL macvlan warm effects", "ADD bridge-vxlan cold streams")
ERRORS = ("EPERM", "EBUSY", "EEXIST", "ENOBUFS", "ENOSPC", "ENOMEM", "EINTR")
VERBS = ("ADD", "CHECK", BROKEN + "CHECK", "DEL", "GC", "STATUS", "refresh", BROKEN + "refresh", "repair", BROKEN + "repair")  # fmt: skip
#: What is asked of rtnetlink is answered within the system call that does it: no error comes after it was done.
_ANSWERED = ("NEW", "DEL", "SET", "the answer")


def stories() -> Iterable[str]:
    """A verb of a plugin, cold or warm, and what fails or is lacking."""
    for plugin in NETWORKS:
        for verb in VERBS:
            for mode in ("cold", "warm"):
                yield from (f"{verb} {plugin} {mode} {what}" for what in _COUNTED)
            yield from (f"{verb} {plugin} cold {lack}" for lack in LACKS)


def tell(story: str, seed: str) -> Told:
    """Tell one; of a fault its line says which effect failed, or what was lacking."""
    verb, plugin, mode, what = story.rsplit(" ", 3)
    lab = Lab(story)
    try:
        if what in _COUNTED:
            found = list(_COUNTED[what](Scene(lab, plugin, armed=mode), verb, zlib.crc32(f"{seed} {story}".encode())))
        else:
            found = list(LACKS[what](lab, plugin, verb))
    finally:
        lab.close()
    counts = {
        {"effects": "effects refused", "dumps": "dumps interrupted"}.get(what, "calls"): len(found),
        "ended in an error": sum(it.failed for it in found),
    }
    again = f"make crash-test PARTS=failing SEED={seed} STORIES='{story}'"
    return Told(counts, [f"{story}, {it.what}: {line} ({again})" for it in found for line in it.wrong])


def _refused(scene: Scene, verb: str, chance: int) -> Iterator[Finding]:
    """Each effect of a verb refused, each time with another error."""
    log = scene.host.folder.with_suffix(".effects")
    for how, when, lasting in (
        ("before", BEFORE, False),
        ("after", AFTER, False),
        ("from then on, before", BEFORE, True),
        ("unheard", UNHEARD, False),
    ):
        for number in count(1):
            error = ERRORS[(number + chance) % len(ERRORS)]
            log.unlink(missing_ok=True)
            scene.ready(verb)
            order = Order(log, number, when, getattr(errno, error), lasting)
            said, told = scene.call(verb, armed=True, **order.environ), order.told()
            if number > len(told):
                scene.end()
                break
            effect = told[number - 1]
            answered = effect.partition(" ")[2].startswith(_ANSWERED)
            if (when == AFTER and answered) or (when == UNHEARD and not (answered or "rules (" in effect)):
                scene.end()
                continue
            said = replace(said, mute="the answer" in effect)
            what = f"{error} {how} {effect}"
            yield scene.found(verb, what, said, undone=not lasting, believed=error == "EEXIST")


def _interrupted(scene: Scene, verb: str, chance: int) -> Iterator[Finding]:
    """Each dump of a verb interrupted, once, which nobody is to notice, and from there on."""
    log = scene.host.folder.with_suffix(".dumps")
    for lasting in (False, True):
        for number in count(1):
            log.unlink(missing_ok=True)
            scene.ready(verb)
            order = Order(log, number, TORN, errno.EINTR, lasting)
            said, told = scene.call(verb, armed=True, **order.environ), order.told()
            if number > len(told):
                scene.end()
                break
            found = scene.found(verb, f"{told[number - 1]}{', and those after it' * lasting}", said, undone=not lasting)
            noticed = said.code and not lasting and verb != BROKEN + "CHECK"
            yield replace(found, wrong=[*found.wrong, *(["it was noticed"] if noticed else [])])


_COUNTED = {"effects": _refused, "dumps": _interrupted}
