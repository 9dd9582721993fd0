"""Pods that a release of each layout has made, by its own code, and what this one makes of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from earlier import Release
from lab import AGENT_CNI, Lab

from crash.exchanging import LATER, exchanged, left
from crash.story import Told

WHAT = "pods that a release of each layout made, by this one: CHECK, refresh, repair, an ADD beside them, DEL; releases that take each other's place while calls run"
_BRIDGE = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True,
           "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}}  # fmt: skip
_POLICY = {"ingress": ["10.0.0.0/8", "fd00:1::/64"], "egressDrop": True, "hostAccess": False}
_CONFS: dict[str, dict[str, Any]] = {
    "policy": _BRIDGE | {"policy": _POLICY},
    "masquerade": _BRIDGE | {"ipMasq": True, "ipMasqBackend": "nftables"},
    "sidecar": _BRIDGE | {"sidecar": {"denyUncaptured": True}},
    "vxlan": _BRIDGE | {"vxlan": {"id": 100, "dev": "eth0", "remotes": ["192.0.2.12"]}, "policy": {"ingress": []}},
}
_LAYOUTS = range(1, 6)
#: With whom this release takes turns: commits whose state it goes on with and they with its, and one like itself.
_OTHERS = (LATER, "702ff2b", "617a6b9", "60366d0")
FIXED = tuple(f"layout-{number} policy" for number in _LAYOUTS)


def stories() -> list[str]:
    kept = [f"layout-{number} {conf}" for number in _LAYOUTS for conf in _CONFS]
    return kept + [f"exchanged {other} {how}" for other in _OTHERS for how in ("cold", "warm")]


def tell(story: str, seed: str) -> Told:
    name, _, which = story.partition(" ")
    if name == "exchanged":
        other, how = which.split()
        return exchanged(story, other, seed, warm=how == "warm")
    lab = Lab(story)
    try:
        with tempfile.TemporaryDirectory() as folder:
            faults = list(_lived(lab, Release.kept(name, Path(folder)), _CONFS[which]))
    finally:
        lab.close()
    return Told({"pods": 3, "calls": 17}, [f"{story}: {fault}" for fault in faults])


def _lived(lab: Lab, release: Release, conf: dict[str, Any]) -> Iterator[str]:
    host = lab.site().host
    first, second, ours = (lab.pod() for _ in range(3))
    made = [(pod, release.cni(host, "ADD", conf, pod).ok()) for pod in (first, second)]

    def checked(when: str) -> Iterator[str]:
        for pod, result in made:
            if (said := host.check(conf, pod, result)).code:
                yield f"{when}, CHECK of {pod.name}: {said.stdout}"

    yield from checked("at first")
    for words in (["refresh"], ["repair", "--all"]):
        if (done := host.run(AGENT_CNI, *words, check=False)).returncode:
            yield f"{' '.join(words)}: {done.stdout}{done.stderr}"
    made.append((ours, host.add(conf, ours)))
    yield from checked("beside ours")
    host.run("nft", "flush", "ruleset")
    host.run(AGENT_CNI, "repair", "--all", check=False)
    yield from checked("after a flush and repair")
    for pod, result in made:
        if (said := host.cni("DEL", conf | {"prevResult": result}, pod)).code:
            yield f"DEL: {said.stdout}"
    yield from left(host)
