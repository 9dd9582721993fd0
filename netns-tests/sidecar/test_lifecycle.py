"""ADD, CHECK, DEL and GC of interception: alone, chained, twice, killed, and what CHECK notices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from interception import APP_UID, BACKENDS, IN, NOTHING, OUT, REFERENCE, WEB, Scene, chained, network, remains, staged
from lab import BIN_DIR, CNITOOL, REFERENCE_DIR, Host, Lab, Pod, eventually
from traffic import PROXY, Actor

EVERYTHING = {"mode": "tproxy", "denyUncaptured": True, "captureDNS": True, "inboundPort": IN}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def attached(host: Host, pod: Pod) -> Iterator[dict[str, Any]]:
    """A pod the reference bridge attached, and its result; the reference takes it away again."""
    result = host.add(REFERENCE, pod, bin_dir=REFERENCE_DIR)
    yield result
    host.delete_pod(REFERENCE, pod, bin_dir=REFERENCE_DIR)


# --- chained


def test_after_the_reference_bridge_the_result_passes_through_to_the_letter(
    host: Host, pod: Pod, attached: dict[str, Any], backend: str
):
    given = attached | {"interfaces": [item | {"pciID": "0000:00:01.0"} for item in attached["interfaces"]]}
    conf = chained(REFERENCE, **EVERYTHING, backend=backend)
    assert host.add(conf | {"prevResult": given}, pod) == given
    host.check(conf, pod, given).ok()
    with Actor(pod, PROXY) as proxy, Actor(host) as outside, Actor(pod, APP_UID) as app:
        proxy.listen("inbound", IN, transparent=True)
        proxy.listen("outbound", OUT)
        outside.listen("host", 80)
        address = attached["ips"][0]["address"].split("/")[0]
        assert outside.reaches(address, WEB) == "inbound"
        assert app.reaches("10.7.0.1", 80) == "outbound"
        assert proxy.reaches("10.7.0.1", 80) == "host"
    assert remains(pod) != NOTHING
    host.delete_pod(conf, pod)
    assert remains(pod) == NOTHING
    host.delete_pod(conf, pod)
    assert host.state()["attachments"] == []


def test_first_in_a_chain_it_says_that_it_cannot_be(host: Host, pod: Pod):
    message = host.cni("ADD", chained(REFERENCE), pod).failed(7)
    assert "$.prevResult: missing" in message
    assert "sidecar-redirect is chained" in message
    assert remains(pod) == NOTHING
    assert host.state()["attachments"] == []


def test_add_again_changes_nothing_and_other_settings_replace_the_first(
    host: Host, pod: Pod, attached: dict[str, Any], backend: str
):
    conf = chained(REFERENCE, **EVERYTHING, backend=backend, prevResult=attached)
    host.add(conf, pod)
    before = remains(pod)
    assert host.add(conf, pod) == attached
    assert remains(pod) == before
    changed = conf | {"port": 15999, "mode": "redirect"}
    host.add(changed, pod)
    assert any("--to-ports 15999" in line for line in remains(pod)["rules"])
    assert not any("--to-ports 15001" in line for line in remains(pod)["rules"])
    assert remains(pod)["ways"] == []
    host.check(changed, pod, attached).ok()
    host.delete_pod(conf, pod)
    assert remains(pod) == NOTHING


def test_a_conflist_through_the_real_cnitool(host: Host, pod: Pod):
    conflist = {
        "cniVersion": "1.0.0",
        "name": "mesh",
        "plugins": [
            {key: REFERENCE[key] for key in ("type", "bridge", "isGateway", "ipam")},
            {"type": "sidecar-redirect", "profile": "istio"},
        ],
    }
    (host.folder / "10-mesh.conflist").write_text(json.dumps(conflist))
    env = {
        "CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}",
        "NETCONFPATH": str(host.folder),
        "PATH": "/usr/sbin:/usr/bin:/sbin",
    }
    result = json.loads(host.run(CNITOOL, "add", "mesh", pod.path, env=env).stdout)
    assert result["interfaces"][0]["name"] == "cni7"
    host.run(CNITOOL, "check", "mesh", pod.path, env=env)
    assert any("--dport 15090 -j RETURN" in line for line in remains(pod)["rules"])
    for _ in range(2):
        host.run(CNITOOL, "del", "mesh", pod.path, env=env)
    assert remains(pod) == NOTHING


# --- whose rules they are


def test_two_attachments_of_a_pod_share_the_rules(settled_host: Host, pod: Pod, backend: str):
    conf = network({**EVERYTHING, "backend": backend})
    settled_host.add(conf, pod)
    once = remains(pod)
    settled_host.add(conf | {"isDefaultGateway": False, "isGateway": True}, pod, ifname="net1")
    assert remains(pod) == once
    settled_host.delete_pod(conf, pod)
    assert remains(pod) == once
    settled_host.delete_pod(conf, pod, ifname="net1")
    assert remains(pod) == NOTHING


def test_a_second_attachment_with_other_rules_is_refused_by_name(settled_host: Host, pod: Pod):
    conf = network({"backend": "iptables-nft"})
    settled_host.add(conf, pod)
    before = remains(pod)
    other = conf | {"sidecar": {"backend": "iptables-nft", "port": 16000}, "isDefaultGateway": False, "isGateway": True}
    message = settled_host.cni("ADD", other, pod, ifname="net1").failed(101)
    assert f"net/{pod.container}/eth0" in message
    assert remains(pod) == before
    assert pod.link("net1") is None
    settled_host.delete_pod(conf, pod)


@pytest.mark.tried(
    "a second attachment with other rules that says another path to the pod", "101, and the first one's rules"
)
def test_another_path_to_the_pod_is_no_way_around_it(settled_host: Host, pod: Pod):
    conf = network({"backend": "iptables-nft"})
    settled_host.add(conf, pod)
    before, link = remains(pod), settled_host.folder / "pod"
    link.symlink_to(pod.path)
    other = conf | {"sidecar": {"backend": "iptables-nft", "port": 16000}, "isDefaultGateway": False, "isGateway": True}
    settled_host.cni("ADD", other, pod, ifname="net1", CNI_NETNS=str(link)).failed(101)
    assert remains(pod) == before
    same = other | {"sidecar": conf["sidecar"]}
    settled_host.cni("ADD", same, pod, ifname="net1", CNI_NETNS=str(link)).ok()
    settled_host.delete_pod(conf, pod)
    assert remains(pod) == before
    settled_host.delete_pod(same, pod, ifname="net1")
    assert remains(pod) == NOTHING


def test_foreign_rules_are_left_alone(settled_host: Host, pod: Pod, backend: str):
    tables = backend.replace("-nft", "-nft")
    pod.run(tables, "-t", "nat", "-N", "SOMEBODY")
    pod.run(tables, "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.7", "-j", "SOMEBODY")
    before = pod.run(f"{tables}-save", "-t", "nat").stdout.splitlines()
    conf = network({"backend": backend})
    settled_host.add(conf, pod)
    during = pod.run(f"{tables}-save", "-t", "nat").stdout
    assert "-A OUTPUT -d 192.0.2.7/32 -j SOMEBODY" in during
    assert during.index("-A OUTPUT -j ACNI_OUTPUT") < during.index("SOMEBODY\n", during.index("-A OUTPUT"))
    settled_host.delete_pod(conf, pod)
    after = pod.run(f"{tables}-save", "-t", "nat").stdout.splitlines()
    assert [line for line in after if line[0] != "#"] == [line for line in before if line[0] != "#"]


def test_an_add_that_fails_later_takes_the_rules_back(settled_host: Host, pod: Pod, backend: str):
    conf = network({**EVERYTHING, "backend": backend})
    beyond = {"dst": "203.0.113.0/24", "gw": "10.1.0.1", "scope": 254}  # by a gateway, and for this host alone
    conf["ipam"]["routes"] = [beyond]
    settled_host.cni("ADD", conf, pod).failed(100)
    assert remains(pod) == NOTHING


# --- which backend


def legacy_in(pod: Pod) -> str:
    return pod.run("cat", "/proc/net/ip_tables_names").stdout


def test_a_pod_without_rules_gets_nf_tables_and_no_legacy_tables(settled_host: Host, pod: Pod):
    settled_host.add(network({}), pod)
    assert "ACNI_OUTPUT" in pod.run("iptables-nft-save").stdout
    assert legacy_in(pod) == ""
    settled_host.delete_pod(network({}), pod)
    assert legacy_in(pod) == ""


def test_a_pod_that_uses_legacy_tables_keeps_to_them(settled_host: Host, pod: Pod):
    pod.run("iptables-legacy", "-t", "nat", "-L")
    settled_host.add(network({}), pod)
    assert pod.run("nft", "list", "ruleset").stdout == ""
    assert "ACNI_OUTPUT" in pod.run("iptables-legacy-save").stdout
    settled_host.delete_pod(network({}), pod)


def test_a_pod_without_rules_follows_a_legacy_node(settled_host: Host, pod: Pod):
    settled_host.run("iptables-legacy", "-t", "nat", "-L")
    settled_host.add(network({}), pod)
    assert "ACNI_OUTPUT" in pod.run("iptables-legacy-save").stdout
    settled_host.delete_pod(network({}), pod)


@pytest.fixture
def settled_host(host: Host, lab: Lab) -> Iterator[Host]:
    """A host whose bridge is there; it must end as it began."""
    first = lab.pod()
    host.add(network(), first)
    host.delete_pod(network(), first)
    before = host.snapshot()
    yield host
    assert host.snapshot() == before


# --- which pods


def annotated(conf: dict[str, Any], **annotations: str) -> dict[str, Any]:
    names = {name.replace("__", "/").replace("_", "."): value for name, value in annotations.items()}
    return conf | {"runtimeConfig": {"io.kubernetes.cri.pod-annotations": names}}


def test_a_pod_is_chosen_by_its_annotation(host: Host, pod: Pod, attached: dict[str, Any]):
    conf = chained(REFERENCE, when={"annotation": "sidecar.istio.io/inject"}, prevResult=attached)
    for value in ("false", None):
        told = annotated(conf, sidecar_istio_io__inject=value) if value else conf
        assert host.add(told, pod) == attached
        assert remains(pod) == NOTHING
        host.delete_pod(told, pod)
    told = annotated(conf, sidecar_istio_io__inject="true")
    host.add(told, pod)
    assert remains(pod) != NOTHING
    host.delete_pod(told, pod)


def test_pods_of_excluded_namespaces_are_left_alone(host: Host, pod: Pod, attached: dict[str, Any]):
    conf = chained(REFERENCE, excludeNamespaces=["kube-system"], prevResult=attached)
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns"
    host.add(conf, pod, CNI_ARGS=args)
    assert remains(pod) == NOTHING
    host.delete_pod(conf, pod)
    host.add(conf, pod, CNI_ARGS=args.replace("kube-system", "shop"))
    assert remains(pod) != NOTHING
    host.delete_pod(conf, pod)


def test_istios_annotations_win_over_the_configuration(host: Host, pod: Pod, attached: dict[str, Any]):
    conf = chained(REFERENCE, profile="istio", excludeOutboundPorts=[1], prevResult=attached)
    told = annotated(conf, traffic_sidecar_istio_io__excludeOutboundPorts="3306, 6379")
    host.add(told, pod)
    rules = "\n".join(remains(pod)["rules"])
    assert "--dport 3306 -j RETURN" in rules
    assert "--dport 1 -j RETURN" not in rules
    host.delete_pod(told, pod)


def test_a_malformed_annotation_is_an_error_and_captures_nothing(host: Host, pod: Pod, attached: dict[str, Any]):
    told = annotated(chained(REFERENCE, prevResult=attached), traffic_sidecar_istio_io__excludeOutboundPorts="http")
    message = host.cni("ADD", told, pod).failed(7)
    assert message == "annotation traffic.sidecar.istio.io/excludeOutboundPorts: 'http': 'http' is no port"
    assert remains(pod) == NOTHING


# --- CHECK


def tables(*words: str, six: bool = False) -> Callable[[Scene], object]:
    return lambda scene: scene.pod.run(
        scene.conf["sidecar"]["backend"].replace("iptables", "ip6tables" if six else "iptables"), *words
    )


def ip(*words: str) -> Callable[[Scene], object]:
    return lambda scene: scene.pod.run("ip", *words)


def in_the_other_backend(scene: Scene) -> None:
    other = next(name for name in BACKENDS if name != scene.conf["sidecar"]["backend"])
    scene.pod.run(other, "-t", "nat", "-N", "ACNI_STRAY")


DRIFTS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "a flushed chain": (
        tables("-t", "nat", "-F", "ACNI_CAPTURE"),
        "nat ACNI_CAPTURE: -A ACNI_CAPTURE -o lo -j RETURN is missing",
    ),
    "a rule less": (
        tables("-t", "nat", "-D", "ACNI_REDIRECT", "1", six=True),
        "nat ACNI_REDIRECT: -A ACNI_REDIRECT -p tcp -j REDIRECT --to-ports 15001 is missing",
    ),
    "a foreign rule": (
        tables("-t", "nat", "-I", "ACNI_CAPTURE", "-d", "192.0.2.9", "-j", "RETURN"),
        "nat ACNI_CAPTURE: -A ACNI_CAPTURE -d 192.0.2.9/32 -j RETURN is foreign",
    ),
    "rules out of order": (
        lambda scene: (
            tables("-t", "nat", "-D", "ACNI_CAPTURE", "-o", "lo", "-j", "RETURN")(scene),
            tables("-t", "nat", "-A", "ACNI_CAPTURE", "-o", "lo", "-j", "RETURN")(scene),
        ),
        "nat ACNI_CAPTURE: the rules are out of order",
    ),
    "a hook less": (
        tables("-t", "nat", "-D", "OUTPUT", "-j", "ACNI_OUTPUT"),
        "nat: -A OUTPUT -j ACNI_OUTPUT is missing",
    ),
    "a hook twice": (
        tables("-t", "mangle", "-A", "PREROUTING", "-j", "ACNI_INBOUND"),
        "mangle: -A PREROUTING -j ACNI_INBOUND is there once too often",
    ),
    "the guard gone": (
        tables("-t", "filter", "-D", "OUTPUT", "-j", "ACNI_GUARD_OUT", six=True),
        "filter: -A OUTPUT -j ACNI_GUARD_OUT is missing",
    ),
    "a chain in the other backend": (in_the_other_backend, "rules of ours are in the pod outside"),
    "loopback down": (ip("link", "set", "lo", "down"), "lo is down in the pod"),
    "no passthrough address": (ip("addr", "del", "::6/128", "dev", "eth0"), "address ::6/128 is missing on eth0"),
    "no policy rule": (ip("rule", "del", "fwmark", "1337"), "ip -4 rule fwmark 0x539 lookup 133 is missing"),
    "no policy route": (
        ip("-6", "route", "del", "local", "default", "dev", "lo", "table", "133"),
        "ip -6 route local default dev lo table 133 is missing",
    ),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_check_names_the_drift_and_add_again_mends_it(lab: Lab, backend: str, drift: str):
    break_it, words = DRIFTS[drift]
    scene = staged(lab, {**EVERYTHING, "backend": backend})
    scene.host.check(scene.conf, scene.pod, scene.result).ok()
    break_it(scene)
    assert words in scene.host.check(scene.conf, scene.pod, scene.result).failed(104)


# --- killed, and under load


@pytest.mark.parametrize("netns", ["kept", "gone"])
def test_del_after_a_kill_leaves_nothing(settled_host: Host, lab: Lab, backend: str, netns: str):
    conf = network({**EVERYTHING, "backend": backend})
    for step in range(8):
        pod = lab.pod()
        process = settled_host.started(conf, pod)
        time.sleep(0.2 + step * 0.15)
        process.kill()
        process.wait()
        if netns == "gone":
            pod.delete()
        settled_host.delete_pod(conf, pod)
        if netns == "kept":
            assert remains(pod) == NOTHING, f"killed at step {step}"
    if netns == "gone":
        assert settled_host.state()["attachments"] == []


def test_rules_are_replaced_without_letting_one_connection_past(host: Host, pod: Pod, lab: Lab, backend: str):
    plain = network()
    result, far = host.add(plain, pod), lab.pod()
    target = host.add(plain, far)["ips"][0]["address"].split("/")[0]
    conf = chained(plain, backend=backend, prevResult=result)
    host.add(conf, pod)
    tables = backend
    with Actor(pod, PROXY) as proxy, Actor(pod, APP_UID) as app, Actor(far) as outside:
        proxy.listen("proxy", OUT)
        outside.listen("outside", 80)
        reached: list[str] = []
        while len(reached) <= 100:
            pod.run(tables, "-t", "nat", "-A", "ACNI_REDIRECT", "-d", "192.0.2.9", "-j", "RETURN")
            adding = host.started(conf, pod)
            while adding.poll() is None:
                reached.append(app.reaches(target, 80))
            assert adding.wait() == 0
        assert set(reached) == {"proxy"}
        assert eventually(lambda: not any("192.0.2.9" in line for line in remains(pod)["rules"]))
        assert proxy.reaches(target, 80) == "outside"
