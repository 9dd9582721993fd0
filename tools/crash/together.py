"""Many calls at once on one node, in the ways a node, a runtime and an operator have them; no address twice, no wait without end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import permutations, product
from threading import Event, Thread
from typing import Any

from lab import ROOT, Pod, eventually

from crash.crowd import Call, Conf, Crowd, at_once, crowd, networks
from crash.hosts import members_end
from crash.story import Told

WHAT = (
    "200 pods at once, calls of one container, first and last users, restarts, retries; 50,000 calls without a deadlock"
)
VERBS = ("ADD", "DEL", "CHECK", "GC", "refresh", "repair")
#: So many calls, a twentieth of it in each story.
CALLS, PARTS = 50_000, 20

#: What the agent takes for its release; whatever becomes of it, another is installed.
PACKAGE = next(ROOT.glob(".venv/lib/python3*/site-packages/cni/__init__.py"))

Scene = Callable[[Crowd, random.Random], None]


def boot(pods: int, crowd: Crowd, chance: random.Random) -> None:
    """A node that boots: all pods at once; all of them well; all of them go at once."""
    kinds = networks()
    before = crowd.settle(kinds)
    there = [(chance.choice(kinds), crowd.lab.pod()) for _ in range(pods)]
    results = crowd.attached(there)
    crowd.checked(there, results)
    crowd.reached(there, results)
    crowd.detached(there)
    crowd.like(before, f"after {pods} pods")


def first(crowd: Crowd, chance: random.Random) -> None:
    """The first pods of a node race for its state, its bridges, its tunnel and its shim; each time of nothing, and in other folders too."""
    before = crowd.host.snapshot()
    for number in range(4):
        kinds = networks(**({"dataDir": f"/run/agent-cni/first{number}"} if number % 2 else {}))
        there = [(kinds[index % len(kinds)], crowd.lab.pod()) for index in range(12)]
        results = crowd.attached(there)
        crowd.checked(there, results)
        crowd.reached(there, results, 4)
        crowd.detached(there)
        crowd.as_new("br1", "br4")
        crowd.like(before, f"after round {number}")


def opened(crowd: Crowd, chance: random.Random) -> None:
    """A state folder that fifty open first, with no network between them but an address."""
    for number in range(4):
        conf = {"cniVersion": "1.1.0", "name": f"n{number}", "type": "agent-ipam", "ipam": {"subnet": "10.9.0.0/16"}}
        conf["dataDir"] = f"/run/agent-cni/opened{number}"
        there = [(conf, crowd.lab.pod()) for _ in range(50)]
        crowd.attached(there)
        crowd.detached(there)
        crowd.bury(pod for _, pod in there)


def last(crowd: Crowd, chance: random.Random) -> None:
    """The last pods of all networks go while the next first ones come, round after round."""
    kinds = networks()
    before = crowd.settle(kinds)
    there: list[tuple[Conf, Pod]] = []
    for _ in range(12):
        coming = [(conf, crowd.lab.pod()) for conf in kinds for _ in range(chance.randint(1, 2))]
        moves = [partial(crowd.until_done, "DEL", *one) for one in there]
        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(at_once, moves)
            time.sleep(chance.random() / 10)
            results = crowd.attached(coming)
            going.result()
        crowd.checked(coming, results)
        crowd.reached(coming, results, 4)
        crowd.bury(pod for _, pod in there)
        there = coming
    crowd.detached(there)
    crowd.like(before, "after the last")


def one(number: int, crowd: Crowd, chance: random.Random) -> None:
    """Calls of one container begin at the same time, or some milliseconds apart, in each order; then a DEL ends all of it."""
    kinds = networks()
    before = crowd.settle(kinds)
    every = list(product((False, True), permutations(VERBS, 3)))
    for there, verbs in every[number::8]:
        conf, pod = chance.choice(kinds), crowd.lab.pod()
        if there:
            crowd.until_done("ADD", conf, pod)
        gap = chance.choice((0, 0, 0.005, 0.02, 0.1))
        at_once(
            [partial(_after, index * gap, partial(_do, crowd, verb, conf, pod)) for index, verb in enumerate(verbs)]
        )
        has = [item for item in crowd.host.kept()["attachment"] if item[1] == pod.container]
        if bool(has) != bool(pod.link("eth0")):
            crowd.faults.append(f"{' '.join(verbs)} of {conf['name']}: recorded {has}, link {pod.link('eth0')}")
        crowd.until_done("DEL", conf, pod)
        if not crowd.faults:
            crowd.like(
                before,
                f"after {' + '.join(verbs)} of one on {conf['name']}, {'there' if there else 'not there'} before",
            )
        crowd.bury([pod])


def two(crowd: Crowd, chance: random.Random) -> None:
    """Two or more networks into one pod at once, with interception of equal attachments, which is the pod's."""
    kinds = networks(sidecar={"port": 15001, "inboundPort": 15006})
    before = crowd.settle(kinds)
    for _ in range(6):
        pods = [crowd.lab.pod() for _ in range(4)]
        every = [(conf, pod, f"eth{index}") for pod in pods for index, conf in enumerate(kinds)]
        made = at_once([partial(crowd.until_done, "ADD", conf, pod, ifname=name) for conf, pod, name in every])
        checks = [
            partial(crowd.until_done, "CHECK", conf | {"prevResult": it.answer.json}, pod, ifname=name)
            for (conf, pod, name), it in zip(every, made, strict=True)
            if not it.code
        ]
        crowd.faults += [f"{it.who}: {it.answer.stdout}" for it in at_once(checks, 8) if it.code]
        chance.shuffle(every)
        at_once([partial(crowd.until_done, "DEL", conf, pod, ifname=name) for conf, pod, name in every])
        crowd.like(before, "after pods with four networks")
        crowd.bury(pods)


def retried(crowd: Crowd, chance: random.Random) -> None:
    """A runtime that gives up on an ADD, and asks again while that still runs, or has DEL overtake it."""
    kinds = networks()
    before = crowd.settle(kinds)
    for number in range(40):
        conf, pod = kinds[number % len(kinds)], crowd.lab.pod()
        process = crowd.begun(conf, pod)
        time.sleep(chance.random() * (0.06 if crowd.warm else 0.4))
        ended = chance.choice((None, signal.SIGKILL, signal.SIGTERM))
        if ended:
            process.send_signal(ended)
        if chance.random() < 0.5:
            crowd.until_done("DEL", conf, pod)
        again = crowd.until_done("ADD", conf, pod)
        process.communicate(timeout=120)
        if again.code not in (0, 105) or (again.code == 105 and not crowd.host.kept()["attachment"]):
            crowd.faults.append(f"ADD after one that was left with {ended}: {again.answer.stdout}")
        if not again.code:
            crowd.checked([(conf, pod)], {pod.name: again.answer.json})
        crowd.until_done("DEL", conf, pod)
        crowd.like(before, f"after an ADD of {conf['name']} that was left with {ended} and came again")
        crowd.bury([pod])


def _churned(crowd: Crowd, width: int, chance: random.Random, meanwhile: Callable[[], object]) -> None:
    """Have so many call without a pause until something else is over."""
    kinds = networks()
    before = crowd.settle(kinds)
    over = Event()
    callers = [([crowd.lab.pod() for _ in range(4)], random.Random(chance.random())) for _ in range(width)]
    threads = [Thread(target=_churn, args=(crowd, kinds, *caller, over)) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        meanwhile()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    crowd.like(before, "after all calls")


def _churn(crowd: Crowd, kinds: Sequence[Conf], idle: list[Pod], chance: random.Random, over: Event) -> None:
    """Pods of one who calls: as many at a time as there are namespaces, the same again and again."""
    there: list[tuple[Conf, Pod, dict[str, Any]]] = []
    while not over.is_set() or there:
        verb = "DEL" if over.is_set() else chance.choice(("ADD", "CHECK", "CHECK", "DEL"))
        if verb == "ADD" and idle:
            conf, pod = chance.choice(kinds), idle.pop()
            made = crowd.until_done("ADD", conf, pod)
            there.append((conf, pod, {} if made.code else made.answer.json))
        elif verb == "CHECK" and there:
            conf, pod, result = chance.choice(there)
            crowd.checked([(conf, pod)], {pod.name: result} if result else {}, 1)
        elif verb == "DEL" and there:
            conf, pod, _ = there.pop(chance.randrange(len(there)))
            crowd.until_done("DEL", conf, pod)
            idle.append(pod)


def _after(seconds: float, what: Callable[[], Call]) -> Call:
    time.sleep(seconds)
    return what()


def _do(crowd: Crowd, verb: str, conf: Conf, pod: Pod) -> Call:
    """One of the verbs, or a command, about one container."""
    if verb in ("refresh", "repair"):
        return crowd.command(verb, *((pod.container,) if verb == "repair" else ()))
    if verb == "GC":
        return crowd.call(verb, conf | {"cni.dev/valid-attachments": []}, None)
    result = {"cniVersion": "1.1.0", "ips": [], "interfaces": []}
    return crowd.call(verb, conf | ({"prevResult": result} if verb == "CHECK" else {}), pod)


def _restarts(crowd: Crowd, chance: random.Random) -> None:
    for _ in range(12):
        time.sleep(0.5 + chance.random())
        crowd.restart(chance.choice((signal.SIGTERM, signal.SIGKILL)))


def _becomes(crowd: Crowd, chance: random.Random) -> None:
    """Have another release be installed, to which the agent becomes, as one process, while calls come."""
    assert crowd.agent
    for _ in range(12):
        time.sleep(0.5 + chance.random())
        before = set(crowd.agent.workers())
        os.utime(PACKAGE)
        if not eventually(lambda before=before: before.isdisjoint(found := crowd.agent.workers()) and found, 120):
            crowd.faults.append(f"the agent {crowd.agent.process.pid} is still of the release before, or is none")


def _many(crowd: Crowd, chance: random.Random) -> None:
    while len(crowd.calls) < CALLS // PARTS and not crowd.faults:
        time.sleep(0.2)


SCENES: dict[str, Scene] = {
    "200 pods at once": partial(boot, 200),
    "40 pods at once": partial(boot, 40),
    "the first of a node": first,
    "fifty open a folder": opened,
    "the last and the first": last,
    "networks into one pod": two,
    "ADDs given up and asked again": retried,
} | {f"three calls of one container {number}": partial(one, number) for number in range(8)}
WARM: dict[str, Scene] = {
    "agents that end meanwhile": lambda crowd, chance: _churned(crowd, 6, chance, partial(_restarts, crowd, chance)),
    "an agent that becomes another release's meanwhile": lambda crowd, chance: _churned(
        crowd, 6, chance, partial(_becomes, crowd, chance)
    ),
} | {
    f"{CALLS // PARTS} calls {number}": lambda crowd, chance: _churned(crowd, 8, chance, partial(_many, crowd, chance))
    for number in range(PARTS)
}
STORIES = {f"{name}, {mode}": (scene, mode == "warm") for name, scene in SCENES.items() for mode in ("cold", "warm")}
STORIES |= {f"{name}, warm": (scene, True) for name, scene in WARM.items()}
HOSTS = {f"two hosts whose members end meanwhile, {mode}": mode == "warm" for mode in ("cold", "warm")}
FIXED = ("40 pods at once, warm", "the first of a node, cold", "the last and the first, warm")


def stories() -> Iterable[str]:
    return (*STORIES, *HOSTS)


def tell(story: str, seed: str) -> Told:
    name = f"{story} {seed}"
    crowds = _played(story, name) if story in STORIES else members_end(name, random.Random(name), warm=HOSTS[story])
    slowest = max((call for made in crowds for call in made.calls), key=lambda call: call.seconds)
    print(f"{story}: the slowest: {slowest.verb} of {slowest.who}, {slowest.seconds:.1f} s")
    again = f"make crash-test PARTS=together SEED={seed} STORIES='{story}'"
    counts: Counter[str] = Counter()
    for made in crowds:
        counts.update(made.counts())
    return Told(dict(counts), [f"{story}: {line}: {again}" for made in crowds for line in made.faults])


def _played(story: str, name: str) -> list[Crowd]:
    scene, warm = STORIES[story]
    with crowd(name, warm=warm) as made:
        scene(made, random.Random(name))
    return [made]
