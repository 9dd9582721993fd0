"""Pods that policies select, as sets: who is a peer from which moment on, whatever happens to calls, and what a flood sees of a thousand changes."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, ROOT, Host, Lab, Pod, environment
from town import FAMILIES, KINDS, RANGES, serving
from traffic import TIMED_OUT, Actor

NAMED = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
RULE = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}
SPEC = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [RULE]}
POLICY = {"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "one"}, "spec": SPEC}


@dataclass
class Shop:
    """A node with a folder of objects, in which pods are known by labels and have no address unless somebody says one."""

    lab: Lab
    host: Host
    kind: dict[str, Any]
    folder: Path
    held: ExitStack
    objects: dict[str, Any] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    confs: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    actors: dict[str, Actor] = field(default_factory=dict)

    def say(self, **pods: str | tuple[str, str]) -> None:
        """Have the folder say which `app` these pods are, and an address, if a pair is given."""
        for name, said in pods.items():
            self.know(name, *(said if isinstance(said, tuple) else (said,)))
        self.write()

    def know(self, name: str, app: str, address: str = "") -> None:
        metadata = {"namespace": "shop", "name": name, "labels": {"app": app}}
        status = {"podIP": address} if address else {}
        self.objects[name] = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "status": status}

    def write(self, *policies: Any) -> None:
        items = [*(policies or [POLICY]), *self.objects.values()]
        (self.folder / "new").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": items}))
        (self.folder / "new").rename(self.folder / "all.json")

    def open(self, name: str, /, *, fed: bool = False, known: bool = True, **keys: Any) -> None:
        policy = {"policy": {"policyDir": str(self.folder)}} if fed else {}
        self.confs[name] = self.kind | {"ipam": {"ranges": RANGES}} | policy | keys
        self.pods[name] = self.lab.pod()
        args = NAMED + name if known else ""
        self.results[name] = self.host.add(self.confs[name], self.pods[name], CNI_ARGS=args)
        self.actors[name] = serving(self.held.enter_context(Actor(self.pods[name])))

    def close(self, name: str) -> None:
        self.host.delete_pod(self.confs.pop(name), self.pods.pop(name))

    def strike(self, verb: str, conf: dict[str, Any], pod: Pod, name: str) -> Any:
        """A call that is killed where it is about to change the kernel's sets."""
        program = (ROOT / ".venv/bin/python3", "-I", "-c", KILLED, ROOT / "plugins" / conf["type"])
        given = environment(verb, pod) | {"CNI_ARGS": NAMED + name}
        return self.host.run(*program, input=json.dumps(conf), env=given, check=False)

    def gets_in(self, name: str) -> bool:
        seen = [self.actors[name].connect(address_of(self.results["web"], family), 80) for family in FAMILIES]
        assert len({item == TIMED_OUT for item in seen}) == 1, seen
        return seen[0] != TIMED_OUT

    def refresh(self) -> str:
        return str(self.host.run(AGENT_CNI, "refresh").stdout)

    def elements(self) -> set[str]:
        """What is in the sets of IPv4 peers."""
        listed = self.host.run("nft", "-s", "list", "ruleset").stdout
        sets = re.findall(r"set p4-[0-9a-f]+ \{(.*?)\n\t\}", listed, re.DOTALL)
        return {address for text in sets for address in re.findall(r"\d+\.\d+\.\d+\.\d+", text)}


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, lab: Lab, host: Host, tmp_path: Path) -> Iterator[Shop]:
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
    with ExitStack() as held:
        made = Shop(lab, host, KINDS[request.param], tmp_path, held)
        made.say(web="web", friend="friend", stranger="stranger")
        yield made
        for name in list(made.pods):
            made.close(name)
        assert host.run("nft", "list", "ruleset").stdout == ""


def test_a_pod_is_a_peer_from_its_add_to_its_del(shop: Shop):
    """Also one without a policy, whose object has no address yet; who gets the address after it is somebody else."""
    shop.open("web", fed=True)
    shop.open("friend")
    shop.open("stranger")
    assert shop.gets_in("friend")
    assert not shop.gets_in("stranger")
    had = address_of(shop.results["friend"], 4)
    shop.close("friend")
    assert shop.elements() == set()
    shop.say(friend=("friend", had))
    assert "changed 1 of 1" in shop.refresh()
    assert shop.elements() == {had}, "an object may be of a pod elsewhere"
    only = {"ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": had, "rangeEnd": had}], RANGES[1]]}}
    shop.open("nameless", known=False, **only)
    assert address_of(shop.results["nameless"], 4) == had
    assert not shop.gets_in("nameless")
    assert "changed 0 of 1" in shop.refresh()


def test_who_is_attached_anew_elsewhere_is_no_peer_by_the_address_before(shop: Shop):
    """As a pod whose sandbox came again without a DEL."""
    shop.open("web", fed=True)
    shop.open("friend")
    conf, pod = shop.confs.pop("friend"), shop.pods.pop("friend")
    had, other = address_of(shop.results["friend"], 4), shop.lab.pod()
    result = shop.host.add(conf, other, container=pod.container, CNI_ARGS=f"{NAMED}friend")
    assert address_of(result, 4) != had
    assert shop.elements() == {address_of(result, 4)}
    shop.host.cni("DEL", conf, other, container=pod.container).ok()
    assert shop.elements() == set()


def test_networks_of_other_folders_are_peers_too(shop: Shop, tmp_path: Path):
    shop.open("web", fed=True)
    ranges = [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]
    apart = {"name": "apart", "dataDir": str(tmp_path / "state"), "ipam": {"ranges": ranges}}
    if "bridge" in shop.kind:
        apart["bridge"] = "br1"
    shop.open("friend", **apart)
    assert address_of(shop.results["friend"], 4) in shop.elements()
    shop.close("friend")
    assert shop.elements() == set()


def test_labels_that_change_change_elements_and_no_chain(shop: Shop):
    for name in ("web", "friend", "stranger"):
        shop.open(name, fed=name == "web")
    chains = shop.host.run("nft", "-s", "list", "chains").stdout
    shop.say(friend="stranger", stranger="friend")
    found = json.loads(shop.host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["attachments"]
    assert any("policy set p4-" in item["what"] and item["mend"] == "agent-cni refresh" for item in found)
    assert "changed 1 of 1" in shop.refresh()
    assert shop.host.run("nft", "-s", "list", "chains").stdout == chains
    assert (shop.gets_in("friend"), shop.gets_in("stranger")) == (False, True)
    assert "changed 0 of 1" in shop.refresh()


def test_after_a_flush_a_check_names_the_sets_and_a_refresh_fills_them(shop: Shop):
    for name in ("web", "friend", "stranger"):
        shop.open(name, fed=name == "web")
    before = shop.elements()
    shop.host.run("nft", "flush", "ruleset")
    said = shop.host.check(shop.confs["web"], shop.pods["web"], shop.results["web"], CNI_ARGS=NAMED + "web").failed(104)
    assert "policy set p4-" in said
    assert "changed 1 of 1" in shop.refresh()
    assert shop.elements() == before
    assert (shop.gets_in("friend"), shop.gets_in("stranger")) == (True, False)
    shop.host.check(shop.confs["web"], shop.pods["web"], shop.results["web"], CNI_ARGS=NAMED + "web").ok()


def test_a_set_goes_with_its_last_user_and_not_before(shop: Shop):
    shop.say(web="web", second="web", friend="friend", alone="other")
    shop.write(POLICY, POLICY | {"metadata": {"namespace": "shop", "name": "two"}, "spec": SPEC | {"podSelector": {}}})
    for name in ("web", "second"):
        shop.open(name, fed=True)
    shop.open("alone", policy={"defaultDeny": True})
    shop.open("friend")
    shop.close("web")
    assert shop.elements() == {address_of(shop.results["friend"], 4)}
    shop.close("second")
    assert "set p" not in shop.host.run("nft", "-s", "list", "ruleset").stdout
    shop.host.check(shop.confs["alone"], shop.pods["alone"], shop.results["alone"], CNI_ARGS=NAMED + "alone").ok()


KILLED = """
import os, sys
from cni.main import cold
from cni.resources import nft, peer_set
die = lambda *_: os.kill(os.getpid(), 9)
peer_set.ruleset.change = die
if os.environ["CNI_COMMAND"] == "ADD":
    nft.Transaction._make = die
sys.exit(cold(sys.argv[1]))
"""


@pytest.mark.tried(
    "an ADD killed when its sets are recorded, and before they are made", "others make theirs, the DEL leaves nothing"
)
def test_an_add_that_was_killed_before_its_sets_were_made_is_in_nobodys_way(shop: Shop):
    shop.open("web", fed=True)
    shop.say(other="web")
    shop.write(
        POLICY,
        POLICY
        | {
            "metadata": {"namespace": "shop", "name": "two"},
            "spec": SPEC | {"ingress": [{"from": [{"podSelector": {}}]}]},
        },
    )
    conf, pod = shop.confs["web"], shop.lab.pod()
    killed = shop.strike("ADD", conf, pod, "other")
    assert killed.returncode == -signal.SIGKILL, killed
    shop.open("friend")
    assert shop.gets_in("friend")
    shop.host.delete_pod(conf, pod)
    assert shop.elements() == {address_of(shop.results["friend"], 4)}


@pytest.mark.tried(
    "a DEL killed when its pod is nobody's peer any more, and before it has left the sets",
    "a refresh or the next DEL empties them",
)
@pytest.mark.parametrize("then", ["refresh", "DEL"])
def test_a_del_that_was_killed_among_the_sets_is_finished(shop: Shop, then: str):
    for name in ("web", "friend"):
        shop.open(name, fed=name == "web")
    friend = address_of(shop.results["friend"], 4)
    pod, conf = shop.pods["friend"], shop.confs["friend"]
    done = shop.strike("DEL", conf, pod, "friend")
    assert done.returncode == -signal.SIGKILL, done
    assert shop.elements() == {friend}
    if then == "refresh":  # which also tells what else the pod lacks by now
        shop.host.run(AGENT_CNI, "refresh", check=False)
    else:
        shop.close("friend")
    assert shop.elements() == set()


FLOOD = """
import select, socket, sys, time
mine, to, port = sys.argv[1:]
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind((mine, 0)); one.settimeout(0.5)
print("ready", flush=True)
sent = back = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    one.sendto(b"%d" % sent, (to, int(port))); sent += 1
    if port == "5001":
        try:
            one.recvfrom(99); back += 1
        except TimeoutError:
            pass
    time.sleep(0.002)
print(sent, back, flush=True)
"""
ECHO = """
import socket, sys, select
ports = {}
for port in (5001, 5002):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("0.0.0.0", port)); ports[one] = port
print("ready", flush=True)
came = {5001: 0, 5002: 0}
while True:
    for one in select.select([*ports, sys.stdin], [], [])[0]:
        if one is sys.stdin:
            print(came[5001], came[5002], flush=True); sys.exit()
        data, who = one.recvfrom(99)
        came[ports[one]] += 1
        one.sendto(data, who)
"""


@pytest.mark.tried(
    "a thousand changes of pods, labels and policies while two floods run",
    "nothing of the allowed one is lost, nothing of the other gets through",
)
def test_a_flood_sees_nothing_of_a_thousand_changes(shop: Shop):
    for name in ("web", "friend", "stranger"):
        shop.open(name, fed=name == "web")
    web = address_of(shop.results["web"], 4)
    extra = POLICY | {"metadata": {"namespace": "shop", "name": "two"}}
    other = {"from": [{"podSelector": {"matchLabels": {"app": "other"}}}], "ports": [{"port": 5002}]}
    with ExitStack() as held:
        echo = held.enter_context(shop.pods["web"].start(sys.executable, "-I", "-c", ECHO))
        floods = []
        assert echo.stdout
        assert echo.stdout.readline() == "ready\n"
        for name, port in (("friend", "5001"), ("stranger", "5002")):
            mine = address_of(shop.results[name], 4)
            one = held.enter_context(shop.pods[name].start(sys.executable, "-I", "-c", FLOOD, mine, web, port))
            assert one.stdout
            assert one.stdout.readline() == "ready\n"
            floods.append(one)
        changes = 0
        for turn in range(20):
            for number in range(50):
                app = ("friend", "other", "stranger", "gone")[(turn + number) % 4]
                shop.objects.pop(f"far{number}", None)
                if app != "gone":
                    shop.know(f"far{number}", app, f"10.9.{number % 3}.{number + 1}")
                changes += 1
            shop.write(POLICY, *([extra | {"spec": SPEC | {"ingress": [other]}}] if turn % 2 else []))
            assert "changed 1 of 1" in shop.refresh()
        said = []
        for one in floods:
            assert one.stdin
            assert one.stdout
            one.stdin.write("\n")
            one.stdin.flush()
            said.append([int(number) for number in one.stdout.readline().split()])
        (sent, back), (tried, _) = said
        assert echo.stdin
        echo.stdin.write("\n")
        echo.stdin.flush()
        allowed, forbidden = map(int, echo.stdout.readline().split())
    assert changes == 1000
    assert sent > 100
    assert tried > 100
    assert (allowed, back) == (sent, sent), "nothing that may pass was lost"
    assert forbidden == 0, "and nothing that may not got through"


def test_a_pod_on_the_wire_is_a_peer_without_a_policy_of_its_own(lab: Lab, dual: dict[str, Any], tmp_path: Path):
    """Whoever denies a macvlan pod by its labels, or lets it in, means it from its ADD on."""
    host = lab.site().host  # a routed pod lets it forward, which gives it routes
    with ExitStack() as held:
        shop = Shop(lab, host, KINDS["routed"], tmp_path, held)
        shop.say(web="web", friend="friend", stranger="stranger")
        shop.open("web", fed=True)
        friend, stranger = shop.lab.pod(), shop.lab.pod()
        result = host.add(dual, friend, CNI_ARGS=NAMED + "friend")
        host.add(dual, stranger, CNI_ARGS=NAMED + "stranger")
        own = {address_of(result, family) for family in FAMILIES}
        assert peers(host) == own
        assert "changed 0 of 1" in host.run(AGENT_CNI, "refresh").stdout
        host.check(dual, friend, result).ok()
        shop.say(friend="stranger", stranger="friend")
        host.run(AGENT_CNI, "refresh")
        assert len(peers(host)) == 2
        assert not peers(host) & own
        host.delete_pod(dual, stranger)
        assert peers(host) == set()
        host.delete_pod(dual, friend)
        shop.close("web")
        assert host.run("nft", "list", "ruleset").stdout == ""


def peers(host: Host) -> set[str]:
    """The addresses in all sets of peers."""
    table = json.loads(host.run("nft", "-j", "list", "sets", "inet").stdout)["nftables"]
    found = [item["set"] for item in table if "set" in item and re.match(r"p[46]", item["set"]["name"])]
    return {address for item in found for address in item.get("elem", ())}
