"""Pods that a release of each layout has made, by its own code, and what this one makes of them; and releases beside each other."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from earlier import Release
from lab import AGENT_CNI, BIN_DIR, REFERENCE_DIR, Host, Lab, Pod

from cni.errors import Unavailable
from cni.state.layout import VERSION
from crash.beside import THIS, Suite, beside, clustered
from crash.exchanging import LATER, exchanged, left
from crash.story import Told

WHAT = "pods that a release of each layout made, by this one: CHECK, refresh, repair, an ADD beside them, DEL; releases that take each other's place while calls run; later ones' states"
_HEAD = {"cniVersion": "1.1.0", "name": "net"}
_OLD = _HEAD | {"cniVersion": "1.0.0"}  # the reference's here know no later one
_BRIDGE = _HEAD | {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True,
           "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}}  # fmt: skip
_POLICY = {"ingress": ["10.0.0.0/8", "fd00:1::/64"], "egressDrop": True, "hostAccess": False}
_SPAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
_WIRE = {"hostAccess": True, "policy": {"ingress": ["192.0.2.0/24"]}, "sidecar": {}}
Chain = list[dict[str, Any]]
_CHAINS: dict[str, Chain] = {
    "policy": [_BRIDGE | {"policy": _POLICY}],
    "masquerade": [_BRIDGE | {"ipMasq": True, "ipMasqBackend": "nftables"}],
    "sidecar": [_BRIDGE | {"sidecar": {"denyUncaptured": True}}],
    "vxlan": [_BRIDGE | {"vxlan": {"id": 100, "dev": "eth0", "remotes": ["192.0.2.12"]}, "policy": {"ingress": []}}],
    "macvlan": [_HEAD | {"type": "macvlan", "master": "eth0", "ipam": {"ranges": [[_SPAN]]}} | _WIRE],
    "routed": [_HEAD | {"type": "custom-plugin", "policy": {"defaultDeny": True, "allowDNS": True}, "ipMasq": True}],
    "chain": [_BRIDGE, _HEAD | {"type": "sidecar-redirect", "port": 15001, "inboundPort": 15006}],
    "reference chain": [
        _OLD | {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": _BRIDGE["ipam"] | {"type": "host-local", "dataDir": "/run/host-local"}},
        _OLD | {"type": "sidecar-redirect", "port": 15001},
    ],
}  # fmt: skip
_LAYOUTS = range(1, VERSION + 1)
#: With whom this release takes turns: commits whose state it goes on with and they with its, and one like itself.
_OTHERS = (LATER, "702ff2b", "617a6b9", "60366d0")
#: Releases that have all daemons, and run beside this one's.
_BESIDE = ("7041934", "702ff2b")
#: What a state of a later release says of its layout: two that only later ones write, and one that has tables besides.
_STATES = {"a later layout": VERSION + 1, "a later one of its own": (VERSION + 1) << 16 | VERSION + 2, "tables besides": VERSION << 16 | VERSION + 1}  # fmt: skip
FIXED = (*(f"layout-{number} policy" for number in _LAYOUTS), *(f"state {which}" for which in _STATES))


def stories() -> Iterator[str]:
    yield from (f"layout-{number} {which}" for number in _LAYOUTS for which in _CHAINS)
    yield from (f"{kind} {other}" for other in _BESIDE for kind in ("members", "daemons", "executables"))
    yield from (f"exchanged {other} {how}" for other in _OTHERS for how in ("cold", "warm"))
    yield from (f"state {which}" for which in _STATES)


def tell(story: str, seed: str) -> Told:
    name, _, which = story.partition(" ")
    if name == "exchanged":
        other, how = which.split()
        return exchanged(story, other, seed, warm=how == "warm")
    lab = Lab(story)
    try:
        with tempfile.TemporaryDirectory() as folder:
            if name == "state":
                found = _refused(lab, _STATES[which])
                counts = {"refusals": len(_COMMANDS) + len(_VERBS)}
            elif name == "members":
                found, counts = clustered(lab, Suite(which)), {"pods": 7, "members exchanged": 5}
            elif name in ("daemons", "executables"):
                pair = (Suite(which), Suite(THIS))
                found, counts = beside(lab, *(pair if name == "daemons" else pair[::-1])), {"pods": 4, "daemons": 5}
            else:
                found = _lived(lab, Release.kept(name, Path(folder)), _CHAINS[which])
                counts = {"pods": 3, "calls": 17}
            faults = list(found)
    finally:
        lab.close()
    return Told(counts, [f"{story}: {fault}" for fault in faults])


def _lived(lab: Lab, release: Release, chain: Chain) -> Iterator[str]:
    host = lab.site().host
    first, second, ours = (lab.pod() for _ in range(3))
    made = [(pod, release.attach(host, chain, pod)) for pod in (first, second)]

    def checked(when: str) -> Iterator[str]:
        for pod, result in made:
            yield from (f"{when}, CHECK of {pod.name}: {said}" for said in _called(host, "CHECK", chain, pod, result))

    yield from checked("at first")
    for words in (["refresh"], ["repair", "--all"]):
        if (done := host.run(AGENT_CNI, *words, check=False)).returncode:
            yield f"{' '.join(words)}: {done.stdout}{done.stderr}"
    made.append((ours, _ours(host, chain, ours)))
    yield from checked("beside ours")
    host.run("nft", "flush", "ruleset")
    host.run(AGENT_CNI, "repair", "--all", check=False)
    yield from checked("after a flush and repair")
    for pod, result in made:
        yield from (f"DEL: {said}" for said in _called(host, "DEL", chain[::-1], pod, result))
    yield from left(host)


def _ours(host: Host, chain: Chain, pod: Pod) -> dict[str, Any]:
    """An ADD of each plugin of a chain, by this release."""
    result: dict[str, Any] = {}
    for conf in chain:
        result = host.add(conf | ({"prevResult": result} if result else {}), pod, bin_dir=_folder(conf))
    return result


def _called(host: Host, verb: str, chain: Chain, pod: Pod, result: dict[str, Any]) -> Iterator[str]:
    """What is wrong of a verb, by this release's plugins and the reference's."""
    for conf in chain:
        if (said := host.cni(verb, conf | {"prevResult": result}, pod, bin_dir=_folder(conf))).code:
            yield f"{conf['type']}: {said.stdout}"


def _folder(conf: dict[str, Any]) -> Path:
    return BIN_DIR if (BIN_DIR / conf["type"]).exists() else REFERENCE_DIR


_VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")
_COMMANDS = (
    ["refresh"],
    ["repair", "--all"],
    ["gc"],
    ["show"],
    ["doctor"],
    ["ipam"],
    ["reach", "10.1.0.2", "10.1.0.3"],
)


def _refused(lab: Lab, says: int) -> Iterator[str]:
    """A state that says so of its layout: every call and command is refused, says what is to be done, and changes nothing."""
    host, pod, other = lab.site().host, lab.pod(), lab.pod()
    (net,) = _CHAINS["policy"]
    result = host.add(net, pod)
    with closing(sqlite3.connect(host.folder / "state.db")) as state:
        state.execute(f"PRAGMA user_version = {says}")
        state.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if says >> 16 == VERSION:
        yield from (
            said for who, verb in ((pod, "CHECK"), (pod, "DEL")) for said in _called(host, verb, [net], who, result)
        )
        yield from left(host)
        return
    before = host.snapshot(), (host.folder / "state.db").read_bytes()
    for verb in _VERBS:
        conf = net | ({"prevResult": result} if verb in ("CHECK", "DEL") else {}) | {"cni.dev/valid-attachments": []}
        answer = host.cni(verb, conf, other if verb == "ADD" else pod)
        if answer.code == 0 or answer.json["code"] != Unavailable.code or "layout" not in answer.json["msg"]:
            yield f"{verb}: {answer.code} {answer.stdout}"
        elif "boot" not in answer.json["msg"]:
            yield f"{verb} does not say what to do: {answer.stdout}"
    for words in _COMMANDS:
        done = host.run(AGENT_CNI, *words, check=False)
        if done.returncode == 0 or "layout" not in done.stdout + done.stderr or "raceback" in done.stderr:
            yield f"{' '.join(words)}: {done.returncode} {done.stdout}{done.stderr}"
    if (host.snapshot(), (host.folder / "state.db").read_bytes()) != before:
        yield "something changed"
